"""What running through papermill costs beyond the trainings themselves: `python -m mnist_utils bench --batch 200`.

The same trainings are done bare, in processes that import once and then only train, and as a batch of notebooks, taking
turns in one run. What a job of the batch takes is shown in its parts. `bench --scheduling` asks what Dask adds to jobs
that do nothing.
"""

import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch

from ..batch.executor import run_batch
from ..batch.plan import Job, plan
from ..data import load_data, make_loaders
from ..models import build_model
from ..parameters import find_notebook
from ..records import RunRecord
from ..training import choose_device, device_facts, set_seed, test, train

TURNS = 2  # each a batch of its own, which pays once for starting its workers
WORKERS = 4


def throughput(count: int, epochs: int, data_dir: str = "data", mirror: str = "") -> dict:
    """Seconds of `count` runs of 01, `epochs` epochs and one thread each, `WORKERS` at a time: bare and as a batch.

    They are split into `TURNS` parts, of which each is done both ways. Raises DataError where MNIST cannot be had.
    """
    load_data("mnist", data_dir, mirror)
    bare, batch, parts = [], [], []
    with multiprocessing.get_context("spawn").Pool(WORKERS, _start, [data_dir]) as pool:
        pool.map(_train, [(seed, 1) for seed in range(WORKERS)], chunksize=1)
        for turn in range(TURNS):
            seeds = range(turn * count // TURNS, (turn + 1) * count // TURNS)
            bare.append(_seconds(pool.map, _train, [(seed, epochs) for seed in seeds], 1))
            with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(sys.stderr):
                jobs = _jobs(epochs, seeds, data_dir, Path(out))
                batch.append(_seconds(run_batch, jobs, WORKERS))
                parts += [_parts(job) for job in jobs]
    facts = device_facts(choose_device("cpu")) | {"torch": torch.__version__}
    return {"machine": facts, "jobs": count, "epochs": epochs, "bare": bare, "batch": batch, "parts": parts}


def _seconds(function, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def _jobs(epochs: int, seeds: range, data_dir: str, out: Path) -> list[Job]:
    given = {"epochs": str(epochs), "threads": "1", "dataset": "mnist", "split": "holdout", "data_dir": data_dir}
    return plan([find_notebook("01_seed_model")], given, seeds, out)


def _start(data_dir: str) -> None:
    """In each bare process, once: what a notebook does before it trains."""
    global DATA
    DATA = load_data("mnist", data_dir, split="holdout")


def _train(job: tuple[int, int]) -> float:
    """The training of 01; the loss it ends with."""
    (seed, epochs), device = job, choose_device("cpu", threads=1)
    set_seed(seed)
    model = build_model("seed").to(memory_format=torch.channels_last)
    loader, holdout = make_loaders(DATA, 128, seed, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    for epoch in range(1, epochs + 1):
        train(model, device, loader, optimizer, epoch, progress=False)
        tested = test(model, device, holdout, progress=False)
    return tested.loss


def _parts(job: Job) -> dict[str, float]:
    """Seconds of one job, from its record and its executed notebook."""
    record = RunRecord.load(job.folder)
    facts = json.loads((job.folder / job.path.name).read_text(encoding="utf-8"))
    cells = [cell["metadata"]["papermill"] for cell in facts["cells"] if cell["metadata"].get("papermill")]
    begun = datetime.fromisoformat(facts["metadata"]["papermill"]["start_time"])
    first = next(cell["start_time"] for cell in cells if cell.get("start_time"))
    training = sum(row.train_seconds + row.validation_seconds for row in record.epochs)
    return {
        "training and testing": training,
        "start of the kernel": (datetime.fromisoformat(first) - begun).total_seconds(),
        "imports, data, tables, pictures": sum(cell.get("duration") or 0 for cell in cells) - training,
    }


def format_throughput(result: dict) -> str:
    """As Markdown: the ratio of every turn, then what a job is made of."""
    n, ratios = len(result["bare"]), [bare / batch for bare, batch in zip(result["bare"], result["batch"])]
    each = WORKERS * sum(result["batch"]) / result["jobs"]
    parts = {name: [part[name] for part in result["parts"]] for name in result["parts"][0]}
    known = {name: statistics.mean(values) for name, values in parts.items()}
    known["start of the workers, saving, page"] = each - sum(known.values())
    lines = [f"{result['jobs']} runs of {result['epochs']} epochs, {WORKERS} at a time, on {result['machine']['name']}"]
    lines += ["", "| throughput against bare trainings | median | least | most | n |", "|---|---|---|---|---|"]
    lines += [f"| batch / bare | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} | {n} |"]
    lines += ["", "| seconds of one job, mean | | share |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.1f} | {seconds / each:.0%} |" for name, seconds in known.items()]
    bare = WORKERS * sum(result["bare"]) / result["jobs"]
    return "\n".join([*lines, f"| all of it, and bare | {each:.1f}, {bare:.1f} | |"])


def scheduling(counts: tuple[int, ...] = (10, 100, 1_000, 10_000)) -> dict:
    """Seconds for jobs that do nothing, on a Dask cluster of `WORKERS` local processes with one thread each.

    `ours` is what the batch runner does for a job beside: plan it, look whether it is done, write the summary.
    """
    from ..batch.executor import engine

    found = {"dask": {}, "ours": {}}
    with engine(WORKERS) as pool:
        list(pool.map_unordered(_nothing, range(2 * WORKERS)))
        for count in counts:
            found["dask"][count] = _seconds(list, pool.map_unordered(_nothing, range(count)))
    for count in counts:
        with tempfile.TemporaryDirectory() as out:
            found["ours"][count] = _seconds(_keep_books, count, Path(out))
    return found


def _nothing(number: int) -> int:
    return number


def _keep_books(count: int, out: Path) -> None:
    from ..batch.summary import write_summary

    jobs = _jobs(1, range(count), "data", out)
    for job in jobs:
        job.is_done()
    write_summary(out, [(job, RunRecord(job.path.stem, job.values)) for job in jobs])


def format_scheduling(result: dict) -> str:
    """As Markdown: milliseconds a job."""
    counts = list(result["dask"])
    lines = ["| milliseconds a job | " + " | ".join(f"{int(count):,} jobs" for count in counts) + " |"]
    lines += ["|---|" + "---|" * len(counts)]
    for name, label in (("dask", "Dask: submit, schedule, fetch"), ("ours", "plan, look whether done, summary")):
        cells = [f"{1000 * seconds / int(count):.2f}" for count, seconds in result[name].items()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)
