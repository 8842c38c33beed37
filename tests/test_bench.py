"""The benchmark measures what it says; no speed is asserted, for machines are shared."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from torch import nn

from mnist_utils.__main__ import cli
from mnist_utils.batch.execute import run_notebook
from mnist_utils.bench import MEASUREMENTS, keep, read, show, speed
from mnist_utils.bench.search import Trial
from mnist_utils.bench.speed import AUGMENT
from mnist_utils.data import load_data
from mnist_utils.errors import UsageError
from mnist_utils.models import SeedModel, count_parameters
from mnist_utils.parameters import find_notebook, read_parameters

LOOP = {
    "machine": {"cores": 4},
    "title": "seconds an epoch",
    "seconds": {
        "usual": [30.0, 20.0, 28.0],
        "ours": [10.0, 5.0, 7.0],
        "floor": [5.0, 5.0, 5.0],
    },
    "ratios": [["usual", "ours"], ["ours", "floor"]],
    "notes": ["mind the gap"],
}
BATCH = LOOP | {"machine": {"cores": 2}, "ratios": [["ours", "usual"]]}


def row(text: str, name: str) -> list[str]:
    """The cells of the row that begins with `name`."""
    line = next(line for line in text.splitlines() if line.startswith(name + "  "))
    return line[len(name) :].split()


def test_ratios_are_taken_turn_by_turn():
    text = show({"loop": LOOP})
    assert row(text, "usual / ours") == ["4.00", "3.67", "3.00", "4.00", "3"]
    assert row(text, "ours / floor") == ["1.40", "1.47", "1.00", "2.00", "3"]
    assert row(text, "usual") == ["28.00", "26.00", "20.00", "30.00", "3"]
    assert text.startswith("cores 4\n") and text.endswith("\n\nmind the gap")


def test_a_target_counts_the_seeds_that_pass_and_scales_the_usual_loop_to_whole_trainings(
    monkeypatch,
):
    def in_turns(contenders, repeats, first):
        ours, *others = contenders
        assert repeats == 2 and first in (1, 2)
        accuracies = {ours: [0.995, 0.993]}
        return {ours: [40.0, 60.0]} | {name: [10.0, 15.0] for name in others}, accuracies

    monkeypatch.setattr(speed, "in_turns", in_turns)
    monkeypatch.setattr(speed, "cores", lambda: 2)
    result = speed.target(repeats=2, device="cpu", data_dir="data")
    text = show({"target": result | {"machine": {}}})
    # 300 steps are 38,400 images: 296.9 and 445.3 seconds for 19 epochs of 60,000.
    assert row(text, "usual, 1 of 2 cores / ours, 1 of 2 cores")[:2] == ["7.42", "7.42"]
    assert row(text, "usual, augmented, 2 of 2 cores")[1:4] == ["371.09", "296.88", "445.31"]
    assert "ours, 2 of 2 cores: 1 of 2 end at 99.40% or more, on average at 99.400%" in text
    assert "usual: 19 epochs, estimated from 300 steps" in text


def test_the_default_is_held_to_the_best_fixed_number_of_threads(monkeypatch):
    found = {"default": [6.0, 9.0, 6.6], "1 thread": [7.5] * 3, "2 threads": [6.0] * 3}
    monkeypatch.setattr(speed, "in_turns", lambda *_: (found, {}))
    result = speed.threads(repeats=3, data_dir="data")
    text = show({"threads": result | {"machine": {}}})
    for situation in ("quiet", "one core busy", "all cores busy"):
        name = f"{situation}: default / {situation}: 2 threads"
        assert row(text, name) == ["1.10", "1.20", "1.00", "1.50", "3"]
        assert row(text, f"{situation}: 1 thread")[0] == "7.50"


def test_the_step_is_that_of_most_accurate_beside_the_same_with_borders(monkeypatch):
    def in_turns(contenders, repeats):
        made = {name: part.keywords["network"]() for name, part in contenders.items()}
        before, now = made.values()
        assert count_parameters(before) == count_parameters(now) == 19_818
        for network, padding, in_place in ((before, 1, False), (now, 0, True)):
            assert network.body[0].padding == (padding, padding)
            kinds = [layer for layer in network.modules() if isinstance(layer, nn.ReLU)]
            assert kinds and all(layer.inplace == in_place for layer in kinds)
        return {name: [6.0, 5.2] if name == "with borders" else [4.0] * 2 for name in made}, {}

    monkeypatch.setattr(speed, "in_turns", in_turns)
    text = show({"step": speed.step(repeats=2, data_dir="data") | {"machine": {}}})
    assert row(text, "with borders / most_accurate") == ["1.40", "1.40", "1.30", "1.50", "2"]


class Pool:
    """The engine as a plain map; what `fails` is in the place of its results."""

    stops = 0

    def __init__(self, fails=None):
        self.fails = fails

    def map(self, function, items):
        return [self.fails for _ in items]


def measure_batch(monkeypatch, pool, record, repeats=7) -> dict:
    """What `batch` measures where all runs end like this `record`."""

    def run_batch(jobs, workers):
        # As the bare trainings, on whatever machine.
        assert all(job.values["device_name"] == "cpu" for job in jobs)
        return [record] * len(jobs), False

    monkeypatch.setattr(speed, "engine", lambda workers: nullcontext(pool))
    monkeypatch.setattr(speed, "run_batch", run_batch)
    return speed.batch(repeats=repeats, data_dir="data", epochs=3)


def test_what_a_batch_adds_is_the_difference_to_the_bare_trainings(monkeypatch):
    times = iter([0, 10, 10, 30, 30, 40, 40, 52.5])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(speed, "cores", lambda: 4)
    result = measure_batch(monkeypatch, Pool(), SimpleNamespace(status="completed", error=""))
    assert result["seconds"] == {"bare": [10, 10], "batch": [20, 12.5]}
    text = show({"batch": result | {"machine": {}}})
    assert row(text, "bare / batch") == ["0.65", "0.65", "0.50", "0.80", "2"]
    # Seven runs are made eight, so that both halves are of one size.
    assert "seconds of 4 runs of quickest, epochs 3, 4 at a time" in text
    assert "a run takes 16.2 s, of which a batch adds 6.2 s" in text


def test_many_runs_take_turns_of_five_for_each_worker(monkeypatch):
    monkeypatch.setattr(speed, "cores", lambda: 2)
    good = SimpleNamespace(status="completed", error="")
    result = measure_batch(monkeypatch, Pool(), good, repeats=100)
    assert [len(turns) for turns in result["seconds"].values()] == [10, 10]
    assert result["title"] == "seconds of 10 runs of quickest, epochs 3, 2 at a time"


def test_a_training_that_failed_is_not_measured(monkeypatch):
    good = SimpleNamespace(status="completed", error="")
    with pytest.raises(UsageError, match="not every training ended.*no memory"):
        measure_batch(monkeypatch, Pool(ValueError("no memory")), good)
    with pytest.raises(UsageError, match="not every training ended.*the kernel died"):
        measure_batch(
            monkeypatch, Pool(), SimpleNamespace(status="failed", error="the kernel died")
        )


def test_the_floor_runs_every_convolution_and_nothing_else(monkeypatch):
    called = []
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d):
        original = kind.forward

        def note(self, maps, f=original):
            called.append((type(self), maps.shape))
            return f(self, maps)

        monkeypatch.setattr(kind, "forward", note)
    turn = speed.floor(256, "cpu")
    called.clear()
    turn()
    assert {kind for kind, _ in called} == {nn.Conv2d}
    assert len(called) == 14 and called[:7] == called[7:] and called[0][1] == (128, 1, 28, 28)


def test_ours_and_usual_train_the_same_number_of_images(monkeypatch, real_root, real_data):
    seen = []
    original = SeedModel.forward
    monkeypatch.setattr(
        SeedModel,
        "forward",
        lambda self, images: seen.append(len(images)) or original(self, images),
    )
    for contender in (speed.ours, speed.usual):
        turn = contender(300, "cpu", str(real_root), threads=1, augment=AUGMENT)
        seen.clear()
        turn()
        assert seen == [128, 128, 44]


def test_contenders_take_turns_in_processes_of_their_own(real_root, real_data):
    ours = partial(speed.ours, 256, "cpu", str(real_root))
    turns, returned = speed.in_turns({"ours": ours, "floor": partial(speed.floor, 256, "cpu")}, 2)
    assert list(turns) == ["ours", "floor"]
    assert all(len(row) == 2 and min(row) > 0 for row in turns.values())
    assert returned == {"ours": [None, None], "floor": [None, None]}


def test_busy_cores_are_busy_until_the_end_of_the_block():
    def busy() -> list:
        return [p for p in psutil.Process().children() if "getppid" in " ".join(p.cmdline())]

    with speed.busy_cores(2):
        before, _ = [p.cpu_times().user for p in busy()], time.sleep(2)
        after = [p.cpu_times().user for p in busy()]
    assert len(after) == 2 and sum(after) > sum(before)
    assert not busy()


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal to a group")
@pytest.mark.parametrize("moment, seconds", [("begun", 1), ("a turn", 0.5)])
def test_ctrl_c_ends_all_contenders_without_a_traceback(moment, seconds):
    """While they start, and in the first turn."""
    script = """from functools import partial
