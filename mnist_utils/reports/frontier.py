"""Where the results stand among published ones: accuracy against parameters, and against epochs.

    save(against("parameters", points(results)), Path("parameters"))

`PUBLISHED` are other people's single runs: a difference of 0.1 points to one of them means little.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from ..assignment import ASSIGNMENT
from ..plots import TARGET, TRAIN, VALIDATION
from .figures import label_points, new_figure
from .results import Result, spread

LAST = "accuracy at the last epoch"
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
    ours, theirs = (
        f"{sum(round(point.last, 6) >= TARGET_PERCENT for point in group)} of {len(group)}"
        for group in (points, PUBLISHED)
    )
    return (
        f"Accuracy at the last epoch against {axis}: {ours} notebooks of this project and {theirs} "
        f"published runs lie at or above the target line at {TARGET_PERCENT:.1f}%."
    )


def against(axis: str, points: list[Point]) -> Figure:
    """Accuracy at the last epoch against "parameters", on a logarithmic axis, or "epochs".

    Ours are filled, with error bars; others' runs are hollow, those that break a rule crosses. Lines
    show both limits.
    """
    if axis == "parameters":
        figure, axes = new_figure("parameters, logarithmic", LAST, counts=True)
        least = min(point.parameters for point in (*points, *PUBLISHED))
        axes.set_xlim(least / 1.6, ASSIGNMENT.parameters * 3.2)
    else:
        figure, axes = new_figure("epochs of training", LAST)
        axes.set(xlim=(0, 1.4 * ASSIGNMENT.epochs), xticks=range(0, ASSIGNMENT.epochs + 1, 5))
    axes.axhline(TARGET_PERCENT, color=TARGET, linewidth=1)
    axes.axvline(getattr(ASSIGNMENT, axis), color=TARGET, linewidth=1, linestyle=":")
    axes.yaxis.set_major_formatter("{x:.2f}%")
    style = dict(color=VALIDATION, marker="o", markersize=5, elinewidth=1, capsize=2, zorder=3)
    names = []
    for point in points:
        x = getattr(point, axis)
        axes.errorbar(x, point.last, point.spread, linestyle="none", **style)
        names.append((x, point.last, point.label, VALIDATION))
    for point in PUBLISHED:
        x, shape = getattr(point, axis), "x" if point.breaks_a_rule else "o"
        axes.plot(x, point.last, shape, color=TRAIN, fillstyle="none", markersize=6)
        names.append((x, point.last, point.label, "#000000"))
    label_points(figure, axes, names)
    figure.alt_text = describe(axis, points)
    return figure
