"""Measurements of speed, and the search for recipes on held-out images.

    result = measure("loop", mirror="/folder/of/mnist", repeats=5)
    print(show(result))

Nothing is asserted of a speed, for machines are shared and noisy; what is compared takes turns in one run.
"""

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from . import tables

MEASUREMENTS = {
    "loop": "the training loop beside the usual one and beside its convolutions alone",
    "target": "seconds from cached data to the end of the quickest recipe, on one core and on two",
    "threads": "the choice of threads on a quiet machine, with one busy core and with two",
    "batch": "trainings as a batch of notebooks beside the same trainings called bare",
    "scheduling": "what Dask adds to jobs that do nothing",
    "paired": "holdout accuracy of the loop with and without bfloat16, seed by seed",
}
OLDER = {
    "loop": "loop",
    "accuracies": "paired",
    "parts": "batch",
    "dask": "scheduling",
}  # by a key that only it has


@dataclass(frozen=True)
class Settings:
    """What the command line can set. `repeats` are the turns of each contender; `runs` belong to a batch."""

    data_dir: str = "data"
    mirror: str = ""
    device: str = "auto"
    repeats: int = 5
    seeds: int = 10
    epochs: int = 5
    runs: int = 200


def measure(what: str = "loop", **settings) -> dict:
    """Measure `what`, one of `MEASUREMENTS`, with the fields of `Settings`: a dictionary that `json` can write.

    Raises UsageError for another name and DataError where MNIST cannot be had.
    """
    if what not in MEASUREMENTS:
        raise UsageError(
            f"there is no measurement {what!r}; choose one of {', '.join(MEASUREMENTS)}"
        )
    import torch

    from ..data import load_data
    from ..training import choose_device, device_facts
    from . import batches, search, speed

    rooms = {"batch": batches, "scheduling": batches, "paired": search}
    given = Settings(**settings)
    if what != "scheduling":
        load_data("mnist", given.data_dir, given.mirror)
    machine = device_facts(choose_device(given.device)) | {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return {"what": what, "machine": machine, **getattr(rooms.get(what, speed), what)(given)}


def show(result: dict) -> str:
    """The measurement as tables for a terminal."""
    facts = ", ".join(f"{name} {value}" for name, value in result.get("machine", {}).items())
    parts = [facts, getattr(tables, result["what"])(result)]
    return "\n\n".join(part for part in parts if part)


def read(path: Path) -> dict:
    """A saved measurement. Raises UsageError for a file that cannot be read or holds none."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        older = [name for key, name in OLDER.items() if key in result]
        result.setdefault("what", older[0] if older else "")
        if result["what"] == "loop" and "loop" in result:
            rows = result["loop"] | result.get("growth", {})
            result["seconds"] = {name: row["seconds"] for name, row in rows.items()}
        if result["what"] not in MEASUREMENTS:
            raise ValueError("it names no measurement")
        show(result)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise UsageError(
            f"{path} holds no measurement of `bench` ({type(error).__name__}: {error})"
        ) from error
    return result
