"""Many runs: a plan that is checked before it starts, processes side by side, what is done stays done.

    jobs = plan([path], {"learning_rate": "0.1,0.2"}, range(10), Path("reports/local"))
    records, stopped = run_batch(jobs, workers=4)

Each run is a process of its own (`worker`). It does not know what a notebook trains: it reads the parameters cell and
the `run.json` the notebook writes.
"""

import contextlib
import csv
import functools
import io
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import RecordError, UsageError
from ..parameters import check_values, read_parameters
from ..records import RunRecord, write_text
from . import cluster
from .execute import fingerprint, is_running, run_folder
from .worker import Worker

JOB_MEMORY = 1.2e9  # bytes that a run of these notebooks needs at its peak, with some to spare
GRACE = 15.0  # seconds that a run has to end by itself when it is told to
ORPHAN = 2.0  # seconds in which a kernel whose process was killed notices it and ends
BATCH_KEYS = {"notebooks", "seeds", "parameters"}


@dataclass(frozen=True)
class Job:
    """One run to be made: a notebook, the values its parameters are given, and where runs go.

    `variant` names the values in which jobs of the same notebook and seed differ; empty where there is one only. `url`
    is where notebook and record are copied to as well, if anywhere.
    """

    path: Path
    values: dict
    out: Path
    variant: str = ""
    url: str = ""

    @property
    def folder(self) -> Path:
        return run_folder(self.path, self.values, self.out, self.variant)

    @property
    def name(self) -> str:
        return self.folder.relative_to(self.out).as_posix()

    def resolved(self) -> "Job":
        """The same job for a process that was started in another folder."""
        declared, places = read_parameters(self.path), {}
        for name in ("data_dir", "mirror"):
            value = self.values.get(name, declared[name].default if name in declared else "")
            if value and "://" not in value:
                places[name] = str(Path(value).resolve())
        return replace(self, path=self.path.resolve(), out=self.out.resolve(), values=self.values | places)

    @property
    def address(self) -> str:
        """Where the copies of this run go."""
        return f"{self.url}/{self.name}"

    def is_done(self) -> bool:
        """Whether the folder, or else the address, holds the record of a completed run of the same inputs."""
        self.fetch()
        try:
            record = RunRecord.load(self.folder)
        except RecordError:
            return False
        return record.status == "completed" and record.inputs == fingerprint(self.path, self.values)

    def fetch(self) -> None:
        """Where the folder has no record, take the one at the address: a worker may share no folder with us."""
        if self.url and not (self.folder / "run.json").exists() and (text := cluster.record_at(self.address)):
            with contextlib.suppress(OSError):  # what cannot be written here will be said of this folder
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self.folder / "run.json", text)


def parse_seeds(text: str) -> list[int]:
    """ "0-9,12" as the list of its numbers, each once and in that order. Raises UsageError."""
    found = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"seeds must look like 0-9 or 0,3,5-7, got {text!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def plan(
    paths: list[Path], given: dict[str, str], seeds: Iterable[int] | None, out: Path, threads: int | None = None
) -> list[Job]:
    """Every notebook with every combination of values and every seed (None: the notebook's own), notebook by notebook.

    `given` are texts by name; one with commas, where the parameter is a number or a choice, is several values. All
    are checked before anything runs; `threads` is given to those that have that parameter and no other value for it.
    Raises UsageError where a notebook does not declare what it is given.
    """
    jobs = []
    for path in paths:
        declared = read_parameters(path)
        if seeds is not None and "seed" not in declared:
            raise UsageError(f"{path.name} has no parameter 'seed', so --seeds cannot be given")
        shared = {"threads": threads} if threads and "threads" in declared else {}
        for texts in _combinations(path, given, declared):
            values = shared | check_values(path, texts)
            varied = [f"{name}={values[name]}" for name in texts if texts[name] != given[name]]
            for seed in [None] if seeds is None else seeds:
                seeded = values if seed is None else values | {"seed": seed}
                jobs.append(Job(path, seeded, out, re.sub(r"[^\w=.,+-]", "_", ",".join(varied))))
    return jobs


