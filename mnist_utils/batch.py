"""Run notebooks headlessly with papermill; a folder a run, with a record that says how it ended.

    path = find_notebook("01_seed_model")
    values = check_values(path, {"epochs": "3"})       # typed, or a UsageError before anything trains
    record = run_notebook(path, values, Path("reports/local"))

    jobs = plan([path], {"epochs": "3"}, range(10), Path("reports/local"))
    records = run_batch(jobs, workers=4)               # each in a process of its own; what is done stays done

It does not know what a notebook trains: it reads the parameters cell and the `run.json` the notebook writes.
"""

import ast
import difflib
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from .records import RecordError, RunRecord, atomic_write

NOTEBOOKS = Path("notebooks")
SUBMISSION = "01_seed_model"
RESERVED = {"out_dir": "--out"}  # set by the runner itself
PLACES = ("data_dir", "mirror", "out_dir")  # where things lie has no part in what comes out
CORE = (
    "assignment",
    "augment",
    "checkpoints",
    "data",
    "layers",
    "models",
    "muon",
    "plots",
    "records",
    "training",
)  # what notebooks import


class UsageError(Exception):
    """Something asked for that cannot be done; the message says what and what to do instead."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell; `choices` is empty where any value of the type will do."""

    name: str
    type: str
    default: object
    meaning: str = ""
    choices: tuple = ()


def find_notebook(name: str) -> Path:
    """The notebook at the path `name`, or the one in notebooks/ with that stem. Raises UsageError."""
    for path in (Path(name), NOTEBOOKS / f"{Path(name).stem}.ipynb"):
        if path.suffix == ".ipynb" and path.is_file():
            return path
    known = [path.stem for path in all_notebooks()]
    hint = f"; there are {', '.join(known)}" if known else f"; this folder has no {NOTEBOOKS}/, run from a clone"
    raise UsageError(f"no notebook {name!r}{_nearest(Path(name).stem, known)}{hint}")


def all_notebooks() -> list[Path]:
    """The project's notebooks in their order."""
    return sorted(NOTEBOOKS.glob("[0-9a-z]*.ipynb"))


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that the notebook's cell tagged `parameters` declares, by name.

    Each stands on one line, `name: type = value  # @param ...`, with its meaning in a `# @markdown` line above it
    and, for a choice, the list in its form field. Raises UsageError for a file that is no such notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
        lines, statements = source.splitlines(), ast.parse(source).body
        declared = [s for s in statements if isinstance(s, ast.AnnAssign)]
        return {s.target.id: _parameter(s, lines[s.lineno - 1], lines[s.lineno - 2]) for s in declared}
    except StopIteration:
        raise UsageError(f"{path} has no cell tagged 'parameters'") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise UsageError(f"{path} cannot be read as a notebook with parameters ({error})") from error


def _parameter(statement: ast.AnnAssign, line: str, above: str) -> Parameter:
    choices = re.search(r"#\s*@param\s*(\[.*?\])", line)
    return Parameter(
        statement.target.id,
        statement.annotation.id,
        ast.literal_eval(statement.value),
        above.removeprefix("# @markdown").strip() if above.startswith("# @markdown") else "",
        tuple(json.loads(choices[1])) if choices else (),
    )


def check_values(path: Path, given: dict[str, str]) -> dict:
    """`given`, texts by name, in the types the notebook declares. Raises UsageError for a name, type or value."""
    declared, values = read_parameters(path), {}
    for name, text in given.items():
        if name in RESERVED:
            raise UsageError(f"{name} is set by {RESERVED[name]}")
        if name not in declared:
            nearest = _nearest(name, declared)
            raise UsageError(f"{path.name} has no parameter {name!r}{nearest}; it has {', '.join(declared)}")
        values[name] = _typed(declared[name], text)
    return values


def _typed(parameter: Parameter, text: str):
    readers = {"int": int, "float": float, "str": str, "bool": {"true": True, "false": False}.__getitem__}
    try:
        value = readers[parameter.type](text.lower() if parameter.type == "bool" else text)
    except (ValueError, KeyError):
        raise UsageError(f"{parameter.name} must be {parameter.type}, got {text!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{parameter.name} must be a finite number, got {text!r}")
    if parameter.choices and value not in parameter.choices:
        raise UsageError(f"{parameter.name} must be one of {', '.join(map(str, parameter.choices))}, got {text!r}")
    return value


@dataclass(frozen=True)
class Job:
    """One run to be made: a notebook, the values its parameters are given, and where runs go."""

    path: Path
    values: dict
    out: Path

    @property
    def name(self) -> str:
        return f"{self.path.stem}/seed-{self.values['seed']}"

    @property
    def folder(self) -> Path:
        return self.out / self.name


