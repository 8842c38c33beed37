"""What this machine has for runs: cores, memory and GPUs, and a GPU for each run."""

import functools
import os
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UsageError

GPUS = "CUDA_VISIBLE_DEVICES"
JOB_MEMORY = 1.2e9  # bytes that a run of these notebooks needs at its peak, with some to spare


def choose_workers(jobs: int | str) -> int:
    """How many runs at a time: `jobs`, or for "auto" what GPUs, or cores and memory, allow.

    Raises UsageError for anything else than "auto" or a whole number of at least 1.
    """
    import psutil

    if jobs == "auto":
        memory = psutil.virtual_memory().available
        return len(gpus()) or max(1, min(cores(), int(memory / JOB_MEMORY)))
    if not str(jobs).isdecimal() or int(jobs) < 1:
        raise UsageError(f"--jobs is a whole number of at least 1, or auto; got {jobs!r}")
    return int(jobs)


def share_of_cores(workers: int) -> int:
    """Threads for each of `workers` runs, so that together they take the cores once."""
    return max(1, cores() // workers)


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """The CUDA devices this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    if GPUS not in os.environ:
        return _installed_gpus()
    names = [name.strip() for name in os.environ[GPUS].split(",")]
    return [name for name in names if name not in ("", "-1", "NoDevFiles")]


@functools.cache
def _installed_gpus() -> list[str]:
    words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


@contextmanager
def own_gpu():
    """Lends the environment that selects a GPU which the fewest runs on this machine have."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    for turn in range(100):
        for device in gpus():
            name = f"mnist-utils-{user}-{device}-{turn}.lock"
            lock = FileLock(Path(tempfile.gettempdir(), name))
            with suppress(Timeout), lock.acquire(blocking=False):
                yield {GPUS: device}
                return
    yield {}
