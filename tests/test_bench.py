"""The benchmark measures what it says; no speed is asserted, for machines are shared."""

import json
import os
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from torch import nn

from mnist_utils.__main__ import cli
from mnist_utils.batch.execute import run_notebook
from mnist_utils.bench import MEASUREMENTS, keep, measure, read, show, speed, tables
from mnist_utils.bench.speed import AUGMENT
from mnist_utils.data import load_data
from mnist_utils.errors import UsageError
from mnist_utils.models import SeedModel
from mnist_utils.parameters import find_notebook

LOOP = {
    "usual": {"seconds": [30.0, 20.0, 28.0]},
    "usual, augmented": {"seconds": [30.0, 20.0, 28.0]},
    "ours": {"seconds": [10.0, 5.0, 7.0]},
    "ours, augmented": {"seconds": [10.0, 10.0, 7.0]},
    "floor": {"seconds": [5.0, 5.0, 5.0]},
}
BATCH = {"notebook": "quickest", "runs": 10, "epochs": 2, "workers": 4}
BATCH |= {"bare": [10.0, 10.0], "batch": [20.0, 12.5]}


def row(text: str, name: str) -> list[str]:
    """The cells of the row that begins with `name`."""
    line = next(line for line in text.splitlines() if line.startswith(name + "  "))
    return line[len(name) :].split()


def test_ratios_are_taken_turn_by_turn():
    text = tables.loop(LOOP)
    assert row(text, "usual / ours") == ["4.00", "3.00", "4.00", "3"]
    assert row(text, "usual, augmented / ours, augmented") == ["3.00", "2.00", "4.00", "3"]
    assert row(text, "ours / floor") == ["1.40", "1.00", "2.00", "3"]


def test_a_target_counts_the_seeds_that_pass_and_scales_the_usual_loop_to_its_epochs():
    one = {"ours": [40.0, 60.0], "accuracies": [0.995, 0.993], "usual": [10.0, 15.0]}
    result = {"images": 30_000, "recipes": {"usual": "02_falling_rate"}, "epochs": {"usual": 19}}
    text = tables.target(result | {"cores": {"1": one}})
    # An epoch is two turns: 380 and 570 seconds for 19 epochs, 9.5 times ours both times.
    assert row(text, "1") == ["50.0", "14.1", "99.400%", "1", "2", "475", "9.5"]
    assert "19 epochs of 60,000 images, as 02_falling_rate" in text
    assert "estimated from 30,000 images" in text


def test_the_default_is_held_to_the_best_fixed_number_of_threads():
    found = {"default": [0.02, 0.03, 0.022], "threads 1": [0.025], "threads 2": [0.02]}
    text = tables.threads({"quiet": found})
    assert row(text, "quiet") == ["22.0", "25.0", "20.0", "1.10"]


def test_what_a_batch_adds_is_the_difference_to_the_bare_trainings():
    text = tables.batch(BATCH)
    assert row(text, "batch / bare") == ["0.65", "0.50", "0.80", "2"]
    assert "a run takes 13.0 s, of which a batch adds 5.0 s" in text


def test_the_floor_runs_every_convolution_and_nothing_else(monkeypatch, real_root, real_data):
    called = []
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d):
        original = kind.forward

        def note(self, maps, f=original):
            called.append((type(self), maps.shape))
            return f(self, maps)

        monkeypatch.setattr(kind, "forward", note)
    turn = speed.floor(256, "cpu", str(real_root))
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
    place = (256, "cpu", str(real_root))
    contenders = {"ours": partial(speed.ours, *place), "floor": partial(speed.floor, *place)}
    turns = speed.in_turns(contenders, 2)
    assert list(turns) == ["ours", "floor"]
    assert all(len(row) == 2 and min(speed.seconds_of(row)) > 0 for row in turns.values())


