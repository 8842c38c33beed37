"""Figures for pages: SVG in the colours of the page around it, light or dark, and PNG beside it.

    save(against("parameters", points(results)), Path("reports/parameters"))

`PUBLISHED` are other people's single runs: a difference of 0.1 points to one of them means little.
"""

import io
import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from .. import plots
from ..assignment import ASSIGNMENT
from ..plots import TARGET, TRAIN, VALIDATION
from ..records import write_text
from ..templating import STYLE
from .results import Result, spread

# What figures are drawn in, and the colours of templates/report/static/report.css in their place.
COLOURS = {"#000000": "ink", "#ffffff": "paper", "#b0b0b0": "line", "#cccccc": "line"}
COLOURS |= {TRAIN: "soft", VALIDATION: "link", TARGET: "fail"}
BARS = ("floor", "ours, augmented", "ours", "usual, augmented", "usual")  # from below
# Where a name may stand: this many points from its own, to these sides of it.
GAPS = (6, 14, 24, 36, 50, 66, 84)
SIDES = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))
ACROSS = {-1: "right", 0: "center", 1: "left"}
UPWARD = {-1: "top", 0: "center", 1: "bottom"}
LEADER = {"arrowstyle": "-", "color": TRAIN, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
TARGET_PERCENT = 100 * float(ASSIGNMENT.target)


@dataclass(frozen=True)
class Point:
    """A result: accuracy at the last epoch in percent, mean and standard deviation over seeds.

    `best`, the highest of any epoch, stands in the table of published runs and is not drawn.
    """

    title: str
    parameters: int
    epochs: int
    last: float
    best: float
    spread: float = 0.0

    @property
    def breaks_a_rule(self) -> bool:
        return self.parameters >= ASSIGNMENT.parameters or self.epochs >= ASSIGNMENT.epochs

    @property
    def label(self) -> str:
        """What stands beside it: the notebook or its number, or the publisher."""
        name = re.split(r"/| of |(?<=^\d\d)_", self.title)[0]
        if len(name) > 18:
            name = f"{name[:14]}…"
        return f"{name}: {self.epochs} epochs" if self.breaks_a_rule else name


# Repository and what it calls the session; accuracies read in the notebook's own output.
PUBLISHED = (
    Point("firekind/ERA4, session 6", 6_174, 15, 99.47, 99.48),
    Point("namanphy/EVA5, session 5", 6_398, 15, 99.42, 99.49),
    Point("woncoh1/era1, session 6", 9_768, 19, 99.57, 99.60),
    Point("the original of 01_seed_model", 9_954, 19, 99.26, 99.42),
    Point("Shilpaj1994/ERA, session 7", 13_948, 15, 99.27, 99.53),
    Point("piygr/s6erav1, session 6", 18_594, 20, 99.58, 99.60),
    Point("PremaKathiresanVasagam/TSAI---EVA5, session 4", 18_990, 19, 99.41, 99.56),
)


def points(results: Iterable[Result]) -> list[Point]:
    """The results as points of the plots over all notebooks."""
    return [
        Point(r.name, r.parameters, r.epochs, r.mean, max(r.best), spread(r.last)) for r in results
    ]


def describe(axis: str, points: list[Point]) -> str:
    """The alternative text; the pages' tables hold every number that is drawn."""
    groups = (points, PUBLISHED)
    over = [sum(round(p.last, 6) >= TARGET_PERCENT for p in group) for group in groups]
    return (
        f"Accuracy at the last epoch against {axis}: {over[0]} of {len(points)} notebooks of this "
        f"project and {over[1]} of {len(PUBLISHED)} published runs lie at or above the target line at "
        f"{TARGET_PERCENT:.1f}%."
    )


def against(axis: str, points: list[Point]) -> Figure:
    """Accuracy at the last epoch against "parameters", on a logarithmic axis, or "epochs".

    Ours are filled, with error bars; others' runs are hollow, those that break a rule crosses. Lines
    show both limits.
    """
    label = "accuracy at the last epoch"
    if axis == "parameters":
        figure, axes = new_figure("parameters, logarithmic", label, counts=True)
        least = min(point.parameters for point in (*points, *PUBLISHED))
        axes.set_xlim(least / 1.6, ASSIGNMENT.parameters * 3.2)
    else:
        figure, axes = new_figure("epochs of training", label)
        axes.set(xlim=(0, 1.4 * ASSIGNMENT.epochs), xticks=range(0, ASSIGNMENT.epochs + 1, 5))
    axes.axhline(TARGET_PERCENT, color=TARGET, linewidth=1)
    axes.axvline(getattr(ASSIGNMENT, axis), color=TARGET, linewidth=1, linestyle=":")
    axes.yaxis.set_major_formatter("{x:.2f}%")
    bars = {"marker": "o", "markersize": 5, "elinewidth": 1, "capsize": 2, "zorder": 3}
    names = []
    for point in points:
        x = getattr(point, axis)
        axes.errorbar(x, point.last, point.spread, linestyle="none", color=VALIDATION, **bars)
        names.append((x, point.last, point.label, VALIDATION))
    for point in PUBLISHED:
        x, shape = getattr(point, axis), "x" if point.breaks_a_rule else "o"
        axes.plot(x, point.last, shape, color=TRAIN, fillstyle="none", markersize=6)
        names.append((x, point.last, point.label, "#000000"))
    label_points(figure, axes, names)
    figure.alt_text = describe(axis, points)
    return figure


def label_points(figure: Figure, axes, points: list[tuple]) -> None:
    """Write the name of each of `points`, which are (x, y, name, colour), beside it.

    It goes where it covers no other name and nothing that is drawn; a line leads from afar.
    """
    figure.draw_without_rendering()
    # Now that everything has its place, it must keep it.
    figure.set_layout_engine("none")
    taken = [line.get_window_extent().padded(1) for line in axes.lines]
    # The bars, of which matplotlib knows no extent.
    for segment in chain.from_iterable(bars.get_segments() for bars in axes.collections):
        ends = axes.transData.transform(segment)
        taken.append(Bbox([ends.min(axis=0), ends.max(axis=0)]).padded(1))
    style = {"textcoords": "offset points", "fontsize": 8, "zorder": 4}
    for x, y, name, colour in points:
        found = []
        for gap, (right, up) in product(GAPS, SIDES):
            place = {"xytext": (gap * right, gap * up), "ha": ACROSS[right], "va": UPWARD[up]}
            label = axes.annotate(name, (x, y), **place, **style)
            box = label.get_window_extent()
            label.remove()
            outside = not (axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max))
            found.append((box.count_overlaps(taken) + 100 * outside, gap, place, box))
        _, gap, place, box = min(found, key=lambda one: one[0])
        taken.append(box)
        line = LEADER if gap > GAPS[0] else None
        axes.annotate(name, (x, y), **place, **style, color=colour, arrowprops=line)


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
        axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
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


def seed_curves(result: Result, all_results: list[Result]) -> Figure:
    """The curves of all seeds, on an axis that all notebooks share, small enough to lie in a row."""
    figure = plots.seed_curves(list(result.records.values()))
    figure.set_size_inches(2.2, 1.7)
    for axes, name in zip(figure.axes, ("epoch", "seeds")):
        axes.set_title(axes.get_title(), fontsize=8.5)
        axes.set_xlabel(name, fontsize=7)
        axes.tick_params(labelsize=7)
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
    for label, colour, shape in (("19 epochs", VALIDATION, "o"), ("fewer epochs", TRAIN, "x")):
        part = [r for r in shown if ("epochs=" in r["trial"]) == (label == "fewer epochs")]
        accuracies = [100 * row["accuracies"][-1] for row in part]
        places = [row["parameters"] for row in part]
        axes.scatter(places, accuracies, s=14, alpha=0.7, color=colour, marker=shape, label=label)
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
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{middle:.2f}", (max(seconds), place), **beside, fontsize=8.5)
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.2)
    figure.alt_text = f"Seconds an epoch of {', '.join(names)}: median, fastest and slowest turn."
    return figure
