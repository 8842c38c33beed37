"""The completed runs of each notebook on MNIST's test images, read from their records.

for result in collect(Path("reports")):
    result.name, result.last        # the accuracy at the last epoch, in percent, seed by seed
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..assignment import ASSIGNMENT
from ..errors import RecordError
from ..records import RunRecord


@dataclass(frozen=True)
class Result:
    """All completed runs of one notebook on MNIST's test images, by seed."""

    name: str
    records: dict[int, RunRecord]

    @property
    def first(self) -> RunRecord:
        return self.records[min(self.records)]

    @property
    def last(self) -> list[float]:
        """The accuracy at the last epoch, in percent, seed by seed."""
        return [100 * record.last.validation_accuracy for record in self.records.values()]

    @property
    def best(self) -> list[float]:
        """The accuracy at the best epoch, in percent, seed by seed: shown, never the result."""
        return [100 * record.best.validation_accuracy for record in self.records.values()]

    def reaching(self, accuracies: list[float]) -> int:
        """How many of the accuracies, in percent, are at or above the assignment's target."""
        return sum(round(a, 6) >= 100 * ASSIGNMENT.target for a in accuracies)


def collect(root: Path) -> list[Result]:
    """The results under `root`, a folder a notebook and in it one a seed, in the order of their names.

    Raises RecordError where a record is damaged, or where the seeds of a notebook were not run alike.
    """
    found: dict[str, dict[int, RunRecord]] = {}
    for path in root.glob("*/seed-*/run.json"):
        record = RunRecord.load(path.parent)
        if record.status == "completed" and _on_test_images(record):
            found.setdefault(path.parent.parent.name, {})[record.seed] = record
    results = [Result(name, dict(sorted(records.items()))) for name, records in sorted(found.items())]
    for result in results:
        if len({_recipe(record) for record in result.records.values()}) > 1:
            raise RecordError(f"{root / result.name}: the seeds were run with different parameters or models")
    return results


def best_with_weights(root: Path, results: Iterable[Result]) -> Result | None:
    """The result with the highest mean among those whose first seed's weights were kept."""
    kept = [result for result in results if (run_folders(root, [result])[0] / "model.safetensors").exists()]
    return max(kept, key=lambda result: statistics.mean(result.last), default=None)


def run_folders(root: Path, results: Iterable[Result]) -> list[Path]:
    """The folder of every run that counts, the first seed of a notebook first."""
    return [root / result.name / f"seed-{seed}" for result in results for seed in result.records]


def _on_test_images(record: RunRecord) -> bool:
    return record.dataset.get("name") == "mnist" and record.dataset.get("split") == "assignment"


def _recipe(record: RunRecord) -> str:
    return f"{sorted(record.parameters.items())} {record.model['name']} {record.model['parameters']}"
