"""Execute one notebook with papermill: a folder with what it made, and a record of how it ended.

    record = run_notebook(find_notebook("01_seed_model"), {"epochs": 3}, Path("reports/local"))

A run has completed only when its kernel came to the notebook's end and the record in the folder is
of this attempt. Whatever else happens, the first reason found is the record's.
"""

import hashlib
import json
import os
import secrets
import shutil
from contextlib import AbstractContextManager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RecordError, UsageError
from ..parameters import read_notebook
from ..records import ATTEMPT, RunRecord, write_text
from .kernel import Kernel
from .plan import Job
from .summary import Log

CHECKPOINT = "checkpoint-*.pt"
# What a run makes beside its notebook and page; what else is in its folder stays there.
MADE = [CHECKPOINT, ".part-*", "run.json", "metrics.csv", "misread.csv", "model.safetensors"]
MADE += ["accuracy.png", "loss.png"]
PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


def run_notebook(path: Path, values: dict, out: Path, *, render=None, **limits) -> RunRecord:
    """Execute one notebook, showing what it prints; the record of how that ended.

    `limits` are a `Kernel`'s: `timeout` in seconds, `memory` in GiB. `run_job` says the rest.
    """
    return run_job(Job(path, values, out), Kernel(**limits), render, log=Log())


def run_job(job: Job, kernel: Kernel, render=None, batch: str = "", log=None) -> RunRecord:
    """Execute the job's notebook in its folder and return the record of how that ended.

    Left there: the executed notebook, what `render` makes of it, and what the notebook writes. If
    the run fails or is interrupted, a completed one that stood there before is kept beside it as
    seed-<seed>.previous. The notebook resumes from the checkpoints that an unfinished run of the
    same inputs left. Raises UsageError, with everything left as it was, where the folder holds what
    no run made or cannot be written, or another process is running it.
    """
    check_folder(job)
    attempt = f"{attempts_of(job, batch)}{secrets.token_hex(4)}"
    kernel.environment[ATTEMPT] = attempt
    with only_one(job.folder):
        executed = _prepare(job, attempt)
        values = job.values | {"out_dir": job.folder.as_posix()}
        record = settle(job, attempt, *kernel.execute(executed, values, log))
        try:
            record.save(job.folder)
        except OSError as problem:  # the disk may be full
            if record.status == "completed":
                record.finish("failed", f"{type(problem).__name__}: {problem}")
        try:
            if executed.exists():
                _mark(job, executed, record)
                if render:
                    render(executed)
        except Exception as problem:  # of whatever kind: the training has its result
            reason = f"its page could not be made ({type(problem).__name__}: {problem})"
            record.error = record.error or reason
        with suppress(OSError):
            record.save(job.folder)
            if record.status == "completed":
                _drop_previous(job)
    return record


def check_folder(job: Job) -> None:
    """Raise UsageError where the job's folder, or the one beside it, holds what no run made."""
    for folder in (job.folder, _previous(job)):
        try:
            names = os.listdir(folder) if os.path.lexists(folder) else []
        except OSError as error:
            raise _unwritable(folder, error) from error
        # A run's record may have been damaged since.
        if names and not ({"run.json", job.path.name} <= set(names) or _record_in(folder)):
            raise UsageError(f"{folder} holds files that are no run; move them or change --out")


def attempts_of(job: Job, batch: str = "") -> str:
    """How the names of all attempts at the job's inputs begin, or of those of one batch."""
    inputs = hashlib.sha256(repr(job.inputs).encode()).hexdigest()
    return f"{inputs[:16]}-{batch}"


def settle(job: Job, attempt: str, status: str, error: str) -> RunRecord:
    """The record of an attempt that has ended: the notebook's own, or one of no attempt.

    `attempt` is how its name begins. `status` and `error` say how its kernel ended; the notebook
    may still say that it has failed.
    """
    try:
        record = RunRecord.load(job.folder)
        if not record.attempt.startswith(attempt):
            raise RecordError(f"{job.folder / 'run.json'} is the record of another run")
    except RecordError as problem:
        if status == "completed":
            status, error = "failed", str(problem)
        record = RunRecord.start(job.path.stem, job.values, seed=job.seed, attempt="")
    if record.status == "running" or status not in ("completed", record.status):
        record.finish(status, error)
    record.inputs = job.inputs
    return record


def only_one(folder: Path) -> AbstractContextManager:
    """A lock on a run's folder, which the system takes back when its holder dies.

    Raises UsageError where another process has it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(folder.with_name(f".{folder.name}.lock")).acquire(blocking=False)
    except Timeout:
        reason = f"another process is running {folder}; wait for it or choose another --out"
        raise UsageError(reason) from None
    except OSError as error:
        raise _unwritable(folder, error) from error


def _previous(job: Job) -> Path:
    return job.folder.with_name(f"{job.folder.name}.previous")


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {folder} ({error.strerror or error}); choose another --out")


def _record_in(folder: Path) -> RunRecord | None:
    try:
        return RunRecord.load(folder)
    except RecordError:
        return None


def _prepare(job: Job, attempt: str) -> Path:
    """Put this attempt's record and notebook into the job's folder; the notebook's path.

    A completed run moves aside. Of one that was stopped the checkpoints stay, if the inputs are
    the same.
    """
    folder = job.folder
    # Papermill gets a copy that is Python's for sure.
    notebook = read_notebook(job.path)
    notebook["metadata"]["kernelspec"] = PYTHON
    record = RunRecord.start(job.path.stem, job.values, seed=job.seed, attempt=attempt)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        left = _record_in(folder)
        completed = left is not None and left.status == "completed"
        # A damaged record may be of a completed run; it is kept where no other one is.
        damaged = left is None and any(folder.iterdir()) and not _previous(job).exists()
        if completed or damaged:
            _drop_previous(job)
            folder.rename(_previous(job))
            folder.mkdir()
        else:
            resumes = left is not None and left.attempt.startswith(attempts_of(job))
            _clear(job, folder, checkpoints=not resumes)
        record.save(folder)
        write_text(folder / job.path.name, json.dumps(notebook))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder / job.path.name


def _clear(job: Job, folder: Path, checkpoints: bool = True) -> None:
    """Delete what a run left in the folder, but nothing else."""
    own = (job.path.name, f"{job.path.stem}.html")
    for path in folder.iterdir():
        made = path.name in own or any(fnmatchcase(path.name, name) for name in MADE)
        if made and not path.is_dir():
            if checkpoints or not fnmatchcase(path.name, CHECKPOINT):
                path.unlink()


def _drop_previous(job: Job) -> None:
    """Delete the run that was kept; what somebody put into its folder moves to the job's."""
    kept = _previous(job)
    if kept.exists():
        _clear(job, kept)
        for path in kept.iterdir():
            if not os.path.lexists(job.folder / path.name):
                shutil.move(path, job.folder)
        kept.rmdir()


def _mark(job: Job, executed: Path, record: RunRecord) -> None:
    """Say in the notebook how its run ended: after a killed kernel papermill says completed."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    metadata = notebook["metadata"]
    metadata["mnist_utils"] = {"status": record.status, "error": record.error}
    facts = {"input_path": job.path.as_posix(), "output_path": executed.as_posix()}
    if record.status != "completed":
        facts["exception"] = True
    metadata["papermill"] = metadata.get("papermill", {}) | facts
    write_text(executed, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