import signal
# A shell's background job, as this test may be, ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from mnist_utils.bench.speed import busy_cores, in_turns
if __name__ == "__main__":
    sleeper = partial(partial, exec, "import time; print('a turn', flush=True); time.sleep(100)")
    try:
        with busy_cores(1):
            print("begun", flush=True)
            in_turns({"first": sleeper, "second": sleeper}, 1)
    except KeyboardInterrupt:
        print("interrupted")"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, cwd=ROOT, start_new_session=True, **pipes) as process:
        while process.stdout.readline() != f"{moment}\n":
            assert process.poll() is None
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=90)[0] == "interrupted\n"


@pytest.mark.parametrize(
    "contender, said",
    [
        (partial(os._exit, 1), "'ours' ended with BrokenProcessPool"),
        (partial(partial, os._exit, 1), "'ours' ended with BrokenProcessPool"),
        (partial(int, "x"), "'ours' ended with ValueError: invalid literal"),
        (partial(partial, int, "x"), "'ours' ended with ValueError: invalid literal"),
    ],
)
def test_a_contender_that_dies_or_fails_is_said_without_a_traceback(contender, said, capfd):
    """As it prepares, and in its turn."""
    with pytest.raises(UsageError, match=said):
        speed.in_turns({"ours": contender}, 1)
    assert "Traceback" not in capfd.readouterr().err


