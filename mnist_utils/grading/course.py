"""A course's students: who handed in what, who has whose log, points a rule, imports of points.

    students = match(read_roster(Path("roster.csv")), ["submissions"], each=True)

A roster is a CSV file whose heading names any of name, id and path, or a line of name and path for
each student. Canvas and Moodle put a student's id into the names of the files they export.
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from ..assignment import PASS
from ..errors import UsageError
from .archive import Source
from .lines import clean_name

EXPORTED = re.compile(r"_(\d{2,9})_assignsubmission|^[^\W_]+_(?:LATE_)?(\d{2,9})_\d+_", re.I)
HEADINGS = {"name": "name", "student": "name", "id": "id", "path": "path", "file": "path"}


class Student(NamedTuple):
    """One line of a roster; `path` is the end of the path where the submission lies."""

    name: str = ""
    id: str = ""
    path: str = ""


def read_roster(path: Path) -> list[Student]:
    """The students of a roster. Raises UsageError where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
        separator = max(",;\t", key=lines[0].count)
        table = csv.reader(lines, delimiter=separator)
        rows = [[clean_name(cell) for cell in row] for row in table]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{clean_name(str(path))} cannot be read as a roster ({error})") from None
    fields = [HEADINGS.get(cell.lower(), "") for cell in rows[0]]
    if any(fields):
        del rows[0]
    else:
        fields = ["name", "path"]
    students = [Student(**{f: c for f, c in zip(fields, row) if f}) for row in rows if any(row)]
    if not students:
        raise UsageError(f"{clean_name(str(path))} names no student")
    return students


def match(students: list[Student], sources: list[Source]) -> list[tuple[Student, Source | None]]:
    """Each student with what was handed in, if anything, then what belongs to nobody."""
    left = dict.fromkeys(sources)
    found: list[tuple[Student, Source | None]] = []
    for student in students:
        source = next((source for source in left if _belongs(source, student)), None)
        left.pop(source, None)
        found.append((student, source))
    return found + [(Student(), source) for source in left]


def _belongs(source: Source, student: Student) -> bool:
    """A student's path counts; without one, a submission's name that holds the id, or the name."""
    if end := Path(student.path).parts:
        return Path(source.path, source.inside).parts[-len(end) :] == end
    if student.id in re.findall(r"[^\W_]+", source.name):
        return True
    name, file = (
        "".join(filter(str.isalnum, text)).lower() for text in (student.name, source.name)
    )
    return bool(name) and name in file


def name_alike(grades: list) -> None:
    """Tell each grade which others have a log with the same accuracies, at least three of them."""
    holders: dict[tuple, list] = {}
    for grade in grades:
        for series in {judged.iteration.series for judged in grade.judged}:
            if len(series) > 2 and len(set(series)) > 1:
                holders.setdefault(series, []).append(grade)
    for alike in holders.values():
        for grade in alike:
            # of very many only the first, so that the time is linear
            others = [other for other in alike[:21] if other is not grade]
            names = {other.student or other.name for other in others}
            grade.alike = sorted({*grade.alike, *names})[:20]


def read_points(text: str) -> dict[str, float]:
    """Points a rule, from a text as "accuracy=4,parameters=3". Raises UsageError."""
    points = {}
    for part in text.split(","):
        key, _, number = part.partition("=")
        if not re.fullmatch(r"\s*\d{1,6}(\.\d{1,3})?\s*", number):
            raise UsageError(f"points are as in accuracy=4,epochs=2; got {clean_name(part)!r}")
        points[key.strip().replace(" ", "_")] = float(number)
    return points


def total(grade, points: dict[str, float] | None) -> str:
    """The points for the rules that a submission passes. Raises UsageError."""
    if points is None:
        return ""
    outcomes = {verdict.key: verdict.outcome for verdict in grade.shown.verdicts}
    if unknown := ", ".join(sorted(points.keys() - outcomes.keys())) * bool(outcomes):
        raise UsageError(f"points for {clean_name(unknown)}; the rules are {', '.join(outcomes)}")
    return f"{sum(points.get(key, 0.0) for key in outcomes if outcomes[key] == PASS):g}"


def import_rows(form: str, grades: list, points: dict[str, float], told, name: str) -> list[list]:
    """What "canvas" or "moodle" imports; `told(grade)` comments, `name` is the assignment's."""
    most = f"{sum(points.values()):g}"
    rows = [["Identifier", "Full name", "Grade", "Maximum Grade", "Feedback comments"]]
    if form == "canvas":
        rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", name]]
        rows.append(["    Points Possible", "", "", "", "", most])
    for grade in grades:
        exported = EXPORTED.search(grade.name)
        number = grade.id or (exported and (exported[1] or exported[2])) or ""
        student = grade.student or grade.name
        earned = total(grade, points)
        if form == "canvas":
            rows.append([student, number, "", "", "", earned])
        else:
            identifier = number and f"Participant {number}"
            rows.append([identifier, student, earned, most, told(grade)])
    return rows
