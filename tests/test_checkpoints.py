"""A training that is stopped and goes on against one that is not: bit by bit."""

import hashlib
import io
import random
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from conftest import make_record
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist_utils.augment import Affine
from mnist_utils.checkpoints import Checkpoints
from mnist_utils.data import load_digits, make_loaders
from mnist_utils.models import build_model
from mnist_utils.muon import Muon, split_parameters
from mnist_utils.records import EpochRow
from mnist_utils.training import rise_and_fall, set_seed, test, train

CPU = torch.device("cpu")
EPOCHS = 4


@pytest.fixture(scope="module")
def digits():
    data = load_digits("test")
    return replace(data, train_images=data.train_images[:256], train_labels=data.train_labels[:256])


def fit(data, folder, optimizer="sgd", stop_after=EPOCHS, **facts):
    """A training with every kind of state, stopped after an epoch as if killed: (record, parts)."""
    set_seed(3)
    model = build_model("seed", dropout=0.3).to(memory_format=torch.channels_last)
    loader, validation = make_loaders(data, 64, 3, augment=Affine(10, 0.1, 0.1, 5, 0.03))
    steps = {
        "sgd": lambda: torch.optim.SGD(
            model.parameters(), lr=0.05, momentum=0.9, nesterov=True, fused=True
        ),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=0.01, fused=True),
        "muon": lambda: Muon(split_parameters(model), lr=0.05),
    }[optimizer]()
    scheduler = rise_and_fall(steps, EPOCHS * len(loader), 0.2)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    record = make_record((), seed=3, **facts)
    parts = dict(model=model, optimizer=steps, scheduler=scheduler, average=average)
    checkpoints = Checkpoints(folder, record, loader, **parts)
    for epoch in range(checkpoints.restore(), stop_after + 1):
        trained = train(
            model, CPU, loader, steps, epoch, scheduler, progress=False, average=average
        )
        tested = test(average, CPU, validation, progress=False)
        drawn = scheduler.get_last_lr()[0] + random.random() + np.random.rand()
        record.epochs.append(EpochRow(epoch, drawn, *astuple(trained), *astuple(tested)))
        checkpoints.save()
    return record, parts


def same(one, other) -> bool:
    """Whether two trainings came to the same bits, times of day apart."""
    (records, parts), (other_records, other_parts) = one, other
    rows = [
        [replace(row, train_seconds=0, validation_seconds=0) for row in r.epochs]
        for r in (records, other_records)
    ]
    tensors = [
        [t for name in ("model", "average") for t in p[name].state_dict().values()]
        for p in (parts, other_parts)
    ]
    return rows[0] == rows[1] and all(torch.equal(a, b) for a, b in zip(*tensors))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_stopped_training_ends_with_the_same_bits(digits, tmp_path, capsys, optimizer):
    whole = fit(digits, tmp_path / "whole", optimizer)
    fit(digits, tmp_path / "parts", optimizer, stop_after=random.randint(1, EPOCHS - 1))
    assert same(fit(digits, tmp_path / "parts", optimizer), whole)
    assert "resuming after epoch" in capsys.readouterr().out
    assert not same(fit(digits, tmp_path / "short", optimizer, stop_after=EPOCHS - 1), whole)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_taken(digits, tmp_path, capsys):
    whole = fit(digits, tmp_path / "whole")
    fit(digits, tmp_path, stop_after=3)
    content = bytearray((tmp_path / "checkpoint-0003.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "checkpoint-0003.pt").write_bytes(content)
    assert same(fit(digits, tmp_path), whole)
    said = capsys.readouterr().out
    assert "checkpoint-0003.pt cannot be used (it is damaged: its SHA-256 differs)" in said
    assert "resuming after epoch 2" in said


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"x" * 1000])
def test_where_none_can_be_read_the_training_begins_anew(digits, tmp_path, content, capsys):
    fit(digits, tmp_path, stop_after=2)
    for path in tmp_path.glob("checkpoint-*.pt"):
        path.write_bytes(content)
    assert same(fit(digits, tmp_path), fit(digits, tmp_path / "whole"))
    assert capsys.readouterr().out.count("is damaged") == 2


