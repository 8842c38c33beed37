"""Execute one notebook with papermill: a folder with what it made, and a record of how it ended.

    record = run_notebook(find_notebook("01_seed_model"), {"epochs": 3}, Path("reports/local"))

A run has completed only when its kernel came to the notebook's end and the record in the folder is
of this attempt. Whatever else happens, the first reason found is the record's.
"""

import json
import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RecordError, UsageError
from ..parameters import read_notebook
from ..records import ATTEMPT, RunRecord, write_text
from .kernel import Kernel
from .plan import Job
from .summary import Log

NOTE = "inputs.json"  # of an unfinished run: its attempt and its inputs
CHECKPOINT = "checkpoint-*.pt"
# What a run makes beside its notebook and page; what else is in its folder stays there.
MADE = [CHECKPOINT, ".part-*", "run.json", "metrics.csv", "misread.csv", "model.safetensors"]
MADE += ["accuracy.png", "loss.png"]
PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}
STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_notebook(
    path: Path,
    values: dict,
    out: Path,
    variant: str = "",
    *,
    timeout: float | None = None,
    memory: float | None = None,
    render: Callable[[Path], object] | None = None,
) -> RunRecord:
    """Execute one notebook, showing what it prints; the record of how that ended.

    `timeout` is in seconds for the whole run, `memory` in GiB that its kernel may allocate. SIGTERM
    and SIGHUP interrupt it as Ctrl-C does. `run_job` says the rest.
    """
    with handling(dict.fromkeys(STOPS, signal.default_int_handler)):
        return run_job(Job(path, values, out, variant), Kernel(timeout, memory), render, log=Log())


def run_job(job: Job, kernel: Kernel, render=None, attempt: str = "", log=None) -> RunRecord:
    """Execute the job's notebook in its folder and return the record of how that ended.

    Left there: the executed notebook, what `render` makes of it, and what the notebook writes. If
    the run fails or is interrupted, a completed one that stood there before is kept beside it as
    seed-<seed>.previous. The notebook resumes from the checkpoints that an unfinished run of the
    same inputs left. Raises UsageError, with everything left as it was, where the folder holds what
    no run made or cannot be written, or another process is running it.
    """
    check_folder(job)
    attempt = attempt or secrets.token_hex(8)
    kernel.environment[ATTEMPT] = attempt
    executed = job.folder / job.path.name
    with _only_one(job.folder):
        previous = _prepare(job, attempt)
        status, error = _execute(job, executed, kernel, log)
        record = settle(job, attempt, status, error)
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
            (job.folder / NOTE).unlink(missing_ok=True)
            if previous:
                with suppress(OSError):
                    _drop(job, previous)
    return record


def check_folder(job: Job) -> None:
    """Raise UsageError where the job's folder, or the one beside it, holds what no run made."""
    for folder in (job.folder, _previous(job.folder)):
        try:
            names = os.listdir(folder) if os.path.lexists(folder) else []
        except OSError as error:
            raise _unwritable(folder, error) from error
        # A run's record may have been damaged since.
        made = {"run.json", job.path.name} <= set(names) or attempt_in(folder) is not None
        if names and not made:
            raise UsageError(f"{folder} holds files that are no run; move them or change --out")


def attempt_in(folder: Path) -> str | None:
    """The attempt that left what is in the folder, "" for one without a name; None for no run."""
    if note := _note(folder):
        return str(note.get("attempt", ""))
    try:
        return RunRecord.load(folder).attempt
    except RecordError:
        return None


def is_of(job: Job, attempt: str) -> bool:
    """Whether what is in the job's folder was left by an attempt whose name begins so."""
    return (attempt_in(job.folder) or "").startswith(attempt)


def is_running(folder: Path) -> bool:
    """Whether a process is running this folder's notebook at this moment."""
    if not _lock(folder).exists():
        return False
    try:
        with FileLock(_lock(folder)).acquire(blocking=False):
            return False
    except (Timeout, OSError) as error:
        return isinstance(error, Timeout)


