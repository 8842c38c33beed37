"""Measurements of speed, and the search for recipes on held-out images.

    result = measure("loop", mirror="/folder/of/mnist", repeats=5)
    print(show(result))

No speed is asserted, since machines are shared and noisy; what is compared takes turns in one run.
"""

import json
import os
import platform
from datetime import date
from pathlib import Path

from ..errors import UsageError
from ..records import write_text
from . import tables

MEASUREMENTS = ("loop", "target", "threads", "batch")


def measure(
    what: str, device: str = "auto", data_dir: str = "data", mirror: str = "", **counts
) -> dict:
    """Measure `what`, one of `MEASUREMENTS`; `counts` are those that its function in speed.py takes.

    Returns a dictionary that `json` can write. Raises UsageError for another name, for a device
    that cannot be used and where a training fails, and DataError where MNIST cannot be had.
    """
    if what not in MEASUREMENTS:
        raise UsageError(
            f"there is no {what!r} to measure; choose one of {', '.join(MEASUREMENTS)}"
        )
    import torch

    from ..batch.devices import cores
    from ..data import load_data
    from ..training import choose_device, device_facts
    from . import speed

    try:
        chosen = choose_device(device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    load_data("mnist", data_dir, mirror)
    facts = {
        "device": device_facts(chosen)["name"],
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    result = getattr(speed, what)(device=device, data_dir=data_dir, **counts)
    return {"machines": {what: facts}, what: result}


def show(result: dict, names: tuple[str, ...] = MEASUREMENTS) -> str:
    """Those of `names` that `result` holds as tables for a terminal, each under its machine."""
    parts = []
    for what in [name for name in names if name in result]:
        facts = result["machines"][what].items()
        parts.append(", ".join(f"{name} {value}" for name, value in facts))
        parts.append(getattr(tables, what)(result[what]))
    return "\n\n".join(parts)


def read(path: Path) -> dict:
    """The measurements that `path` holds. Raises UsageError for a file without any."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not show(result):
            raise ValueError("it has none of " + ", ".join(MEASUREMENTS))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} holds no measurement of `bench` ({reason})") from error
    return result


def keep(result: dict, path: Path) -> None:
    """Put the measurements in `result` in the place of those of their kind that `path` holds.

    Where a README.md lies beside it, its tables are made anew. Raises UsageError where `path` is
    there and holds no measurement.
    """
    whole = read(path) if path.exists() else {"machines": {}}
    whole |= result | {"machines": whole["machines"] | result["machines"]}
    write_text(path, json.dumps(whole, indent=1) + "\n")
    page = path.with_name("README.md")
    if page.exists():
        shown = dict.fromkeys(MEASUREMENTS, "Not measured yet.")
        for name in whole.keys() - {"machines"}:
            shown[name] = f"```text\n{show(whole, (name,))}\n```"
        tables.fill_page(page, shown)
