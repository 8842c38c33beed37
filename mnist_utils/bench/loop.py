"""How fast the training loop is, as ratios measured in one run: `python -m mnist_utils bench`.

Each contender lives in a process of its own, because one of the things compared is a setting of a process's memory
allocator; they take turns, one epoch each, over and over, and only the one whose turn it is works. What is reported is
the median over the turns, with the fastest and the slowest. Nothing here is asserted: machines are shared and noisy.

- usual: what people write: torchvision transforms in a DataLoader with two workers, default layout, plain SGD
- ours:  `TensorLoader` and `train` as the notebooks call them
- floor: the model's convolutions alone, forward and backward, same shapes and layout, on data already there

`paired` asks whether the tuning changed what is learnt, `time_to` how long a model takes to reach an accuracy.
"""

import multiprocessing
import platform
import resource
import statistics
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from .. import models, training
from ..augment import Affine
from ..data import MEAN, STD, Data, load_data, make_loaders
from ..models import SeedModel, count_parameters
from ..training import check_amp, choose_device, device_facts, set_seed, test, train

AUGMENT = Affine(degrees=10, translate=0.07, scale=0.1, shear=6)
ELASTIC = replace(AUGMENT, elastic=0.03)
SHORT = 12_800  # images of an epoch where only growth is looked at


@dataclass(frozen=True)
class Work:
    """One contender: what it does in its turn. `threads` 0 is torch's own choice; `width` scales the channels."""

    kind: str = "ours"
    augment: Affine | None = None
    images: int = 60_000
    batch_size: int = 128
    threads: int = 0
    width: float = 1.0
    amp: bool = False
    tuned: bool = True  # False: freed memory goes back to the kernel, dropout is torch's, SGD is not fused
    device: str = "auto"
    data_dir: str = "data"


def run_bench(data_dir: str = "data", mirror: str = "", device: str = "auto", repeats: int = 5) -> dict:
    """Every measurement, as a dictionary that `json` can write. Raises DataError where MNIST cannot be had."""
    load_data("mnist", data_dir, mirror)
    base = Work(data_dir=data_dir, device=device)
    return {
        "machine": _machine(device),
        "repeats": repeats,
        "loop": _compare(_main_contenders(base), repeats),
        "growth": _compare(_growth_contenders(base), repeats),
        "side_by_side": _side_by_side(base, repeats),
        "start": _start(base),
        "profile": _profile(base),
    }


def format_bench(result: dict) -> str:
    """The measurements as Markdown tables: ratios first, then what they are made of."""
    loop, sides, start = result["loop"], result["side_by_side"], result["start"]
    ratios = {f"{over} / {under}": _ratios(loop, over, under) for over, under in RATIOS if {over, under} <= set(loop)}
    ratios[f"{sides['runs']} one-thread runs / one run, epochs an hour"] = sides["ratios"]
    shares = {
        f"share of the step in {name.removeprefix('ours, ')}": [1 - 1 / r for r in _ratios(loop, name, "ours")]
        for name in ("ours, augmented", "ours, augmented and elastic")
    }
    seconds = {name: row["seconds"] for name, row in (loop | result["growth"]).items()}
    peaks = {name: row["peak_mb"] for name, row in (loop | result["growth"]).items()}
    tables = [
        _table("ratio in one run", ratios, "{:.2f}"),
        _table("share", shares, "{:.1%}"),
        _table("seconds an epoch of 60,000 images", seconds, "{:.2f}", peaks),
        _table("seconds of a run's start", start, "{:.2f}"),
    ]
    machine = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    return "\n\n".join([machine, *tables, "Own time of twenty warm steps: " + "; ".join(result["profile"])])


RATIOS = (
    ("usual", "ours"),
    ("usual, augmented", "ours, augmented"),
    ("usual", "ours, amp"),
    ("usual, augmented", "ours, augmented, amp"),
    ("ours", "floor"),
    ("ours, amp", "floor"),
    ("ours, before tuning", "ours"),
)


