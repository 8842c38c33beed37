"""The one way to run things side by side: on Dask, on this machine's processes or on a cluster.

    with engine(workers=4) as pool:                      # or engine(scheduler="tcp://host:8786")
        for item, outcome in pool.map_unordered(function, items):
            ...                                          # function(item), or its exception

    records, stopped = run_batch(jobs, workers=4)

After one Ctrl-C running items finish and no new ones start; a second one, or SIGTERM, stops them.
"""

import functools
import logging
import math
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from ..errors import RecordError, UsageError
from ..records import RunRecord
from . import copies, execute
from .devices import own_gpu, share_of_cores
from .kernel import Kernel
from .plan import Job
from .summary import Progress, conclude, say, write_summary

POLL = 0.2  # seconds between two looks at what has ended
GRACE = 15.0  # seconds that items have to end by themselves when they are told to
ORPHAN = 2.0  # seconds in which what a killed process has started notices it and ends
STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
STOPPED: set[str] = set()  # in a worker: the engines whose items must stop
LOCAL = {  # Dask's settings for the processes of this machine
    "distributed.scheduler.allowed-failures": 0,  # a lost process is its item's failure
    "distributed.scheduler.worker-ttl": None,  # a process too busy to answer is not lost
    "distributed.worker.daemon": False,  # it has processes of its own
    "distributed.nanny.pre-spawn-environ": {},  # would stay in the environment of this process
    # Two that look many times a second, and together take a tenth of a core from the runs.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}


class Lost(Exception):
    """The process that worked on an item is gone; the message says what is known of it."""


class Engine:
    """Workers and what they do; `stops` says how often a stop was asked for.

    In a worker, `name in STOPPED` says that what runs for this engine must stop.
    """

    def __init__(self, client, workers: int | None):
        self.client, self.workers = client, workers
        self.stops = 0
        self.name = secrets.token_hex(8)

    def room(self) -> int:
        """How many items can run at once; 0 once the scheduler is gone."""
        try:
            return self.workers or sum(self.client.nthreads().values()) or 1
        except OSError:
            return 0

    def map_unordered(
        self, function: Callable, items: Iterable, tick: Callable[[int], object] = lambda running: 0
    ) -> Iterator[tuple]:
        """(item, function(item) or the exception it raised) for each item, as they end.

        An item whose process goes has `Lost`. After a stop the items that have not started are not
        yielded. `tick` is called with the number of running items, several times a second.
        """
        waiting = list(items)[::-1]
        running = {}
        told = 0
        deadline = math.inf
        while running or (waiting and not self.stops and self.room()):
            while waiting and not self.stops and len(running) < self.room():
                future = self.client.submit(function, waiting[-1], pure=False)
                running[future] = waiting.pop()
            if self.stops > told:
                told = self.stops
                deadline = self._stop(len(running))
            tick(len(running))
            ended = [(running.pop(one), self._outcome(one)) for one in _ended(list(running))]
            if any(isinstance(outcome, Lost) for _, outcome in ended):
                time.sleep(ORPHAN)
            yield from ended
            if time.monotonic() > deadline:
                yield from ((item, Lost("stopped from outside")) for item in running.values())
                return

    def map(self, function: Callable, items: Iterable) -> list:
        """function(item) of each item, in their order; an exception stands in its result's place.

        The items can be hashed.
        """
        numbered = list(enumerate(items))
        found = dict(self.map_unordered(lambda pair: function(pair[1]), numbered))
        return [found.get(pair, Lost("stopped from outside")) for pair in numbered]

    def _stop(self, running: int) -> float:
        """Say or do what was asked for; the time at which the patience ends."""
        if self.stops == 1:
            say(f"\nwaiting for {running} runs, no more are started; Ctrl-C again stops them")
            return math.inf
        with suppress(OSError):  # the scheduler is gone
            self.client.run(_note_stop, self.name, wait=False, on_error="ignore")
        return time.monotonic() + GRACE

    def _outcome(self, future):
        from distributed import KilledWorker

        if future.status not in ("finished", "error"):
            return Lost("the connection to the scheduler was lost")
        error = future.exception()
        if not isinstance(error, KilledWorker):
            return error or future.result()
        # The next item must not wait behind another one for a process that starts again.
        if self.workers:
            with suppress(TimeoutError):
                self.client.wait_for_workers(self.workers, timeout=60)
        return Lost("its process was killed")


async def _note_stop(name: str) -> None:
    """In a worker; Dask waits for whatever is no coroutine, and a busy worker may answer late."""
    STOPPED.add(name)


def _ended(futures: list) -> list:
    """Those that have ended, after a short wait for one."""
    from distributed import wait

    try:
        return list(wait(futures, timeout=POLL, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []
    except Exception:  # the scheduler is gone, and with it every item
        return futures


@contextmanager
def engine(workers: int | None = None, scheduler: str | None = None) -> Iterator[Engine]:
    """Lends an `Engine` on `workers` processes of this machine, or on a Dask scheduler's workers.

    There an item takes a thread of a worker; without workers it waits for some. TLS is set up in
    Dask's own configuration. Raises UsageError where no scheduler answers.
    """
    import dask
    import distributed

    # An outcome says in a line what these would say; the cluster is silent only until it closes.
    for module in (distributed, distributed.client):
        logging.getLogger(module.__name__).setLevel(logging.CRITICAL)
    with dask.config.set(LOCAL):
        with _cluster(scheduler) if scheduler else _processes(workers or 1) as client:
            pool = Engine(client, None if scheduler else workers or 1)

            def note(number, frame) -> None:
                pool.stops += 1 if number == signal.SIGINT else 2

            with _handling(dict.fromkeys([signal.SIGINT, *STOPS], note)):
                yield pool


def _processes(count: int):
    import dask
    from distributed import Client

    # Side by side, each has its share of the cores, unless this is set already. It is no parameter
    # of a run: what comes out must not depend on how many there are.
    threads = {"OMP_NUM_THREADS": share_of_cores(count)} if count > 1 else {}
    settings = dask.config.set({"distributed.nanny.environ": threads})
    # A new process inherits what is ignored: the terminal's Ctrl-C must not end it.
    with settings, _handling({signal.SIGINT: signal.SIG_IGN}):
        return Client(
            n_workers=count, threads_per_worker=1, memory_limit=None, preload=[__name__],
            dashboard_address="127.0.0.1:0", silence_logs="CRITICAL",
        )  # fmt: skip


def _cluster(address: str):
    from distributed import Client

    try:
        return Client(address, timeout=10)
    except Exception as error:  # connection, address, certificate: each has errors of its own
        reason = str(error) or type(error).__name__
        raise UsageError(f"no Dask scheduler answers at {address} ({reason})") from error


def dask_setup(worker) -> None:
    """Dask calls this in each process: the batch alone answers to Ctrl-C or a closed terminal."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def _handling(handlers: dict):
    """Within it these signals have these handlers; in a thread that is not the main one, nothing.

    SIGHUP stays ignored where it is, as under `nohup`.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_batch(
    jobs: list[Job],
    workers: int = 1,
    *,
    scheduler: str | None = None,
    force: bool = False,
    render: Callable[[Path], object] | None = None,
    **limits,
) -> tuple[list[RunRecord], bool]:
    """Run the jobs that are not done, `workers` at a time: their records, and whether a stop came.

    `force` runs all; `render` makes a page of an executed notebook; `limits` are each `Kernel`'s:
    `timeout` in seconds, `memory` in GiB. `out`/summary.csv says how each job stands. With
    `scheduler`, a Dask scheduler's address, they run on its workers, one on a thread; those see the
    same folders, or the jobs have an address to leave their records at. Raises UsageError for what
    cannot be carried out.
    """
    Kernel(**limits)  # raises for limits that limit nothing
    if not jobs:
        return [], False
    if scheduler:  # its workers have other current folders
        jobs = [replace(job, path=job.path.resolve(), out=job.out.resolve()) for job in jobs]
    done = {} if force else _done(jobs)
    waiting = [job for job in jobs if job.folder not in done]
    for job in waiting:
        execute.check_folder(job)
    records = {job.folder: _not_begun(job) for job in jobs} | done
    with engine(min(workers, len(waiting)), scheduler) if waiting else nullcontext() as pool:
        if pool:
            room = pool.room() or 1
            # What the fork server imports must serve more than one run.
            limits["fork"] = len(waiting) > room
            work = functools.partial(_work, limits, os.getcwd(), render, pool.name)
            progress = Progress(len(waiting), room)
            for job, outcome in pool.map_unordered(work, waiting, progress.tick):
                records[job.folder] = _record_of(job, pool.name, outcome, pool.stops > 1)
                progress.ended(job.name, records[job.folder])
            progress.bar.close()
        rows = [(job, records[job.folder]) for job in jobs]
        write_summary(rows)
    say(conclude(rows))
    return [record for _, record in rows], pool is not None and pool.stops > 0


def _not_begun(job: Job) -> RunRecord:
    return RunRecord(job.path.stem, job.values, "interrupted", "not begun", job.seed)


def _done(jobs: list[Job]) -> dict[Path, RunRecord]:
    """The records of the jobs that are done, by folder, copied to their address where they lack.

    How many of them there are is printed.
    """
    found = {}
    for job in jobs:
        here = (job.folder / "run.json").exists()
        try:
            record = job.record()
        except RecordError as error:
            if here:
                say(f"{job.name} runs again: {error}")
            continue
        if job.is_done(record):
            found[job.folder] = record
            if job.url and here:
                copies.copy_out(job.folder, f"{job.url}/{job.name}", record)
    if found:
        say(f"{len(found)} of {len(jobs)} runs are done already")
    return found


def _work(limits: dict, here: str, render, batch: str, job: Job) -> RunRecord:
    """In a worker: run one job of this batch, with `here` as the kernel's folder."""
    with own_gpu() as environment:
        own = {"environment": environment, "folder": here}
        kernel = Kernel(**limits, **own, stopped=lambda: batch in STOPPED)
        record = execute.run_job(job, kernel, render, batch)
    if job.url and record.status == "completed":
        copies.copy_out(job.folder, f"{job.url}/{job.name}", record)
    return record


def _record_of(job: Job, batch: str, outcome, stopping: bool) -> RunRecord:
    """The record that an outcome of the engine means; what another batch left stays as it is."""
    if isinstance(outcome, RunRecord):
        return outcome
    status = "failed"
    reason = f"{type(outcome).__name__}: {outcome}"
    if isinstance(outcome, (UsageError, Lost)):
        reason = str(outcome)
    if stopping and not isinstance(outcome, UsageError):
        status = "interrupted"
    record = execute.settle(job, execute.attempts_of(job, batch), status, reason)
    if record.attempt:
        with suppress(OSError, UsageError), execute.only_one(job.folder):
            record.save(job.folder)
    return record
