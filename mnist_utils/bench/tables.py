"""Measurements as text, their columns aligned; nothing here needs torch."""

import re
import statistics
from pathlib import Path

from ..assignment import ASSIGNMENT
from ..records import write_text

RATIOS = [("usual", "ours"), ("usual, augmented", "ours, augmented"), ("ours", "floor")]


def loop(result: dict) -> str:
    """Ratios turn by turn, then the seconds that they are made of."""
    seconds, ratios = {name: row["seconds"] for name, row in result.items()}, {}
    for over, under in RATIOS:
        ratios[f"{over} / {under}"] = [a / b for a, b in zip(seconds[over], seconds[under])]
    epochs = _spread("seconds an epoch of 60,000 images", seconds)
    return f"{_spread('ratio in one run', ratios)}\n\n{epochs}"


def target(result: dict) -> str:
    """Seconds of whole trainings and what they reach, and the usual loop's as multiples of them."""
    goal = float(ASSIGNMENT.target)
    head = ["cores", "seconds", "sd", "mean accuracy", f"at {goal:.2%}", "n"]
    rows, notes = [], []
    for cores, found in result["cores"].items():
        ours, ends = found["ours"], found["accuracies"]
        spread = f"{statistics.stdev(ours):.1f}" if len(ours) > 1 else ""
        row = [cores, f"{statistics.mean(ours):.1f}", spread, f"{statistics.mean(ends):.3%}"]
        row += [str(sum(end >= goal for end in ends)), str(len(ends))]
        for name, epochs in result["epochs"].items():
            seconds = [epochs * 60_000 / result["images"] * part for part in found[name]]
            ratio = statistics.mean(whole / one for whole, one in zip(seconds, ours))
            row += [f"{statistics.mean(seconds):.0f}", f"{ratio:.1f}"]
        rows.append(row)
    for name, epochs in result["epochs"].items():
        head += [name, "/ ours"]
        recipe = result["recipes"][name]
        notes.append(f"{name}: {epochs} epochs of 60,000 images, as {recipe} takes")
    notes.append(f"estimated from {result['images']:,} images, timed beside each training of ours")
    return aligned(head, rows) + "\n\n" + "\n".join(notes)


def threads(result: dict) -> str:
    """Milliseconds a step in each situation, and the default as a multiple of the best fixed."""
    rows = []
    for situation, found in result.items():
        medians = {name: 1000 * statistics.median(found[name]) for name in found}
        best = min(value for name, value in medians.items() if name != "default")
        cells = [f"{value:.1f}" for value in medians.values()]
        rows.append([situation, *cells, f"{medians['default'] / best:.2f}"])
    return aligned(["milliseconds a step, median", *found, "default / best fixed"], rows)


def batch(result: dict) -> str:
    """The throughput of every turn against bare trainings, and the seconds of one run."""
    workers, runs = result["workers"], result["runs"]
    ratios = [bare / batch for bare, batch in zip(result["bare"], result["batch"])]
    bare, batched = (workers * sum(result[name]) / runs for name in ("bare", "batch"))
    title = f"{runs} runs of {result['notebook']}, epochs {result['epochs']}, {workers} at a time"
    throughput = _spread("throughput against bare trainings", {"batch / bare": ratios})
    added = f"a run takes {batched:.1f} s, of which a batch adds {batched - bare:.1f} s"
    return f"{title}\n\n{throughput}\n\n{added}"


def aligned(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is flush left and whose others are flush right."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def fill_page(page: Path, parts: dict[str, str]) -> None:
    """Put each text of `parts` between its marks, `<!-- NAME -->` and `<!-- end -->`, in `page`."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        marks = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        # A function, since a text may hold backslashes.
        text = marks.sub(lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", text)
    write_text(page, text)


def _spread(title: str, rows: dict[str, list[float]]) -> str:
    """Median, least and most of each row's numbers, and how many they are."""
    cells = []
    for name, row in rows.items():
        numbers = (statistics.median(row), min(row), max(row))
        cells.append([name, *(f"{number:.2f}" for number in numbers), str(len(row))])
    return aligned([title, "median", "least", "most", "n"], cells)
