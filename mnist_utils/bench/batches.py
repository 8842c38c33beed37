"""What a batch of notebooks costs beyond its trainings, and what Dask costs beyond its jobs."""

import contextlib
import functools
import json
import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import torch

from ..batch.executor import engine, run_batch
from ..batch.plan import Job, plan
from ..data import load_data, make_loaders
from ..models import build_model
from ..parameters import find_notebook
from ..records import RunRecord
from ..training import choose_device, set_seed, test, train

TURNS = 2  # each a batch of its own, which pays once for starting its workers
COUNTS = (10, 100, 1_000, 10_000)


def batch(settings) -> dict:
    """Seconds of `runs` trainings of 01, one thread each, bare and as a batch, in turns; and the parts of each job."""
    workers = os.cpu_count()
    bare, batched, parts = [], [], []
    with engine(workers) as pool:
        work = functools.partial(train_bare, epochs=settings.epochs, data_dir=settings.data_dir)
        list(
            pool.map_unordered(
                functools.partial(train_bare, epochs=0, data_dir=settings.data_dir), range(workers)
            )
        )
        for turn in range(TURNS):
            seeds = range(turn * settings.runs // TURNS, (turn + 1) * settings.runs // TURNS)
            bare.append(_seconds(list, pool.map_unordered(work, seeds)))
            with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(sys.stderr):
                jobs = _jobs(settings.epochs, seeds, settings.data_dir, Path(out))
                batched.append(_seconds(run_batch, jobs, workers))
                parts += [parts_of(job) for job in jobs]
    counts = {"jobs": settings.runs, "epochs": settings.epochs, "workers": workers}
    return counts | {"bare": bare, "batch": batched, "parts": parts}


def train_bare(seed: int, epochs: int, data_dir: str) -> float:
    """The training of 01 without its notebook; the loss it ends with (0 for no epochs)."""
    device, loss = choose_device("cpu", threads=1), 0.0
    data = _data(data_dir)
    set_seed(seed)
    model = build_model("seed").to(memory_format=torch.channels_last)
    loader, holdout = make_loaders(data, 128, seed, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    for epoch in range(1, epochs + 1):
        train(model, device, loader, optimizer, epoch, progress=False)
        loss = test(model, device, holdout, progress=False).loss
    return loss


@functools.cache
def _data(data_dir: str):
    """In each process, read once."""
    return load_data("mnist", data_dir, split="holdout")


def parts_of(job: Job) -> dict[str, float]:
    """Seconds of one job, from its record and its executed notebook."""
    record = RunRecord.load(job.folder)
    notebook = json.loads((job.folder / job.path.name).read_text(encoding="utf-8"))
    cells = [cell["metadata"].get("papermill") or {} for cell in notebook["cells"]]
    begun = datetime.fromisoformat(notebook["metadata"]["papermill"]["start_time"])
    first = next(cell["start_time"] for cell in cells if cell.get("start_time"))
    training = sum(row.train_seconds + row.validation_seconds for row in record.epochs)
    return {
        "training and testing": training,
        "start of the kernel": (datetime.fromisoformat(first) - begun).total_seconds(),
        "imports, data, tables, pictures": sum(cell.get("duration") or 0 for cell in cells)
        - training,
    }


def scheduling(settings, counts: tuple[int, ...] = COUNTS) -> dict:
    """Seconds for jobs that do nothing on Dask, and for what a batch does for a job beside running it."""
    found = {"dask": {}, "ours": {}}
    with engine(2) as pool:
        list(pool.map_unordered(abs, range(8)))
        for count in counts:
            found["dask"][str(count)] = _seconds(list, pool.map_unordered(abs, range(count)))
    for count in counts:
        with tempfile.TemporaryDirectory() as out:
            found["ours"][str(count)] = _seconds(_keep_books, count, Path(out))
    return found


def _keep_books(count: int, out: Path) -> None:
    for job in _jobs(1, range(count), "data", out):
        job.is_done()


def _jobs(epochs: int, seeds: range, data_dir: str, out: Path) -> list[Job]:
    given = {
        "epochs": str(epochs),
        "threads": "1",
        "dataset": "mnist",
        "split": "holdout",
        "data_dir": data_dir,
    }
    return plan([find_notebook("01_seed_model")], given, seeds, out)


def _seconds(function, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started
