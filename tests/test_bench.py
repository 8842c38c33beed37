"""The benchmark measures what it says; no speed is asserted, for machines are shared."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from torch import nn

from mnist_utils.bench import MEASUREMENTS, Settings, measure, read, show, speed, tables
from mnist_utils.bench.speed import AUGMENT, Contender
from mnist_utils.errors import UsageError
from mnist_utils.models import SeedModel

CPU = Contender(device="cpu", threads=1)


def row(text: str, name: str) -> list[str]:
    """The cells of the row that begins with `name`."""
    line = next(line for line in text.splitlines() if line.startswith(name + "  "))
    return line[len(name) :].split()


def test_ratios_are_taken_turn_by_turn():
    seconds = {"usual": [30.0, 20.0, 28.0], "ours": [10.0, 5.0, 7.0], "floor": [5.0, 5.0, 5.0]}
    text = tables.loop({"seconds": seconds})
    assert row(text, "usual / ours") == ["4.00", "3.00", "4.00", "3"]
    assert row(text, "ours / floor") == ["1.40", "1.00", "2.00", "3"]
    assert "amp" not in text  # not measured here


def test_paired_differences_have_an_interval():
    text = tables.paired(
        {"accuracies": {"ours": [0.99, 0.98, 0.97], "other": [0.991, 0.982, 0.973]}}
    )
    assert row(text, "ours") == ["98.000%", "1.000"]
    assert row(text, "other") == [
        "98.200%",
        "0.900",
        "+0.200",
        "±",
        "0.248",
    ]  # t(0.975, 2) * 0.1 / sqrt(3)


def test_a_target_counts_the_seeds_that_pass_and_the_usual_loops_epochs():
    one = {
        "seconds": [40.0, 60.0],
        "accuracies": [0.995, 0.993],
        "usual_epoch_seconds": [20.0, 30.0],
    }
    text = tables.target({"target": 0.994, "usual_epochs": 19, "cores": {"1": one}})
    assert row(text, "1") == ["50.0", "14.1", "99.400%", "1", "of", "2", "475.0", "9.50"]


def test_the_default_is_held_to_the_best_fixed_number_of_threads():
    found = {"default": [0.02, 0.03, 0.022], "1 thread": [0.025], "2 threads": [0.02]}
    text = tables.threads({"situations": {"quiet": found}})
    assert row(text, "quiet") == ["22.0", "25.0", "20.0", "1.10"]


def test_the_parts_of_a_batch_add_up():
    parts = [{"training": 18.0, "start": 2.0}, {"training": 22.0, "start": 4.0}]
    given = {
        "jobs": 10,
        "epochs": 2,
        "bare": [10.0, 10.0, 9.0, 10.0, 10.0],
        "batch": [20.0, 12.5, 18.0, 40.0, 9.5],
    }
    text = tables.batch(given | {"parts": parts})
    assert row(text, "batch / bare") == ["0.50", "0.25", "1.05", "5"]
    assert row(text, "training") == ["20.0", "50%"] and row(text, "start") == ["3.0", "8%"]
    assert row(text, "start of the workers, saving, page") == ["17.0", "42%"]


def test_the_floor_runs_every_convolution_and_nothing_else(monkeypatch, real_root, real_data):
    called = []
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d):
        original = kind.forward

        def note(self, maps, f=original):
            called.append((type(self), maps.shape))
            return f(self, maps)

        monkeypatch.setattr(kind, "forward", note)
    epoch = speed.floor(replace(CPU, data_dir=str(real_root)))
    in_order = [(kind, shape) for kind, shape in called if kind is nn.Conv2d]
    called.clear()
    epoch(256)
    assert called == in_order * 2 and len(in_order) == 7


def test_ours_and_usual_train_the_same_number_of_images(monkeypatch, real_root, real_data):
    seen = []
    original = SeedModel.forward
    monkeypatch.setattr(
        SeedModel,
        "forward",
        lambda self, images: seen.append(len(images)) or original(self, images),
    )
    for contender in (speed.ours, speed.usual):
        contender(replace(CPU, augment=AUGMENT, data_dir=str(real_root)))(300)
    assert seen == [128, 128, 44] * 2


def test_contenders_take_turns_in_processes_of_their_own(real_root, real_data):
    one = replace(CPU, data_dir=str(real_root))
    with (
        speed.processes({"ours": one, "floor": replace(one, kind="floor")}) as turn,
        speed.busy_loops(1),
    ):
        assert turn("ours", 256) > 0 and turn("floor", 256) > 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"what": "loop"}', '{"what": "no"}', '{"dask": 3, "ours": 1}', "{"]
)
def test_a_file_that_holds_no_measurement_is_named(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(UsageError, match="odd.json"):
        read(tmp_path / "odd.json")
    with pytest.raises(UsageError, match="nothing.json cannot be read"):
        read(tmp_path / "nothing.json")


def test_an_unknown_measurement_is_refused():
    with pytest.raises(UsageError, match="choose one of loop, target"):
        measure("speed")
    assert all(hasattr(tables, what) for what in MEASUREMENTS) and Settings().repeats == 5


@pytest.mark.parametrize(
    "path", sorted((ROOT / "reports/bench").glob("*.json")), ids=lambda path: path.stem
)
def test_what_was_measured_once_is_still_shown(path):
    text = show(read(path))
    assert len(text.splitlines()) > 3 and "|" not in text and "nan" not in text


def test_showing_loads_no_torch():
    code = "import sys; from mnist_utils.bench import read, show; show(read('reports/bench/bench.json'));"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_committed_tables_are_what_was_measured():
    page = (ROOT / "reports/bench/README.md").read_text()
    for path in (ROOT / "reports/bench").glob("*.json"):
        if json.loads(path.read_text()).get("what"):
            assert show(read(path)) in page
