"""What a run leaves behind: `run.json` and `metrics.csv`, written atomically, read without torch.

    record = RunRecord.load("reports/01_seed_model/seed-0")
    record.last.validation_accuracy      # 0.9927

A record says what happened; whether that is good enough is `assignment.judge`'s to say.
"""

import csv
import io
import json
import math
import os
import platform
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import RecordError

SCHEMA = 1
STATUSES = ("running", "completed", "failed", "interrupted")
ATTEMPT = "MNIST_UTILS_ATTEMPT"  # in the environment of a notebook that the runner executes
# What a spreadsheet takes for a formula, at whatever character it separates cells.
FORMULA = re.compile(r"(^|[,;|\t\r\n])(\s*)(?=[=+\-@＝＋－＠])")
PACKAGES = ("mnist_utils", "torch", "torchvision", "numpy", "papermill", "nbconvert")


@dataclass(frozen=True)
class EpochRow:
    """One epoch: what was seen in training and what the validation images gave after it.

    `learning_rate` is the one the epoch ended with. Losses are means over images (nats), seconds
    are wall-clock. Raises ValueError for a number that cannot be.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_correct: int
    train_total: int
    train_seconds: float
    validation_loss: float
    validation_correct: int
    validation_total: int
    validation_seconds: float

    def __post_init__(self):
        _check_types(self)
        train = (self.train_correct, self.train_total)
        for correct, total in (train, (self.validation_correct, self.validation_total)):
            if total < 1 or not 0 <= correct <= total:
                raise ValueError(f"{correct} of {total} images right")

    @property
    def train_accuracy(self) -> float:
        return self.train_correct / self.train_total

    @property
    def validation_accuracy(self) -> float:
        return self.validation_correct / self.validation_total


@dataclass
class RunRecord:
    """Everything needed to judge a run and to run it again.

    `dataset` has name, split, checksum, counts and, where it is not MNIST, a banner; `model` has
    name, parameters and layers (as dictionaries); `epochs` an `EpochRow` each; `verdict` is what
    `assignment.judge` said, one entry a rule; `inputs` what the batch runner tells equal runs by;
    `attempt` the one execution that the record is of; `against` the notebook that this one changes
    in one thing, if any.
    """

    notebook: str
    parameters: dict
    status: str = "running"
    error: str = ""
    seed: int | None = None
    dataset: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    device: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    git: dict = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    epochs: list = field(default_factory=list)
    verdict: list = field(default_factory=list)
    inputs: dict = field(default_factory=dict)
    against: str = ""
    attempt: str = ""
    schema: int = SCHEMA

    @classmethod
    def start(cls, notebook: str, parameters: dict, **facts) -> "RunRecord":
        """A record of a run that begins now, with the versions and the git state of this moment."""
        versions = {"python": platform.python_version()}
        versions["system"] = f"{platform.system()} {platform.machine()}"
        for package in PACKAGES:
            with suppress(PackageNotFoundError):
                versions[package] = version(package)
        moment = {"versions": versions, "git": _git_state(), "started": _now()}
        moment["attempt"] = os.environ.get(ATTEMPT, "")
        return cls(notebook, parameters, **(moment | facts))

    @property
    def last(self) -> EpochRow:
        """The last epoch: the one that counts. Raises RecordError where no epoch was finished."""
        if not self.epochs:
            raise RecordError(f"{self.notebook}: no epoch was finished")
        return self.epochs[-1]

    @property
    def best(self) -> EpochRow:
        """The epoch with the most images right, the first of equals; shown, never the result."""
        return max(self.epochs or [self.last], key=lambda row: row.validation_correct)

    def finish(self, status: str = "completed", error: str = "") -> None:
        """Mark the end of the run with one of `STATUSES`."""
        if status not in STATUSES:
            raise ValueError(f"unknown status {status!r}; choose one of {', '.join(STATUSES)}")
        self.status, self.error, self.finished = status, error, _now()

    def save(self, folder: str | Path) -> None:
        """Write `run.json` and `metrics.csv` into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = [f.name for f in fields(EpochRow)] + ["train_accuracy", "validation_accuracy"]
        rows = [names] + [[str(getattr(row, name)) for name in names] for row in self.epochs]
        write_text(folder / "metrics.csv", "\n".join(map(",".join, rows)) + "\n")
        # JSON for people: indented, but each list of plain numbers on one line.
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        lists = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s+\]")
        text = lists.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
        write_text(folder / "run.json", text + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """Read the `run.json` in `folder`. Raises RecordError: missing, damaged or too new."""
        path = Path(folder) / "run.json"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecordError(f"{path}: no such record") from None
        except (OSError, ValueError) as error:
            raise RecordError(f"{path}: damaged record ({error})") from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, name: str | Path) -> "RunRecord":
        """The record in `text`. Raises RecordError, with `name`, for a damaged or newer one."""
        try:
            facts = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number)
            schema = str(facts.get("schema"))[:40]
            if schema != str(SCHEMA):
                raise RecordError(f"{name}: schema {schema}, this version reads {SCHEMA}")
            record = cls(**facts)
            _check_types(record)
            if record.status not in STATUSES:
                raise ValueError(f"unknown status {record.status[:40]!r}")
            record.epochs = [EpochRow(**row) for row in record.epochs]
            return record
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RecordError(f"{name}: damaged record ({error})") from error


