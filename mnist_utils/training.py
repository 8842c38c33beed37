"""One pass of training, one pass of testing, and what is settled before: seeds, device, threads.

    for epoch in range(1, epochs + 1):
        trained = train(model, device, train_loader, optimizer, epoch, scheduler)
        tested = test(model, device, test_loader)

A loader is any iterable of (images, labels) batches: float32 (B, 1, 28, 28) and int64 (B,), so a
DataLoader of torch's will do.
"""

import contextlib
import ctypes
import math
import platform
import random
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from .errors import DivergedError
from .records import atomic_write
from .threads import Sharing, settle

Batches = Iterable[tuple[Tensor, Tensor]]
BAR_SECONDS = 0.5  # between two looks at the loss, each of which waits for the device


@dataclass(frozen=True)
class Pass:
    """What one pass over a loader gave; `loss` is the mean over images (nats), not over batches."""

    loss: float
    correct: int
    total: int
    seconds: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def __str__(self) -> str:
        counts = f"{self.correct}/{self.total} ({self.accuracy:.2%})"
        return f"Average loss: {self.loss:.4f}, Accuracy: {counts}"


def train(
    model: nn.Module,
    device: torch.device,
    loader: Batches,
    optimizer: torch.optim.Optimizer,
    epoch: int = 1,
    scheduler=None,
    progress: bool = True,
    average: AveragedModel | None = None,
) -> Pass:
    """Adjust `model` once by every batch, and count what it had right at that moment.

    `scheduler`, where given, steps after each batch, and `average` takes in the weights. With
    `progress`, a bar shows loss and batch. Raises DivergedError as soon as the bar, or else the
    end of the pass, shows a loss that is not finite.
    """
    model.train()
    tally, sharing, looked = _Tally(device), Sharing(), 0.0
    with _bar(loader, epoch, progress) as bar:
        for batch, (images, labels) in enumerate(bar):
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            with sharing:
                logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            if average is not None:
                average.update_parameters(model)
            tally.add(loss.detach(), logits.detach(), labels)
            # Between two looks nothing waits for the device.
            if progress and (tally.seconds() > looked + BAR_SECONDS or batch + 1 == bar.total):
                looked = tally.seconds()
                shown = _finite(loss.item(), epoch, optimizer)
                bar.set_postfix_str(f"loss={shown:.4f} batch_id={batch}", refresh=False)
    result = tally.result()
    _finite(result.loss, epoch, optimizer)
    return result


@torch.inference_mode()
def test(
    model: nn.Module,
    device: torch.device,
    loader: Batches,
    name: str = "Test set",
    progress: bool = True,
) -> Pass:
    """Count what `model` has right and leave it as it is.

    With `progress`, print the result in the course's form:
    `Test set: Average loss: 0.0202, Accuracy: 9942/10000 (99.42%)`
    """
    model.eval()
    tally, sharing = _Tally(device), Sharing()
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        with sharing:
            logits = model(images)
        tally.add(F.cross_entropy(logits, labels), logits, labels)
    result = tally.result()
    if progress:
        print(f"{name}: {result}", flush=True)
    return result


test.__test__ = False  # pytest collects by name; this is no test


@torch.inference_mode()
def predict(model: nn.Module, device: torch.device, loader: Batches) -> Tensor:
    """The model's probabilities for all images in order: float32 (N, 10), on the CPU."""
    model.eval()
    return torch.cat([model(images.to(device)).softmax(dim=1).cpu() for images, _ in loader])


def set_seed(seed: int) -> None:
    """Seed every generator and choose deterministic kernels: same seed and machine, same bits."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # This would cost time and finds only bugs.
    torch.utils.deterministic.fill_uninitialized_memory = False


def choose_device(name: str = "auto", threads: int = 0) -> torch.device:
    """The device `name`; "auto" is a CUDA GPU where there is one, else the CPU.

    `threads` is how many threads the CPU gets; with 0 one thread trains, with help from the others
    where that changes no number, see threads.py. Raises ValueError for a device that cannot be
    used, or for `threads` below 0.
    """
    if threads < 0:
        raise ValueError(f"threads must be at least 1, or 0 for the default, got {threads}")
    settle(threads)
    _keep_freed_memory()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try 'auto'") from error
    return device


def device_facts(device: torch.device) -> dict:
    """What the run record keeps of the hardware."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # only Linux has this file
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.+)", said, re.MULTILINE):
            name = found[1]
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}


def rise_and_fall(optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.0) -> LambdaLR:
    """A scheduler: the rate climbs for the share `warmup` of all `steps`, then falls to zero."""
    climb = int(warmup * steps)

    def share(step: int) -> float:
        if step < climb:
            return (step + 1) / (climb + 1)
        return max(0.0, (steps - step) / max(1, steps - climb))

    return LambdaLR(optimizer, share)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the weights as safetensors, which hold tensors only: loading them runs no code."""
    with atomic_write(path) as part:
        save_model(model, str(part))


class _Tally:
    """Sums kept on the device, so that nothing waits for it before the end of the pass."""

    def __init__(self, device: torch.device):
        self.started = time.perf_counter()
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.total = 0

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss += mean_loss * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.total += len(labels)

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def result(self) -> Pass:
        if not self.total:
            raise ValueError("the loader gave no batch")
        # On a GPU the work is done only when its sums are read.
        loss, correct = self.loss.item() / self.total, int(self.correct)
        return Pass(loss, correct, self.total, self.seconds())


def _bar(loader, epoch: int, progress: bool) -> tqdm:
    counts = "{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"
    look = {"bar_format": f"Epoch {epoch}: {counts}", "mininterval": BAR_SECONDS}
    # Without a size, tqdm prints nothing on a terminal that says it has no rows.
    return tqdm(loader, file=sys.stdout, disable=not progress, ncols=96, nrows=24, **look)


def _finite(loss: float, epoch: int, optimizer: torch.optim.Optimizer) -> float:
    if not math.isfinite(loss):
        rate = optimizer.param_groups[0]["lr"]
        raise DivergedError(
            f"the loss is {loss} in epoch {epoch}; lower the learning rate, {rate:g} at this step"
        )
    return loss


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the kernel; elsewhere do nothing.

    By default the large activations of each step are returned and faulted in again page by page:
    3,000 to 4,000 faults a step of the seed model at batch 128, a third of its time.
    """
    # Elsewhere there is no such library, or no such function in it.
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: blocks below this come from the heap
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is not cut back
