"""The figures of a run. Each function takes data and returns a figure with its alternative text.

    figure = accuracy_curve(record)
    show(figure)                            # in a notebook, alternative text included
    save(figure, "accuracy.png")

Figures are built without pyplot, so nothing is shown, kept open or changed elsewhere; their style
is their own, whatever a matplotlibrc says.
"""

import base64
import io
import statistics
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .assignment import ASSIGNMENT
from .records import RunRecord, atomic_write

# Told apart in grey and by colour-blind readers.
TRAIN, VALIDATION, TARGET = "#8c8c8c", "#0b5fa5", "#c23b22"
DPI = 110
LOWEST, HIGHEST = 0.985, 1.0  # one accuracy axis for all notebooks, where their curves lie on it

# A decorator: the function's figures have matplotlib's default style.
own_style = style.context("default")


@own_style
def accuracy_curve(record: RunRecord, target: float = float(ASSIGNMENT.target)) -> Figure:
    """Accuracy of each epoch in training and on the validation images, with the target as a line.

    The axis is the same for all runs. It only reaches below 98.5% where the later two thirds of the
    epochs do; what lies below it, early on, is cut off.
    """
    figure, axes = _axes("Accuracy", record)
    validation = [row.validation_accuracy for row in record.epochs]
    _curves(axes, record, [row.train_accuracy for row in record.epochs], validation)
    lowest = min(LOWEST, min(validation[len(validation) // 3 :]) - 0.002)
    _accuracy_axis(axes, max(0.0, lowest), HIGHEST + 0.0005, target)
    axes.legend(loc="lower right")
    last, best = record.last, record.best
    return _described(
        figure,
        f"Accuracy by epoch: the validation curve ends at {last.validation_accuracy:.2%} in epoch "
        f"{last.epoch}, its best is {best.validation_accuracy:.2%} in epoch {best.epoch}; training "
        f"ends at {last.train_accuracy:.2%}; the target line is at {target:.1%}.",
    )


@own_style
def loss_curve(record: RunRecord) -> Figure:
    """Mean cross-entropy of each epoch in training and on the validation images, logarithmic."""
    figure, axes = _axes("Loss (cross-entropy)", record)
    train = [row.train_loss for row in record.epochs]
    _curves(axes, record, train, [row.validation_loss for row in record.epochs])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper right")
    return _described(
        figure,
        f"Loss by epoch, logarithmic: validation ends at {record.last.validation_loss:.4f}, "
        f"training at {record.last.train_loss:.4f}.",
    )


@own_style
def seed_curves(
    records: list[RunRecord],
    before: list[RunRecord] | None = None,
    target: float = float(ASSIGNMENT.target),
) -> Figure:
    """Mean validation accuracy over seeds by epoch, in a band from the lowest seed to the highest.

    To the right, where each seed ended. `before` are the records of a notebook to compare with, in
    grey. The records of a notebook have equally many epochs.
    """
    figure = Figure(figsize=(7.5, 4), dpi=DPI, layout="constrained")
    axes, ends = figure.subplots(1, 2, sharey=True, width_ratios=[5, 1])
    groups = [(records, VALIDATION, 0.0 if before is None else 0.5)]
    if before:
        groups.insert(0, (before, TRAIN, -0.5))
    lowest, told = target, []
    for group, color, place in groups:
        curves = np.array([[row.validation_accuracy for row in r.epochs] for r in group])
        epochs, last = np.arange(1, curves.shape[1] + 1), curves[:, -1]
        label = f"{group[0].notebook}, mean of {len(group)}"
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.2, linewidth=0)
        axes.plot(epochs, curves.mean(0), color=color, marker=".", label=label)
        width = 1.0 if place == 0.0 else 0.45
        ends.scatter(place + width * _spread_out(last), last, color=color, s=18, alpha=0.7)
        lowest = min(lowest, np.median(curves[:, len(epochs) // 3]), last.min())
        told.append(describe_seeds(group, target))
    _accuracy_axis(axes, lowest - 0.001, 0.9985, target, digits=2)
    ends.axhline(target, color=TARGET, linewidth=1)
    ends.set(xlim=(-1, 1), xticks=[], xlabel="last epoch,\neach seed")
    axes.set(xlabel="epoch", ylabel="validation accuracy", title=records[0].notebook)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for part in (axes, ends):
        part.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return _described(figure, " ".join(told))


def describe_seeds(records: list[RunRecord], target: float = float(ASSIGNMENT.target)) -> str:
    """The alternative text of `seed_curves` for one notebook."""
    last = [100 * record.last.validation_accuracy for record in records]
    ends = [record.last for record in records]
    reached = sum(row.validation_correct >= target * row.validation_total for row in ends)
    counts = f"{reached} of {len(records)} are at or above the target line at {target:.1%}"
    return (
        f"Validation accuracy by epoch of {records[0].notebook}, {len(records)} seeds: at the last "
        f"epoch the mean is {statistics.mean(last):.3f}%, the lowest {min(last):.2f}%, the highest "
        f"{max(last):.2f}%; {counts}."
    )


def _spread_out(values: np.ndarray) -> np.ndarray:
    """Places from -1 to 1 for dots at these heights, so that equal ones stand side by side."""
    places = np.zeros(len(values))
    for value in np.unique(values):
        same = np.flatnonzero(values == value)
        middle = (len(same) - 1) / 2
        places[same] = (np.arange(len(same)) - middle) * min(0.25, 1.6 / len(same))
    return places


@own_style
def sample_grid(images, labels, rows: int = 2, columns: int = 10) -> Figure:
    """The first images, uint8 or float (N, 28, 28) in 0..255, each under its label."""
    count = min(rows * columns, len(labels))
    titles = [str(int(label)) for label in labels[:count]]
    figure = _grid(images[:count], titles, columns)
    return _described(figure, f"{count} digits with their labels: {' '.join(titles)}.")


@own_style
def network(image, layers, columns: int = 10) -> Figure:
    """The layers that `trace_layers` found: above, the maps that leave each; below, what it sees.

    A block's height is the map's side, its width the number of maps, both to scale. The frame on
    `image`, uint8 (28, 28), is what one value in the middle of the layer's output depends on; a
    frame larger than the image ends at its border.
    """
    side, rows = len(image), -(-len(layers) // columns)
    figure = Figure(figsize=(columns * 1.1, rows * 3.2), dpi=DPI, layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xlim=(-1, side), ylim=(side, -1), aspect="equal")
        axes.axis("off")
    widest, told = max(layer.channels[1] for layer in layers), []
    for place, layer in enumerate(layers):
        row, column = divmod(place, columns)
        above, below = grid[2 * row : 2 * row + 2, column]
        height = (*layer.output_size, 1)[0]
        field = (*layer.receptive_field, side)[0]
        seen = min(field, side)
        kernel = " x ".join(map(str, layer.kernel))
        maps = f"{layer.channels[1]} x {height} x {height}"
        width = side * layer.channels[1] / widest
        corner = (side - width) / 2, (side - height) / 2
        above.add_patch(Rectangle(corner, width, height, color=VALIDATION))
        above.set_title(f"{layer.kind}\n{kernel}\n{maps}", fontsize=8)
        below.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        corner = [(side - seen - 1) / 2] * 2
        below.add_patch(Rectangle(corner, seen, seen, color=TARGET, fill=False))
        below.set(title=f"sees {field} x {field}", xlim=(-1, side), ylim=(side, -1))
        below.title.set_fontsize(8)
        told.append(f"{layer.kind} {kernel}, {maps}, sees {field} x {field}")
    return _described(figure, f"The layers, their maps and what they see: {'; '.join(told)}.")


@own_style
def kernels(weight, columns: int = 8) -> Figure:
    """The first layer's kernels, float (C, 1, H, W): ink on blue adds, on red takes away."""
    weight = np.asarray(weight)[:, 0]
    figure = _grid([], [""] * len(weight), columns)
    for number, (axes, kernel) in enumerate(zip(figure.axes, weight), 1):
        most = abs(kernel).max()
        axes.imshow(kernel, cmap="RdBu", vmin=-most, vmax=most)
        axes.set_title(f"{number}\n{most:.2f}", fontsize=9)
    count, size = len(weight), " x ".join(map(str, weight.shape[1:]))
    text = f"The first layer's {count} kernels of {size}, each under its number and largest weight"
    return _described(figure, f"{text}; blue adds, red takes away.")


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
    text = f"{len(wrong)} of {len(labels)} images are misclassified; shown are {len(shown)}"
    figure = _grid(np.asarray(images)[shown], titles, columns)
    return _described(figure, f"{text}: {'; '.join(listed) or 'none'}.")


@own_style
def confusion(labels, guesses) -> Figure:
    """How often each digit, int (N,), was read as which; the colours leave the diagonal out."""
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(guesses)), 1)
    mistakes = np.where(np.eye(10, dtype=bool), 0, matrix)
    figure = Figure(figsize=(6, 5.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xlabel="read as", ylabel="label", xticks=range(10), yticks=range(10))
    axes.imshow(mistakes, cmap="Blues")
    for row, column in zip(*np.nonzero(matrix)):
        color = "#777777" if row == column else "black"
        if mistakes[row, column] > mistakes.max() / 2:
            color = "white"
        text = matrix[row, column]
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    worst = np.unravel_index(mistakes.argmax(), mistakes.shape)
    text = f"Confusion matrix: {mistakes.sum()} mistakes of {matrix.sum()}"
    if mistakes.any():
        most = f"the most frequent, {mistakes.max()} times"
        text += f"; {most}, is a {worst[0]} read as {worst[1]}"
    return _described(figure, text + ".")


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


def _axes(label: str, record: RunRecord):
    figure = Figure(figsize=(7.5, 4), dpi=DPI, layout="constrained")
    name = record.dataset.get("name")
    data = "" if name == "mnist" else f" (NOT MNIST: {name})"
    title = f"{record.notebook}, seed {record.seed}{data}"
    axes = figure.add_subplot(xlabel="epoch", ylabel=label, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure, axes


def _accuracy_axis(axes, low: float, high: float, target: float, digits: int = 1) -> None:
    axes.axhline(target, color=TARGET, linewidth=1, label=f"target {target:.1%}")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{digits}%}"))


def _curves(axes, record: RunRecord, train: list[float], validation: list[float]) -> None:
    epochs = [row.epoch for row in record.epochs]
    axes.plot(epochs, train, color=TRAIN, linestyle="--", marker=".", label="training")
    axes.plot(epochs, validation, color=VALIDATION, marker="o", label="validation")


def _grid(images, titles: list[str], columns: int) -> Figure:
    rows = max(1, -(-len(titles) // columns))
    figure = Figure(figsize=(columns * 0.95, rows * 1.35), dpi=DPI, layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(images):
            axes.imshow(images[place], cmap="gray_r", vmin=0, vmax=255)
            axes.set_title(titles[place], fontsize=9)
    return figure


def _described(figure: Figure, text: str) -> Figure:
    figure.alt_text = text
    return figure
