"""The figures of a run. Each function takes data and returns a figure that carries its own alternative text.

    figure = accuracy_curve(record)
    show(figure)                            # in a notebook, alternative text included
    save(figure, "accuracy.png")

Figures are built without pyplot, so nothing is shown, kept open or changed behind the caller's back.
"""

import base64
import io
import statistics
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .assignment import ASSIGNMENT
from .records import RunRecord, atomic_write

TRAIN, VALIDATION, TARGET = "#8c8c8c", "#0b5fa5", "#c23b22"  # told apart in grey and by colour-blind readers
DPI = 110


def accuracy_curve(record: RunRecord, target: float = float(ASSIGNMENT.target)) -> Figure:
    """Accuracy of each epoch in training and on the validation images, with the target as a line.

    The axis reaches down to what the later two thirds of the epochs gave; what lies below, early on, is cut off.
    """
    figure, axes = _axes("Accuracy", record)
    validation = [row.validation_accuracy for row in record.epochs]
    lowest = min(validation[len(validation) // 3 :])
    _curves(axes, record, [row.train_accuracy for row in record.epochs], validation)
    axes.axhline(target, color=TARGET, linewidth=1, label=f"target {target:.1%}")
    axes.set_ylim(bottom=max(0.0, min(0.98, lowest - 0.002)), top=1.0005)
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))
    axes.legend(loc="lower right")
    return _described(
        figure,
        f"Accuracy by epoch: the validation curve ends at {record.last.validation_accuracy:.2%} in epoch "
        f"{record.last.epoch}, its best is {record.best.validation_accuracy:.2%} in epoch {record.best.epoch}; "
        f"training ends at {record.last.train_accuracy:.2%}; the target line is at {target:.1%}.",
    )


