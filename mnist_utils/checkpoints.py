"""Resuming after a stop: the state of a training after each epoch, kept until the run is complete.

    checkpoints = Checkpoints(folder, record, train_loader, model=model, optimizer=optimizer)
    for epoch in range(checkpoints.restore(), epochs + 1):
        ...
        checkpoints.save()
    checkpoints.clear()

A training that was stopped and resumed ends with the same bits as one that was not, on the same
machine. A checkpoint is a file of tensors and numbers behind its SHA-256; reading it runs no code.
"""

import copy
import hashlib
import io
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .errors import CheckpointError
from .records import EpochRow, RunRecord, atomic_write

NAMES = "checkpoint-[0-9][0-9][0-9][0-9].pt"


class Checkpoints:
    """The checkpoints of one run in `folder`, next to its `record`.

    `parts` are what changes during training, by name: anything with `state_dict` and
    `load_state_dict`. The random generators are kept too: the `loader`'s own, torch's, NumPy's and
    Python's.
    """

    def __init__(self, folder: str | Path, record: RunRecord, loader, **parts):
        self.folder, self.record, self.loader, self.parts = Path(folder), record, loader, parts

    def restore(self) -> int:
        """Load the newest checkpoint that can be used; returns the epoch to train next.

        One that is damaged or belongs to another run is reported, and the one before it is tried.
        Where none can be used, everything is as before the call and the answer is 1.
        """
        paths = sorted(self.folder.glob(NAMES), reverse=True)
        untouched = copy.deepcopy(self._state()) if paths else {}
        for path in paths:
            try:
                self._load(_read(path, self._run()))
            except (
                Exception
            ) as error:  # whatever a file that looks like a checkpoint makes torch raise
                reason = str(error).strip().splitlines() or [type(error).__name__]
                print(f"{path} cannot be used ({reason[0]}); trying the one before")
                # The parts may have been loaded halfway.
                self._load(untouched)
            else:
                print(f"resuming after epoch {len(self.record.epochs)}, from {path}")
                break
        return len(self.record.epochs) + 1

    def save(self) -> None:
        """Write the state after the record's last epoch, whole or not at all.

        The one before it stays too, in case this one is damaged; all others go.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        last = len(self.record.epochs)
        path, before = (self.folder / f"checkpoint-{epoch:04}.pt" for epoch in (last, last - 1))
        if path.is_dir():
            print(f"{path} is a folder: a stopped run cannot resume after epoch {last}")
            return
        with atomic_write(path) as part:
            _write(self._state(), part)
        self._remove(keep=(path, before))

    def clear(self) -> None:
        """Remove them all: a complete run needs none."""
        self._remove(keep=())

    def _remove(self, keep: tuple[Path, ...]) -> None:
        for path in self.folder.glob(NAMES):
            if path not in keep and path.is_file():
                path.unlink()

    def _run(self) -> dict:
        """What must match before a run can resume."""
        facts = ("notebook", "seed", "parameters", "dataset", "model")
        return {name: repr(getattr(self.record, name)) for name in facts}

    def _state(self) -> dict:
        return {
            "run": self._run(),
            "epochs": [asdict(row) for row in self.record.epochs],
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generators": _generators(self.loader),
        }

    def _load(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        _set_generators(self.loader, state["generators"])
        self.record.epochs = [EpochRow(**row) for row in state["epochs"]]


def _write(state: dict, path: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def _read(path: Path, run: dict) -> dict:
    """The state in the file. Raises CheckpointError where it is damaged or not of this `run`."""
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise CheckpointError("it is damaged: its SHA-256 differs")
    state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    if different := [name for name, value in run.items() if state["run"].get(name) != value]:
        raise CheckpointError(f"it belongs to another run: other {', '.join(different)}")
    return state


def _generators(loader) -> dict:
    """The state of every generator, in types that a file of tensors and numbers can hold."""
    kind, keys, *rest = np.random.get_state()
    own = getattr(loader, "generator", None)
    return {
        "loader": own.get_state() if own is not None else None,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def _set_generators(loader, states: dict) -> None:
    if states["loader"] is not None:
        loader.generator.set_state(states["loader"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    np.random.set_state(tuple(states["numpy"]))
    random.setstate(states["python"])