def _ratios(loop: dict, over: str, under: str) -> list[float]:
    """Turn by turn: what one round measured of both."""
    return [a / b for a, b in zip(loop[over]["seconds"], loop[under]["seconds"])]


def _table(title: str, rows: dict[str, list[float]], form: str, peaks: dict | None = None) -> str:
    head = f"| {title} | median | least | most | n |" + (" peak MB |" if peaks else "")
    lines = [head, "|---|---|---|---|---|" + ("---|" if peaks else "")]
    for name, values in rows.items():
        cells = [form.format(v) for v in (statistics.median(values), min(values), max(values))]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(values)} |" + (f" {peaks[name]:,} |" if peaks else ""))
    return "\n".join(lines)


def format_paired(result: dict) -> str:
    """Mean holdout accuracy of each variant and its paired difference from ours, with 95% intervals (Student's t)."""
    from scipy.stats import t

    ours, lines = result["accuracies"]["ours"], []
    for name, accuracies in result["accuracies"].items():
        differences = [100 * (a - b) for a, b in zip(accuracies, ours)]
        n, mean = len(ours), statistics.mean(accuracies)
        half = t.ppf(0.975, n - 1) * statistics.stdev(differences) / n**0.5
        change = "" if name == "ours" else f" | {statistics.mean(differences):+.3f} ± {half:.3f} |"
        lines.append(f"| {name} | {mean:.3%} | {100 * statistics.stdev(accuracies):.3f}" + (change or " | |"))
    head = "| variant | mean holdout accuracy | standard deviation (points) | difference from ours (points, 95%) |"
    return "\n".join([head, "|---|---|---|---|", *lines])


def _main_contenders(base: Work) -> dict[str, Work]:
    contenders = {
        "usual": replace(base, kind="usual"),
        "usual, augmented": replace(base, kind="usual", augment=AUGMENT),
        "ours": base,
        "ours, augmented": replace(base, augment=AUGMENT),
        "ours, augmented and elastic": replace(base, augment=ELASTIC),
        "ours, before tuning": replace(base, tuned=False),
        "floor": replace(base, kind="floor"),
    }
    try:
        check_amp(choose_device(base.device))
        fast = replace(base, amp=True)
        contenders |= {"ours, amp": fast, "ours, augmented, amp": replace(fast, augment=AUGMENT)}
    except ValueError:
        pass
    return contenders


def _growth_contenders(base: Work) -> dict[str, Work]:
    base = replace(base, images=SHORT)
    batches = {f"batch size {size}": replace(base, batch_size=size) for size in (64, 128, 256, 512, 1024)}
    counts = sorted({1, 2, torch.get_num_threads()}) if choose_device(base.device).type == "cpu" else []
    threads = {f"threads {count}": replace(base, threads=count) for count in counts}
    widths = {
        f"parameters {count_parameters(SeedModel(width=width)):,}": replace(base, width=width)
        for width in (0.45, 0.7, 1.0, 1.42)
    }
    return batches | threads | widths


def _compare(contenders: dict[str, Work], repeats: int) -> dict:
    """By name: the seconds of each turn, for an epoch of 60,000 images, and the process's peak memory in MB."""
    processes = {name: _Process(work) for name, work in contenders.items()}
    turns = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, process in processes.items():
            turns[name].append(process.turn() * 60_000 / contenders[name].images)
    return {name: {"seconds": turns[name], "peak_mb": process.stop()} for name, process in processes.items()}


def _side_by_side(base: Work, repeats: int) -> dict:
    """One run on all threads against as many one-thread runs at once, in epochs an hour."""
    count = torch.get_num_threads()
    together = [_Process(replace(base, images=SHORT, threads=1)) for _ in range(count)]
    alone = _Process(replace(base, images=SHORT, threads=count))
    ratios = []
    for _ in range(repeats):
        one = alone.turn()
        for process in together:
            process.begin()
        many = max(process.end() for process in together)
        ratios.append(count * one / many)
    for process in [*together, alone]:
        process.stop()
    return {"runs": count, "ratios": ratios}


