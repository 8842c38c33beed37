"""What a person sees of runs: what they print, a line for each, a bar, a table, summary.csv."""

import math
import os
import statistics
import sys
import time

from .. import assignment
from ..records import RunRecord, csv_text, duration, write_text
from .plan import Job

COLUMNS = "job notebook seed status last_accuracy best_accuracy epochs started finished error"
LISTING = 20  # more lines than these that are printed at once are not for a terminal


def say(text: str, end: str = "\n") -> None:
    """Print `text`; runs go on when the reader leaves early, or the disk behind a log is full."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Log:
    """What the notebook prints, but for listings, as of a network's source or its layers.

    Where no terminal listens, bars come as their last state only.
    """

    def __init__(self):
        self.line = ""

    def write(self, text: str) -> None:
        count = text.count("\n")
        if count > LISTING:
            text = f"({count} lines: see the report)\n"
        if sys.stdout.isatty():
            say(text, end="")
            return
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            say(line.rstrip("\r").rpartition("\r")[2])

    def flush(self) -> None:
        """`say` has done it; papermill asks for it."""


class Progress:
    """A bar of what runs, is done and has failed; a line for each run that ends."""

    def __init__(self, total: int, at_a_time: int):
        from tqdm import tqdm

        self.plan = f"{total} run{'s' * (total > 1)}, {at_a_time} at a time"
        self.turns = math.ceil(total / at_a_time)
        self.failed = 0
        self.began = time.monotonic()
        say(self.plan)
        self.bar = tqdm(total=total, ncols=96, nrows=20, disable=None)

    def tick(self, running: int) -> None:
        """Show on the bar how many runs there are now."""
        self.bar.set_postfix_str(f"{running} running, {self.failed} failed")

    def ended(self, name: str, record: RunRecord) -> None:
        """Show how a run ended; after the first, about how long all will take."""
        lines = [f"{name}: {describe(record)}"]
        if self.turns > 1:
            seconds = self.turns * (time.monotonic() - self.began)
            lines.append(f"{self.plan}, about {duration(seconds)}")
            self.turns = 0
        self.failed += record.status != "completed"
        with self.bar.external_write_mode(file=sys.stdout):
            say("\n".join(lines))
        self.bar.update()


def describe(record: RunRecord) -> str:
    """How a run ended, in a line: the verdict on it, or its status, and what went wrong."""
    said = record.status
    if record.status == "completed":
        said = assignment.summary(record)
    return ", ".join([said, *record.error.splitlines()[:1]])


def conclude(rows: list[tuple[Job, RunRecord]]) -> str:
    """What a batch says at its end: the table, where the summary is, what is missing and why."""
    bad = [f"  {job.name}: {describe(r)}" for job, r in rows if r.status != "completed"]
    done = f"{len(rows) - len(bad)} of {len(rows)} runs completed"
    file = rows[0][0].out / "summary.csv"
    lines = [format_summary(rows), f"{done}, {file} says how each stands"]
    if bad:
        lines += ["not completed:", *bad, "the same command resumes these"]
    return "\n".join(lines)


def format_summary(rows: list[tuple[Job, RunRecord]]) -> str:
    """A line for the seeds of each notebook and variant; accuracies are the last epoch's."""
    groups: dict[str, list[RunRecord]] = {}
    for job, record in rows:
        groups.setdefault(job.name.rpartition("/")[0], []).append(record)
    width = max(len(name) for name in [*groups, "notebook"])
    lines = [f"{'notebook':<{width}}   runs  completed      mean   lowest  highest"]
    for name, records in groups.items():
        done = [record for record in records if record.status == "completed"]
        last = [record.last.validation_accuracy for record in done if record.epochs]
        line = f"{name:<{width}}  {len(records):>5}  {len(done):>9}"
        if last:
            line += f"  {statistics.mean(last):>8.3%}  {min(last):>7.2%}  {max(last):>7.2%}"
        if any(record.dataset.get("note") for record in done):
            line += "  not MNIST"
        lines.append(line)
    return "\n".join(lines)


def write_summary(rows: list[tuple[Job, RunRecord]]) -> None:
    """Write `out`/summary.csv, a line for each job, whole or not at all."""
    lines = [COLUMNS.split()]
    for job, record in rows:
        reached = ["", ""]
        if record.epochs:
            reached = [record.last.validation_accuracy, record.best.validation_accuracy]
        line = [job.name, record.notebook, record.seed, record.status, *reached]
        lines.append(line + [len(record.epochs), record.started, record.finished, record.error])
    file = rows[0][0].out / "summary.csv"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, csv_text(lines))
    except OSError as error:
        say(f"{file} could not be written ({error.strerror})")
