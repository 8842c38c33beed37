"""Execute one notebook with papermill: a folder with what it made, and a record that says how it ended.

record = run_notebook(find_notebook("01_seed_model"), {"epochs": 3}, Path("reports/local"))
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RecordError, UsageError
from ..parameters import read_parameters
from ..records import RunRecord, write_text

PLACES = ("data_dir", "mirror", "out_dir")  # where things lie has no part in what comes out
NOTE = "inputs.json"  # of an unfinished run: what it was started from
CORE = "assignment augment checkpoints data layers models muon plots records training".split()  # what notebooks import


def run_folder(path: Path, values: dict, out: Path, variant: str = "") -> Path:
    """Where a run goes: `out`/<notebook>[/<variant>]/seed-<seed>."""
    declared = read_parameters(path)
    seed = values.get("seed", declared["seed"].default if "seed" in declared else 0)
    return out / path.stem / variant / f"seed-{seed}"


def run_notebook(path: Path, values: dict, out: Path, variant: str = "", manager: type | None = None) -> RunRecord:
    """Execute one notebook into its `run_folder` and return the record of how that ended.

    Left there: the executed notebook, HTML of it, and what the notebook writes (run.json, metrics.csv, plots,
    weights). The record's status is "failed" or "interrupted" where it did not complete; then a completed run that
    stood there before is kept beside it as seed-<seed>.previous. What an unfinished run of the same inputs left as
    checkpoints is gone on from. `manager` is the class of Jupyter's that starts the kernel, if not its own. Raises
    UsageError where the folder can't be written or another process is at it.
    """
    folder, inputs = run_folder(path, values, out, variant), fingerprint(path, values)
    with _only_one(folder):
        previous = _clear(folder, inputs)
        executed = folder / path.name
        status, error = _execute(path, executed, {**values, "out_dir": folder.as_posix()}, manager)
        record = _settle(folder, path, values, inputs, status, error)
        if executed.exists():
            from ..reports.html import render

            _mark(executed, status, error)
            render(executed)
        if status == "completed" and previous:
            shutil.rmtree(previous)
    return record


def fingerprint(path: Path, values: dict) -> dict:
    """What a run's outcome follows from, machine and library versions apart: code, package, parameters.

    The cell that installs the package has no part in it: it names the repository.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code = "\n\n".join(source for source in sources if "%pip install" not in source)
    package = b"".join((Path(__file__).parent.parent / f"{name}.py").read_bytes() for name in CORE)
    parameters = {name: p.default for name, p in read_parameters(path).items()} | values
    return {
        "notebook": hashlib.sha256(code.encode()).hexdigest(),
        "package": hashlib.sha256(package).hexdigest(),
        "parameters": {name: value for name, value in parameters.items() if name not in PLACES},
    }


def is_running(folder: Path) -> bool:
    """Whether a process is running this folder's notebook at this moment."""
    if not _lock(folder).parent.exists():
        return False
    try:
        with FileLock(_lock(folder)).acquire(blocking=False):
            return False
    except (Timeout, OSError) as error:
        return isinstance(error, Timeout)


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _only_one(folder: Path) -> AbstractContextManager:
    """A lock that the system takes back when its holder dies. Raises UsageError where the folder cannot be had."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(_lock(folder)).acquire(blocking=False)
    except Timeout:
        raise UsageError(f"another process is running {folder}; wait for it or choose another --out") from None
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror or error}); choose another --out") from error


def _clear(folder: Path, inputs: dict) -> Path | None:
    """Make `folder` an empty one; what it held of a completed run moves aside to the path returned.

    Checkpoints that an unfinished run of the same inputs left stay.
    """
    kept = folder.with_name(f"{folder.name}.previous")
    try:
        if folder.exists() and any(folder.iterdir()):
            if not any((folder / name).exists() for name in (NOTE, "run.json")):
                raise UsageError(f"{folder} holds files that are no run; move them or choose another --out")
            if _completed(folder):
                shutil.rmtree(kept, ignore_errors=True)
                folder.rename(kept)
            else:
                same = _noted(folder) == inputs
                for path in folder.iterdir():
                    if not (same and path.match("checkpoint-*.pt")):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / NOTE, json.dumps(inputs))
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror or error}); choose another --out") from error
    return kept if kept.exists() else None


def _noted(folder: Path) -> dict:
    try:
        return json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _completed(folder: Path) -> bool:
    try:
        return RunRecord.load(folder).status == "completed"
    except RecordError:
        return False


def _execute(path: Path, executed: Path, values: dict, manager: type | None) -> tuple[str, str]:
    """Run papermill to the end, whatever it is: (status, error)."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    log = _Log()
    try:
        with _sockets() as config:
            papermill.execute_notebook(
                path, executed, values, kernel_name="python3", progress_bar=False, autosave_cell_every=5,
                stdout_file=log, stderr_file=log, coalesce_streams=True, config=config,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                **({"kernel_manager_class": manager} if manager else {}),
            )  # fmt: skip
        return "completed", ""
    except PapermillExecutionError as error:
        return "failed", f"cell In [{error.exec_count}]: {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "failed", "the kernel died: out of memory, or killed from outside"
    except KeyboardInterrupt:
        return "interrupted", "stopped from outside"
    except Exception as error:  # whatever else stops a run must still end in a record
        return "failed", f"{type(error).__name__}: {error}"


@contextmanager
def _sockets():
    """Jupyter's settings for talking to the kernel through files of its own instead of ports.

    A free port is looked for first and taken later, so kernels that start at the same moment can choose the same one.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
        short = os.name == "posix" and len(folder) < 80  # the system cuts longer paths
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/at"}} if short else {})


def _settle(folder: Path, path: Path, values: dict, inputs: dict, status: str, error: str) -> RunRecord:
    """The notebook's own record, told how the run ended and from what; a new one where the notebook got to none."""
    try:
        record = RunRecord.load(folder)
    except RecordError:
        record = RunRecord.start(path.stem, values, seed=inputs["parameters"].get("seed", 0))
    if record.status != status:
        record.finish(status, error)
    record.inputs = inputs
    record.save(folder)
    if status == "completed":
        (folder / NOTE).unlink(missing_ok=True)
    return record


def _mark(executed: Path, status: str, error: str) -> None:
    """Say in the notebook file itself how the run ended: after a killed kernel papermill leaves it as completed."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"]["mnist_utils"] = {"status": status, "error": error}
    if status != "completed":
        notebook["metadata"].get("papermill", {})["exception"] = True
    write_text(executed, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


class _Log:
    """What the notebook prints, as it prints it; where no terminal listens, bars come as their last state only."""

    def __init__(self):
        self.line = ""

    def write(self, text: str) -> None:
        if sys.stdout.isatty():
            sys.stdout.write(text)
            return
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            print(line.rstrip("\r").rpartition("\r")[2])

    def flush(self) -> None:
        sys.stdout.flush()
