"""MNIST as tensors in memory: fetched by torchvision, checked pixel by pixel, split, served in batches.

    data = load_data("mnist", data_dir="data", split="assignment")
    train_loader, validation_loader = make_loaders(data, batch_size=128, seed=0)
    images, labels = next(iter(train_loader))      # float32 (128, 1, 28, 28), int64 (128,)

A machine that can reach no MNIST has scikit-learn's small digits instead, under their own name and a banner.
"""

import hashlib
import http.client
import math
import os
import shutil
import socket
import tempfile
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .augment import Affine, straighten
from .errors import DataError

MEAN, STD = 0.1307, 0.3081  # of MNIST's 60,000 training images, pixels in 0..1
DATASETS = ("auto", "mnist", "digits")
SPLITS = ("assignment", "holdout")
CHECKSUMS = {  # SHA-256 of the pixels and of the labels, one byte each, headers left out
    "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
COUNTS = {"train": 60_000, "t10k": 10_000}
TIMEOUT = 5.0  # seconds that a mirror may stay silent
WAYS_OUT = (
    "three ways out: connect to the internet; name a folder or URL that holds the four .gz files "
    "(--mirror on the command line, mirror in the notebook); or use the small embedded digits (dataset 'digits')"
)


@dataclass(frozen=True)
class Data:
    """Training and validation images, uint8 of shape (N, 28, 28), with labels, int64 of shape (N,).

    `split` says what the validation images are: "assignment", the dataset's own test images, or "holdout", images
    taken from the training set. `checksum` is of the whole dataset. `note` must be shown where it is not empty.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    checksum: str
    split: str = "assignment"
    note: str = ""

    @property
    def validation_name(self) -> str:
        """What the line that reports an accuracy calls the validation images."""
        return {"assignment": "Test set", "holdout": "Holdout set"}[self.split]

    def facts(self) -> dict:
        """What the run record keeps of the data."""
        counts = {"train": len(self.train_labels), "validation": len(self.validation_labels)}
        return {"name": self.name, "split": self.split, **counts, "checksum": self.checksum, "note": self.note}


def load_data(name: str = "auto", data_dir: str | Path = "data", mirror: str = "", split: str = "assignment") -> Data:
    """The dataset `name`, one of `DATASETS`, with the validation images of `split`, one of `SPLITS`.

    "auto" takes MNIST where it can be had and the digits, under a banner, where not. `data_dir` is the cache;
    `mirror` a URL or a folder with the four original .gz files. Raises ValueError for an unknown name or split and
    DataError where MNIST is asked for and cannot be had.
    """
    for value, choices in ((name, DATASETS), (split, SPLITS)):
        if value not in choices:
            raise ValueError(f"unknown dataset or split {value!r}; choose one of {', '.join(choices)}")
    if name == "digits":
        data = load_digits("it was asked for")
    else:
        try:
            data = load_mnist(data_dir, mirror)
        except DataError as error:
            if name == "mnist":
                raise
            data = load_digits(str(error))
    return hold_out(data) if split == "holdout" else data


def load_mnist(data_dir: str | Path = "data", mirror: str = "") -> Data:
    """MNIST from the cache in `data_dir`, filled or repaired first where it must be.

    torchvision downloads, checks the archives' MD5 and extracts; here every pixel and label is checked against
    `CHECKSUMS`, for torchvision does not look at extracted files again. Raises DataError.
    """
    root, note = Path(data_dir), ""
    try:
        parts = _read(root)
    except DataError as damage:
        _fetch(root, mirror, str(damage))
        parts = _read(root)
        note = "" if isinstance(damage, _Missing) else f"Repaired the cache: {damage}."
    checksum = _digest("".join(CHECKSUMS[name] for name in parts).encode())  # _read has held each part to its own
    return Data("mnist", *parts.values(), checksum=checksum, note=note)


def load_digits(reason: str) -> Data:
    """scikit-learn's 1,797 handwritten digits, 8x8, enlarged to 20x20 and centred in 28x28 as MNIST's are.

    A fifth of them, drawn once, are the validation images. `reason` stands in the banner.
    """
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    pixels, labels = bundled(return_X_y=True)
    small = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(20, 20), mode="bilinear")
    images = torch.nn.functional.pad(large, (4, 4, 4, 4)).squeeze(1).round().to(torch.uint8)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    labels = torch.from_numpy(labels).long()
    checksum = _digest((_digest(images) + _digest(labels)).encode())
    return Data("digits", images[train], labels[train], images[test], labels[test], checksum, note=_banner(reason))


def hold_out(data: Data) -> Data:
    """A sixth of the training images, as many of each class, become the validation images; the test images go.

    Drawn once for all: the draw depends on the labels only (NumPy's legacy generator, whose stream is frozen).
    """
    per_class = len(data.train_labels) // 60
    shuffled = np.random.RandomState(1998).permutation(len(data.train_labels))
    labels = data.train_labels.numpy()[shuffled]
    held = np.sort(np.concatenate([shuffled[labels == digit][:per_class] for digit in range(10)]))
    kept = np.setdiff1d(np.arange(len(labels)), held)
    images, labels = data.train_images, data.train_labels
    return replace(
        data, split="holdout", train_images=images[kept], train_labels=labels[kept],
        validation_images=images[held], validation_labels=labels[held],
    )  # fmt: skip


class TensorLoader:
    """Batches of images held in memory: float32 (B, 1, 28, 28), normalised, with int64 labels (B,).

    With a `generator` each pass is a new permutation of all images; without, they come in order. `augment` is called
    with each batch's images, float32 in 0..255, and the generator, before they are normalised. The last batch is
    smaller where `batch_size` does not divide the count.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        generator: torch.Generator | None = None,
        augment: Callable[[Tensor, torch.Generator | None], Tensor] | None = None,
    ):
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.generator, self.augment = generator, augment

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, device = len(self.labels), self.labels.device
        shuffled = self.generator is not None
        order = torch.randperm(count, generator=self.generator, device=device) if shuffled else torch.arange(count)
        for chosen in order.to(device).split(self.batch_size):
            images = self.images[chosen].unsqueeze(1).float()
            if self.augment is not None:
                images = self.augment(images, self.generator)
            yield normalize(images), self.labels[chosen]


def make_loaders(
    data: Data,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
    augment: Callable | None = None,
    deskew: bool = False,
) -> tuple[TensorLoader, TensorLoader]:
    """The training loader, shuffled and augmented anew each pass from `seed`, and the validation loader, in order.

    With `deskew` both serve straightened images (see `augment.straighten`); `augment` must then be an `Affine` or None.
    The images are moved to `device` once. Raises ValueError for a batch size below 1 or above the training images, and
    for `deskew` with another augmentation.
    """
    if not 1 <= batch_size <= len(data.train_labels):
        raise ValueError(f"batch_size must be from 1 to {len(data.train_labels):,} (the images), got {batch_size}")
    validation_images = data.validation_images.to(device)
    if deskew:
        if not isinstance(augment, Affine | None):
            raise ValueError(f"deskew goes with an Affine augmentation or none, got {augment!r}")
        augment = replace(augment or Affine(), deskew=True)
        validation_images = straighten(validation_images)
    generator = torch.Generator(device).manual_seed(seed)
    train = TensorLoader(data.train_images.to(device), data.train_labels.to(device), batch_size, generator, augment)
    validation = TensorLoader(validation_images, data.validation_labels.to(device), batch_size)
    return train, validation


def normalize(images: Tensor) -> Tensor:
    """Pixels in 0..255 of any type, to float32 with MNIST's mean at 0 and standard deviation 1; same shape."""
    return (images.float() - 255 * MEAN) / (255 * STD)


class _Missing(DataError):
    """No cache yet: nothing to repair, only to fetch."""


def _read(root: Path) -> dict[str, Tensor]:
    """The four checked tensors by file name, images before labels, training before test."""
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    missing = [name for name in CHECKSUMS if not (raw / name).is_file()]
    if missing:
        raise _Missing(f"{raw / missing[0]} is not there")
    parts = {}
    for part, count in COUNTS.items():
        try:
            dataset = MNIST(root, train=part == "train")
        except Exception as error:  # torchvision's reader raises whatever the damage happens to cause
            raise DataError(f"{raw}/{part}-*-ubyte is damaged ({error or type(error).__name__})") from error
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        parts |= {images: dataset.data, labels: dataset.targets}
        _check(raw / images, dataset.data, (count, 28, 28))
        _check(raw / labels, dataset.targets, (count,))
    return parts


def _check(path: Path, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise DataError, naming the file, where it does not hold what it should."""
    if tuple(tensor.shape) != shape:
        raise DataError(f"{path} is damaged (shape {tuple(tensor.shape)}, expected {shape})")
    if tensor.dtype not in (torch.uint8, torch.int64):
        raise DataError(f"{path} is damaged (type {tensor.dtype}, expected bytes)")
    if len(shape) == 1 and not 0 <= int(tensor.min()) <= int(tensor.max()) <= 9:
        raise DataError(f"{path} is damaged (labels outside 0 to 9)")
    if _digest(tensor) != CHECKSUMS[path.name]:
        raise DataError(f"{path} is damaged (SHA-256 of the content differs)")


def _fetch(root: Path, mirror: str, wanted_because: str) -> None:
    """Fill the cache from its own intact archives or a mirror, in a folder apart, then move each file into place.

    Every move is atomic and every file's content fixed, so processes that fetch at once do not disturb each other.
    """
    from torchvision.datasets import MNIST

    raw, errors = root / "MNIST" / "raw", []
    for source in [_folder_or_url(mirror)] if mirror else MNIST.mirrors:
        try:
            raw.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".fetching-") as apart, _silence_limit(TIMEOUT):
                _download(source, raw, Path(apart))
            return
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            errors.append(f"{source}: {(str(error) or type(error).__name__).strip().splitlines()[-1]}")
    raise DataError(f"MNIST cannot be had: {wanted_because}, and {'; '.join(errors)}; {WAYS_OUT}")


def _download(source: Path | str, raw: Path, apart: Path) -> None:
    """Archives that are intact are copied, the rest downloaded; torchvision verifies and extracts them all."""
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import check_integrity

    fresh = apart / "MNIST" / "raw"
    fresh.mkdir(parents=True)
    folders = [raw, source] if isinstance(source, Path) else [raw]
    for name, md5 in MNIST.resources:
        intact = [folder / name for folder in folders if check_integrity(folder / name, md5)]
        if intact:
            shutil.copy(intact[0], fresh)
        elif isinstance(source, Path):
            raise OSError(f"{name} is {'damaged (its MD5 differs)' if (source / name).exists() else 'not there'}")
    type("MNIST", (MNIST,), {"mirrors": [f"{source}"]})(apart, download=True)  # the cache's folder has this name
    for path in fresh.iterdir():
        os.replace(path, raw / path.name)


def _folder_or_url(mirror: str) -> Path | str:
    """A folder as a path, also where it was given as a file URL, and a URL with the slash torchvision expects."""
    if mirror.startswith("file://"):
        mirror = urllib.request.url2pathname(urllib.parse.urlparse(mirror).path)
    return mirror.rstrip("/") + "/" if "://" in mirror else Path(mirror)


@contextmanager
def _silence_limit(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _digest(content: Tensor | bytes) -> str:
    """SHA-256 of a tensor's values, one byte each, or of bytes."""
    content = content if isinstance(content, bytes) else content.to(torch.uint8).numpy()
    return hashlib.sha256(content).hexdigest()


def _banner(reason: str) -> str:
    told = "NOT MNIST: these are scikit-learn's 1,797 small digits, so nothing here is judged."
    return "\n".join(["=" * 88, told, *textwrap.wrap(f"Why: {reason}.", 88), "=" * 88])
