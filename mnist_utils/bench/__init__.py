"""Measurements of speed, and the search for recipes on held-out images.

    print(show(speed.measure("loop", mirror="/folder/of/mnist", repeats=5)))

A measurement holds `seconds`, a list of turns for each contender; `ratios`, the pairs of contenders
that are compared turn by turn; `title` and `notes` for its table; and the `machine`. No speed is
asserted, since machines are shared and noisy; what is compared takes turns in one run.
"""

import json
import re
import statistics
from pathlib import Path

from ..errors import UsageError
from ..records import write_text

# What can be measured, and how often by default: turns, seeds for target, runs for batch.
MEASUREMENTS = {"loop": 5, "target": 10, "threads": 5, "step": 10, "batch": 20}


def show(result: dict) -> str:
    """The measurements in `result` as tables for a terminal, each under its machine."""
    parts = []
    for one in result.values():
        seconds, ratios = one["seconds"], {}
        for over, under in one["ratios"]:
            ratios[f"{over} / {under}"] = [a / b for a, b in zip(seconds[over], seconds[under])]
        parts.append(", ".join(f"{name} {value}" for name, value in one["machine"].items()))
        parts.append(_table("ratio in one run", ratios))
        parts.append(_table(one["title"], seconds))
        parts += one["notes"]
    return "\n\n".join(parts)


def _table(title: str, rows: dict[str, list[float]]) -> str:
    """A line for each contender, or pair of them: what its turns gave, and how many they are."""
    width = max(map(len, [title, *rows]))
    head = f"{title:<{width}}   median     mean    least     most    n"
    lines = [head, "-" * len(head)]
    for name, turns in rows.items():
        numbers = (statistics.median(turns), statistics.mean(turns), min(turns), max(turns))
        cells = "".join(f"{number:9.2f}" for number in numbers)
        lines.append(f"{name:<{width}}{cells}{len(turns):5}")
    return "\n".join(lines)


def read(path: Path) -> dict:
    """The measurements that `path` holds. Raises UsageError for a file without any."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not result or not result.keys() <= MEASUREMENTS.keys():
            raise ValueError("it must have some of " + ", ".join(MEASUREMENTS))
        show(result)
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
    whole = result
    if path.exists():
        whole = read(path) | result
    write_text(path, json.dumps(whole, indent=1) + "\n")
    page = path.with_name("README.md")
    if page.exists():
        shown = dict.fromkeys(MEASUREMENTS, "Not measured yet.")
        for what, one in whole.items():
            shown[what] = f"```text\n{show({what: one})}\n```"
        fill_page(page, shown)


def fill_page(page: Path, parts: dict[str, str]) -> None:
    """Put each text of `parts` between its marks, `<!-- NAME -->` and `<!-- end -->`, in `page`."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        marks = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        # A function, since a text may hold backslashes.
        text = marks.sub(lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", text)
    write_text(page, text)
