"""The training loop beside the usual one, and what threads and batches make of it.

- usual: what people write: torchvision's transforms in a DataLoader with two workers
- ours:  `TensorLoader` and `train`, as the notebooks call them
- floor: the model's convolutions alone, forward and backward, on data that is already there
"""

import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from ..augment import Affine
from ..batch.devices import cores
from ..batch.executor import engine, run_batch
from ..batch.plan import plan
from ..data import MEAN, STD, Data, TensorLoader, load_data, make_loaders
from ..errors import UsageError
from ..models import SeedModel, build_model
from ..muon import Muon, split_parameters
from ..parameters import find_notebook, read_parameters
from ..training import Pass, choose_device, rise_and_fall, set_seed, test, train

AUGMENT = Affine(degrees=10, translate=0.07, scale=0.1, shear=6)
STEPS = 300  # of 128 images, in a turn for which a whole epoch would take too long
# The usual loop with each recipe's images, and the notebook that says how many epochs it needs.
USUAL = {"usual": "02_falling_rate", "usual, augmented": "03_augmentation"}
# A program that keeps a core busy. It ends when the process that started it does.
BUSY = "import os; p = os.getppid()\nwhile os.getppid() == p: sum(range(1_000_000))"


def loop(device: str = "auto", data_dir: str = "data", repeats: int = 5, **_) -> dict:
    """Seconds an epoch of 60,000 images of the original model, batch 128, turn by turn."""
    place = {"device": device, "data_dir": data_dir}
    contenders = {
        "usual": partial(usual, **place),
        "usual, augmented": partial(usual, augment=AUGMENT, **place),
        "ours": partial(ours, **place),
        "ours, augmented": partial(ours, augment=AUGMENT, **place),
        "floor": partial(floor, **place),
    }
    seconds = in_turns(contenders, repeats, 60_000)
    return {name: {"seconds": row} for name, row in seconds.items()}


def target(device: str = "auto", data_dir: str = "data", seeds: int = 10, **_) -> dict:
    """Whole trainings of the notebook `quickest`, seed by seed, on one core and on all.

    The clock starts with the cached files unread and stops after the last epoch and its test. After
    each training the usual loop takes `STEPS` steps on the same cores, plain and augmented.
    """
    found = {}
    for count in sorted({1, cores()}):
        place = {"device": device, "data_dir": data_dir, "threads": int(count == 1)}
        contenders = {
            "ours": partial(whole_training, **place),
            "usual": partial(usual, **place),
            "usual, augmented": partial(usual, augment=AUGMENT, **place),
        }
        rows = {"seconds": [], "accuracies": [], **{name: [] for name in USUAL}}
        with processes(contenders, count) as turn:
            for seed in range(seeds):
                seconds, accuracy = turn("ours", seed)
                rows["seconds"].append(seconds)
                rows["accuracies"].append(accuracy)
                for name in USUAL:
                    rows[name].append(turn(name, STEPS * 128)[0])
        found[str(count)] = rows
    epochs = {name: parameters_of(notebook).epochs for name, notebook in USUAL.items()}
    return {"images": STEPS * 128, "recipes": USUAL, "epochs": epochs, "cores": found}


def threads(data_dir: str = "data", repeats: int = 5, **_) -> dict:
    """Seconds a step of the original model, with no, one and all cores busy with other programs."""
    contenders = {"default": partial(ours, "cpu", data_dir)}
    for count in (1, 2):
        contenders[f"threads {count}"] = partial(ours, "cpu", data_dir, count)
    situations = {}
    for name, count in (("quiet", 0), ("one core busy", 1), ("all cores busy", cores())):
        with busy_cores(count):
            seconds = in_turns(contenders, repeats, STEPS * 128)
        situations[name] = {kind: [one / STEPS for one in row] for kind, row in seconds.items()}
    return situations


def batch(data_dir: str = "data", epochs: int = 2, runs: int = 20, **_) -> dict:
    """Seconds of `runs` trainings of `quickest`, one thread each, bare and as a batch.

    The first half is run both ways, then the second. A batch pays for starting its processes; those
    of the bare trainings have imported everything and read the data before.
    """
    path, workers = find_notebook("quickest"), cores()
    given = {"threads": "1", "dataset": "mnist", "split": "holdout"}
    given |= {"data_dir": data_dir, "epochs": str(epochs)}
    bare, batched = [], []
    with engine(workers) as pool:
        _all_well(pool.map(partial(train_bare, epochs=0, data_dir=data_dir), range(workers)))
        for seeds in range(0, runs, 2), range(1, runs, 2):
            started = time.perf_counter()
            _all_well(pool.map(partial(train_bare, epochs=epochs, data_dir=data_dir), seeds))
            bare.append(time.perf_counter() - started)
            with tempfile.TemporaryDirectory() as out, redirect_stdout(sys.stderr):
                started = time.perf_counter()
                records, _ = run_batch(plan([path], given, seeds, Path(out)), workers)
                batched.append(time.perf_counter() - started)
            _all_well([record.error for record in records if record.status != "completed"])
    return {
        "notebook": path.stem,
        "runs": runs,
        "epochs": epochs,
        "workers": workers,
        "bare": bare,
        "batch": batched,
    }


def _all_well(outcomes: list) -> None:
    failed = [str(outcome) for outcome in outcomes if outcome is not None]
    if failed:
        raise UsageError(f"not every training ended, so nothing is measured: {failed[0]}")


def train_bare(seed: int, epochs: int, data_dir: str) -> None:
    """A training of `quickest` without its notebook, on one thread."""
    train_quickest(seed, choose_device("cpu", threads=1), _holdout(data_dir), epochs=epochs)


