"""The training loop beside the usual one, and what threads and batches make of it.

- usual: what people write: torchvision's transforms in a DataLoader with two workers
- ours:  `TensorLoader` and `train`, as the notebooks call them
- floor: the model's convolutions alone, forward and backward, on data that is already there
"""

import itertools
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import date
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..assignment import ASSIGNMENT
from ..augment import Affine
from ..batch.devices import cores
from ..batch.executor import engine, run_batch
from ..batch.plan import plan
from ..data import MEAN, STD, TensorLoader, load_data
from ..errors import UsageError
from ..layers import trace_layers
from ..models import ConvNet, SeedModel, build_model
from ..parameters import find_notebook
from ..training import choose_device, device_facts, set_seed, train
from . import MEASUREMENTS
from .search import Trial, run_trial

AUGMENT = Affine(degrees=10, translate=0.07, scale=0.1, shear=6)
STEPS = 300  # of 128 images, in a turn for which a whole epoch would take too long
WARM = 20 * 128  # images before the first turn: nobody's start may fall into another's turn
USUAL_EPOCHS = 19  # that 02_falling_rate and 03_augmentation take, whose recipes the usual loop has
# The recipe of the notebook `quickest`, but for its epochs.
QUICKEST = (
    "blocks=v12_v16_M_v24_v24_M_v32 batch_size=64 optimizer=muon learning_rate=0.05 warmup=0.1 "
    "weight_decay=0.0 augmentation=0.2 deskew=1 shear=0.0 epochs="
)
# A program that keeps a core busy. It ends when the process that started it does.
BUSY = "import os; p = os.getppid()\nwhile os.getppid() == p: sum(range(1_000_000))"