def parse_seeds(text: str) -> list[int]:
    """ "0-9,12" as the list of its numbers, each once and in that order. Raises UsageError."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"seeds must look like 0-9 or 0,3,5-7, got {text!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def plan(paths: list[Path], given: dict[str, str], seeds: Iterable[int], out: Path, workers: int = 1) -> list[Job]:
    """Every notebook with every seed, notebook by notebook; `given` are texts by name, checked before anything runs.

    With several `workers` a run that has a parameter `threads` gets its share of the cores, unless `given` says
    otherwise. Raises UsageError where a notebook does not declare what it is given, or no seed.
    """
    share = {"threads": max(1, (os.cpu_count() or 1) // workers)} if workers > 1 else {}
    jobs = []
    for path in paths:
        shared = {name: value for name, value in share.items() if name in read_parameters(path)}
        values = shared | check_values(path, given | {"seed": "0"})
        jobs += [Job(path, values | {"seed": seed}, out) for seed in seeds]
    return jobs


def run_batch(jobs: list[Job], workers: int = 1, force: bool = False) -> list[RunRecord]:
    """Run the jobs that are not done yet, `workers` at a time, and return the record of each of `jobs`.

    A job is done when its record is complete and of the same inputs (`fingerprint`); `force` runs it all the same.
    Each runs in a process of its own and says in one line how it ended. Ctrl-C reaches the running ones, which end
    as "interrupted"; the rest is left for the next call.
    """
    from tqdm import tqdm

    waiting = [job for job in jobs if force or not is_done(job)]
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done already", flush=True)
    running: set[subprocess.Popen] = set()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(waiting), ncols=96, disable=None, unit="run") as bar:
        futures = {pool.submit(_run_apart, job, running): job for job in waiting}
        try:
            for future in as_completed(futures):
                bar.write(f"{futures[future].name}: {future.result()}", file=sys.stdout)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()  # a stop as by Ctrl-C, which a process started in the background would not notice
            raise
    return [_settled(job) for job in jobs]


def is_done(job: Job) -> bool:
    """Whether the job's folder holds the record of a completed run of the same inputs."""
    try:
        record = RunRecord.load(job.folder)
    except RecordError:
        return False
    return record.status == "completed" and record.inputs == fingerprint(job.path, job.values)


def fingerprint(path: Path, values: dict) -> dict:
    """What a run's outcome follows from, machine and library versions apart: code, package, parameters."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    package = b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in CORE)
    parameters = {name: p.default for name, p in read_parameters(path).items()} | values
    return {
        "notebook": hashlib.sha256(code.encode()).hexdigest(),
        "package": hashlib.sha256(package).hexdigest(),
        "parameters": {name: value for name, value in parameters.items() if name not in PLACES},
    }


def _run_apart(job: Job, running: set[subprocess.Popen]) -> str:
    """Run one job in a process of its own; how it ended, in a line."""
    given = [word for name, value in job.values.items() for word in ("-p", name, str(value))]
    words = [sys.executable, "-m", "mnist_utils", "run", str(job.path), *given, "--out", str(job.out)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    running.add(process)
    said, _ = process.communicate()
    running.discard(process)
    record = _settled(job)
    if record.status == "completed":
        from .assignment import summary

        return summary(record)
    return f"{record.status}, {record.error or (said.strip().splitlines() or ['it said nothing'])[-1]}"


def _settled(job: Job) -> RunRecord:
    """The record of a job that runs no more: one that claims to be running was killed."""
    try:
        record = RunRecord.load(job.folder)
    except RecordError as error:
        record = RunRecord.start(job.path.stem, job.values, seed=job.values["seed"])
        record.finish("failed", str(error))
    if record.status == "running":
        record.finish("failed", "its process ended before it did")
    return record


def run_notebook(path: Path, values: dict, out: Path) -> RunRecord:
    """Execute one notebook into `out`/<stem>/seed-<seed>/ and return the record of how that ended.

    Left there: the executed notebook, HTML of it, and what the notebook writes (run.json, metrics.csv, plots,
    weights). The record's status is "failed" or "interrupted" where it did not complete; then a completed run that
    stood there before is kept beside it as seed-<seed>.previous. Raises UsageError where the folder can't be written.
    """
    declared = read_parameters(path)
    seed = values.get("seed", declared["seed"].default if "seed" in declared else 0)
    folder = out / path.stem / f"seed-{seed}"
    previous = _clear(folder)
    executed = folder / path.name
    status, error = _execute(path, executed, {**values, "out_dir": folder.as_posix()})
    record = _settle(folder, path, values | {"seed": seed}, status, error)
    if executed.exists():
        from .reports import render

        _mark(executed, status, error)
        render(executed)
    if status == "completed" and previous:
        shutil.rmtree(previous)
    return record


def _clear(folder: Path) -> Path | None:
    """Make `folder` an empty one; what it held of a completed run moves aside to the path returned."""
    kept = folder.with_name(f"{folder.name}.previous")
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / "run.json").exists() and not list(folder.glob("*.ipynb")):
                raise UsageError(f"{folder} holds files that are no run; move them or choose another --out")
            if _completed(folder):
                shutil.rmtree(kept, ignore_errors=True)
                folder.rename(kept)
            else:
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror or error}); choose another --out") from error
    return kept if kept.exists() else None


def _completed(folder: Path) -> bool:
    try:
        return RunRecord.load(folder).status == "completed"
    except RecordError:
        return False


def _execute(path: Path, executed: Path, values: dict) -> tuple[str, str]:
    """Run papermill to the end, whatever it is: (status, error)."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    log = _Log()
    try:
        papermill.execute_notebook(
            path, executed, values, kernel_name="python3", progress_bar=False, autosave_cell_every=5,
            stdout_file=log, stderr_file=log, coalesce_streams=True,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
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


def _settle(folder: Path, path: Path, values: dict, status: str, error: str) -> RunRecord:
    """The notebook's own record, told how the run ended and from what; a new one where the notebook got to none."""
    try:
        record = RunRecord.load(folder)
    except RecordError:
        record = RunRecord.start(path.stem, values, seed=values["seed"])
    if record.status != status:
        record.finish(status, error)
    record.inputs = fingerprint(path, values)
    record.save(folder)
    return record


def _mark(executed: Path, status: str, error: str) -> None:
    """Say in the notebook file itself how the run ended: after a killed kernel papermill leaves it as completed."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"]["mnist_utils"] = {"status": status, "error": error}
    if status != "completed":
        notebook["metadata"].get("papermill", {})["exception"] = True
    with atomic_write(executed) as part:
        part.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
