"""Where the results stand among published ones: accuracy against parameters, and against epochs.

    save(against_parameters(points), "frontier.png")      # error bars over seeds, alternative text

`PUBLISHED` are other people's single runs: a difference of 0.1 points to one of them means little.
"""

from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..assignment import ASSIGNMENT
from ..plots import DPI, TARGET, TRAIN

COLOURS = ("#0b5fa5", "#d98100", "#1b7f4b", "#8e44ad", "#00838f", "#7a5c00", "#c2185b", "#37474f", "#5d4037")
MARKERS, LETTERS = "osD^vPXph", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TICKS = (500, 700, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_000, 10_000, 14_000, 20_000, 30_000)


@dataclass(frozen=True)
class Point:
    """A result: accuracy at the last epoch in percent, mean and standard deviation over `runs` seeds.

    `best` is the mean of the best epochs; it stands in the table and is not drawn.
    """

    title: str
    parameters: int
    epochs: int
    last: float
    best: float
    runs: int = 1
    spread: float = 0.0

    def __str__(self) -> str:
        if self.runs == 1:
            return f"{self.title} {self.last:.2f}% (one run)"
        return f"{self.title} {self.last:.3f}% ± {self.spread:.3f} (n = {self.runs})"


PUBLISHED = (  # repository and what it calls the session; accuracies read in the notebook's own output
    Point("firekind/ERA4, session 6", 6_174, 15, 99.47, 99.48),
    Point("namanphy/EVA5, session 5", 6_398, 15, 99.42, 99.49),
    Point("woncoh1/era1, session 6", 9_768, 19, 99.57, 99.60),
    Point("the original of 01_seed_model", 9_954, 19, 99.26, 99.42),
    Point("Shilpaj1994/ERA, session 7", 13_948, 15, 99.27, 99.53),
    Point("piygr/s6erav1, session 6", 18_594, 20, 99.58, 99.60),
    Point("PremaKathiresanVasagam/TSAI---EVA5, session 4", 18_990, 19, 99.41, 99.56),
)


def against_parameters(points: list[Point], published: tuple[Point, ...] = PUBLISHED) -> Figure:
    """Accuracy at the last epoch against parameters on a logarithmic axis, with the two limits as lines."""
    figure, axes = _figure("parameters, logarithmic")
    axes.set_xscale("log")
    _draw(axes, published, points, lambda point, shift: point.parameters * 1.012**shift, "parameters")
    axes.axvline(ASSIGNMENT.parameters, color=TARGET, linewidth=1, linestyle=":", label="fewer than 20,000")
    axes.xaxis.set(major_locator=FixedLocator(TICKS), minor_locator=NullLocator(), minor_formatter=NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    least = min(point.parameters for point in (*points, *published))
    axes.set_xlim(least / 1.2, ASSIGNMENT.parameters * 1.2)
    axes.tick_params(axis="x", labelsize=8)
    return _finished(figure, axes, describe("parameters", points, published))


def against_epochs(points: list[Point], published: tuple[Point, ...] = PUBLISHED) -> Figure:
    """Accuracy at the last epoch against how many epochs were trained, with the two limits as lines."""
    figure, axes = _figure("epochs of training")
    _draw(axes, published, points, lambda point, shift: point.epochs + 0.18 * shift, "epochs")
    axes.axvline(ASSIGNMENT.epochs, color=TARGET, linewidth=1, linestyle=":", label="fewer than 20")
    axes.set(xlim=(0, ASSIGNMENT.epochs + 1), xticks=range(0, ASSIGNMENT.epochs + 1, 2))
    return _finished(figure, axes, describe("epochs", points, published))


def describe(axis: str, points: list[Point], published: tuple[Point, ...] = PUBLISHED) -> str:
    """The alternative text of both figures: every number that is drawn; `axis` is "parameters" or "epochs"."""
    ours, others = (
        "; ".join(f"{getattr(point, axis):,} {axis}, {point}" for point in sorted(group, key=_by(axis)))
        for group in (points, published)
    )
    return (
        f"Accuracy at the last epoch against {axis}, with the target line at {float(ASSIGNMENT.target):.1%}. "
        f"This project, mean ± standard deviation over seeds: {ours}. Published, one run each: {others}."
    )


def table(published: tuple[Point, ...] = PUBLISHED) -> str:
    """The published runs as Markdown."""
    head = "| | published run | parameters | epochs | last epoch | best epoch |\n|---|---|---|---|---|---|"
    rows = [
        f"| {letter} | {p.title} | {p.parameters:,} | {p.epochs} | {p.last:.2f}% | {p.best:.2f}% |"
        for letter, p in zip(LETTERS, published)
    ]
    return "\n".join([head, *rows])


def _by(axis: str):
    return lambda point: (getattr(point, axis), point.title)


def _figure(label: str):
    figure = Figure(figsize=(9, 4.6), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot(xlabel=label, ylabel="accuracy at the last epoch")


def _draw(axes, published, points, place, axis: str) -> None:
    """Others' runs in grey, ours with error bars; those at the same place side by side, `place` says where."""
    axes.scatter(
        [place(point, 0) for point in published], [point.last for point in published],
        color="white", edgecolor=TRAIN, s=110, linewidth=1.5, label="published, one run each", zorder=2,
    )  # fmt: skip
    for letter, point in zip(LETTERS, published):
        axes.annotate(letter, (place(point, 0), point.last), ha="center", va="center", fontsize=7, zorder=2)
    for number, point in enumerate(points):
        same = [other for other in points if getattr(other, axis) == getattr(point, axis)]
        shift = same.index(point) - (len(same) - 1) / 2
        axes.errorbar(
            place(point, shift), point.last, yerr=point.spread, color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)], capsize=3, linestyle="none", label=str(point), zorder=3,
        )  # fmt: skip


def _finished(figure, axes, text: str) -> Figure:
    target = 100 * float(ASSIGNMENT.target)
    axes.axhline(target, color=TARGET, linewidth=1, label=f"target {target:.1f}%")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}%"))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.alt_text = text
    return figure