def test_a_bare_training_ends_as_the_notebooks_does(tmp_path):
    values = {"dataset": "digits", "split": "holdout", "epochs": 1, "threads": 1, "seed": 5}
    record = run_notebook(find_notebook("quickest"), values, tmp_path)
    threads = torch.get_num_threads()
    try:
        device, data = speed.choose_device("cpu", 1), load_data("digits", split="holdout")
        _, [(_, tested)] = Trial.read(f"{speed.QUICKEST}1").train(data, 5, device)
    finally:
        torch.set_num_threads(threads)
    assert (tested.loss, tested.correct) == (
        record.last.validation_loss,
        record.last.validation_correct,
    )


def test_a_whole_training_takes_the_next_seed_each_turn_and_gives_its_accuracy(monkeypatch):
    digits = load_data("digits")
    monkeypatch.setattr(speed, "load_data", lambda *_: digits)
    threads = torch.get_num_threads()
    try:
        turn = speed.whole_training("cpu", "data", 1)
        accuracies = [turn(), turn()]
        trial = Trial.read(f"{speed.QUICKEST}2")
        _, passes = trial.train(digits, 1, speed.choose_device("cpu", 1))
    finally:
        torch.set_num_threads(threads)
    assert accuracies[1] == passes[-1][1].accuracy != accuracies[0] and len(passes) == 2
    assert trial.epochs == read_parameters(find_notebook("quickest"))["epochs"].default


