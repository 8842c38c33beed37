"""The test digits that are misread most, over all runs that kept which they misread.

    runs = read([Path("reports/every_seed/seed-0")])     # what each run misread
    page(runs), picture(images, runs)                    # the table, and the digits themselves

A run keeps them in `misread.csv`: image (its place among the 10,000 test images), label, guess, confidence.
"""

import base64
import csv
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ..errors import RecordError
from ..plots import DPI, TARGET
from ..templating import fill

MOST = 24  # digits that are shown
# Test images whose label fewer than three of five raters held, and how many did: mturk/mnist_mturk.json of
# cleanlab/label-errors, published with Northcutt, Athalye, Mueller (2021), "Pervasive Label Errors in Test Sets
# Destabilize Machine Learning Benchmarks". Only images that the authors' method had flagged were rated.
HELD = {
    947: 0, 1621: 2, 1901: 2, 2130: 2, 2462: 0, 2597: 0, 2654: 0, 3520: 2, 3558: 1, 5937: 1, 6651: 0, 6783: 2,
    8527: 2, 9679: 2, 9729: 2,
}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """A misread test image: `image` from 0 to 9,999, `confidence` the probability of the guess."""

    image: int
    label: int
    guess: int
    confidence: float


@dataclass(frozen=True)
class Digit:
    """A test image with all its mistakes: `guess` is the most frequent, `confidence` the mean of all guesses."""

    image: int
    label: int
    guess: int
    count: int
    confidence: float

    @property
    def label_held(self) -> str:
        return f"{HELD[self.image]} of 5" if self.image in HELD else ""


def read(folders: list[Path]) -> list[list[Mistake]]:
    """What each of these run folders misread; those without a `misread.csv` are left out. Raises RecordError."""
    runs = []
    for path in (folder / "misread.csv" for folder in folders):
        if path.exists():
            try:
                with path.open(encoding="utf-8", newline="") as rows:
                    runs.append([_mistake(row) for row in csv.DictReader(rows)])
            except (KeyError, TypeError, ValueError) as error:
                raise RecordError(f"{path}: not a list of misread images ({error})") from error
    return runs


def _mistake(row: dict) -> Mistake:
    return Mistake(int(row["image"]), int(row["label"]), int(row["guess"]), float(row["confidence"]))


def rank(runs: list[list[Mistake]]) -> list[Digit]:
    """Every image that any run misread, the most often misread first, then the more confidently."""
    found: dict[int, list[Mistake]] = {}
    for mistake in (mistake for run in runs for mistake in run):
        found.setdefault(mistake.image, []).append(mistake)
    digits = [
        Digit(
            image, mistakes[0].label, Counter(m.guess for m in mistakes).most_common(1)[0][0], len(mistakes),
            statistics.mean(m.confidence for m in mistakes),
        )
        for image, mistakes in found.items()
    ]  # fmt: skip
    return sorted(digits, key=lambda digit: (-digit.count, -digit.confidence, digit.image))


def page(runs: list[list[Mistake]], counted: str = "", shown: int = MOST) -> str:
    """The page as Markdown; `counted` names the runs."""
    digits = rank(runs)
    return fill(
        "hardest.md.j2",
        counted=counted,
        n=len(runs),
        digits=digits,
        every=sum(digit.count == len(runs) for digit in digits),
        mean=statistics.mean(map(len, runs)),
        doubted=statistics.mean(sum(mistake.image in HELD for mistake in run) for run in runs),
        alt=describe(runs, shown),
        shown=shown,
        held=len(HELD),
    )


def describe(runs: list[list[Mistake]], shown: int = MOST) -> str:
    """The alternative text of `picture`."""
    digits, n = rank(runs)[:shown], len(runs)
    listed = "; ".join(
        f"image {d.image}, a {d.label} read as {d.guess} by {d.count} of {n}"
        + (f", label held by {d.label_held} raters" if d.label_held else "")
        for d in digits
    )
    return f"The {len(digits)} test digits misread most over {n} runs: {listed}."


def picture(images, runs: list[list[Mistake]], shown: int = MOST, columns: int = 6) -> Figure:
    """The digits misread most, from test `images`, uint8 (10000, 28, 28): label, guess, how many runs."""
    digits = rank(runs)[:shown]
    rows = max(1, -(-len(digits) // columns))
    figure = Figure(figsize=(columns * 0.95, rows * 1.45), dpi=DPI, layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, digit in zip(figure.axes, digits):
        axes.imshow(images[digit.image], cmap="gray_r", vmin=0, vmax=255)
        label, color = (f"{digit.label}?", TARGET) if digit.image in HELD else (digit.label, "black")
        axes.set_title(f"{label} read {digit.guess}\n{digit.count} of {len(runs)}", fontsize=9, color=color)
    figure.alt_text = describe(runs, shown)
    return figure


def cached_test_set(data_dir: str | Path):
    """MNIST's test images, uint8 (10000, 28, 28), and their labels, where the cache in `data_dir` has
    them, else None; nothing is downloaded."""
    from torchvision.datasets import MNIST

    try:
        found = MNIST(data_dir, train=False)
        return found.data, found.targets
    except RuntimeError:
        return None


def to_try(images, labels, runs: list[list[Mistake]]) -> list[dict]:
    """Twenty test images for the pad: the ten misread most, then the first of each digit.

    Each has `image` (its place among the 10,000), `label` and `pixels`, base64 of 784 bytes.
    """
    labels = [int(label) for label in labels]
    hardest = [digit.image for digit in rank(runs)[:10]]
    firsts = [labels.index(digit) for digit in range(10) if digit in labels]
    return [
        {
            "image": image,
            "label": labels[image],
            "pixels": base64.b64encode(bytes(images[image].flatten().tolist())).decode(),
        }
        for image in dict.fromkeys(hardest + firsts)
    ]
