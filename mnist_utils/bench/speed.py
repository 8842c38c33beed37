"""The training loop beside the usual one, and what threads and batches make of it.

- usual: what people write: torchvision's transforms in a DataLoader with two workers
- ours:  `TensorLoader` and `train`, as the notebooks call them
- floor: the model's convolutions alone, forward and backward, on data that is already there
"""

import itertools
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
    place = {"count": 60_000, "device": device, "data_dir": data_dir}
    turns = in_turns(
        {
            "usual": partial(usual, **place),
            "usual, augmented": partial(usual, augment=AUGMENT, **place),
            "ours": partial(ours, **place),
            "ours, augmented": partial(ours, augment=AUGMENT, **place),
            "floor": partial(floor, **place),
        },
        repeats,
    )
    return {name: {"seconds": seconds_of(row)} for name, row in turns.items()}


def target(device: str = "auto", data_dir: str = "data", seeds: int = 10, **_) -> dict:
    """Whole trainings of the notebook `quickest`, seed by seed, on one core and on all.

    The clock starts with the cached files unread and stops after the last epoch and its test. After
    each training the usual loop takes `STEPS` steps on the same cores, plain and augmented.
    """
    found, images = {}, STEPS * 128
    for count in sorted({1, cores()}):
        place = {"device": device, "data_dir": data_dir, "threads": int(count == 1)}
        contenders = {
            "ours": partial(whole_training, **place),
            "usual": partial(usual, images, **place),
            "usual, augmented": partial(usual, images, augment=AUGMENT, **place),
        }
        turns = in_turns(contenders, seeds, count)
        found[str(count)] = {name: seconds_of(row) for name, row in turns.items()}
        found[str(count)]["accuracies"] = [accuracy for _, accuracy in turns["ours"]]
    epochs = {name: parameters_of(notebook).epochs for name, notebook in USUAL.items()}
    return {"images": images, "recipes": USUAL, "epochs": epochs, "cores": found}


def threads(data_dir: str = "data", repeats: int = 5, **_) -> dict:
    """Seconds a step of the original model, with no, one and all cores busy with other programs."""
    contenders = {"default": partial(ours, STEPS * 128, "cpu", data_dir)}
    for count in (1, 2):
        contenders[f"threads {count}"] = partial(ours, STEPS * 128, "cpu", data_dir, count)
    situations = {}
    for name, count in (("quiet", 0), ("one core busy", 1), ("all cores busy", cores())):
        with busy_cores(count):
            turns = in_turns(contenders, repeats)
        situations[name] = {kind: [s / STEPS for s, _ in row] for kind, row in turns.items()}
    return situations


def batch(data_dir: str = "data", epochs: int = 2, runs: int = 20, **_) -> dict:
    """Seconds of `runs` trainings of `quickest`, one thread each, bare and as a batch.

    Half of the seeds are run both ways, then the other half. A batch pays for starting its
    processes; those of the bare trainings have imported everything before.
    """
    path, workers = find_notebook("quickest"), cores()
    given = {"threads": "1", "dataset": "mnist", "split": "holdout"}
    given |= {"data_dir": data_dir, "epochs": str(epochs)}
    bare, batched = [], []
    with engine(workers) as pool:
        check_ended(pool.map(partial(train_bare, epochs=0, data_dir=data_dir), range(workers)))
        for seeds in filter(None, (range(0, runs, 2), range(1, runs, 2))):
            started = time.perf_counter()
            check_ended(pool.map(partial(train_bare, epochs=epochs, data_dir=data_dir), seeds))
            bare.append(time.perf_counter() - started)
            with tempfile.TemporaryDirectory() as out, redirect_stdout(sys.stderr):
                started = time.perf_counter()
                records, stopped = run_batch(plan([path], given, seeds, Path(out)), workers)
                batched.append(time.perf_counter() - started)
            if stopped:
                raise KeyboardInterrupt
            check_ended([record.error for record in records if record.status != "completed"])
    counts = {"notebook": path.stem, "runs": runs, "epochs": epochs, "workers": workers}
    return counts | {"bare": bare, "batch": batched}


def check_ended(outcomes: list) -> None:
    """Raise UsageError where an outcome is an error, an exception or a message, and not None."""
    failed = [str(outcome) for outcome in outcomes if outcome is not None]
    if failed:
        raise UsageError(f"not every training ended, so nothing is measured: {failed[0]}")


def train_bare(seed: int, epochs: int, data_dir: str) -> None:
    """A training of `quickest` without its notebook, on one thread, as `batch` has its runs made."""
    data = load_data("mnist", data_dir, split="holdout")
    train_quickest(seed, choose_device("cpu", threads=1), data, epochs=epochs)


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


def in_turns(contenders: dict, repeats: int, first: int = 0) -> dict[str, list[tuple]]:
    """Of each contender the `repeats` turns, as seconds and what the turn returned.

    A contender is called once, in a process of its own, since threads and the memory allocator are
    settings of a process; it returns the function that does its turns. The processes use the
    `first` cores, or all with 0. Raises UsageError where one of them dies.
    """
    spawn = multiprocessing.get_context("spawn")
    turns = {name: [] for name in contenders}
    with ExitStack() as stack:
        pools = {}
        for name, contender in contenders.items():
            pool = ProcessPoolExecutor(1, spawn, _prepare, [contender, first])
            pools[name] = stack.enter_context(pool)
        for name in [*contenders] * repeats:
            try:
                turns[name].append(pools[name].submit(_turn).result())
            except BrokenProcessPool:
                raise UsageError(f"the process of {name!r} ended; is there memory?") from None
    return turns


def seconds_of(turns: list[tuple]) -> list[float]:
    """The seconds of the turns of one contender."""
    return [seconds for seconds, _ in turns]


def _prepare(contender, first: int) -> None:
    global _take_turn
    if first and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:first])
    _take_turn = contender()


def _turn() -> tuple:
    started = time.perf_counter()
    result = _take_turn()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def whole_training(device: str, data_dir: str, threads: int):
    """A contender whose turns are whole trainings with seeds from 0 on; each gives its accuracy."""
    seeds = itertools.count()

    def training() -> float:
        chosen = choose_device(device, threads)
        return train_quickest(next(seeds), chosen, load_data("mnist", data_dir)).accuracy

    return training


def usual(count: int, device: str, data_dir: str, threads: int = 0, augment: Affine | None = None):
    """A contender whose turn trains by `count` images, the way most people write it."""
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
    return partial(epoch, count)


def ours(count: int, device: str, data_dir: str, threads: int = 0, augment: Affine | None = None):
    """A contender whose turn trains by `count` images, as the notebooks do."""
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
    return partial(epoch, count)


def floor(count: int, device: str, data_dir: str):
    """A contender whose turn runs the model's convolutions for `count` images."""
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
    return partial(epoch, count)