def _combinations(path: Path, given: dict[str, str], declared: dict) -> list[dict[str, str]]:
    choices = []
    for name, text in given.items():
        parameter = declared.get(name)
        several = parameter and (parameter.type != "str" or parameter.choices)
        choices.append([(name, part.strip()) for part in (str(text).split(",") if several else [text])])
    return [dict(combination) for combination in itertools.product(*choices)]


def read_batch(file: Path) -> tuple[list[str], dict[str, str], str | None]:
    """Notebooks, parameters as texts, and seeds, from a TOML or YAML file. Raises UsageError.

    notebooks = ["01_seed_model"]
    seeds = "0-9"
    [parameters]
    learning_rate = [0.1, 0.2]
    """
    try:
        if file.suffix == ".toml":
            asked = tomllib.loads(file.read_text(encoding="utf-8"))
        else:
            import yaml

            asked = yaml.safe_load(file.read_text(encoding="utf-8"))
        if unknown := set(asked) - BATCH_KEYS:
            raise UsageError(f"{file}: unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(BATCH_KEYS))}")
        names, values = asked["notebooks"], asked.get("parameters") or {}
        texts = {k: ",".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in values.items()}
        seeds = asked.get("seeds")
        return [str(name) for name in names], texts, None if seeds is None else str(seeds)
    except UsageError:
        raise
    except Exception as error:  # either parser has errors of its own
        raise UsageError(f"{file} cannot be read as a batch ({type(error).__name__}: {error})") from error


def gpus() -> list[str]:
    """The CUDA devices this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []


def auto_workers(per_device: int = 1) -> int:
    """`per_device` runs for each GPU; without one, as many as there are cores and memory for, at least 1."""
    import psutil

    if devices := gpus():
        return len(devices) * per_device
    return max(1, min(_cores(), int(psutil.virtual_memory().available / JOB_MEMORY)))


def share_of_cores(workers: int) -> int:
    """Threads for each of `workers` runs, so that together they take the cores once."""
    return max(1, _cores() // workers)


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_batch(
    jobs: list[Job],
    workers: int = 1,
    force: bool = False,
    timeout: float | None = None,
    memory: float | None = None,
    scheduler: str | None = None,
    resources: dict[str, float] | None = None,
) -> tuple[list[RunRecord], bool]:
    """Run the jobs that are not done yet, `workers` at a time: the record of each of `jobs`, and whether Ctrl-C came.

    `force` runs them all. A run that takes longer than `timeout` seconds is stopped and has failed; `memory` is the
    most a run may allocate, in GiB (on Unix). Each says in one line how it ended. After one Ctrl-C nothing more is
    begun and what runs is waited for; a second one stops that too, to be gone on with from its checkpoints.
    `out`/summary.csv then says how each of `jobs` stands. With `scheduler`, the address of a Dask scheduler, they run
    on its workers instead, one a thread, each taking `resources` of its worker's; they must see the same folders, or
    the jobs have an address to leave their records at. Raises UsageError where it doesn't answer.
    """
    from tqdm import tqdm

    waiting = [job for job in jobs if force or not job.is_done()]
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done already", flush=True)
    shared, limits = _Shared(), (timeout, memory)
    shared.many = len(waiting) > workers
    shared.devices = [device for _, device in zip(range(workers), itertools.cycle(gpus()))]
    progress = tqdm(total=len(waiting), ncols=96, disable=None)
    with _executor(workers, scheduler, resources or {}, shared) as submit, progress as bar:
        with shared.on_ctrl_c():
            futures = {submit(job, *limits): job for job in waiting}
            shared.cancel = futures if scheduler else ()
            for future in as_completed(futures):
                said = "" if future.cancelled() else _outcome(future)
                if said:
                    bar.write(f"{futures[future].name}: {said}", file=sys.stdout)
                bar.update()
    records = [_copied(job, _settled(job)) for job in jobs]
    for out in {job.out for job in jobs}:
        try:
            write_summary(out, [(job, record) for job, record in zip(jobs, records) if job.out == out])
        except OSError as error:
            print(f"{out / 'summary.csv'} could not be written ({error.strerror})")
    return records, shared.begin_no_more


@contextlib.contextmanager
def _executor(workers: int, scheduler: str | None, resources: dict[str, float], shared: "_Shared"):
    """A function that submits a job and returns its future: to threads that each watch a process, or to a cluster."""
    if scheduler is None:
        with ThreadPoolExecutor(workers) as pool:
            yield lambda job, *limits: pool.submit(_run_apart, job, shared, *limits)
        for worker in shared.free:
            worker.close()
    else:
        with cluster.executor(scheduler, resources) as pool:
            yield lambda job, *limits: pool.submit(_run_remotely, job.resolved(), *limits)


def _run_remotely(job: Job, timeout: float | None, memory: float | None) -> str:
    """On a cluster's worker: run the job, once what a lost worker may have left of it has ended."""
    _wait_for_the_folder(job)
    return _run_apart(job, _on_this_machine(), timeout, memory)