def test_a_run_does_not_resume_from_another_runs_checkpoint(digits, tmp_path, capsys):
    fit(digits, tmp_path, stop_after=2)
    record, _ = fit(digits, tmp_path, stop_after=1, model={"name": "other"})
    assert len(record.epochs) == 1 and "another run: other model" in capsys.readouterr().out


def test_only_the_last_two_are_kept_and_none_after_the_end(digits, tmp_path):
    record, parts = fit(digits, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "checkpoint-0003.pt",
        "checkpoint-0004.pt",
    ]
    Checkpoints(tmp_path, record, None, **parts).clear()
    assert not list(tmp_path.glob("*.pt"))


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_reading_one_runs_no_code(digits, tmp_path, capsys):
    fit(digits, tmp_path, stop_after=1)
    content = io.BytesIO()
    torch.save({"run": Evil()}, content)
    path = tmp_path / "checkpoint-0001.pt"
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
    assert same(fit(digits, tmp_path), fit(digits, tmp_path / "whole"))
    said = capsys.readouterr().out
    assert "cannot be used" in said and "executed" not in said.splitlines()


def write_checkpoint(path, state):
    """A whole checkpoint, whatever is in it."""
    content = io.BytesIO()
    torch.save(state, content)
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def read_checkpoint(path) -> dict:
    return torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)


def without_optimizer(state):
    del state["parts"]["optimizer"]


def other_shapes(state):
    state["parts"]["model"]["head.0.weight"] = torch.zeros(3, 3)


def no_generators(state):
    del state["torch"]


def other_columns(state):
    state["epochs"][0]["more"] = 1


def no_dictionary(state):
    state["run"] = ["a list"]


UNUSABLE = [without_optimizer, other_shapes, no_generators, other_columns, no_dictionary]


@pytest.mark.parametrize("spoil", UNUSABLE)
def test_where_the_last_cannot_be_used_the_one_before_is(digits, tmp_path, spoil, capsys):
    whole = fit(digits, tmp_path / "whole")
    fit(digits, tmp_path, stop_after=3)
    state = read_checkpoint(tmp_path / "checkpoint-0003.pt")
    spoil(state)
    write_checkpoint(tmp_path / "checkpoint-0003.pt", state)
    assert same(fit(digits, tmp_path), whole)
    said = capsys.readouterr().out
    assert "checkpoint-0003.pt cannot be used" in said and "resuming after epoch 2" in said


@pytest.mark.parametrize("spoil", UNUSABLE)
def test_where_none_can_be_used_nothing_of_them_is_left_in_the_training(digits, tmp_path, spoil):
    fit(digits, tmp_path, stop_after=2)
    for path in tmp_path.glob("checkpoint-*.pt"):
        state = read_checkpoint(path)
        spoil(state)
        write_checkpoint(path, state)
    assert same(fit(digits, tmp_path), fit(digits, tmp_path / "whole"))


def test_a_folder_of_a_checkpoints_name_stops_no_run_and_stays(digits, tmp_path, capsys):
    fit(digits, tmp_path, stop_after=2)
    for epoch in (2, 3, 4):
        (tmp_path / f"checkpoint-{epoch:04}.pt").unlink(missing_ok=True)
        (tmp_path / f"checkpoint-{epoch:04}.pt").mkdir()
        (tmp_path / f"checkpoint-{epoch:04}.pt/mine").write_text("mine")
    record, parts = fit(digits, tmp_path)
    assert same((record, parts), fit(digits, tmp_path / "whole"))
    assert "resuming after epoch 1" in capsys.readouterr().out
    Checkpoints(tmp_path, record, None, **parts).clear()
    assert [path.read_text() for path in tmp_path.glob("checkpoint-*.pt/mine")] == ["mine"] * 3


def test_another_runs_later_checkpoints_do_not_crowd_out_this_runs(digits, tmp_path, capsys):
    fit(digits, tmp_path)
    fit(digits, tmp_path, stop_after=1, model={"name": "other"})
    fit(digits, tmp_path, stop_after=2, model={"name": "other"})
    assert "resuming after epoch 1" in capsys.readouterr().out
