"""The benchmark measures what it says; no speed is asserted, for machines are shared."""

import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

from mnist_utils.bench import loop as bench
from mnist_utils.bench.loop import AUGMENT, Work, format_bench, format_paired
from mnist_utils.data import load_digits
from mnist_utils.models import SeedModel

CPU = torch.device("cpu")


def loop(**seconds):
    return {name.replace("_", " "): {"seconds": values, "peak_mb": 700} for name, values in seconds.items()}


@pytest.fixture
def result() -> dict:
    seconds = loop(usual=[30.0, 20.0, 28.0], ours=[10.0, 5.0, 7.0], floor=[5.0, 5.0, 5.0])
    seconds |= {"usual, augmented": seconds["usual"], "ours, augmented": {"seconds": [12.5, 5.0, 8.0], "peak_mb": 1}}
    seconds |= {"ours, augmented and elastic": seconds["ours"], "ours, before tuning": seconds["ours"]}
    start = {"data_seconds": [0.1], "first_step_seconds": [2.0]}
    return {
        "machine": {"name": "a"}, "loop": seconds, "growth": loop(threads_1=[9.0]),
        "side_by_side": {"runs": 4, "ratios": [2.0]}, "start": start, "profile": ["conv 50.0%"],
    }  # fmt: skip


def test_ratios_are_taken_turn_by_turn(result):
    text = format_bench(result)
    assert "| usual / ours | 4.00 | 3.00 | 4.00 | 3 |" in text  # not 28 / 7 of the medians, by luck the same
    assert "| ours / floor | 1.40 | 1.00 | 2.00 | 3 |" in text
    assert "| share of the step in augmented | 12.5% | 0.0% | 20.0% | 3 |" in text
    assert "| 4 one-thread runs / one run, epochs an hour | 2.00 |" in text
    assert "ours, amp" not in text  # not measured here


def test_paired_differences_have_an_interval():
    accuracies = {"ours": [0.99, 0.98, 0.97], "other": [0.991, 0.982, 0.973]}
    text = format_paired({"accuracies": accuracies})
    assert "| ours | 98.000% | 1.000 | |" in text
    assert "| other | 98.200% | 0.900 | +0.200 ± 0.248 |" in text  # t(0.975, 2) * 0.1 / sqrt(3)


def test_the_floor_runs_every_convolution_and_nothing_else(monkeypatch):
    data, called = load_digits("test"), []
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d):
        original = kind.forward
        note = lambda self, maps, f=original: called.append((type(self), maps.shape)) or f(self, maps)  # noqa: E731
        monkeypatch.setattr(kind, "forward", note)
    turn = bench._floor(Work(kind="floor", batch_size=64), CPU, data)
    in_order = [(kind, shape) for kind, shape in called if kind is nn.Conv2d]
    called.clear()
    turn(128)
    assert called == in_order * 2 and len(in_order) == 7


def test_ours_and_usual_train_the_same_number_of_images(real_root, real_data):
    seen = []
    original = SeedModel.forward
    for kind in ("_ours", "_usual"):
        turn = getattr(bench, kind)(Work(augment=AUGMENT, data_dir=str(real_root)), CPU, real_data)
        SeedModel.forward = lambda self, images: seen.append(len(images)) or original(self, images)
        try:
            turn(300)
        finally:
            SeedModel.forward = original
    assert seen == [128, 128, 44] * 2


def test_contenders_take_turns_in_processes_of_their_own(real_root):
    work = Work(images=256, data_dir=str(real_root), threads=1, device="cpu")
    measured = bench._compare({"ours": work, "before": Work(**(vars(work) | {"tuned": False}))}, repeats=2)
    for row in measured.values():
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0 and row["peak_mb"] > 100


def test_time_to_an_accuracy_says_none_where_it_is_not_reached(real_root, monkeypatch):
    monkeypatch.setattr(bench, "_train_and_test", lambda *words: iter([bench.training.Pass(0.1, 98, 100, 1.0)]))
    assert bench.time_to(0.99, range(2), data_dir=str(real_root))["seconds"] == [None, None]
    assert all(seconds > 0 for seconds in bench.time_to(0.98, range(2), data_dir=str(real_root))["seconds"])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--repeats", "0"], "a whole number of at least 1, got '0'"),
        (["--seeds", "ten"], "a whole number of at least 1"),
        (["--show", "nowhere.json"], "No such file"),
        (["--data", "/nonexistent/x", "--mirror", "/nonexistent/y"], "MNIST cannot be had"),
    ],
)
def test_bad_input_is_refused_with_code_2(words, message):
    command = [sys.executable, "-m", "mnist_utils", "bench", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_the_committed_tables_are_what_was_measured():
    page = (ROOT / "reports/bench/README.md").read_text()
    for name, form in (("bench", format_bench), ("paired", format_paired)):
        assert form(json.loads((ROOT / f"reports/bench/{name}.json").read_text())) in page
    ratios = dict(re.findall(r"^\| (.+? / .+?) \| ([\d.]+) \|", page, re.M))
    slower = json.loads((ROOT / "reports/bench/bench-slower.json").read_text())
    told = re.findall(r"^\| usual.* / ours(?:, augmented)? \| ([\d.]+) \|", format_bench(slower), re.M)
    assert f"gave {told[0]} and {told[1]} for the first two" in (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| ([^|]+ / [^|]+) \| ([\d.]+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert rows and all(ratios[name] == value for name, value in rows)