def _wait_for_the_folder(job: Job) -> None:
    """Until a process that is told to end no longer runs the job."""
    deadline = time.monotonic() + 2 * GRACE
    while is_running(job.folder) and time.monotonic() < deadline:
        time.sleep(0.2)


@functools.cache
def _on_this_machine() -> "_Shared":
    """What the jobs share that a cluster gives this process, one after another: its workers end when it does."""
    return _Shared()


def _outcome(future) -> str:
    """How a run ended, in a line; also where the cluster could not bring it to an end."""
    try:
        return future.result()
    except Exception as error:  # of whatever kind the cluster has: the other runs go on
        return f"failed, {type(error).__name__}: {error}"


class _Shared:
    """What the runs of a batch share: the workers and devices that are free, and what Ctrl-C asks for.

    `begin_no_more` after the first; after the second the running processes end.
    """

    def __init__(self):
        self.begin_no_more, self.now, self.running, self.cancel = False, False, set(), ()
        self.free: list[Worker] = []
        self.many = True  # more runs than workers
        self.devices: list[str] = []  # one for each run at a time, where there are GPUs

    @contextlib.contextmanager
    def worker(self):
        """A worker to run one job."""
        worker = self.free.pop() if self.free else Worker()
        self.running.add(worker)
        try:
            yield worker
        finally:
            self.running.discard(worker)
            self.free.append(worker) if worker.is_free() else worker.close()

    @contextlib.contextmanager
    def device(self):
        """A device for one job; None where there are none to choose from."""
        device = self.devices.pop(0) if self.devices else None
        try:
            yield device
        finally:
            self.devices.extend([device] if device else [])

    @contextlib.contextmanager
    def on_ctrl_c(self):
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __call__(self, number, frame) -> None:
        again, self.begin_no_more = self.begin_no_more, True  # first of all: the next may come before this one is done
        if again or number == signal.SIGTERM:
            self.now = True
            for process in list(self.running):
                process.terminate()
        elif self.cancel:
            print("\nwhat runs on the workers ends there, no more is begun", flush=True)
            for future in self.cancel:
                future.cancel()
        elif self.running:
            print(f"\nwaiting for {len(self.running)} runs, no more are begun; Ctrl-C again stops them", flush=True)


def _run_apart(job: Job, shared: _Shared, timeout: float | None, memory: float | None) -> str:
    """Run one job in a process of its own; how it ended, in a line, or nothing where it was not begun."""
    if shared.begin_no_more:
        return ""
    started = time.monotonic()
    with shared.worker() as worker, shared.device() as device:
        asked = {"path": str(job.path), "values": job.values, "out": str(job.out), "variant": job.variant}
        worker.ask(asked | {"memory": memory, "device": device, "warm": shared.many})
        code, late = _answer(worker, shared, timeout)
        said = worker.last_line() if code else ""
    if code < 0:
        time.sleep(ORPHAN)
        _wait_for_the_folder(job)
    record = _copied(job, _settled(job, late, said))
    return describe(record, time.monotonic() - started)


