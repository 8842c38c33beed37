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

from .records import EpochRow, RunRecord, atomic_write

NAMES = "checkpoint-[0-9][0-9][0-9][0-9].pt"
SAME = ("notebook", "seed", "parameters", "dataset", "model")  # must match before a run can resume


class Checkpoints:
    """The checkpoints of one run in `folder`, next to its `record`.

    `parts` are what changes during training, by name: anything with `state_dict` and
    `load_state_dict`. The random generators are kept too: the `loader`'s own, torch's, NumPy's and
    Python's.
    """

    def __init__(self, folder: str | Path, record: RunRecord, loader, **parts):
        self.folder, self.record, self.parts = Path(folder), record, parts
        self.generator = getattr(loader, "generator", None)

    def restore(self) -> int:
        """Load the newest checkpoint that can be used; returns the epoch to train next.

        One that is damaged or belongs to another run is reported, and the one before it is tried.
        Where none can be used, everything is as before the call and the answer is 1.
        """
        paths = sorted(self.folder.glob(NAMES), reverse=True)
        untouched = copy.deepcopy(self._state())
        for path in paths:
            try:
                self._load(self._read(path))
                print(f"resuming after epoch {len(self.record.epochs)}, from {path}")
                break
            # What looks like a checkpoint can make torch raise anything.
            except Exception as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                print(f"{path} cannot be used ({reason[0]}); trying the one before")
                # The parts may have been loaded halfway.
                self._load(untouched)
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
        content = io.BytesIO()
        torch.save(self._state(), content)
        with atomic_write(path) as part:
            part.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
        self.clear(keep=(path, before))

    def clear(self, keep: tuple[Path, ...] = ()) -> None:
        """Remove them all, or all but some: a complete run needs none."""
        for path in self.folder.glob(NAMES):
            if path not in keep and path.is_file():
                path.unlink()

    def _read(self, path: Path) -> dict:
        """The state in the file. Raises ValueError where it is damaged or of another run."""
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("it is damaged: its SHA-256 differs")
        state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        other = [name for name in SAME if state["run"][name] != repr(getattr(self.record, name))]
        if other:
            raise ValueError(f"it belongs to another run: other {', '.join(other)}")
        return state

    def _state(self) -> dict:
        """Everything that decides how the training continues, as tensors, numbers and texts."""
        kind, keys, *rest = np.random.get_state()
        return {
            "run": {name: repr(getattr(self.record, name)) for name in SAME},
            "epochs": [asdict(row) for row in self.record.epochs],
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "loader": self.generator and self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
            "numpy": [kind, keys.tolist(), *rest],
            "python": random.getstate(),
        }

    def _load(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        if self.generator is not None:
            self.generator.set_state(state["loader"])
        torch.set_rng_state(state["torch"])
        torch.cuda.set_rng_state_all(state["cuda"])
        np.random.set_state(tuple(state["numpy"]))
        random.setstate(state["python"])
        self.record.epochs = [EpochRow(**row) for row in state["epochs"]]
