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
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from .. import plots
from ..plots import TARGET, TRAIN, VALIDATION
from ..records import write_text
from ..templating import STYLE
from .results import Result

INK = "#000000"
TICKS = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
# What figures are drawn in, and the colours of templates/report/static/report.css in their place.
COLOURS = {
    INK: "ink", "#ffffff": "paper", "#b0b0b0": "line", "#cccccc": "line",
    TRAIN: "soft", VALIDATION: "link", TARGET: "fail",
}  # fmt: skip


def new_figure(xlabel: str, ylabel: str, size: tuple[float, float] = (4.6, 3.8)):
    """A figure of one axes with a grid, small enough that its words can be read on a phone."""
    figure = Figure(figsize=size, dpi=plots.DPI, layout="constrained")
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.tick_params(labelsize=8.5)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    return figure, axes


def count_axis(axes) -> None:
    """Parameters along x, on a logarithmic axis whose ticks are whole numbers."""
    axes.set(xscale="log")
    axes.xaxis.set(major_locator=FixedLocator(TICKS), minor_locator=NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def save(figure: Figure, path: Path) -> None:
    """Write the figure as `path`.svg and `path`.png, its alternative text in both."""
    plots.save(figure, path.with_suffix(".png"))
    write_text(path.with_suffix(".svg"), svg(figure))


def svg(figure: Figure) -> str:
    """The figure as SVG whose colours follow the reader's scheme; equal figures give equal text."""
    text, facts = io.StringIO(), {"Date": None, "Description": figure.alt_text}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mnist_utils"}):
        figure.savefig(text, format="svg", metadata=facts)
    drawing = text.getvalue()
    for colour, name in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    # The page's own colours, which stand first in its style sheet, both schemes.
    colours = STYLE.read_text(encoding="utf-8").partition("/* Figures")[0]
    style = f"{colours}text {{ fill: var(--ink); }} path, use {{ color: var(--ink); }}"
    return re.sub(r"(<svg[^>]*>)", rf"\1\n<style>\n{style}\n</style>", drawing, count=1)


def label_points(figure: Figure, axes, points: list[tuple[float, float, str, str]]) -> None:
    """Write each point's name beside it: `points` holds x, y, name and colour of each.

    A name goes to the nearest place where it covers no other name and no point; a line leads from
    one that had to go further.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    # Now that everything has its place, it must keep it.
    figure.set_layout_engine("none")
    unit = figure.dpi / 72
    places = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [Bbox.from_bounds(x, y, 0, 0).padded(4 * unit) for x, y in places]
    # Error bars, in as many pieces as a name is high, so that one which crosses more of it costs more.
    for bar in (c for c in axes.collections if isinstance(c, LineCollection)):
        for (x, low), (_, high) in (axes.transData.transform(line) for line in bar.get_segments()):
            taken += [Bbox.from_bounds(x - unit, y, 2 * unit, unit) for y in range(int(low), int(high), 8)]
    for (x, y, name, colour), place in zip(points, places):
        text = axes.text(0, 0, name, fontsize=8)
        size = text.get_window_extent(renderer).size
        text.remove()
        box, moved = _free_place(place, size, taken, axes.bbox, unit)
        taken.append(box)
        line = dict(arrowstyle="-", color=TRAIN, linewidth=0.6, shrinkA=0, shrinkB=3)
        axes.annotate(
            name, (x, y), axes.transData.inverted().transform((box.x0, box.y0)), fontsize=8,
            color=colour, ha="left", va="bottom", arrowprops=line if moved else None,
            bbox=dict(boxstyle="square,pad=0", linewidth=0, facecolor="none"), zorder=4,
        )  # fmt: skip


def _free_place(place, size, taken: list[Bbox], bounds: Bbox, unit: float) -> tuple[Bbox, bool]:
    """The box for a name of this size, and whether it stands away from its point."""
    (x, y), (width, height) = place, size
    best = None
    for distance in (6, 14, 24, 36, 50, 66, 84):
        gap = distance * unit
        corners = [
            (x + gap, y - height / 2), (x - gap - width, y - height / 2),
            (x + gap * 0.7, y + gap * 0.7), (x + gap * 0.7, y - gap * 0.7 - height),
            (x - gap * 0.7 - width, y + gap * 0.7), (x - gap * 0.7 - width, y - gap * 0.7 - height),
            (x - width / 2, y + gap), (x - width / 2, y - gap - height),
        ]  # fmt: skip
        for left, low in corners:
            box = Bbox.from_bounds(left, low, width, height)
            outside = box.x0 < bounds.x0 or box.x1 > bounds.x1
            outside = outside or box.y0 < bounds.y0 or box.y1 > bounds.y1
            cost = box.count_overlaps(taken) + 100 * outside
            if not cost:
                return box, distance > 6
            if best is None or cost < best[0]:
                best = cost, box
    return best[1], True


def seed_curves(result: Result) -> Figure:
    """The curves of all seeds of a notebook, as its own page shows them."""
    figure = plots.seed_curves(list(result.records.values()))
    figure.set_size_inches(5.4, 3.6)
    return figure


def small_curves(result: Result, low: float) -> Figure:
    """The same, small, on an axis from `low` (a share of the images) that all notebooks have."""
    figure = plots.seed_curves(list(result.records.values()))
    figure.set_size_inches(2.2, 1.7)
    for axes, name in zip(figure.axes, ("", "seeds")):
        axes.set_title(axes.get_title(), fontsize=8.5)
        axes.set_xlabel(name)
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(7)
    axes = figure.axes[0]
    axes.get_legend().remove()
    axes.set(ylabel="", ylim=(low, 0.998), yticks=[y for y in (0.986, 0.99, 0.994, 0.998) if y > low])
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))
    return figure


def lowest(results: list[Result]) -> float:
    """Where an axis begins that shows the last third of every curve, as a share of the images."""
    ends = [
        row.validation_accuracy
        for result in results
        for record in result.records.values()
        for row in record.epochs[-(-2 * len(record.epochs) // 3) :]
    ]
    return min([0.99, *ends]) - 0.0005


def search_scatter(rows: list[dict]) -> Figure:
    """Parameters against holdout accuracy at the last epoch, a dot a trial and seed of the log."""
    figure, axes = new_figure("parameters, logarithmic", "holdout accuracy, last epoch")
    shown = [row for row in rows if row["accuracies"][-1] >= 0.985]
    for short in (False, True):
        part = [row for row in shown if ("epochs=" in row["trial"]) == short]
        axes.scatter(
            [row["parameters"] for row in part],
            [100 * row["accuracies"][-1] for row in part],
            s=14, alpha=0.7, color=TRAIN if short else VALIDATION,
            label="fewer epochs" if short else "19 epochs",
        )  # fmt: skip
    axes.axhline(99.4, color=TARGET, linewidth=1, label="99.4%")
    count_axis(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1f}%"))
    axes.legend(fontsize=8, loc="lower right")
    best = max(rows, key=lambda row: row["accuracies"][-1])
    figure.alt_text = (
        f"{len(shown)} of {len(rows)} trainings of the search, parameters against holdout accuracy; the "
        f"rest ended below 98.5%. The best, of {best['parameters']:,} parameters, ended at "
        f"{best['accuracies'][-1]:.2%}."
    )
    return figure


def speed_bars(bench: dict) -> Figure:
    """Seconds of an epoch: median and range of the usual loop, of ours and of the floor."""
    names = [name for name in ("usual", "usual, augmented", "ours", "ours, augmented", "floor") if name in bench]
    seconds = {name: bench[name]["seconds"] for name in names}
    figure, axes = new_figure("seconds an epoch of 60,000 images", "", (4.6, 2.2))
    for place, (name, values) in enumerate(seconds.items()):
        middle = statistics.median(values)
        axes.barh(place, middle, color=VALIDATION if name.startswith("ours") else TRAIN)
        axes.plot([min(values), max(values)], [place, place], color=INK, linewidth=1)
        axes.text(max(values) + 0.2, place, f"{middle:.2f}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    listed = "; ".join(f"{name} {statistics.median(v):.2f}" for name, v in seconds.items())
    figure.alt_text = f"Seconds an epoch, median of {len(next(iter(seconds.values())))} turns: {listed}."
    return figure