def save_misread(folder: str | Path, labels, probabilities) -> None:
    """Write `misread.csv` into `folder`: a row for each image whose likeliest digit is not its own.

    `labels` is a tensor int (N,), `probabilities` one float (N, 10); `image` is the place among the
    N, `confidence` the probability of the guess.
    """
    confidences, guesses = (found.tolist() for found in probabilities.max(1))
    rows = ["image,label,guess,confidence"]
    for image, label in enumerate(labels.tolist()):
        if guesses[image] != label:
            rows.append(f"{image},{label},{guesses[image]},{confidences[image]:.4f}")
    write_text(Path(folder) / "misread.csv", "\n".join(rows) + "\n")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`, which it replaces only if nothing was raised.

    A link is followed. A new file gets the permissions that the umask leaves, an old one keeps its
    own. What is no plain file, as a pipe or `/dev/null`, is not replaced: it receives the bytes.
    """
    path = Path(path)
    special = path.exists() and not (path.is_file() or path.is_dir())
    if not special:
        path = Path(os.path.realpath(path))
    folder = Path(tempfile.gettempdir()) if special else path.parent
    part = folder / f".part-{secrets.token_hex(8)}{path.suffix}"
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode
        yield part
        if special:
            path.write_bytes(part.read_bytes())
        else:
            if path.is_file():
                mode = path.stat().st_mode
            # A library may have written a file of its own in place of ours.
            part.chmod(mode)
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace `path` by `text`, UTF-8 with its line ends as they are, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def csv_text(rows: list[list]) -> str:
    """Rows as CSV in which a spreadsheet finds no formula, however it separates cells."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for row in rows:
        # An apostrophe keeps a text from being a formula; a number stays one.
        cells = [FORMULA.sub(r"\1\2'", cell) if isinstance(cell, str) else cell for cell in row]
        table.writerow(cells)
    return text.getvalue()


def duration(seconds: float) -> str:
    """Seconds in words: "40 seconds", or "3 minutes" from two minutes on."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_state() -> dict:
    """The commit of the package's own repository and whether files had been changed since.

    Empty where the package is installed: a repository around it is somebody else's.
    """
    place = Path(__file__)

    def git(*words: str) -> str:
        words = ["git", "-C", str(place.parent), *words]
        return subprocess.check_output(words, text=True, timeout=10, stderr=subprocess.DEVNULL)

    try:
        git("ls-files", "--error-unmatch", place.name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../notebooks")
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def _check_types(found) -> None:
    """Raise ValueError where a field of a dataclass holds another type than it says."""
    for place in fields(found):
        value = getattr(found, place.name)
        kind = int | float if place.type is float else place.type
        # In Python a bool is an int too.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{place.name} must be {kind}, got {str(value)[:40]!r}")


def _number(text: str) -> int | float:
    """A number in a record. Raises ValueError where it is infinite, no number or out of range."""
    number = float(text)
    whole = text.lstrip("-").isdigit()
    if not math.isfinite(number) or (whole and abs(number) >= 2**63):
        raise ValueError(f"{text[:40]} is out of range")
    return int(text) if whole else number
