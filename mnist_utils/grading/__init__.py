"""What others submitted, read without executing it and held to the rules, each answer with
evidence.

    grades = grade(["student-a.ipynb", "student-b.zip"], load_rules("4"))
    print(output.terminal_table(grades))

One direction: `archive` and `notebook` read files to cells; `facts`, `tables` and
`source` find what lines, tables and code say; `trainings` and `iterations` put together what
belongs together; `rules` judges; `course` and `output` tell. Nothing here knows whether a log is
honest: it shows where everything stands, for a person to look.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..assignment import FAIL, PASS, overall
from . import course
from .archive import Source, find_submissions, read, reason
from .iterations import NOTHING, Iteration, find_iterations
from .lines import TooLong, within
from .rules import FOURTH, NOT_SHOWN, Judgement, Rules, judge, load_rules

__all__ = ["FOURTH", "Grade", "Judged", "NOT_SHOWN", "Rules", "grade", "load_rules"]
SECONDS = 60.0  # that one submission may take


@dataclass(frozen=True)
class Judged:
    """One iteration and the verdict on it, rule by rule."""

    iteration: Iteration
    verdicts: list[Judgement]

    @property
    def outcome(self) -> str:
        return overall(self.verdicts)

    @property
    def rank(self) -> tuple:
        """Better first: what passes, logs before texts, nearer to all rules, accuracy."""
        iteration = self.iteration
        outcomes = [verdict.outcome for verdict in self.verdicts]
        return (
            self.outcome != PASS,
            not iteration.training.epochs,
            iteration.form == "text",
            -2 * outcomes.count(PASS) - outcomes.count(NOT_SHOWN),
            outcomes.count(FAIL),
            -iteration.result.percent if iteration.result else 0,
            iteration.parameters.low if iteration.parameters else math.inf,
        )


@dataclass
class Grade:
    """One submission: all its iterations, and why files of it were not read.

    `student` and `id` are a roster's; `alike` names other submissions that have the same log.
    """

    name: str
    judged: list[Judged] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    student: str = ""
    id: str = ""
    alike: list[str] = field(default_factory=list)

    @property
    def best(self) -> Judged | None:
        """The best iteration that satisfies all rules, else the one that comes nearest."""
        return min(self.judged, key=lambda judged: judged.rank, default=None)

    @property
    def shown(self) -> Judged:
        """The best iteration, or one that shows nothing."""
        return self.best or Judged(NOTHING, [])

    @property
    def outcome(self) -> str:
        """Of the best iteration: a submission passes where one of them satisfies all rules."""
        return self.best.outcome if self.best else NOT_SHOWN


def grade(
    paths: list[str | Path],
    rules: Rules = FOURTH,
    each: bool = False,
    only: str = "",
    roster: str | Path | None = None,
    mapper: Callable[[Callable, Iterable], Iterable] = map,
    time_limit: float = SECONDS,
) -> list[Grade]:
    """A grade a submission, in the order given, or of the roster where there is one.

    A path is one submission, or with `each` every entry of a folder or zip file. `only` is a
    pattern of the files that are read in each, as "session4/*"; `roster` a file of students
    (`course.read_roster`). `mapper(function, sources)` yields what `map` does, in its order; an
    exception in a grade's place stands for one that was lost. A submission that cannot be read,
    or takes longer than `time_limit` seconds, has the reason in `problems`. Raises UsageError for
    bad paths.
    """
    students = course.read_roster(Path(roster)) if roster else []
    handed_in = course.match(students, find_submissions(paths, each))
    work = partial(grade_one, rules=rules, only=only, seconds=time_limit)
    results = iter(mapper(work, [source for _, source in handed_in if source]))
    grades = []
    for student, source in handed_in:
        result = Grade(student.name or student.id, problems=["nothing was handed in"])
        if source:
            result = next(results)
        if isinstance(result, BaseException):
            result = Grade(source.name, problems=[_fault(result)])
        result.student, result.id = student.name, student.id
        grades.append(result)
    course.name_alike(grades)
    return grades


def grade_one(source: Source, rules: Rules, only: str = "", seconds: float = SECONDS) -> Grade:
    """Read and judge one submission. Never raises: what went wrong is in `problems`."""
    result = Grade(source.name)
    try:
        with within(seconds):
            submission = read(source, only)
            result.problems = submission.problems
            for iteration in find_iterations(submission, rules.words):
                if iteration.whole_map and rules.whole_map == "marked":
                    flag = f"a convolution over a whole map: {iteration.whole_map[0]}"
                    iteration.flags.insert(0, flag)
                result.judged.append(Judged(iteration, judge(iteration, rules)))
        if not result.judged and not result.problems:
            result.problems = ["no model, table or training log was found"]
    except TooLong:
        result.problems.append(f"it took longer than {seconds:g} seconds and was given up")
    except Exception as error:  # a fault of this program: the other submissions go on
        result.problems.append(_fault(error))
    return result


def _fault(error: BaseException) -> str:
    return f"could not be graded ({type(error).__name__}: {reason(error)})"