def test_busy_cores_are_busy_until_the_end_of_the_block():
    def busy() -> list:
        return [p for p in psutil.Process().children() if "getppid" in " ".join(p.cmdline())]

    with speed.busy_cores(2):
        before, _ = [p.cpu_times().user for p in busy()], time.sleep(2)
        after = [p.cpu_times().user for p in busy()]
    assert len(after) == 2 and sum(after) > sum(before)
    assert not busy()


def test_a_process_that_dies_is_said():
    with pytest.raises(UsageError, match="'ours' ended"):
        speed.in_turns({"ours": partial(os._exit, 1)}, 1)


def test_a_bare_training_ends_as_the_notebooks_does(tmp_path):
    values = {"dataset": "digits", "split": "holdout", "epochs": 1, "threads": 1, "seed": 5}
    record = run_notebook(find_notebook("quickest"), values, tmp_path)
    threads = torch.get_num_threads()
    try:
        device, data = speed.choose_device("cpu", 1), load_data("digits", split="holdout")
        tested = speed.train_quickest(5, device, data, epochs=1)
    finally:
        torch.set_num_threads(threads)
    assert (tested.loss, tested.correct) == (
        record.last.validation_loss,
        record.last.validation_correct,
    )


def test_the_usual_loop_takes_the_epochs_of_the_recorded_recipes():
    for notebook in speed.USUAL.values():
        runs = list((ROOT / "reports" / notebook).glob("seed-*/run.json"))
        epochs = {len(json.loads(run.read_text())["epochs"]) for run in runs}
        assert epochs == {speed.parameters_of(notebook).epochs}


@pytest.mark.parametrize("outcome", [ValueError("no memory"), "the kernel died"])
def test_a_training_that_failed_is_not_measured(outcome):
    with pytest.raises(UsageError, match="no memory|the kernel died"):
        speed.check_ended([None, outcome])
    speed.check_ended([None, None])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"loop": {}}', '{"machines": {"loop": {}}, "loop": {}}', "{"]
)
def test_a_file_that_holds_no_measurement_is_named(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(UsageError, match="odd.json"):
        read(tmp_path / "odd.json")
    with pytest.raises(UsageError, match="nothing.json cannot be read"):
        read(tmp_path / "nothing.json")


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UsageError, match="choose one of loop, target"):
        measure("speed")
    with pytest.raises(UsageError, match="'warp' cannot be used"):
        measure("loop", device="warp")
    assert all(hasattr(tables, what) and hasattr(speed, what) for what in MEASUREMENTS)


def test_a_measurement_takes_the_place_of_the_one_before_and_the_page_follows(tmp_path):
    page, path = tmp_path / "README.md", tmp_path / "bench.json"
    page.write_text(
        "# Speed\n\n<!-- loop -->\n<!-- end -->\nmore\n<!-- batch -->\nold\n<!-- end -->\n"
    )
    keep({"machines": {"loop": {"cores": 4}}, "loop": LOOP}, path)
    assert "cores 4" in page.read_text() and "Not measured yet." in page.read_text()
    keep({"machines": {"batch": {"cores": 2}}, "batch": BATCH}, path)
    keep({"machines": {"loop": {"cores": 3}}, "loop": LOOP}, path)
    text = page.read_text()
    assert text.startswith("# Speed") and "\nmore\n" in text and "old" not in text
    assert "cores 3" in text and "cores 2" in text and "cores 4" not in text
    assert set(read(path)) == {"machines", "loop", "batch"}
    assert all(part in text for part in (tables.loop(LOOP), tables.batch(BATCH)))


def test_a_place_for_the_result_is_looked_at_before_anything_is_measured(tmp_path, monkeypatch):
    measured = []
    found = {"machines": {"batch": {}}, "batch": BATCH}
    monkeypatch.setattr("mnist_utils.bench.measure", lambda *_, **__: measured.append(1) or found)
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
            assert show(result, (what,)) in page
    assert "nan" not in show(result)