def _answer(worker: Worker, shared: _Shared, timeout: float | None) -> tuple[int, str]:
    """The exit code of the worker's job, and what it was stopped for, if it was."""
    deadline, late = time.monotonic() + (timeout or 1e9), ""
    while (code := worker.answer(0.05)) is None:
        if not late and time.monotonic() > deadline:
            late, deadline = f"stopped after {timeout:g} seconds, its timeout", time.monotonic() + GRACE
            worker.terminate()
        elif shared.now and not late:
            late, deadline = "stopped from outside", time.monotonic() + GRACE
        elif late and time.monotonic() > deadline:
            _kill(worker)
    return code, late if "timeout" in late else ""


def _kill(process: subprocess.Popen) -> None:
    """End the process and what it started, the kernel too, without asking."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for one in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def describe(record: RunRecord, seconds: float) -> str:
    """A finished job in a line: status, accuracies, seconds; or what went wrong."""
    if record.status != "completed":
        return f"{record.status}, {record.error} ({seconds:.0f} s)"
    if not record.epochs:
        return f"completed ({seconds:.0f} s)"
    last, best = record.last.validation_accuracy, record.best.validation_accuracy
    return f"completed, last epoch {last:.2%}, best {best:.2%} ({seconds:.0f} s)"


def _settled(job: Job, late: str = "", said: str = "") -> RunRecord:
    """The record of a job that runs no more, made or mended where its process could not."""
    record = RunRecord.start(job.path.stem, job.values, seed=job.values.get("seed", 0))
    job.fetch()
    try:
        record = RunRecord.load(job.folder)
        whole = bool(record.inputs) and record.status != "running" and not late  # the notebook alone knows no inputs
    except RecordError as error:
        whole, missing = False, not job.folder.exists() and not said
        if missing:
            record.finish("interrupted", "not begun")
            return record
        said = said or str(error)
    if is_running(job.folder):
        record.finish("interrupted", "another process is running it")
    elif not whole:
        record.finish("failed", late or said or "its process was killed")
        with contextlib.suppress(OSError):  # the disk may be what is wrong
            record.save(job.folder)
    return record


def _copied(job: Job, record: RunRecord) -> RunRecord:
    """The record; one that says why where its copy is not at the job's address and cannot be put there.

    On the disk the run stays completed, so that the next command only has to copy it.
    """
    if not job.url or record.status != "completed":
        return record
    text = (job.folder / "run.json").read_text(encoding="utf-8")
    if json.loads(cluster.record_at(job.address) or "null") != json.loads(text):
        if why := cluster.copy_out(job.folder, job.address):
            record.finish("failed", why)
    return record


def format_summary(rows: list[tuple[Job, RunRecord]]) -> str:
    """A table for the terminal, a line for the seeds of each notebook and variant: accuracies are the last epoch's."""
    groups: dict[str, list[RunRecord]] = {}
    for job, record in rows:
        groups.setdefault(job.name.rpartition("/")[0], []).append(record)
    width = max(len(name) for name in [*groups, "notebook"])
    lines = [f"{'notebook':<{width}}  {'runs':>5}  {'completed':>9}  {'mean':>8}  {'lowest':>7}  {'highest':>7}"]
    for name, records in groups.items():
        done = [record for record in records if record.status == "completed"]
        last = [record.last.validation_accuracy for record in done if record.epochs]
        reached = f"  {statistics.mean(last):>8.3%}  {min(last):>7.2%}  {max(last):>7.2%}" if last else ""
        stand_in = "  not MNIST" if any(record.dataset.get("note") for record in done) else ""
        lines.append(f"{name:<{width}}  {len(records):>5}  {len(done):>9}{reached}{stand_in}")
    return "\n".join(lines)


def write_summary(out: Path, rows: list[tuple[Job, RunRecord]]) -> None:
    """Write `out`/summary.csv, a line a job, whole or not at all."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow("job notebook seed status last_accuracy best_accuracy epochs started finished error".split())
    for job, record in rows:
        reached = (record.last.validation_accuracy, record.best.validation_accuracy) if record.epochs else ("", "")
        facts = [len(record.epochs), record.started, record.finished, record.error]
        table.writerow([job.name, record.notebook, record.seed, record.status, *reached, *facts])
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "summary.csv", text.getvalue())