def settle(job: Job, attempt: str, status: str, error: str) -> RunRecord:
    """The record of an attempt that has ended: the notebook's own, or a new one where it left none.

    `status` and `error` say how its kernel ended; the notebook may still say that it has failed.
    """
    try:
        record = RunRecord.load(job.folder)
        if record.attempt != attempt:
            raise RecordError(f"{job.folder / 'run.json'} is the record of another run")
    except RecordError as problem:
        if status == "completed" and (job.folder / "run.json").exists():
            status, error = "failed", str(problem)
        record = new_record(job, attempt, status, error)
    if record.status == "running" or (status != "completed" and record.status != status):
        record.finish(status, error)
    record.inputs = job.inputs
    return record


def new_record(job: Job, attempt: str, status: str, error: str) -> RunRecord:
    """The record, not saved yet, of a run that left none."""
    record = RunRecord.start(job.path.stem, job.values, seed=job.seed, attempt=attempt)
    record.finish(status, error)
    return record


@contextmanager
def handling(handlers: dict):
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


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _previous(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.previous")


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {folder} ({error.strerror or error}); choose another --out")


def _only_one(folder: Path) -> AbstractContextManager:
    """A lock that the system takes back when its holder dies."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(_lock(folder)).acquire(blocking=False)
    except Timeout:
        reason = f"another process is running {folder}; wait for it or choose another --out"
        raise UsageError(reason) from None
    except OSError as error:
        raise _unwritable(folder, error) from error


def _prepare(job: Job, attempt: str) -> Path | None:
    """Make the job's folder an empty one with a note; the path that an old result moved to.

    Checkpoints that an unfinished run of the same inputs left stay.
    """
    folder, kept = job.folder, _previous(job.folder)
    check_folder(job)  # again, now that nobody else writes there
    note = _note(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if note:
            _clear(job, folder, checkpoints=note.get("inputs") != job.inputs)
        elif any(folder.iterdir()):
            if kept.exists():
                _drop(job, kept)
            folder.rename(kept)
            folder.mkdir()
        write_text(folder / NOTE, json.dumps({"attempt": attempt, "inputs": job.inputs}))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return kept if attempt_in(kept) is not None else None


def _clear(job: Job, folder: Path, checkpoints: bool = True) -> None:
    """Delete what a run left in the folder, but nothing else."""
    own = (job.path.name, f"{job.path.stem}.html")
    for path in folder.iterdir():
        made = path.name in own or any(fnmatchcase(path.name, name) for name in MADE)
        if made and not path.is_dir():
            if checkpoints or not fnmatchcase(path.name, CHECKPOINT):
                path.unlink()


def _drop(job: Job, folder: Path) -> None:
    """Delete an old run; what somebody put into its folder moves to the job's."""
    _clear(job, folder)
    for path in folder.iterdir():
        if not os.path.lexists(job.folder / path.name):
            shutil.move(path, job.folder)
    folder.rmdir()


def _note(folder: Path) -> dict:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return note if "parameters" in note.get("inputs", note) else {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _execute(job: Job, executed: Path, kernel: Kernel, log: Log | None) -> tuple[str, str]:
    """Run papermill to the end, whatever it is: (status, error)."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # the record says what it would
    try:
        # Papermill gets a copy that is Python's for sure, under a path that it cannot take for a
        # pattern, a stream or an address.
        notebook = read_notebook(job.path)
        notebook["metadata"]["kernelspec"] = PYTHON
        write_text(executed, json.dumps(notebook))
        path = os.path.join(".", executed).replace("{", "{{").replace("}", "}}")
        values = job.values | {"out_dir": job.folder.as_posix()}
        with kernel.watched() as options:
            papermill.execute_notebook(
                path, path, values, kernel_name=PYTHON["name"], progress_bar=False,
                autosave_cell_every=5, stdout_file=log, stderr_file=log, coalesce_streams=True,
                start_timeout=300, iopub_timeout=60, **options,
            )  # fmt: skip
        return "completed", ""
    except KeyboardInterrupt:
        return "interrupted", "stopped from outside"
    except Exception as error:  # whatever else stops a run must still end in a record
        return kernel.ended or ("failed", f"{type(error).__name__}: {error}")


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