@functools.cache
def _holdout(data_dir: str) -> Data:
    """In each process, read once."""
    return load_data("mnist", data_dir, split="holdout")


def parameters_of(notebook: str) -> SimpleNamespace:
    """A notebook's parameters as it declares them. Raises UsageError outside of a clone."""
    declared = read_parameters(find_notebook(notebook))
    return SimpleNamespace(**{name: one.default for name, one in declared.items()})


def train_quickest(seed: int, device: torch.device, data: Data, **changed) -> Pass | None:
    """The training of the notebook `quickest`, some of its parameters `changed`; its last test."""
    p = parameters_of("quickest")
    vars(p).update(changed)
    set_seed(seed)
    model = build_model("quickest").to(device, memory_format=torch.channels_last)
    distort = Affine(p.degrees, p.translate, p.scale, p.shear, p.elastic)
    loader, held = make_loaders(data, p.batch_size, seed, device, distort, p.deskew)
    groups = split_parameters(model, p.other_learning_rate, p.weight_decay)
    optimizer = Muon(groups, p.learning_rate, p.momentum)
    scheduler = rise_and_fall(optimizer, p.epochs * len(loader), p.warmup)
    tested = None
    for epoch in range(1, p.epochs + 1):
        train(model, device, loader, optimizer, epoch, scheduler, progress=False)
        tested = test(model, device, held, progress=False)
    return tested


@contextmanager
def busy_cores(count: int):
    """Within it, `count` processes use as much of the processor as they get."""
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def in_turns(contenders: dict, repeats: int, count: int) -> dict[str, list[float]]:
    """Seconds of each contender for `count` images, over `repeats` turns."""
    seconds = {name: [] for name in contenders}
    with processes(contenders) as turn:
        for _ in range(repeats):
            for name in contenders:
                seconds[name].append(turn(name, count)[0])
    return seconds


@contextmanager
def processes(contenders: dict, count: int = 0):
    """A function that lets the named contender take a turn, and gives its seconds and its result.

    A contender is called once, in a process of its own, since threads and the memory allocator are
    settings of a process; what it returns does its turns. The processes use the first `count`
    cores, or all with 0. Raises UsageError where one of them dies.
    """
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = {}
        for name, contender in contenders.items():
            pool = ProcessPoolExecutor(1, spawn, _prepare, [contender, count])
            pools[name] = stack.enter_context(pool)

        def turn(name: str, argument: int) -> tuple:
            try:
                return pools[name].submit(_turn, argument).result()
            except BrokenProcessPool:
                raise UsageError(f"the process of {name!r} ended; is there memory?") from None

        yield turn


def _prepare(contender, count: int) -> None:
    global _take_turn
    if count and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    _take_turn = contender()


def _turn(argument: int) -> tuple:
    started = time.perf_counter()
    result = _take_turn(argument)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def whole_training(device: str, data_dir: str, threads: int):
    """A contender whose turn is a whole training with a seed and gives the accuracy."""

    def training(seed: int) -> float:
        chosen = choose_device(device, threads)
        return train_quickest(seed, chosen, load_data("mnist", data_dir)).accuracy

    return training


def usual(device: str, data_dir: str, threads: int = 0, augment: Affine | None = None):
    """A contender whose turn trains by so many images, the way most people write it."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    warnings.filterwarnings("ignore", "This DataLoader will create")  # on a machine with one core
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    if augment:
        shift, sizes = (augment.translate,) * 2, (1 - augment.scale, 1 + augment.scale)
        steps.insert(0, transforms.RandomAffine(augment.degrees, shift, sizes, augment.shear))
    images = datasets.MNIST(data_dir, train=True, transform=transforms.Compose(steps))
    model = SeedModel().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def epoch(count: int) -> None:
        model.train()
        part, correct = Subset(images, range(count)), 0
        for batch, labels in DataLoader(part, 128, shuffle=True, num_workers=2):
            batch, labels = batch.to(device), labels.to(device)
            optimizer.zero_grad()
            output = model(batch)
            loss = F.cross_entropy(output, labels)
            loss.backward()
            optimizer.step()
            correct += (output.argmax(dim=1) == labels).sum().item()
            loss.item()  # for the bar

    epoch(20 * 128)  # nobody's warming up may fall into another's turn
    return epoch


def ours(device: str, data_dir: str, threads: int = 0, augment: Affine | None = None):
    """A contender whose turn trains by so many images, as the notebooks do."""
    chosen = choose_device(device, threads)
    set_seed(0)
    data = load_data("mnist", data_dir)
    model = SeedModel().to(chosen, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def epoch(count: int) -> None:
        images, labels = data.train_images[:count].to(chosen), data.train_labels[:count].to(chosen)
        generator = torch.Generator(chosen).manual_seed(0)
        loader = TensorLoader(images, labels, 128, generator, augment)
        train(model, chosen, loader, optimizer, progress=False)

    epoch(20 * 128)
    return epoch


def floor(device: str, data_dir: str):
    """A contender whose turn runs the model's convolutions for so many images."""
    chosen = choose_device(device)
    set_seed(0)
    model = SeedModel().to(chosen, memory_format=torch.channels_last)
    calls = []

    def note(layer, inputs, output):
        known = inputs[0].detach().requires_grad_(bool(calls))
        calls.append((layer, known, torch.randn_like(output)))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    loader, _ = make_loaders(load_data("mnist", data_dir), 128, 0, chosen)
    model(next(iter(loader))[0])
    for hook in hooks:
        hook.remove()

    def epoch(count: int) -> None:
        for _ in range(-(-count // 128)):
            for layer, inputs, gradient in calls:
                inputs.grad = layer.weight.grad = layer.bias.grad = None
                layer(inputs).backward(gradient)

    epoch(20 * 128)
    return epoch
