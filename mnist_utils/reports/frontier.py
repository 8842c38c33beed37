"""Where the results stand among published ones: accuracy against parameters, and against epochs.

    save(against_parameters(points), Path("parameters"))      # parameters.svg and parameters.png

`PUBLISHED` are other people's single runs: a difference of 0.1 points to one of them means little.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..assignment import ASSIGNMENT
from ..plots import TARGET, TRAIN, VALIDATION
from .figures import label_points, new_figure
from .results import Result, spread

LAST = "accuracy at the last epoch"


@dataclass(frozen=True)
class Point:
    """A result: accuracy at the last epoch in percent, mean and standard deviation over `runs` seeds.

    `best`, the highest of any epoch, stands in the table of published runs and is not drawn.
    """

    title: str
    parameters: int
    epochs: int
    last: float
    best: float
    runs: int = 1
    spread: float = 0.0

    @property
    def breaks_a_rule(self) -> bool:
        return self.parameters >= ASSIGNMENT.parameters or self.epochs >= ASSIGNMENT.epochs

    @property
    def label(self) -> str:
        """What stands beside it: the notebook, or the publisher."""
        name = self.title.partition("/")[0].partition(" of ")[0]
        if len(name) > 18:
            name = f"{name[:14]}…"
        return f"{name}: {self.epochs} epochs" if self.breaks_a_rule else name

    def __str__(self) -> str:
        if self.runs == 1:
            broken = ", breaks a rule" if self.breaks_a_rule else ""
            return f"{self.title} {self.last:.2f}% (one run{broken})"
        return f"{self.title} {self.last:.3f}% ± {self.spread:.3f} (n = {self.runs})"


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
        Point(r.name, r.parameters, r.epochs, r.mean, max(r.best), len(r.last), spread(r.last))
        for r in results
    ]


def against_parameters(points: list[Point], published: tuple[Point, ...] = PUBLISHED) -> Figure:
    """Accuracy at the last epoch against parameters on a logarithmic axis, with both limits."""
    figure, axes = new_figure("parameters, logarithmic", LAST, counts=True)
    least = min(point.parameters for point in (*points, *published))
    axes.set_xlim(least / 1.6, ASSIGNMENT.parameters * 1.8)
    return _drawn(figure, axes, "parameters", points, published)


def against_epochs(points: list[Point], published: tuple[Point, ...] = PUBLISHED) -> Figure:
    """Accuracy at the last epoch against how many epochs were trained, with both limits."""
    figure, axes = new_figure("epochs of training", LAST)
    axes.set(xlim=(0, 1.4 * ASSIGNMENT.epochs), xticks=range(0, ASSIGNMENT.epochs + 1, 5))
    return _drawn(figure, axes, "epochs", points, published)


def describe(axis: str, points: list[Point], published: tuple[Point, ...] = PUBLISHED) -> str:
    """The alternative text of both figures: every number that is drawn; `axis` names a field."""

    def listed(group) -> str:
        ordered = sorted(group, key=lambda point: (getattr(point, axis), point.title))
        return "; ".join(f"{getattr(point, axis):,} {axis}, {point}" for point in ordered)

    return (
        f"Accuracy at the last epoch against {axis}, with the target line at "
        f"{float(ASSIGNMENT.target):.1%}. This project, mean ± standard deviation over seeds: "
        f"{listed(points)}. Published, one run each: {listed(published)}."
    )


def _drawn(figure, axes, axis: str, points, published) -> Figure:
    """Ours filled with error bars, others' runs hollow, those that break a rule as crosses."""
    axes.axhline(100 * float(ASSIGNMENT.target), color=TARGET, linewidth=1)
    axes.axvline(getattr(ASSIGNMENT, axis), color=TARGET, linewidth=1, linestyle=":")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}%"))
    style = dict(color=VALIDATION, marker="o", markersize=5, elinewidth=1, capsize=2, zorder=3)
    for point in points:
        axes.errorbar(getattr(point, axis), point.last, point.spread, linestyle="none", **style)
    for point in published:
        shape = "x" if point.breaks_a_rule else "o"
        axes.plot(
            getattr(point, axis), point.last, shape, color=TRAIN, fillstyle="none", markersize=6
        )
    ours = [(getattr(p, axis), p.last, p.spread, p.label, VALIDATION) for p in points]
    others = [(getattr(p, axis), p.last, 0, p.label, "#000000") for p in published]
    label_points(figure, axes, ours + others)
    figure.alt_text = describe(axis, points, published)
    return figure