def test_the_usual_loop_takes_the_epochs_of_the_recorded_recipes():
    for notebook in ("02_falling_rate", "03_augmentation"):
        runs = list((ROOT / "reports" / notebook).glob("seed-*/run.json"))
        assert {len(json.loads(run.read_text())["epochs"]) for run in runs} == {speed.USUAL_EPOCHS}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"loop": {}}', json.dumps({"speed": LOOP}), "{"]
)
def test_a_file_that_holds_no_measurement_is_named(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(UsageError, match="odd.json"):
        read(tmp_path / "odd.json")
    with pytest.raises(UsageError, match="nothing.json cannot be read"):
        read(tmp_path / "nothing.json")


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UsageError, match="choose one of loop, target"):
        speed.measure("speed")
    with pytest.raises(UsageError, match="'warp' cannot be used"):
        speed.measure("loop", device="warp")
    with pytest.raises(UsageError, match="batch is measured on the CPU only, not on 'cuda'"):
        speed.measure("batch", device="cuda")


@pytest.mark.parametrize("what, device", [("loop", "cuda"), ("threads", "cpu"), ("batch", "cpu")])
def test_what_is_of_the_cpu_is_measured_there_also_beside_a_gpu(monkeypatch, what, device):
    """The machine that a table names is the one that did the work."""
    monkeypatch.setattr(speed, "load_data", lambda *_: None)
    monkeypatch.setattr(speed, "choose_device", lambda name: "cuda" if name == "auto" else name)
    monkeypatch.setattr(speed, "device_facts", lambda chosen: {"name": chosen})
    monkeypatch.setattr(speed, what, lambda **given: given)
    result = speed.measure(what)[what]
    assert result["machine"]["device"] == device and result["device"] in ("auto", device)


def test_a_measurement_takes_the_place_of_the_one_before_and_the_page_follows(tmp_path):
    page, path = tmp_path / "README.md", tmp_path / "bench.json"
    page.write_text(
        "# Speed\n\n<!-- loop -->\n<!-- end -->\nmore\n<!-- batch -->\nold\n<!-- end -->\n"
    )
    keep({"loop": LOOP}, path)
    assert "cores 4" in page.read_text() and "Not measured yet." in page.read_text()
    keep({"batch": BATCH}, path)
    again = LOOP | {"machine": {"cores": 3}}
    keep({"loop": again}, path)
    text = page.read_text()
    assert text.startswith("# Speed") and "\nmore\n" in text and "old" not in text
    assert "cores 3" in text and "cores 2" in text and "cores 4" not in text
    assert read(path) == {"loop": again, "batch": BATCH}
    assert show({"loop": again}) in text and show({"batch": BATCH}) in text


def test_a_place_for_the_result_is_looked_at_before_anything_is_measured(tmp_path, monkeypatch):
    measured = []
    found = {"batch": BATCH}
    monkeypatch.setattr(
        "mnist_utils.bench.speed.measure", lambda *_, **__: measured.append(1) or found
    )
    (tmp_path / "notes.txt").write_text("mine")
    result = CliRunner().invoke(cli, ["bench", "batch", "--to", str(tmp_path / "notes.txt")])
    assert isinstance(result.exception, UsageError) and not measured
    assert (tmp_path / "notes.txt").read_text() == "mine"
    result = CliRunner().invoke(cli, ["bench", "batch", "--to", str(tmp_path / "new/bench.json")])
    assert result.exit_code == 0 and read(tmp_path / "new/bench.json") == found


def test_showing_loads_no_torch():
    code = "import sys; from pathlib import Path; from mnist_utils.bench import read, show;"
    code += "show(read(Path('reports/bench/bench.json'))); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_committed_tables_are_what_was_measured():
    page, result = (
        (ROOT / "reports/bench/README.md").read_text(),
        read(ROOT / "reports/bench/bench.json"),
    )
    for what in MEASUREMENTS:
        assert f"<!-- {what} -->" in page
        if what in result:
            assert show({what: result[what]}) in page
    assert "nan" not in show(result)
