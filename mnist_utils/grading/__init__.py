"""What others submitted, read without executing it and held to the rules, each answer with its evidence.

    grades = grade(["student-a.ipynb", "student-b.zip"], load_rules("4"))
    print(output.terminal_table(grades))

One direction: `reading` and `markup` (files to cells), `lines`, `tables`, `source`, `logs` (cells to what they show),
`finding` (what belongs together, flags), `rules` (verdicts), `output`. Nothing here trains or loads torch.
What it does not do: it does not know whether a log is honest. It shows where everything stands, for a person to look.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..assignment import FAIL, PASS, Verdict
from .finding import Iteration, find_iterations
from .reading import Source, clean, cut, find_submissions, read
from .rules import FOURTH, NOT_SHOWN, Rules, judge, load_rules, overall

__all__ = ["FOURTH", "Grade", "Judged", "NOT_SHOWN", "Rules", "grade", "load_rules"]


@dataclass(frozen=True)
class Judged:
    """One iteration and the verdict on it, rule by rule."""

    iteration: Iteration
    verdicts: list[Verdict]

    @property
    def outcome(self) -> str:
        return overall(self.verdicts)

    @property
    def accuracy(self) -> float:
        """The last in percent, for putting iterations in order."""
        training = self.iteration.training
        shown = (training.accuracies or training.after) if training else []
        return shown[-1].percent if shown else 0.0

    @property
    def rank(self) -> tuple:
        """Better first: the outcome, rules that pass, accuracy, fewer parameters."""
        outcomes = [verdict.outcome for verdict in self.verdicts]
        parameters = self.iteration.parameters.low if self.iteration.parameters else 10**12
        worth = {PASS: 2, NOT_SHOWN: 1, FAIL: 0}[self.outcome]
        return (-worth, outcomes.count(FAIL), -outcomes.count(PASS), -self.accuracy, parameters)


@dataclass
class Grade:
    """One submission: all its iterations, and why files of it were not read."""

    name: str
    judged: list[Judged] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def best(self) -> Judged | None:
        """The best iteration that satisfies all rules, else the one that comes nearest."""
        return min(self.judged, key=lambda judged: judged.rank, default=None)

    @property
    def outcome(self) -> str:
        """Of the best iteration: a submission passes where one of its iterations satisfies all rules."""
        return self.best.outcome if self.best else NOT_SHOWN


def grade(
    paths: list[str | Path],
    rules: Rules = FOURTH,
    each: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
) -> list[Grade]:
    """A grade a submission, in the order given: a path is one, or with `each` every entry of a folder or zip file.

    `jobs` processes share the work, or the workers of the Dask cluster at the address `scheduler`, which must see the
    same files. A submission that cannot be read has the reason in `problems`. Raises UsageError for bad paths.
    """
    sources = find_submissions(paths, each)
    if scheduler:
        return _on_cluster(sources, rules, scheduler)
    if jobs == 1 or len(sources) == 1:
        return [grade_one(source, rules) for source in sources]
    return list(_in_processes(sources, rules, min(jobs, len(sources))))


def grade_one(source: Source, rules: Rules) -> Grade:
    """Read and judge one submission. Never raises: what went wrong is in `problems`."""
    result = Grade(source.name)
    try:
        submission = read(source)
        result.problems = submission.problems
        result.judged = [Judged(iteration, judge(iteration, rules)) for iteration in find_iterations(submission)]
        if not result.judged and not result.problems:
            result.problems = ["no model, table or training log was found"]
    except Exception as error:  # a fault of this program: the other submissions go on, and this one says so
        result.problems.append(f"could not be graded ({type(error).__name__}: {cut(clean(str(error)), 160)})")
    return result


def _in_processes(sources: list[Source], rules: Rules, jobs: int) -> Iterator[Grade]:
    """Graded side by side; where a process is lost, what it had is tried again alone."""
    work = partial(grade_one, rules=rules)
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, source) for source in sources]
        for source, future in zip(sources, futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield _alone(source, rules)


def _alone(source: Source, rules: Rules) -> Grade:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(grade_one, source, rules).result()
    except BrokenProcessPool:
        return Grade(source.name, problems=["the process that read it was lost (too much memory?)"])


def _on_cluster(sources: list[Source], rules: Rules, scheduler: str) -> list[Grade]:
    from ..batch.executor import engine

    sources = [Source(source.name, str(Path(source.path).resolve()), source.inside) for source in sources]
    with engine(scheduler=scheduler) as pool:
        outcomes = pool.map_unordered(partial(grade_one, rules=rules), sources)
        found = {source.name: outcome for source, outcome in outcomes}
    lost = {name: Grade(name, problems=[f"could not be graded ({type(found.get(name)).__name__})"]) for name in found}
    return [found[s.name] if isinstance(found[s.name], Grade) else lost[s.name] for s in sources]