def _start(base: Work) -> dict:
    """A run's beginning, three times in a fresh process: seconds to tensors, and from nothing to the first step."""
    facts = []
    for _ in range(3):
        process = _Process(base)
        process.turn()
        facts.append(process.facts)
        process.stop()
    return {key: [fact[key] for fact in facts] for key in facts[0]}


class _Process:
    """A contender in a process of its own: `turn` is one epoch, in seconds."""

    def __init__(self, work: Work):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, time.time()))
        self.process.start()
        self.facts = self._receive()

    def turn(self) -> float:
        self.begin()
        return self.end()

    def begin(self) -> None:
        self.pipe.send("turn")

    def end(self) -> float:
        return self._receive()

    def stop(self) -> int:
        """Peak memory of the process in MB."""
        self.pipe.send("stop")
        peak = self._receive()
        self.process.join()
        return peak

    def _receive(self):
        try:
            return self.pipe.recv()
        except EOFError:
            raise RuntimeError("a contender died; its error stands above") from None


def _serve(pipe, work: Work, asked_at: float) -> None:
    """The other end of `_Process`: prepare, warm up, then take a turn whenever asked."""
    device = _device(work)
    set_seed(0)
    started = time.perf_counter()
    data = load_data("mnist", work.data_dir)
    data_seconds = time.perf_counter() - started
    turn = {"usual": _usual, "ours": _ours, "floor": _floor}[work.kind](work, device, data)
    turn(work.batch_size)
    facts = {"data_seconds": data_seconds, "first_step_seconds": time.time() - asked_at}
    turn(20 * work.batch_size)
    pipe.send(facts)  # only now: nobody's warming up may fall into another's turn
    while pipe.recv() == "turn":
        started = time.perf_counter()
        turn(work.images)
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - started)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if platform.system() == "Linux" else 2**20))


def _device(work: Work) -> torch.device:
    """The device; this process's allocator, and dropout, are torch's own where tuning is no part of the work."""
    if not work.tuned or work.kind == "usual":
        training._keep_freed_memory = lambda: None
        models.Dropout.forward = nn.Dropout.forward
    return choose_device(work.device, work.threads)


def _usual(work: Work, device: torch.device, data: Data):
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    a = work.augment
    steps = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    if a:
        steps.insert(0, transforms.RandomAffine(a.degrees, (a.translate,) * 2, (1 - a.scale, 1 + a.scale), a.shear))
    images = datasets.MNIST(work.data_dir, train=True, transform=transforms.Compose(steps))
    model = SeedModel(width=work.width).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def turn(count: int) -> None:
        model.train()
        correct = 0
        part = images if count == len(images) else Subset(images, range(count))
        for batch, labels in DataLoader(part, work.batch_size, shuffle=True, num_workers=2):
            batch, labels = batch.to(device), labels.to(device)
            optimizer.zero_grad()
            output = model(batch)
            loss = F.cross_entropy(output, labels)
            loss.backward()
            optimizer.step()
            correct += (output.argmax(dim=1) == labels).sum().item()
            loss.item()  # for the bar

    return turn


def _ours(work: Work, device: torch.device, data: Data):
    model = SeedModel(width=work.width).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=work.tuned)

    def turn(count: int) -> None:
        part = replace(data, train_images=data.train_images[:count], train_labels=data.train_labels[:count])
        loader, _ = make_loaders(part, work.batch_size, 0, device, work.augment)
        train(model, device, loader, optimizer, amp=work.amp, progress=False)

    return turn


