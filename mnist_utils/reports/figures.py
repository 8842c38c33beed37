"""Figures for pages: SVG in the colours of the page around it, light or dark, and PNG beside it.

save(figure, Path("reports/parameters"))      # parameters.svg and parameters.png
"""

import io
import json
import re
import statistics
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from .. import plots
from ..plots import TARGET, TRAIN, VALIDATION
from ..records import write_text
from ..templating import STYLE
from .results import Result

# What figures are drawn in, and the colours of templates/report/static/report.css in their place.
COLOURS = {"#000000": "ink", "#ffffff": "paper", "#b0b0b0": "line", "#cccccc": "line"}
COLOURS |= {TRAIN: "soft", VALIDATION: "link", TARGET: "fail"}
TICKS = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
BARS = ("floor", "ours, augmented", "ours", "usual, augmented", "usual")  # from below
AROUND = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))


def new_figure(xlabel: str, ylabel: str, height: float = 3.8, counts: bool = False):
    """A figure of one axes, so small that its words can be read on a phone.

    With `counts` x is a logarithmic axis of parameters.
    """
    figure = Figure(figsize=(4.6, height), dpi=plots.DPI, layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.tick_params(labelsize=8.5)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    if counts:
        axes.set(xscale="log")
        axes.xaxis.set(major_locator=FixedLocator(TICKS), minor_locator=NullLocator())
        axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write the figure as `path`.svg and `path`.png, its alternative text in both."""
    plots.save(figure, path.with_suffix(".png"))
    text, facts = io.StringIO(), {"Date": None, "Description": figure.alt_text}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mnist_utils"}):
        figure.savefig(text, format="svg", metadata=facts)
    drawing = text.getvalue()
    for colour, name in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    # The page's own colours, which stand first in its style sheet, for both schemes.
    colours = STYLE.read_text(encoding="utf-8").partition("/* Figures")[0]
    style = f"<style>\n{colours}text {{ fill: var(--ink); }}\n</style>"
    write_text(path.with_suffix(".svg"), re.sub(r"(<svg[^>]*>)", rf"\1\n{style}", drawing, count=1))


def label_points(figure: Figure, axes, points: list[tuple]) -> None:
    """Write each point's name beside it: `points` holds x, y, name and colour.

    A name goes to the nearest place where it covers no other name and nothing that is drawn; a line
    leads from one that had to go further.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    # Now that everything has its place, it must keep it.
    figure.set_layout_engine("none")
    unit = figure.dpi / 72
    drawn = [*axes.lines, *axes.collections]
    taken = [artist.get_window_extent(renderer).padded(unit) for artist in drawn]

    def cost(found: tuple[int, Bbox]) -> int:
        box = found[1]
        inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
        return box.count_overlaps(taken) + (0 if inside else 100)

    for x, y, name, colour in points:
        text = axes.text(x, y, name, fontsize=8, color=colour, ha="center", va="center", zorder=4)
        place, half = axes.transData.transform((x, y)), text.get_window_extent(renderer).size / 2
        boxes = []
        for gap in (6, 14, 24, 36, 50, 66, 84):
            for side in AROUND:
                centre = place + side * (half + gap * unit)
                boxes.append((gap, Bbox([centre - half, centre + half])))
        gap, box = min(boxes, key=cost)
        taken.append(box)
        centre = (box.p0 + box.p1) / 2
        text.set_position(axes.transData.inverted().transform(centre))
        if gap > 6:
            end = axes.transData.inverted().transform(box.p0 + (place > centre) * 2 * half)
            axes.plot([x, end[0]], [y, end[1]], color=TRAIN, linewidth=0.6)


def seed_curves(result: Result, all_results: list[Result]) -> Figure:
    """The curves of all seeds, on an axis that all notebooks share, small enough to lie in a row."""
    figure = plots.seed_curves(list(result.records.values()))
    figure.set_size_inches(2.2, 1.7)
    for axes, name in zip(figure.axes, ("", "seeds")):
        axes.set_title(axes.get_title(), fontsize=8.5)
        axes.set_xlabel(name)
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(7)
    axes = figure.axes[0]
    axes.get_legend().remove()
    lowest = min(low for other in all_results for low in other.last)
    low = min(99.0, lowest) / 100 - 0.0005
    axes.set(ylabel="", ylim=(low, 0.998), yticks=[y for y in (0.99, 0.994, 0.998) if y > low])
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter("{x:.1%}")
    return figure


def search_scatter(log: str) -> Figure:
    """Parameters against holdout accuracy at the last epoch, a dot a trial and seed of the log."""
    rows = [json.loads(line) for line in log.splitlines()]
    figure, axes = new_figure("parameters, logarithmic", "holdout accuracy", counts=True)
    shown = [row for row in rows if row["accuracies"][-1] >= 0.985]
    for label, colour in (("19 epochs", VALIDATION), ("fewer epochs", TRAIN)):
        part = [r for r in shown if ("epochs=" in r["trial"]) == (label == "fewer epochs")]
        accuracies = [100 * row["accuracies"][-1] for row in part]
        places = [row["parameters"] for row in part]
        axes.scatter(places, accuracies, s=14, alpha=0.7, color=colour, label=label)
    axes.axhline(99.4, color=TARGET, linewidth=1, label="99.4%")
    axes.yaxis.set_major_formatter("{x:.1f}%")
    axes.legend(fontsize=8, loc="lower right")
    figure.alt_text = (
        f"{len(shown)} trainings of the search, parameters against holdout accuracy at the last "
        f"epoch; {len(rows) - len(shown)} more ended below 98.5%."
    )
    return figure


def speed_bars(bench: str) -> Figure:
    """Seconds of an epoch: median and range of the usual loop, of ours and of the floor."""
    loop = json.loads(bench)["loop"]["seconds"]
    figure, axes = new_figure("seconds an epoch of 60,000 images", "", height=2.2)
    names = [name for name in BARS if name in loop]
    for place, name in enumerate(names):
        seconds = loop[name]
        middle = statistics.median(seconds)
        axes.barh(place, middle, color=VALIDATION if name.startswith("ours") else TRAIN)
        axes.plot([min(seconds), max(seconds)], [place, place], color="#000000", linewidth=1)
        axes.text(max(seconds) + 0.2, place, f"{middle:.2f}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.2)
    figure.alt_text = f"Seconds an epoch of {', '.join(names)}: median, fastest and slowest turn."
    return figure
