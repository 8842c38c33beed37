"""Going on after a stop: the state of a training after each epoch, kept until the run is complete.

    checkpoints = Checkpoints(out, record, train_loader, model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in range(checkpoints.restore(), epochs + 1):
        ...
        checkpoints.save()
    checkpoints.clear()

A training that is stopped and goes on ends with the same bits as one that was not, on the same machine. A checkpoint
is a file of tensors and numbers under its SHA-256; reading it runs no code.
"""

import hashlib
import io
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .errors import CheckpointError
from .records import EpochRow, RunRecord, atomic_write

KEPT = 2  # the last one, and the one before it in case the last is damaged


class Checkpoints:
    """The checkpoints of one run in `folder`, next to its `record`.

    `parts` are what changes while training, by name: anything with `state_dict` and `load_state_dict`, as the model,
    the optimizer, the scheduler, an average of the weights. The generators are kept too: the `loader`'s own, torch's,
    NumPy's and Python's.
    """

    def __init__(self, folder: str | Path, record: RunRecord, loader, **parts):
        self.folder, self.record, self.loader, self.parts = Path(folder), record, loader, parts

    def restore(self) -> int:
        """Put everything back as it was after the last epoch that can be read, and return the epoch to go on with.

        1 where there is no checkpoint. One that is damaged or of a run with other parameters is reported and the one
        before it taken.
        """
        for path in sorted(self.folder.glob("checkpoint-*.pt"), reverse=True):
            try:
                self._restore(_read(path))
            except CheckpointError as error:
                print(f"{error}; trying the one before")
                continue
            print(f"going on after epoch {len(self.record.epochs)}, from {path}")
            break
        return len(self.record.epochs) + 1

    def save(self) -> None:
        """Write the state after the record's last epoch, whole or not at all, and drop what is older than needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "run": self._run(),
            "epochs": [asdict(row) for row in self.record.epochs],
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generators": _generators(self.loader),
        }
        with atomic_write(self.folder / f"checkpoint-{len(self.record.epochs):04}.pt") as part:
            _write(state, part)
        for path in sorted(self.folder.glob("checkpoint-*.pt"))[:-KEPT]:
            path.unlink()

    def clear(self) -> None:
        """Remove them: a complete run needs none."""
        for path in self.folder.glob("checkpoint-*.pt"):
            path.unlink()

    def _run(self) -> dict:
        """What must be the same for a state to be gone on from."""
        facts = (self.record.notebook, self.record.seed, self.record.parameters, self.record.dataset, self.record.model)
        return dict(zip(("notebook", "seed", "parameters", "dataset", "model"), map(repr, facts)))

    def _restore(self, state: dict) -> None:
        if different := [name for name, value in self._run().items() if state["run"].get(name) != value]:
            raise CheckpointError(f"{self.folder} holds a checkpoint of another run (other {', '.join(different)})")
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        _set_generators(self.loader, state["generators"])
        self.record.epochs = [EpochRow(**row) for row in state["epochs"]]


def _write(state: dict, path: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def _read(path: Path) -> dict:
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise CheckpointError(f"{path} is damaged (its SHA-256 differs)")
    try:
        return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever else than tensors and numbers is in it
        raise CheckpointError(f"{path} is no checkpoint ({str(error).splitlines()[0]})") from error


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
