"""The training loop beside the usual one: seconds an epoch, seconds to a pass, and the choice of threads.

- usual: what people write: torchvision's transforms in a DataLoader with two workers, torch's own settings
- ours:  `TensorLoader` and `train` as the notebooks call them
- floor: the model's convolutions alone, forward and backward, same shapes and layout, on data already there
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ..augment import Affine
from ..data import MEAN, STD, load_data, make_loaders
from ..models import SeedModel
from ..training import choose_device, set_seed, train
from .search import Trial, train_trial

AUGMENT = Affine(degrees=10, translate=0.07, scale=0.1, shear=6)
QUICKEST = (
    "blocks=v12_v16_M_v24_v24_M_v32 epochs=2 batch_size=64 optimizer=muon learning_rate=0.05 warmup=0.1 \
augmentation=0.2 deskew=1 shear=0"  # as in the notebook quickest
)
TARGET = 0.994
USUAL_EPOCHS = 19  # the most that the assignment allows; the course's recipe needs them all
STEPS = 300  # of each turn of `threads`


@dataclass(frozen=True)
class Contender:
    """What does its turn in a process of its own; `cores` 0 means all of the machine's."""

    kind: str = "ours"
    augment: Affine | None = None
    threads: int = 0
    cores: int = 0
    device: str = "auto"
    data_dir: str = "data"


def loop(settings) -> dict:
    """Seconds an epoch of 60,000 images, turn by turn."""
    base = Contender(device=settings.device, data_dir=settings.data_dir)
    contenders = {
        "usual": replace(base, kind="usual"),
        "usual, augmented": replace(base, kind="usual", augment=AUGMENT),
        "ours": base,
        "ours, augmented": replace(base, augment=AUGMENT),
        "ours, augmented and elastic": replace(base, augment=replace(AUGMENT, elastic=0.03)),
        "floor": replace(base, kind="floor"),
    }
    seconds = {name: [] for name in contenders}
    with processes(contenders) as turn:
        for _ in range(settings.repeats):
            for name in contenders:
                seconds[name].append(turn(name, 60_000))
    return {"seconds": seconds}


def target(settings) -> dict:
    """For one core and for two: seconds and accuracy of whole trainings of `QUICKEST`, seed by seed.

    The clock starts with the cached files unread and stops after the last epoch and its test. After each training the
    usual loop, with the course's augmentation, takes one epoch on the same cores.
    """
    counts = range(1, min(2, os.cpu_count()) + 1)
    found = {}
    for cores in counts:
        base = Contender(threads=1 if cores == 1 else 0, cores=cores, data_dir=settings.data_dir)
        contenders = {"ours": base, "usual": replace(base, kind="usual", augment=AUGMENT)}
        rows = {"seconds": [], "accuracies": [], "usual_epoch_seconds": []}
        with processes(contenders) as turn:
            for seed in range(settings.seeds):
                seconds, accuracy = turn("ours", seed, whole=True)
                rows["seconds"].append(seconds)
                rows["accuracies"].append(accuracy)
                rows["usual_epoch_seconds"].append(turn("usual", 60_000))
        found[str(cores)] = rows
    return {"target": TARGET, "usual_epochs": USUAL_EPOCHS, "recipe": QUICKEST, "cores": found}


def threads(settings) -> dict:
    """Seconds a step of the seed model at batch 128, with no, one and two busy programs beside.

    The busy programs are loops that the benchmark starts itself.
    """
    base = Contender(data_dir=settings.data_dir, device="cpu")
    contenders = {
        "default": base,
        "1 thread": replace(base, threads=1),
        "2 threads": replace(base, threads=2),
    }
    situations = {}
    for busy, situation in enumerate(("quiet", "one core busy", "both cores busy")):
        rows = {name: [] for name in contenders}
        with processes(contenders) as turn, busy_loops(busy):
            for _ in range(settings.repeats):
                for name in contenders:
                    rows[name].append(turn(name, STEPS * 128) / STEPS)
        situations[situation] = rows
    return {"situations": situations}


