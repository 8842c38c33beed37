"""What a run leaves behind: one `run.json` and one `metrics.csv`, written atomically, readable without torch.

    record = RunRecord.load("reports/01_seed_model/seed-0")
    record.last.validation_accuracy      # 0.9927

A record says what happened; whether that is good enough is `assignment.judge`'s to say.
"""

import csv
import io
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import RecordError

SCHEMA = 1
STATUSES = ("running", "completed", "failed", "interrupted")
PACKAGES = ("mnist_utils", "torch", "torchvision", "numpy", "papermill", "nbconvert")


@dataclass(frozen=True)
class EpochRow:
    """One epoch: what was seen in training and what the validation images gave after it.

    `learning_rate` is the one the epoch ended with. Losses are means over images (nats), accuracies are derived from
    the counts, seconds are wall-clock.
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

    @property
    def train_accuracy(self) -> float:
        return self.train_correct / self.train_total

    @property
    def validation_accuracy(self) -> float:
        return self.validation_correct / self.validation_total


@dataclass
class RunRecord:
    """Everything needed to judge a run and to run it again.

    `dataset` has name, split, checksum, counts and, where it is not MNIST, a banner; `model` has name, parameters
    and layers (as dictionaries); `verdict` is what `assignment.judge` said, one entry a rule;
    `inputs` what the batch runner tells equal runs by;
    `against` the notebook that this one changes in one thing, where there is one.
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
    epochs: list[EpochRow] = field(default_factory=list)
    verdict: list = field(default_factory=list)
    inputs: dict = field(default_factory=dict)
    against: str = ""
    schema: int = SCHEMA

    @classmethod
    def start(cls, notebook: str, parameters: dict, **facts) -> "RunRecord":
        """A record of a run that begins now, with the versions and the git state of this moment."""
        return cls(notebook, parameters, versions=_versions(), git=_git_state(), started=_now(), **facts)

    @property
    def last(self) -> EpochRow:
        """The last epoch: the one that counts. Raises RecordError where no epoch was finished."""
        if not self.epochs:
            raise RecordError(f"{self.notebook}: no epoch was finished")
        return self.epochs[-1]

    @property
    def best(self) -> EpochRow:
        """The epoch with the most validation images right, the first of equals; shown, never the result."""
        return max(self.epochs or [self.last], key=lambda row: (row.validation_correct, -row.epoch))

    def finish(self, status: str = "completed", error: str = "") -> None:
        """Mark the end of the run with one of `STATUSES`."""
        if status not in STATUSES:
            raise ValueError(f"unknown status {status!r}; choose one of {', '.join(STATUSES)}")
        self.status, self.error, self.finished = status, error, _now()

    def save(self, folder: str | Path) -> None:
        """Write `run.json` and `metrics.csv` into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "metrics.csv", self._metrics())
        write_text(folder / "run.json", _json(asdict(self)))

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """Read the `run.json` in `folder`. Raises RecordError where it is missing, damaged or too new."""
        path = Path(folder) / "run.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts.get("schema") != SCHEMA:
                raise RecordError(f"{path}: schema {facts.get('schema')!r}, this version reads {SCHEMA}")
            facts["epochs"] = [EpochRow(**row) for row in facts["epochs"]]
            return cls(**facts)
        except FileNotFoundError:
            raise RecordError(f"{path}: no such record") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"{path}: damaged record ({error})") from error

    def _metrics(self) -> str:
        names = [f.name for f in fields(EpochRow)] + ["train_accuracy", "validation_accuracy"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(names)
        table.writerows([getattr(row, name) for name in names] for row in self.epochs)
        return text.getvalue()


def save_misread(folder: str | Path, labels, probabilities) -> None:
    """Write `misread.csv` into `folder`: a row for each image whose likeliest digit is not its label.

    `labels` is a tensor int (N,), `probabilities` one float (N, 10); `image` is the place among the N, `confidence` the
    probability of the guess.
    """
    guesses, confidences = probabilities.argmax(1).tolist(), probabilities.max(1).values.tolist()
    rows = [
        f"{image},{label},{guess},{confidence:.4f}"
        for image, (label, guess, confidence) in enumerate(zip(labels.tolist(), guesses, confidences))
        if guess != label
    ]
    write_text(Path(folder) / "misread.csv", "\n".join(["image,label,guess,confidence", *rows]) + "\n")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; what is written there replaces `path` only if nothing was raised."""
    path = Path(path)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(part)
        os.chmod(part, 0o644)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace `path` by `text`, UTF-8 with its line ends as they are, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def _json(facts: dict) -> str:
    """JSON for people: indented, but each list of plain numbers on one line."""
    text = json.dumps(facts, indent=1, allow_nan=False)
    return re.sub(r"\[\n\s+([^\[\]{}\"]*?)\n\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict:
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def _git_state() -> dict:
    """The commit the run was made from and whether files had been changed since; empty outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "mnist_utils", "notebooks")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {}