def _floor(work: Work, device: torch.device, data: Data):
    model = SeedModel(width=work.width).to(device, memory_format=torch.channels_last)
    calls = []

    def note(layer, inputs, output):
        calls.append((layer, inputs[0].detach().requires_grad_(bool(calls)), torch.randn_like(output)))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    loader, _ = make_loaders(data, work.batch_size, 0, device)
    model(next(iter(loader))[0])
    for hook in hooks:
        hook.remove()

    def turn(count: int) -> None:
        for _ in range(-(-count // work.batch_size)):
            for layer, inputs, gradient in calls:
                inputs.grad = layer.weight.grad = layer.bias.grad = None
                layer(inputs).backward(gradient)

    return turn


def _profile(base: Work) -> list[str]:
    """The operators that take the most time of a step's own, in percent, over twenty warm steps of ours."""
    from torch.profiler import ProfilerActivity, profile

    device = choose_device(base.device)
    turn = _ours(base, device, load_data("mnist", base.data_dir))
    turn(20 * base.batch_size)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        turn(20 * base.batch_size)
    rows = sorted(watched.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    return [f"{row.key} {row.self_cpu_time_total / total:.1%}" for row in rows[:10]]


def _machine(device: str) -> dict:
    return device_facts(choose_device(device)) | {"torch": torch.__version__, "python": platform.python_version()}


def paired(seeds: range, epochs: int = 5, data_dir: str = "data", mirror: str = "") -> dict:
    """Holdout accuracies of one recipe, seed by seed, before tuning, as it is now, and with amp; one thread a run."""
    load_data("mnist", data_dir, mirror)
    base = Work(augment=AUGMENT, threads=1, device="cpu", data_dir=data_dir)
    variants = {"before tuning": replace(base, tuned=False), "ours": base, "ours, amp": replace(base, amp=True)}
    jobs = [(name, work, seed) for seed in seeds for name, work in variants.items()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(torch.get_num_threads(), maxtasksperchild=1) as pool:
        results = pool.starmap(_accuracy, [(work, seed, epochs) for _, work, seed in jobs], chunksize=1)
    accuracies = {name: [r for (n, _, _), r in zip(jobs, results) if n == name] for name in variants}
    return {"machine": _machine("cpu"), "seeds": list(seeds), "epochs": epochs, "accuracies": accuracies}


def _accuracy(work: Work, seed: int, epochs: int) -> float:
    device = _device(work)
    data = load_data("mnist", work.data_dir, split="holdout")
    *_, last = _train_and_test(data, device, seed, epochs, work)
    return last.accuracy


def time_to(target: float, seeds: range, epochs: int = 19, data_dir: str = "data", device: str = "auto") -> dict:
    """Seconds, seed by seed, from data on the device to a model that reads `target` of the test images, tests included.

    None where no epoch does. One untimed run comes first, so that nothing is compiled or loaded in the timed ones.
    """
    where, data = choose_device(device), load_data("mnist", data_dir)
    work, seconds = Work(augment=AUGMENT, data_dir=data_dir), []
    for seed in [seeds[0], *seeds]:
        started = time.perf_counter()
        passes = _train_and_test(data, where, seed, epochs, work)
        reached = any(tested.accuracy >= target for tested in passes)
        seconds.append(time.perf_counter() - started if reached else None)
    return {"machine": _machine(device), "target": target, "seeds": list(seeds), "seconds": seconds[1:]}


def _train_and_test(data: Data, device: torch.device, seed: int, epochs: int, work: Work):
    """Train the seed model at a rate that falls to zero and yield what it reads after each epoch."""
    set_seed(seed)
    model = SeedModel().to(device, memory_format=torch.channels_last)
    loader, validation = make_loaders(data, work.batch_size, seed, device, work.augment)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=work.tuned)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * len(loader))
    for epoch in range(1, epochs + 1):
        train(model, device, loader, optimizer, epoch, scheduler, amp=work.amp, progress=False)
        yield test(model, device, validation, progress=False)
