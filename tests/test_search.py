from contextlib import nullcontext

import pytest
import torch
from conftest import ROOT

from mnist_utils.bench import search
from mnist_utils.bench.search import Trial
from mnist_utils.data import hold_out, load_data
from mnist_utils.errors import UsageError


def test_a_trial_is_made_of_the_words_that_differ_from_the_defaults():
    trial = Trial(blocks="c8 d12 M c10", epochs=2, learning_rate=0.05, optimizer="muon")
    words = "blocks=c8_d12_M_c10 epochs=2 optimizer=muon learning_rate=0.05"
    assert Trial.read(words) == trial and Trial.read("epochs=19") == Trial()


@pytest.mark.parametrize(
    "line",
    [
        "1000 epoch=3",
        "1000 epochs=x",
        "a epochs=3",
        "1000 epochs=0",
        "1000 optimizer=adam",
        "1000 blocks=x8",
        "1000 blocks=c8 activation=Relu",
        "  # no seeds",
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line):
    (tmp_path / "trials.txt").write_text(f"# heading\n\n{line}\n")
    with pytest.raises(UsageError, match="trials.txt, line 3"):
        search.read_trials(tmp_path / "trials.txt", {})


@pytest.fixture
def digits(monkeypatch):
    """The embedded digits where the search would take MNIST."""
    data = hold_out(load_data("digits"))
    monkeypatch.setattr(search, "load_data", lambda *_, **__: data)
    return data


def test_a_trial_trains_on_what_is_not_held_out_and_gives_the_same_twice(digits):
    threads = torch.get_num_threads()
    try:
        trial = "blocks=c8_M_c16 epochs=8 batch_size=32 optimizer=muon learning_rate=0.05"
        trial += " augmentation=0.1"
        first, again = (search.run_trial((trial, 1000)) for _ in range(2))
        other = search.run_trial((trial, 1001))
    finally:
        torch.set_num_threads(threads)
    first.pop("seconds"), again.pop("seconds")
    assert first == again and first["accuracies"] != other["accuracies"]
    assert len(first["accuracies"]) == 2 and first["accuracies"][-1] > 0.5


def test_the_table_is_made_of_log_and_trials(tmp_path):
    (tmp_path / "trials.txt").write_text(
        "# small ones\n1000,1001 epochs=4 # kept: better\n1000 epochs=3\n"
        "1000 epochs=5 teacher=some.file # dropped: no gain\n"
    )
    for trial, seed, accuracy in (
        ("epochs=4", 1000, 0.991),
        ("epochs=4", 1001, 0.993),
        ("epochs=5 teacher=some.file", 1000, 0.97),
        ("blocks=c8*2 epochs=5 norm=odd", 1000, 0.98),
    ):
        search.append_log(tmp_path / "log.jsonl", row(trial, seed, accuracy))
    text = search.table(tmp_path / "trials.txt")
    listed, left = text.split("taken out")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in listed.splitlines()[4:]]
    better, taught = cells[:2]
    assert better[:6] == ["**99.200%**", "1", "2", "0.141", "90.00%", "seed"]
    assert better[7] == "4" and better[-2:] == ["", "kept: better"]
    # A word that the code has no longer stays readable, and the trial is marked.
    assert taught[-2:] == ["teacher=some.file", "dropped: no gain (cannot be run any more)"]
    assert "| 3 |" not in text
    assert r"| c8\*2 |" in left and "| norm=odd | (cannot be run any more) |" in left


def test_a_trial_of_an_earlier_form_is_not_asked_for_again_and_a_new_one_is_refused(tmp_path):
    path, log = tmp_path / "trials.txt", tmp_path / "log.jsonl"
    path.write_text("1000 epochs=5 teacher=some.file\n")
    search.append_log(log, row("epochs=5 teacher=some.file", 1000, 0.97))
    assert search.next_runs(path) == []
    path.write_text("1000,1001 epochs=5 teacher=some.file\n")
    with pytest.raises(UsageError, match="line 1: unknown word 'teacher=some.file'"):
        search.next_runs(path)


def test_a_trial_that_fails_costs_no_other_and_is_named_at_the_end(tmp_path, monkeypatch, capsys):
    """The engine is a plain map here; its processes have tests of their own."""

    class Pool:
        stops = 0

        def map_unordered(self, function, runs):
            for run in runs:
                try:
                    yield run, function(run)
                except RuntimeError as error:
                    yield run, error

    def work(run, data_dir):
        if run[1] == 1000:
            raise RuntimeError("the loss is nan")
        return row(*run, 0.99)

    monkeypatch.setattr(search, "engine", lambda jobs: nullcontext(Pool()))
    monkeypatch.setattr(search, "load_data", lambda *_: None)
    monkeypatch.setattr(search, "run_trial", work)
    path = tmp_path / "trials.txt"
    path.write_text("1000,1001 epochs=4\n1002 epochs=5\n")
    with pytest.raises(
        UsageError, match="1 trials failed.*epochs=4 with seed 1000: the loss is nan"
    ):
        search.search(path)
    assert [seed for _, seed in search.read_log(tmp_path / "log.jsonl")] == [1001, 1002]
    assert "| 5 |" in (tmp_path / "README.md").read_text()


def test_the_committed_page_is_what_log_and_trials_say():
    folder = ROOT / "reports/search"
    assert search.table(folder / "trials.txt") in (folder / "README.md").read_text()
    assert search.next_runs(folder / "trials.txt") == []
    assert all(seed >= 1000 for _, seed in search.read_log(folder / "log.jsonl"))


def row(trial: str, seed: int, accuracy: float) -> dict:
    return dict(
        trial=trial, seed=seed, parameters=1, accuracies=[accuracy], train_accuracy=0.9, seconds=1
    )


def test_a_half_written_line_is_said_and_passed_over_and_nothing_is_glued_to_it(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    search.append_log(log, row("epochs=4", 1000, 0.99))
    log.write_text(log.read_text() + '{"trial": "epochs=3", "see')
    search.append_log(log, row("epochs=5", 1000, 0.98))
    assert list(search.read_log(log)) == [("epochs=4", 1000), ("epochs=5", 1000)]
    assert f"{log}, line 2" in capsys.readouterr().err
    log.write_text("[]\n3\nnull\n" + '{"trial": "a", "seed": 1}\n')
    assert search.read_log(log) == {}


def test_a_line_with_several_trials_is_a_race(tmp_path):
    path, log = tmp_path / "trials.txt", tmp_path / "log.jsonl"
    path.write_text("1000,1001,1002 epochs=1,2,3,4\n1000,1001 epochs=7\n")
    alone = [("epochs=7", 1000), ("epochs=7", 1001)]
    assert search.next_runs(path) == [(f"epochs={n}", 1000) for n in (1, 2, 3, 4)] + alone
    for number, accuracy in ((1, 0.97), (2, 0.99), (3, 0.98), (4, 0.96)):
        search.append_log(log, row(f"epochs={number}", 1000, accuracy))
    assert search.next_runs(path) == [("epochs=2", 1001), ("epochs=3", 1001), *alone]
    search.append_log(log, row("epochs=2", 1001, 0.97))
    search.append_log(log, row("epochs=3", 1001, 0.99))
    assert search.next_runs(path) == [("epochs=3", 1002), *alone]


def test_what_is_kept_on_one_seed_is_marked(tmp_path):
    (tmp_path / "trials.txt").write_text("1000 epochs=4 # kept: better\n")
    search.append_log(tmp_path / "log.jsonl", row("epochs=4", 1000, 0.99))
    assert "kept: better (on one seed only)" in search.table(tmp_path / "trials.txt")
