"""The figures of a run. Each function takes data and returns a figure with its alternative text.

    figure = accuracy_curve(record)
    show(figure)                            # in a notebook, alternative text included
    save(figure, "accuracy.png")

They are built without pyplot, so nothing is shown, kept open or changed elsewhere.
"""

import base64
import io
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from .assignment import ASSIGNMENT
from .records import RunRecord, atomic_write

# Told apart in grey and by colour-blind readers.
TRAIN, VALIDATION, TARGET = "#8c8c8c", "#0b5fa5", "#c23b22"
DPI = 110
SIZE = (5.6, 3.4)  # in inches; its words can still be read when a phone halves it
GOAL = float(ASSIGNMENT.target)
LOWEST, HIGHEST = 0.985, 1.0005  # one accuracy axis for all notebooks, where their curves lie on it

# A decorator: the figures have matplotlib's default style, whatever a matplotlibrc says.
own_style = style.context("default")


@own_style
def accuracy_curve(record: RunRecord) -> Figure:
    """Accuracy of each epoch in training and on the validation images, with the target as a line.

    The axis is the same for all runs. It only reaches below 98.5% where the later two thirds of the
    epochs do; what lies below it, early on, is cut off.
    """
    figure, axes, train, validation = _two_curves(record, "accuracy")
    lowest = min(LOWEST, min(validation[len(validation) // 3 :]) - 0.002)
    _accuracy_axis(axes, max(0.0, lowest), HIGHEST)
    axes.legend(loc="lower right")
    figure.alt_text = (
        f"Accuracy by epoch: the validation curve ends at {validation[-1]:.2%} in epoch "
        f"{record.last.epoch}, its best is {max(validation):.2%} in epoch {record.best.epoch}; "
        f"training ends at {train[-1]:.2%}; the target line is at {GOAL:.1%}."
    )
    return figure


@own_style
def loss_curve(record: RunRecord) -> Figure:
    """Mean cross-entropy of each epoch in training and on the validation images, logarithmic."""
    figure, axes, train, validation = _two_curves(record, "loss")
    axes.set(yscale="log", ylabel="Loss (cross-entropy)")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper right")
    figure.alt_text = (
        f"Loss by epoch, logarithmic: validation ends at {validation[-1]:.4f}, "
        f"training at {train[-1]:.4f}."
    )
    return figure


@own_style
def seed_curves(records: list[RunRecord], before: list[RunRecord] | None = None) -> Figure:
    """Mean validation accuracy over seeds by epoch, in a band from the lowest seed to the highest.

    To the right, where each seed ended. `before` are the records of a notebook to compare with, in
    grey. The records of a notebook have equally many epochs.
    """
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes, ends = figure.subplots(1, 2, sharey=True, width_ratios=[5, 1])
    # The records, their colour, and the middle and width of their dots.
    groups = [(records, VALIDATION, 0.0, 1.0)]
    if before:
        groups = [(before, TRAIN, -0.5, 0.45), (records, VALIDATION, 0.5, 0.45)]
    lowest = GOAL
    for group, color, place, width in groups:
        curves = np.array([[row.validation_accuracy for row in r.epochs] for r in group])
        epochs, last = np.arange(1, curves.shape[1] + 1), curves[:, -1]
        label = f"{group[0].notebook}, mean of {len(group)}"
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.2, linewidth=0)
        axes.plot(epochs, curves.mean(0), color=color, marker=".", label=label)
        # From left to right in the seeds' order, so that equal ones do not cover each other.
        places = place + width * np.linspace(-0.8, 0.8, len(group))
        ends.scatter(places, last, color=color, s=18, alpha=0.7)
        lowest = min(lowest, np.median(curves[:, len(epochs) // 3]), last.min())
    _accuracy_axis(axes, lowest - 0.001, 0.9985, digits=2)
    _epoch_axis(axes, "validation accuracy", records[0].notebook)
    axes.legend(loc="lower right")
    ends.axhline(GOAL, color=TARGET, linewidth=1)
    ends.set(xlim=(-1, 1), xticks=[], xlabel="last epoch,\neach seed")
    ends.grid(alpha=0.3)
    figure.alt_text = " ".join(describe_seeds(group[0]) for group in groups)
    return figure


def describe_seeds(records: list[RunRecord]) -> str:
    """The alternative text of `seed_curves` for one notebook."""
    ends = [record.last for record in records]
    last = [100 * row.validation_accuracy for row in ends]
    reached = sum(row.validation_correct >= GOAL * row.validation_total for row in ends)
    return (
        f"Validation accuracy by epoch of {records[0].notebook}, {len(records)} seeds: at the last "
        f"epoch the mean is {np.mean(last):.3f}%, the lowest {min(last):.2f}%, the highest "
        f"{max(last):.2f}%; {reached} of {len(records)} are at or above the target line at "
        f"{GOAL:.1%}."
    )


@own_style
def sample_grid(images, labels, rows: int = 2, columns: int = 10) -> Figure:
    """The first images, uint8 or float (N, 28, 28) in 0..255, each under its label."""
    titles = [str(int(label)) for label in labels[: rows * columns]]
    figure = grid(images, titles, columns)
    figure.alt_text = f"{len(titles)} digits with their labels: {' '.join(titles)}."
    return figure


@own_style
def network(image, layers, columns: int = 7) -> Figure:
    """The layers that `trace_layers` found: above, the maps that leave each; below, what it sees.

    A block's height is the map's side, its width the number of maps, both to scale. The frame on
    `image`, uint8 (28, 28), is what one value in the middle of the layer's output depends on; a
    frame larger than the image ends at its border.
    """
    side, rows = len(image), -(-len(layers) // columns)
    figure, grid = _cells(2 * rows, columns, side=0.8, title=0.5)
    widest, told = max(layer.channels[1] for layer in layers), []
    for layer, above, below in zip(layers, grid[::2].flat, grid[1::2].flat):
        # A layer behind which there are no maps any more sees everything.
        height = (*layer.output_size, 1)[0]
        field = (*layer.receptive_field, side)[0]
        kernel = " x ".join(map(str, layer.kernel))
        maps = f"{layer.channels[1]} x {height} x {height}"
        width = side * layer.channels[1] / widest
        corner = (side - width) / 2, (side - height) / 2
        above.add_patch(Rectangle(corner, width, height, color=VALIDATION))
        above.set_title(f"{layer.kind}\n{kernel}\n{maps}", fontsize=8)
        below.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        seen = min(field, side)
        corner = [(side - seen - 1) / 2] * 2
        below.add_patch(Rectangle(corner, seen, seen, color=TARGET, fill=False))
        below.set_title(f"sees {field} x {field}", fontsize=8)
        told.append(f"{layer.kind} {kernel}, {maps}, sees {field} x {field}")
    for axes in grid.flat:
        axes.set(aspect="equal", xlim=(-1, side), ylim=(side, -1))
        axes.axis("off")
    figure.alt_text = f"The layers, their maps and what they see: {'; '.join(told)}."
    return figure


@own_style
def kernels(weight, columns: int = 8) -> Figure:
    """The first layer's kernels, float (C, 1, H, W): ink on blue adds, on red takes away."""
    weight = np.asarray(weight)[:, 0]
    size = " x ".join(map(str, weight.shape[1:]))
    largest = abs(weight).max(axis=(1, 2))
    titles = [f"{number}\n{most:.2f}" for number, most in enumerate(largest, 1)]
    figure = grid(weight, titles, columns, cmap="RdBu")
    # Each kernel has a scale of its own, even around zero.
    for axes, most in zip(figure.axes, largest):
        axes.images[0].set_clim(-most, most)
    figure.alt_text = (
        f"The first layer's {len(weight)} kernels of {size}, each under its number and largest "
        "weight; blue adds, red takes away."
    )
    return figure


@own_style
def misclassified(images, labels, probabilities, columns: int = 8, most: int = 24) -> Figure:
    """The misread images, the most confident mistakes first: label, guess, the guess's probability.

    `images` are uint8 (N, 28, 28), `labels` int (N,), `probabilities` float (N, 10).
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    titles = [f"{labels[i]} read {guesses[i]}\n{confidence[i]:.0%}" for i in shown]
    listed = [f"a {labels[i]} read as {guesses[i]} ({confidence[i]:.0%} sure)" for i in shown]
    figure = grid(np.asarray(images)[shown], titles, columns)
    figure.alt_text = (
        f"{len(wrong)} of {len(labels)} images are misclassified; shown are {len(shown)}: "
        f"{'; '.join(listed) or 'none'}."
    )
    return figure


@own_style
def confusion(labels, guesses) -> Figure:
    """How often each digit, int (N,), was read as which; the colours leave the diagonal out."""
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(guesses)), 1)
    mistakes = np.where(np.eye(10, dtype=bool), 0, matrix)
    figure = Figure(figsize=(5, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xlabel="read as", ylabel="label", xticks=range(10), yticks=range(10))
    axes.imshow(mistakes, cmap="Blues")
    for row, column in zip(*np.nonzero(matrix)):
        color = "#777777" if row == column else "black"
        if mistakes[row, column] > mistakes.max() / 2:
            color = "white"
        text = matrix[row, column]
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    figure.alt_text = f"Confusion matrix: {mistakes.sum()} mistakes of {matrix.sum()}"
    if mistakes.any():
        label, guess = np.unravel_index(mistakes.argmax(), mistakes.shape)
        figure.alt_text += (
            f"; the most frequent, {mistakes.max()} times, is a {label} read as {guess}"
        )
    figure.alt_text += "."
    return figure


@own_style
def show(figure: Figure) -> None:
    """Display the figure in a notebook as PNG, with its alternative text."""
    from IPython.display import display

    png, text = io.BytesIO(), figure.alt_text
    figure.savefig(png, format="png")
    # As data, since Colab's IPython (7.34) has no `Image(alt=...)`.
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": text}
    display(data, metadata={"image/png": {"alt": text}}, raw=True)


@own_style
def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG, its alternative text in the file's Description."""
    with atomic_write(path) as part:
        figure.savefig(part, format="png", metadata={"Description": figure.alt_text})


def _two_curves(record: RunRecord, what: str):
    """A figure of "accuracy" or "loss" by epoch, its axes, and the numbers of both curves."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    name = record.dataset.get("name")
    data = "" if name == "mnist" else f" (NOT MNIST: {name})"
    _epoch_axis(axes, what.capitalize(), f"{record.notebook}, seed {record.seed}{data}")
    epochs = [row.epoch for row in record.epochs]
    train = [getattr(row, f"train_{what}") for row in record.epochs]
    validation = [getattr(row, f"validation_{what}") for row in record.epochs]
    axes.plot(epochs, train, color=TRAIN, linestyle="--", marker=".", label="training")
    axes.plot(epochs, validation, color=VALIDATION, marker="o", label="validation")
    return figure, axes, train, validation


def _epoch_axis(axes, label: str, title: str) -> None:
    axes.set(xlabel="epoch", ylabel=label, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def _accuracy_axis(axes, low: float, high: float, digits: int = 1) -> None:
    axes.axhline(GOAL, color=TARGET, linewidth=1, label=f"target {GOAL:.1%}")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(f"{{x:.{digits}%}}")


def grid(images, titles: list[str], columns: int, cmap: str = "gray_r") -> Figure:
    rows = max(1, -(-len(titles) // columns))
    figure, cells = _cells(rows, columns, side=0.64, title=0.42)
    for axes in cells.flat:
        axes.axis("off")
    for axes, image, title in zip(figure.axes, images, titles):
        axes.imshow(image, cmap=cmap, vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
    return figure


def _cells(rows: int, columns: int, side: float, title: float):
    """A figure with its axes, squares of so many inches, each below the room for a title.

    Matplotlib's own layout does the same in half a second.
    """
    gap = 0.05
    width, height = columns * (side + gap) + gap, rows * (side + title) + gap
    figure = Figure(figsize=(width, height), dpi=DPI)
    places = {"left": gap / width, "right": 1 - gap / width, "wspace": gap / side}
    places |= {"bottom": gap / height, "top": 1 - title / height, "hspace": title / side}
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=places)
