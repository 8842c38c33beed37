"""The test digits that are misread most, over all runs that kept which they misread.

    page(read([Path("reports/every_seed/seed-0")]))

A run keeps in `misread.csv` what `records.save_misread` says.
"""

import base64
import csv
import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ..errors import RecordError
from ..plots import TARGET, grid
from ..templating import fill
from .results import ranges

MOST = 24  # digits that are shown
ALT = "The test digits misread most, each under its label, its guess and how many runs misread it."
# Test images whose label fewer than three of five raters held, and how many did:
# mturk/mnist_mturk.json of cleanlab/label-errors, published with Northcutt, Athalye, Mueller (2021),
# "Pervasive Label Errors in Test Sets Destabilize Machine Learning Benchmarks". Only images that the
# authors' method had flagged were rated.
HELD = {947: 0, 1621: 2, 1901: 2, 2130: 2, 2462: 0, 2597: 0, 2654: 0, 3520: 2, 3558: 1, 5937: 1}
HELD |= {6651: 0, 6783: 2, 8527: 2, 9679: 2, 9729: 2}


@dataclass(frozen=True)
class Digit:
    """A misread test image, from 0 to 9,999: `guess` is the most frequent of `count` runs' guesses,
    `confidence` the mean probability that they gave to theirs."""

    image: int
    label: int
    guess: int
    confidence: float
    count: int = 1

    @property
    def label_held(self) -> str:
        return f"{HELD[self.image]} of 5" if self.image in HELD else ""


Runs = dict[Path, list[Digit]]  # by folder, what the run misread


def read(folders: list[Path]) -> Runs:
    """What these runs misread; those that did not keep it are left out. Raises RecordError."""
    runs = {}
    for path in (f / "misread.csv" for f in folders if (f / "misread.csv").exists()):
        try:
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            numbers = [[int(row[name]) for name in ("image", "label", "guess")] for row in rows]
            sure = [float(row["confidence"]) for row in rows]
            runs[path.parent] = [Digit(*found, p) for found, p in zip(numbers, sure)]
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise RecordError(f"{path}: not a list of misread images ({error})") from error
    return runs


def rank(runs: Runs) -> list[Digit]:
    """Every image that any run misread, the most often misread first, then the more confidently."""
    found: dict[int, list[Digit]] = {}
    for mistakes in runs.values():
        for mistake in mistakes:
            found.setdefault(mistake.image, []).append(mistake)
    digits = []
    for image, same in found.items():
        guess = statistics.mode(mistake.guess for mistake in same)
        confidence = statistics.mean(mistake.confidence for mistake in same)
        digits.append(Digit(image, same[0].label, guess, confidence, len(same)))
    return sorted(digits, key=lambda digit: (-digit.count, -digit.confidence, digit.image))


def page(runs: Runs) -> str:
    """The page as Markdown, which begins with the runs that are counted."""
    seeds: dict[str, list[int]] = {}
    for folder in runs:
        seeds.setdefault(folder.parent.name, []).append(int(folder.name.removeprefix("seed-")))
    counted = "; ".join(f"{name}, seeds {ranges(numbers)}" for name, numbers in seeds.items())
    facts = {"counted": counted, "digits": rank(runs), "alt": ALT, "shown": MOST}
    return fill("hardest.md.j2", n=len(runs), held=len(HELD), **facts)


def picture(images, runs: Runs) -> Figure:
    """The digits misread most, from test `images`, uint8 (10000, 28, 28): label, guess, how many runs."""
    digits, titles = rank(runs)[:MOST], []
    for digit in digits:
        doubt = "?" if digit.label_held else ""
        titles.append(f"{digit.label}{doubt} read {digit.guess}\n{digit.count}/{len(runs)}")
    figure = grid([images[digit.image] for digit in digits], titles, columns=6)
    for axes, digit in zip(figure.axes, digits):
        if digit.label_held:
            axes.title.set_color(TARGET)
    figure.alt_text = ALT
    return figure


def cached_test_set(data_dir: str | Path):
    """MNIST's test images, uint8 (10000, 28, 28), and labels, where `data_dir` has them, else None."""
    from torchvision.datasets import MNIST

    try:
        found = MNIST(data_dir, train=False)
        return found.data, found.targets
    except RuntimeError:
        return None


def to_try(images, labels, runs: Runs) -> list[dict]:
    """Test images for the pad: the ten misread most, then the first of each digit, as dictionaries of
    `image` (its place among the 10,000), `label` and `pixels` (base64 of 784 bytes)."""
    labels = [int(label) for label in labels]
    firsts = [labels.index(digit) for digit in range(10) if digit in labels]
    tries = []
    for image in dict.fromkeys([digit.image for digit in rank(runs)[:10]] + firsts):
        pixels = base64.b64encode(bytes(images[image].flatten().tolist())).decode()
        tries.append({"image": image, "label": labels[image], "pixels": pixels})
    return tries