def measure(
    what: str,
    repeats: int | None = None,
    device: str = "auto",
    data_dir: str = "data",
    mirror: str = "",
    epochs: int = 2,
) -> dict:
    """Measure `what`, one of `MEASUREMENTS`; `epochs` is for batch. A dictionary for `json`.

    `device` is for loop and target; the others are of the CPU, also where there is a GPU. Raises
    UsageError for another name, for a device that cannot be used and where a training fails, and
    DataError where MNIST cannot be had.
    """
    if what not in MEASUREMENTS:
        names = ", ".join(MEASUREMENTS)
        raise UsageError(f"there is no {what!r} to measure; choose one of {names}")
    if what not in ("loop", "target"):
        if device not in ("auto", "cpu"):
            raise UsageError(f"{what} is measured on the CPU only, not on {device!r}")
        device = "cpu"
    try:
        chosen = choose_device(device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    load_data("mnist", data_dir, mirror)
    machine = {
        "device": device_facts(chosen)["name"],
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    kinds = {"loop": loop, "target": target, "threads": threads, "step": step, "batch": batch}
    turns = repeats or MEASUREMENTS[what]
    result = kinds[what](repeats=turns, device=device, data_dir=data_dir, epochs=epochs)
    return {what: {"machine": machine} | result}


def loop(repeats: int, device: str, data_dir: str, **_) -> dict:
    """An epoch of 60,000 images of the original model at batch 128."""
    place = (60_000, device, data_dir)
    contenders = {
        "usual": partial(usual, *place),
        "usual, augmented": partial(usual, *place, augment=AUGMENT),
        "ours": partial(ours, *place),
        "ours, augmented": partial(ours, *place, augment=AUGMENT),
        "floor": partial(floor, 60_000, device),
    }
    pairs = [("usual", "ours"), ("usual, augmented", "ours, augmented"), ("ours", "floor")]
    seconds, _ = in_turns(contenders, repeats)
    return _result("seconds an epoch of 60,000 images", seconds, pairs)


def target(repeats: int, device: str, data_dir: str, **_) -> dict:
    """Whole trainings of the recipe `quickest`, seed by seed, on one core and on all.

    The clock starts with the cached files unread and stops after the last epoch and its test. After
    each training the usual loop takes `STEPS` steps on the same cores; its seconds are scaled to a
    whole training.
    """
    seconds = {}
    pairs = []
    goal = float(ASSIGNMENT.target)
    whole = USUAL_EPOCHS * 60_000 / (STEPS * 128)
    notes = [f"usual: {USUAL_EPOCHS} epochs, estimated from {STEPS} steps beside each of ours"]
    for count in sorted({1, cores()}):
        place = (device, data_dir, int(count == 1))
        where = f"{count} of {cores()} cores"
        mine = f"ours, {where}"
        contenders = {
            mine: partial(whole_training, *place),
            f"usual, {where}": partial(usual, STEPS * 128, *place),
            f"usual, augmented, {where}": partial(usual, STEPS * 128, *place, augment=AUGMENT),
        }
        found, returned = in_turns(contenders, repeats, count)
        seconds[mine] = found.pop(mine)
        for name, turns in found.items():
            seconds[name] = [whole * turn for turn in turns]
            pairs.append((name, mine))
        ends = returned[mine]
        passed = f"{sum(end >= goal for end in ends)} of {len(ends)} end at {goal:.2%} or more"
        notes.append(f"{mine}: {passed}, on average at {statistics.mean(ends):.3%}")
    return _result("seconds of a whole training", seconds, pairs, *notes)


def threads(repeats: int, data_dir: str, **_) -> dict:
    """The default beside fixed numbers of threads while no, one or all cores have other work."""
    part = partial(ours, STEPS * 128, "cpu", data_dir)
    contenders = {"default": part, "1 thread": partial(part, 1), "2 threads": partial(part, 2)}
    seconds = {}
    pairs = []
    for situation, count in (("quiet", 0), ("one core busy", 1), ("all cores busy", cores())):
        with busy_cores(count):
            found, _ = in_turns(contenders, repeats)
        medians = {name: statistics.median(turns) for name, turns in found.items()}
        del medians["default"]
        best = min(medians, key=medians.get)
        pairs.append((f"{situation}: default", f"{situation}: {best}"))
        seconds |= {f"{situation}: {name}": turns for name, turns in found.items()}
    title = f"seconds of {STEPS} steps"
    return _result(title, seconds, pairs, "the ratios are to the best fixed number of threads")


def step(repeats: int, data_dir: str, **_) -> dict:
    """The network of `most_accurate` on one thread, beside the same with borders of zeros."""
    part = partial(ours, STEPS * 64, "cpu", data_dir, 1, AUGMENT, batch_size=64)
    contenders = {
        "with borders": partial(part, network=with_borders),
        "most_accurate": partial(part, network=partial(build_model, "most_accurate")),
    }
    seconds, _ = in_turns(contenders, repeats)
    return _result(f"seconds of {STEPS} steps of 64 images", seconds, [tuple(contenders)])


def with_borders() -> nn.Module:
    """What `most_accurate` was first: a border around every map, and no ReLU in place."""
    network = ConvNet("c16 d40 M d48 r48 r48 M d72 r72")
    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return network


def batch(repeats: int, data_dir: str, epochs: int, **_) -> dict:
    """Trainings of the recipe `quickest`, one thread each, bare and as a batch of notebooks.

    Five seeds for each worker are run both ways, then the next five, since a machine's speed may
    change; there are two such turns at least. A batch pays in each for starting its processes;
    those of the bare trainings have imported everything before.
    """
    workers = cores()
    size = min(5 * workers, -(-repeats // 2))
    given = {"threads": "1", "device_name": "cpu", "dataset": "mnist", "split": "holdout"}
    given |= {"data_dir": data_dir, "epochs": str(epochs)}
    bare = partial(run_trial, data_dir=data_dir)
    recipe = f"{QUICKEST}{epochs}"
    seconds = {"bare": [], "batch": []}
    with engine(workers) as pool:
        pool.map(Trial.read, [recipe] * workers)
        for first in range(0, repeats, size):
            seeds = range(first, first + size)
            started = time.perf_counter()
            ended = pool.map(bare, [(recipe, seed) for seed in seeds])
            seconds["bare"].append(time.perf_counter() - started)
            with tempfile.TemporaryDirectory() as out, redirect_stdout(sys.stderr):
                started = time.perf_counter()
                jobs = plan([find_notebook("quickest")], given, seeds, Path(out))
                records, stopped = run_batch(jobs, workers)
                seconds["batch"].append(time.perf_counter() - started)
            if stopped or pool.stops:
                raise KeyboardInterrupt
            failed = [str(one) for one in ended if isinstance(one, BaseException)]
            failed += [record.error for record in records if record.status != "completed"]
            if failed:
                raise UsageError(f"not every training ended; nothing is measured: {failed[0]}")
    one = {name: workers * statistics.mean(turns) / size for name, turns in seconds.items()}
    added = one["batch"] - one["bare"]
    title = f"seconds of {size} runs of quickest, epochs {epochs}, {workers} at a time"
    notes = (
        "the ratio is the throughput of a batch to that of the bare trainings",
        f"a run takes {one['batch']:.1f} s, of which a batch adds {added:.1f} s",
    )
    return _result(title, seconds, [("bare", "batch")], *notes)


def _result(title: str, seconds: dict, ratios: list, *notes: str) -> dict:
    return {"title": title, "seconds": seconds, "ratios": ratios, "notes": list(notes)}


@contextmanager
def busy_cores(count: int):
    """Within it, `count` processes use as much of the processor as they get."""
    # Ctrl-C ends them too; nobody wants to see where.
    words = {"args": [sys.executable, "-c", BUSY], "stderr": subprocess.DEVNULL}
    busy = [subprocess.Popen(**words) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def in_turns(contenders: dict, repeats: int, first: int = 0) -> tuple[dict, dict]:
    """Of each contender the seconds of its `repeats` turns, and what they returned.

    A contender is called once, in a process of its own, since threads and the memory allocator are
    settings of a process; it returns the function that does its turns. The processes use the
    `first` cores, or all with 0. Raises UsageError where one of them fails or dies.
    """
    spawn = multiprocessing.get_context("spawn")
    seconds = {name: [] for name in contenders}
    returned = {name: [] for name in contenders}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, spawn)) for name in contenders}
        # A process that is just starting would answer Ctrl-C with a traceback.
        answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
        ready = {name: pools[name].submit(_prepare, contenders[name], first) for name in pools}
        signal.signal(signal.SIGINT, answer)
        try:
            for name in ready:
                ready[name].result()
            for name in [*contenders] * repeats:
                taken, result = pools[name].submit(_turn).result()
                seconds[name].append(taken)
                returned[name].append(result)
        except Exception as error:  # of whatever kind; the process may have been killed as well
            raise UsageError(f"{name!r} ended with {type(error).__name__}: {error}") from error
    return seconds, returned


def _prepare(contender, first: int) -> None:
    global _take_turn
    signal.signal(signal.SIGINT, signal.SIG_DFL)
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
        _, passes = Trial.read(f"{QUICKEST}2").train(
            load_data("mnist", data_dir), next(seeds), chosen
        )
        return passes[-1][1].accuracy

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
        correct = 0
        for batch, labels in DataLoader(Subset(images, range(count)), 128, True, num_workers=2):
            batch, labels = batch.to(device), labels.to(device)
            optimizer.zero_grad()
            output = model(batch)
            loss = F.cross_entropy(output, labels)
            loss.backward()
            optimizer.step()
            correct += (output.argmax(dim=1) == labels).sum().item()
            loss.item()  # for the bar

    epoch(WARM)
    return partial(epoch, count)


def ours(
    count: int,
    device: str,
    data_dir: str,
    threads: int = 0,
    augment: Affine | None = None,
    network: Callable[[], nn.Module] = SeedModel,
    batch_size: int = 128,
):
    """A contender whose turn trains by `count` images, as the notebooks do."""
    chosen = choose_device(device, threads)
    set_seed(0)
    data = load_data("mnist", data_dir)
    model = network().to(chosen, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def epoch(count: int) -> None:
        images, labels = data.train_images[:count].to(chosen), data.train_labels[:count].to(chosen)
        generator = torch.Generator(chosen).manual_seed(0)
        loader = TensorLoader(images, labels, batch_size, generator, augment)
        train(model, chosen, loader, optimizer, progress=False)

    epoch(WARM)
    return partial(epoch, count)


def floor(count: int, device: str):
    """A contender whose turn runs the original model's convolutions for `count` images."""
    chosen = choose_device(device)
    model = SeedModel().to(chosen, memory_format=torch.channels_last)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    seen = [layer for layer in trace_layers(model) if layer.kind == "convolution"]
    calls = []
    for layer, facts in zip(convolutions, seen):
        maps = torch.randn(128, layer.in_channels, *facts.input_size, device=chosen)
        maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_(bool(calls))
        calls.append((layer, maps, torch.randn_like(layer(maps))))

    def epoch(count: int) -> None:
        for _ in range(-(-count // 128)):
            for layer, maps, gradient in calls:
                maps.grad = layer.weight.grad = layer.bias.grad = None
                layer(maps).backward(gradient)

    epoch(WARM)
    return partial(epoch, count)
