"""MNIST as tensors in memory: fetched once, checked, split, served in batches.

    data = load_data("mnist", data_dir="data", split="assignment")
    train_loader, validation_loader = make_loaders(data, batch_size=128, seed=0)
    images, labels = next(iter(train_loader))      # float32 (128, 1, 28, 28), int64 (128,)

A machine that cannot reach MNIST uses scikit-learn's small digits, under their name and a banner.
"""

import gzip
import hashlib
import io
import math
import textwrap
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .augment import Affine, straighten
from .errors import DataError
from .records import atomic_write

MEAN, STD = 0.1307, 0.3081  # of MNIST's 60,000 training images, pixels in 0..1
DATASETS = ("auto", "mnist", "digits")
SPLITS = ("assignment", "holdout")
SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
# SHA-256 of the pixels and of the labels, one byte each, without the files' headers.
CHECKSUMS = {
    "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
SILENCE = 5.0  # seconds a mirror may send nothing
DEADLINE = 120.0  # seconds the whole download may take
WAYS_OUT = (
    "three ways out: connect to the internet; name a folder or URL that holds the four .gz files "
    "(--mirror on the command line, mirror in the notebook); or use the small embedded digits "
    "(dataset 'digits')"
)


@dataclass(frozen=True)
class Data:
    """Training and validation images, uint8 (N, 28, 28), with labels, int64 (N,).

    `split` is "assignment" where these are the dataset's own test images, "holdout" where they were
    taken from the training set. `checksum` is of the whole dataset. A `note` must be shown.
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
        facts = {"name": self.name, "split": self.split}
        facts |= {"train": len(self.train_labels), "validation": len(self.validation_labels)}
        return facts | {"checksum": self.checksum, "note": self.note}


def load_data(
    name: str = "auto", data_dir: str | Path = "data", mirror: str = "", split: str = "assignment"
) -> Data:
    """The dataset `name`, one of `DATASETS`; its validation images are those of `split`.

    "auto" is MNIST where it can be reached, else the digits, under a banner; `mirror` is a URL or
    a folder with the four original .gz files. Raises ValueError for an unknown name or split, and
    DataError where MNIST is asked for and cannot be reached.
    """
    for value, known in ((name, DATASETS), (split, SPLITS)):
        if value not in known:
            choices = ", ".join(known)
            raise ValueError(f"unknown dataset or split {value!r}; choose one of {choices}")
    try:
        if name == "digits":
            data = load_digits("it was asked for")
        else:
            data = load_mnist(data_dir, mirror)
    except DataError as error:
        if name == "mnist":
            raise
        data = load_digits(str(error))
    return hold_out(data) if split == "holdout" else data


def load_mnist(data_dir: str | Path = "data", mirror: str = "") -> Data:
    """MNIST from the cache in `data_dir`; what is missing or damaged there is fetched first.

    The cache is torchvision's: `MNIST/raw` with the four files and their archives. Every pixel and
    every label is checked against `CHECKSUMS` each time, which torchvision does not do. Raises
    DataError, which names each source that was tried, and why it did not serve.
    """
    raw = Path(data_dir) / "MNIST" / "raw"
    parts, repaired = [], []
    until = time.monotonic() + DEADLINE
    for name in SHAPES:
        path = raw / name
        try:
            values = _checked(name, path.read_bytes())
        except (OSError, ValueError) as error:
            if path.exists():
                repaired.append(f"Repaired the cache: {path} was damaged ({error}).")
            values = _fetch(name, raw, mirror, until)
        parts.append(values.long() if values.ndim == 1 else values)
    checksum = _digest("".join(CHECKSUMS[name] for name in SHAPES).encode())
    return Data("mnist", *parts, checksum, note="\n".join(repaired))


def load_digits(reason: str) -> Data:
    """scikit-learn's 1,797 digits, 8x8, enlarged to 20x20 and centred in 28x28 as MNIST's are.

    A fifth of them, drawn once, are the validation images. The banner tells the `reason`.
    """
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    pixels, labels = bundled(return_X_y=True)
    small = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(20, 20), mode="bilinear")
    images = torch.nn.functional.pad(large, (4, 4, 4, 4)).squeeze(1).round().to(torch.uint8)
    # One byte each, as in `CHECKSUMS`.
    digests = _digest(images.numpy().tobytes()) + _digest(labels.astype(np.uint8).tobytes())
    labels = torch.from_numpy(labels).long()
    images, validation_images, labels, validation_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )
    told = "NOT MNIST: these are scikit-learn's 1,797 small digits, so nothing here is judged."
    note = "\n".join(["=" * 88, told, *textwrap.wrap(f"Why: {reason}.", 88), "=" * 88])
    parts = (images, labels, validation_images, validation_labels)
    return Data("digits", *parts, _digest(digests.encode()), note=note)


def hold_out(data: Data) -> Data:
    """Take a sixth of the training images, as many of each class, as validation images.

    The draw is always the same: NumPy's legacy generator, whose stream is frozen.
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


@dataclass(eq=False)
class TensorLoader:
    """Batches of images in memory: float32 (B, 1, 28, 28), normalised, with int64 labels (B,).

    With a `generator` each pass is a new permutation of all images; without, they come in order.
    `augment` is called with each batch's images, float32 in 0..255, and the generator, before they
    are normalised. The last batch is smaller where `batch_size` does not divide the count.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    generator: torch.Generator | None = None
    augment: Callable[[Tensor, torch.Generator | None], Tensor] | None = None

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.labels.device
        order = torch.arange(len(self.labels), device=device)
        if self.generator is not None:
            order = torch.randperm(len(order), generator=self.generator, device=device)
        for chosen in order.split(self.batch_size):
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
    """The training loader, shuffled and augmented anew each pass, and the validation loader.

    The images move to `device` once. With `deskew` both loaders serve images as `straighten` gives
    them. Raises ValueError for a batch size below 1 or above the number of training images, and for
    `deskew` with an augmentation other than `Affine`.
    """
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    if not 1 <= batch_size <= len(labels):
        most = f"{len(labels):,} (the images)"
        raise ValueError(f"batch_size must be from 1 to {most}, got {batch_size}")
    tested = data.validation_images.to(device)
    if deskew:
        if not isinstance(augment, Affine | None):
            raise ValueError(f"deskew goes with an Affine augmentation or none, got {augment!r}")
        augment = replace(augment or Affine(), deskew=True)
        tested = straighten(tested)
    generator = torch.Generator(device).manual_seed(seed)
    train = TensorLoader(images, labels, batch_size, generator, augment)
    return train, TensorLoader(tested, data.validation_labels.to(device), batch_size)


def normalize(images: Tensor) -> Tensor:
    """Pixels in 0..255 to float32 with MNIST's mean at 0 and standard deviation 1; same shape."""
    return (images.float() - 255 * MEAN) / (255 * STD)


def _checked(name: str, content: bytes) -> Tensor:
    """An IDX file's values, uint8 of the shape that `name` has. Raises ValueError for others."""
    shape = SHAPES[name]
    # The values stand behind a header: a magic number and the sizes.
    values = bytearray(content[4 + 4 * len(shape) :])
    if _digest(values) != CHECKSUMS[name]:
        raise ValueError("its SHA-256 differs")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def _fetch(name: str, raw: Path, mirror: str, until: float) -> Tensor:
    """Fill the cache with one file: from its archive beside it, else from the mirrors in turn.

    torchvision knows the mirrors; `until` is a time of `time.monotonic`. Each file is replaced
    whole, so that processes that start at once do not disturb each other.
    """
    from torchvision.datasets import MNIST

    size, problems = 16 + math.prod(SHAPES[name]), []
    for source in [str(raw), *([mirror] if mirror else MNIST.mirrors)]:
        folder = source if "://" in source else Path(source).resolve().as_uri()
        url = f"{folder.rstrip('/')}/{name}.gz"
        try:
            archive = _download(url, 2 * size, until - time.monotonic())
            # A small archive can hold gigabytes: one byte more than expected is enough to tell.
            with gzip.open(io.BytesIO(archive)) as stream:
                content = stream.read(size + 1)
            values = _checked(name, content)
            raw.mkdir(parents=True, exist_ok=True)
            for file, part in ((f"{name}.gz", archive), (name, content)):
                with atomic_write(raw / file) as path:
                    path.write_bytes(part)
            return values
        except (OSError, EOFError, ValueError, HTTPException, zlib.error) as error:
            missing = isinstance(getattr(error, "reason", None), FileNotFoundError)
            reason = "it is not there" if missing else str(error) or type(error).__name__
            problems.append(f"{url}: {reason}")
    raise DataError(f"MNIST cannot be had: {'; '.join(problems)}; {WAYS_OUT}")


def _download(url: str, limit: int, seconds: float) -> bytes:
    """At most `limit` bytes from `url`. Raises OSError for more, or after `seconds` at the latest.

    A server can drip bytes, headers too, so slowly that no limit on silence ends it. Only a thread
    that is left behind keeps the deadline; it writes nothing and does not outlive the process.
    """
    answer: Future = Future()

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=SILENCE) as response:
                answer.set_result(response.read(limit + 1))
        # Whatever it is, the thread that waits raises it.
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=read, daemon=True).start()
    if not wait([answer], timeout=max(0, seconds)).done:
        raise OSError(f"not finished after {DEADLINE:g} seconds in all")
    if len(answer.result()) > limit:
        raise OSError(f"it is longer than {limit:,} bytes")
    return answer.result()


def _digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