def seed_curves(records: list[RunRecord], target: float = float(ASSIGNMENT.target)) -> Figure:
    """Validation accuracy by epoch of every seed with their mean and, to the right, where each seed ended."""
    curves = np.array([[row.validation_accuracy for row in record.epochs] for record in records])
    epochs, last = np.arange(1, curves.shape[1] + 1), curves[:, -1]
    figure = Figure(figsize=(7.5, 4), dpi=DPI, layout="constrained")
    axes, ends = figure.subplots(1, 2, sharey=True, width_ratios=[5, 1])
    axes.fill_between(epochs, curves.min(0), curves.max(0), color=VALIDATION, alpha=0.15, label="lowest to highest")
    axes.plot(epochs, curves.mean(0), color=VALIDATION, marker=".", label=f"mean of {len(records)}")
    ends.scatter(_spread_out(last), last, color=VALIDATION, s=18, alpha=0.7, label="last epoch")
    for part in (axes, ends):
        part.axhline(target, color=TARGET, linewidth=1, label=f"target {target:.1%}" if part is axes else None)
        part.grid(alpha=0.3)
    low = min(np.median(curves[:, len(epochs) // 3]), last.min(), target) - 0.001
    axes.set(xlabel="epoch", ylabel="validation accuracy", title=records[0].notebook, ylim=(low, curves.max() + 0.0005))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2%}"))
    ends.set(xlim=(-1, 1), xticks=[], xlabel="last epoch,\neach seed")
    axes.legend(loc="lower right")
    return _described(figure, describe_seeds(records, target))


def describe_seeds(records: list[RunRecord], target: float = float(ASSIGNMENT.target)) -> str:
    """The alternative text of `seed_curves`."""
    last = [100 * record.last.validation_accuracy for record in records]
    reached = sum(record.last.validation_correct >= target * record.last.validation_total for record in records)
    return (
        f"Validation accuracy by epoch of {records[0].notebook}, {len(records)} seeds: at the last epoch the mean is "
        f"{statistics.mean(last):.3f}%, the lowest {min(last):.2f}%, the highest {max(last):.2f}%; {reached} of "
        f"{len(records)} are at or above the target line at {target:.1%}."
    )


def _spread_out(values: np.ndarray) -> np.ndarray:
    """Places from -1 to 1 for dots at these heights, so that equal ones stand side by side."""
    places = np.zeros(len(values))
    for value in np.unique(values):
        same = np.flatnonzero(values == value)
        places[same] = (np.arange(len(same)) - (len(same) - 1) / 2) * min(0.25, 1.6 / len(same))
    return places


def loss_curve(record: RunRecord) -> Figure:
    """Mean cross-entropy of each epoch in training and on the validation images, on a logarithmic scale."""
    figure, axes = _axes("Loss (cross-entropy)", record)
    _curves(axes, record, [row.train_loss for row in record.epochs], [row.validation_loss for row in record.epochs])
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


def sample_grid(images, labels, rows: int = 2, columns: int = 10) -> Figure:
    """The first images, uint8 (N, 28, 28), each under its label."""
    count = min(rows * columns, len(labels))
    titles = [str(int(label)) for label in labels[:count]]
    return _described(_grid(images[:count], titles, columns), f"{count} digits with their labels: {' '.join(titles)}.")


def receptive_fields(image, layers) -> Figure:
    """One digit, uint8 (28, 28), again and again, with what one output in the middle of each layer sees of it.

    `layers` is what `trace_layers` returns; shown are those where the field grows, up to the first that sees all.
    """
    side, seen = len(image), {}
    for layer in layers:
        field = layer.receptive_field[0]
        if max([1, *seen]) < min(field, side):
            seen[min(field, side)] = layer.name
    figure = _grid([image] * len(seen), [f"{field} x {field}" for field in seen], columns=8)
    for axes, field in zip(figure.axes, seen):
        axes.add_patch(Rectangle([(side - field - 1) / 2] * 2, field, field, color=TARGET, fill=False))
        axes.set(xlim=(-1, side), ylim=(side, -1))
    listed = ", ".join(f"{name} {field}" for field, name in seen.items())
    return _described(figure, f"A digit and what one output of each layer sees of it, in pixels a side: {listed}.")


def kernels(weight, columns: int = 8) -> Figure:
    """The first layer's kernels, float (C, 1, H, W): blue where ink adds to the output, red where it takes away."""
    weight = np.asarray(weight)[:, 0]
    figure = _grid([], [""] * len(weight), columns)
    for number, (axes, kernel) in enumerate(zip(figure.axes, weight), 1):
        most = abs(kernel).max()
        axes.imshow(kernel, cmap="RdBu", vmin=-most, vmax=most)
        axes.set_title(f"{number}\n{most:.2f}", fontsize=9)
    count, side = len(weight), " x ".join(map(str, weight.shape[1:]))
    text = f"The first layer's {count} kernels of {side}, each under its largest weight; blue adds, red takes away."
    return _described(figure, text)


def misclassified(images, labels, probabilities, columns: int = 8, most: int = 24) -> Figure:
    """The wrongly read images, the most confident mistakes first: truth, guess and the guess's probability.

    `images` are uint8 (N, 28, 28), `labels` int (N,), `probabilities` float (N, 10).
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    titles = [f"{labels[i]} read {guesses[i]}\n{confidence[i]:.0%}" for i in shown]
    listed = "; ".join(f"a {labels[i]} read as {guesses[i]} ({confidence[i]:.0%} sure)" for i in shown)
    text = f"{len(wrong)} of {len(labels)} images are misclassified; shown are {len(shown)}: {listed or 'none'}."
    return _described(_grid(np.asarray(images)[shown], titles, columns), text)


def confusion(labels, guesses) -> Figure:
    """How often each digit, int (N,), was read as which; the diagonal is left out of the colours."""
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (np.asarray(labels), np.asarray(guesses)), 1)
    mistakes = np.where(np.eye(10, dtype=bool), 0, matrix)
    figure = Figure(figsize=(6, 5.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xlabel="read as", ylabel="label", xticks=range(10), yticks=range(10))
    axes.imshow(mistakes, cmap="Blues")
    for row, column in zip(*np.nonzero(matrix)):
        dark = mistakes[row, column] > mistakes.max() / 2
        color = "white" if dark else "#777777" if row == column else "black"
        axes.text(column, row, matrix[row, column], ha="center", va="center", color=color, fontsize=9)
    worst = np.unravel_index(mistakes.argmax(), mistakes.shape)
    text = f"Confusion matrix: {mistakes.sum()} mistakes of {matrix.sum()}"
    if mistakes.any():
        text += f"; the most frequent, {mistakes.max()} times, is a {worst[0]} read as {worst[1]}"
    return _described(figure, text + ".")


def show(figure: Figure) -> None:
    """Display the figure in a notebook as PNG, with its alternative text.

    As data, since Colab's IPython (7.34) knows no `Image(alt=...)`.
    """
    from IPython.display import display

    png, text = io.BytesIO(), figure.alt_text
    figure.savefig(png, format="png")
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": text}
    display(data, metadata={"image/png": {"alt": text}}, raw=True)


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG, its alternative text in the file's Description."""
    with atomic_write(path) as part:
        figure.savefig(part, format="png", metadata={"Description": figure.alt_text})


def _axes(label: str, record: RunRecord):
    figure = Figure(figsize=(7.5, 4), dpi=DPI, layout="constrained")
    data = "" if record.dataset.get("name") == "mnist" else f" (NOT MNIST: {record.dataset.get('name')})"
    axes = figure.add_subplot(xlabel="epoch", ylabel=label, title=f"{record.notebook}, seed {record.seed}{data}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure, axes


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
