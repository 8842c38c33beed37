"""The completed runs of each notebook on MNIST's test images, read from their records.

for result in collect(Path("reports")):
    result.name, result.last        # the accuracy at the last epoch, in percent, seed by seed
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev

from ..assignment import ASSIGNMENT, PASS, judge
from ..errors import RecordError, UsageError
from ..parameters import read_notebook
from ..records import RunRecord


@dataclass
class Result:
    """All completed runs of one notebook on MNIST's test images, by seed.

    `words` is what the notebook says of itself: title, target and result, as far as it does.
    """

    name: str
    records: dict[int, RunRecord]
    words: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        runs = self.records.values()
        self.first = self.records[min(self.records)]
        self.title = self.words.get("title") or self.name
        self.numbered = self.name[:1].isdigit()
        self.parameters = self.first.model["parameters"]
        self.epochs = len(self.first.epochs)
        # In percent, seed by seed. The last epoch counts; the best is shown, never the result.
        self.last = [100 * run.last.validation_accuracy for run in runs]
        self.best = [100 * run.best.validation_accuracy for run in runs]
        self.mean = mean(self.last)
        # Of the seeds that reach the target; of equal shares the one of more seeds is surer.
        self.share = (self.reaching(self.last) / len(runs), len(runs))

    @property
    def passes(self) -> bool:
        """Whether the mean reaches the target and a seed at least satisfies each other rule."""
        others = all(passed for _, passed, _ in self.rules()[1:])
        return others and self.reaching([self.mean]) == 1

    def reaching(self, accuracies: list[float]) -> int:
        """How many of the accuracies, in percent, are at or above the assignment's target."""
        return sum(round(a, 6) >= 100 * ASSIGNMENT.target for a in accuracies)

    def rules(self) -> list[tuple[str, int, str]]:
        """Each rule of the assignment, how many seeds pass it, and the evidence over all of them."""
        rows = []
        for said in zip(*map(judge, self.records.values())):
            passed = sum(verdict.outcome == PASS for verdict in said)
            evidence = said[0].evidence
            if any(verdict.evidence != evidence for verdict in said):
                evidence = f"mean {self.mean:.3f}%, {min(self.last):.2f}% to {max(self.last):.2f}%"
            rows.append((said[0].rule, passed, evidence))
        return rows

    def missed(self) -> str:
        """Which limits of the notebook's own target, as its words give them, the runs miss."""
        target = self.words.get("Target", "")
        missed = [
            f"at most {limit} {unit}"
            for limit, unit in re.findall(r"\bat most ([\d,]+) (parameters|epochs)", target)
            if getattr(self, unit) > int(limit.replace(",", ""))
        ]
        means = re.findall(r"\bmean of at least (\d+\.\d+)%", target)
        missed += [f"a mean of at least {least}%" for least in means if self.mean < float(least)]
        return " and ".join(missed)


def collect(root: Path, only: str = "*") -> list[Result]:
    """The results of the notebooks that the pattern `only` names under `root`; numbered ones last.

    A record that cannot be read, or that is not its folder's, is left out, and standard error says
    so. Raises RecordError where the seeds of a notebook were not run alike.
    """
    found: dict[str, dict[int, RunRecord]] = {}
    for path in sorted(root.glob(f"{only}/seed-*/run.json")):
        folder = path.parent
        # A copy such as seed-0.previous is no run that counts.
        if re.fullmatch(r"seed-\d+", folder.name) and (record := _read(folder)):
            found.setdefault(folder.parent.name, {})[record.seed] = record
    results = []
    for name in sorted(found, key=order):
        records = dict(sorted(found[name].items()))
        if len(set(map(_recipe, records.values()))) > 1:
            raise RecordError(f"{root / name}: seeds were run with different parameters or models")
        words = _words(root / name / f"seed-{min(records)}/{name}.ipynb")
        results.append(Result(name, records, words))
    return results


def order(name: str) -> tuple[bool, str]:
    """Sorts the notebooks that have a goal of their own before the numbered steps."""
    return name[:1].isdigit(), name


def run_folders(root: Path, results: Iterable[Result]) -> list[Path]:
    """The folder of every run that counts, the first seed of a notebook first."""
    return [root / result.name / f"seed-{seed}" for result in results for seed in result.records]


def with_weights(root: Path, results: Iterable[Result]) -> list[Path]:
    """The folders of first seeds whose weights were kept, the highest mean first."""
    best = sorted(results, key=lambda result: -result.mean)
    first = [root / result.name / f"seed-{result.first.seed}" for result in best]
    return [folder for folder in first if (folder / "model.safetensors").exists()]


def paired(result: Result, other: Result) -> list[float]:
    """By how many points at the last epoch `result` is better than `other`, for each seed of both."""
    theirs = dict(zip(other.records, other.last))
    return [mine - theirs[s] for s, mine in zip(result.records, result.last) if s in theirs]


def spread(values: list[float]) -> float:
    """The standard deviation over seeds; 0 for a single one."""
    return stdev(values) if len(values) > 1 else 0.0


def interval(values: list[float], form: str = ".3f") -> str:
    """Student's t, 95%; nothing can be said of a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return "one seed"
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values) - half:{form}} to {mean(values) + half:{form}}"


def wilson(count: int, n: int) -> str:
    """Wilson's 95% interval of a share."""
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(method="wilson")
    return f"{low:.0%} to {high:.0%}"


def ranges(seeds: Iterable[int]) -> str:
    """0, 1, 2 as "0-2"; where there are gaps, each seed."""
    seeds = sorted(seeds)
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def _read(folder: Path) -> RunRecord | None:
    """The record in `folder` where it counts and everything that pages say of it can be said."""
    try:
        record = RunRecord.load(folder)
        judge(record)
        _recipe(record)
        if record.status != "completed":
            return None
        if folder.name != f"seed-{record.seed}" or not record.epochs:
            raise ValueError("no completed run of this folder's seed")
        data = record.dataset.get("name"), record.dataset.get("split")
        return record if data == ("mnist", "assignment") else None
    except RecordError as error:
        print(f"left out: {error}", file=sys.stderr)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        print(f"left out: {folder / 'run.json'}: damaged record ({error})", file=sys.stderr)
    return None


def _recipe(record: RunRecord) -> str:
    model = record.model
    return f"{sorted(record.parameters.items())} {model['name']} {model['parameters']:d}"


def _words(path: Path) -> dict[str, str]:
    """The title of the notebook at `path`, and its paragraphs Target and Result."""
    try:
        notebook = read_notebook(path)
    except UsageError:
        return {}
    text = "\n\n".join(c["source"] for c in notebook["cells"] if c.get("cell_type") == "markdown")
    said = re.findall(r"^\*\*(Target|Result)\.\*\* (.*?)(?:\n\n|\Z)", text, re.M | re.S)
    return {"title": str(notebook["metadata"].get("title", "")), **dict(said)}


def overview(root: Path, only: str = "*") -> dict[str, str]:
    """By notebook, what its recorded runs reach and how long they train, in a line."""
    lines = {}
    for result in collect(root, only):
        runs = result.records.values()
        # A machine that was busy for one run makes a mean long.
        seconds = median(sum(epoch.train_seconds for epoch in run.epochs) for run in runs)
        lines[result.name] = (
            f"{result.mean:.2f}% on average over {len(runs)} seeds, {result.reaching(result.last)} "
            f"of them at 99.40% or more, {seconds:.0f} s of training"
        )
    return lines