@contextmanager
def busy_loops(count: int):
    """Within it, `count` processes use as much of the processor as they get."""
    spawn = multiprocessing.get_context("spawn")
    loops = [spawn.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in loops:
        process.start()
    try:
        yield
    finally:
        for process in loops:
            process.terminate()
            process.join()


def _spin() -> None:
    while True:
        pass


@contextmanager
def processes(contenders: dict[str, Contender]):
    """A function that lets the named contender take a turn, and returns what it gives.

    Each has a process of its own, since threads and the memory allocator are settings of a process. Raises
    BrokenProcessPool where that process dies.
    """
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(ProcessPoolExecutor(1, spawn, _prepare, [contender]))
            for name, contender in contenders.items()
        }

        def turn(name: str, count: int, whole: bool = False):
            return pools[name].submit(_whole if whole else _turn, count).result()

        for name in contenders:
            turn(name, 20 * 128)  # nobody's warming up may fall into another's turn
        yield turn


def _prepare(contender: Contender) -> None:
    """In each process, once."""
    global _contender, _epoch
    _contender = contender
    if contender.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: contender.cores])
    set_seed(0)
    _epoch = {"usual": usual, "ours": ours, "floor": floor}[contender.kind](contender)


def _turn(count: int) -> float:
    """Seconds for `count` images."""
    started = time.perf_counter()
    _epoch(count)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _whole(seed: int) -> tuple[float, float]:
    """Seconds of a whole training of `QUICKEST`, and the accuracy after its last epoch."""
    started = time.perf_counter()
    device = choose_device(_contender.device, _contender.threads)
    *_, (_, tested) = train_trial(
        Trial.read(QUICKEST), seed, load_data("mnist", _contender.data_dir), device
    )
    return time.perf_counter() - started, tested.accuracy


def usual(contender: Contender):
    """A function that trains by so many images; this process keeps torch's own settings."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    if contender.threads:
        torch.set_num_threads(contender.threads)
    device = torch.device(
        "cuda" if contender.device != "cpu" and torch.cuda.is_available() else "cpu"
    )
    steps = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    if contender.augment:
        a = contender.augment
        steps.insert(
            0,
            transforms.RandomAffine(
                a.degrees, (a.translate,) * 2, (1 - a.scale, 1 + a.scale), a.shear
            ),
        )
    images = datasets.MNIST(contender.data_dir, train=True, transform=transforms.Compose(steps))
    model = SeedModel().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def epoch(count: int) -> None:
        model.train()
        correct = 0
        part = Subset(images, range(min(count, len(images))))
        for batch, labels in DataLoader(part, 128, shuffle=True, num_workers=2):
            batch, labels = batch.to(device), labels.to(device)
            optimizer.zero_grad()
            output = model(batch)
            loss = F.cross_entropy(output, labels)
            loss.backward()
            optimizer.step()
            correct += (output.argmax(dim=1) == labels).sum().item()
            loss.item()  # for the bar

    return epoch


def ours(contender: Contender):
    """A function that trains by so many images."""
    device = choose_device(contender.device, contender.threads)
    data = load_data("mnist", contender.data_dir)
    model = SeedModel().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def epoch(count: int) -> None:
        part = replace(
            data, train_images=data.train_images[:count], train_labels=data.train_labels[:count]
        )
        loader, _ = make_loaders(part, 128, 0, device, contender.augment)
        train(model, device, loader, optimizer, progress=False)

    return epoch


def floor(contender: Contender):
    """A function that runs the convolutions of so many images."""
    device = choose_device(contender.device, contender.threads)
    model = SeedModel().to(device, memory_format=torch.channels_last)
    calls = []

    def note(layer, inputs, output):
        calls.append(
            (layer, inputs[0].detach().requires_grad_(bool(calls)), torch.randn_like(output))
        )

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    loader, _ = make_loaders(load_data("mnist", contender.data_dir), 128, 0, device)
    model(next(iter(loader))[0])
    for hook in hooks:
        hook.remove()

    def epoch(count: int) -> None:
        for _ in range(-(-count // 128)):
            for layer, inputs, gradient in calls:
                inputs.grad = layer.weight.grad = layer.bias.grad = None
                layer(inputs).backward(gradient)

    return epoch
