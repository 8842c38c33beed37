"""A course's students: who handed in what, points a rule, who has whose log, and imports of grades.

    students = match(read_roster(Path("roster.csv")), ["submissions"], each=True)

A roster is a CSV file with a heading that names any of name, id and path, or a line a student of name
and path. Canvas and Moodle put a student's id into the names of what they export.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..assignment import PASS
from ..errors import UsageError
from .archive import Source, find_submissions
from .lines import clean_name

EXPORTED = re.compile(r"_(\d{2,9})_assignsubmission|^[^\W_]+_(?:LATE_)?(\d{2,9})_\d+_", re.I)


class Student(NamedTuple):
    """One line of a roster; `path` is relative to it, or to the folder that is graded."""

    name: str = ""
    id: str = ""
    path: str = ""


def read_roster(path: Path) -> list[Student]:
    """The students of a roster. Raises UsageError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{clean_name(str(path))} cannot be read as a roster ({error})") from None
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=separator)]
    rows = [row for row in rows if any(row)]
    heading = [cell.lower() for cell in rows[0]] if rows else []
    known = {"name": "name", "student": "name", "id": "id", "path": "path", "file": "path"}
    if known.keys() & set(heading):
        places = {known[cell]: i for i, cell in reversed([*enumerate(heading)]) if cell in known}
        rows = rows[1:]
    else:
        places = {"name": 0, "path": 1}
    students = []
    for row in rows:
        cells = {field: clean_name(row[i]) for field, i in places.items() if i < len(row)}
        students.append(Student(**cells))
    if not students:
        raise UsageError(f"{clean_name(str(path))} names no student")
    return students


def match(students: list[Student], paths: Sequence, each: bool) -> list[tuple[Student, Source | None]]:
    """Each student with what was handed in, if anything, then what belongs to nobody.

    A student's path counts; without one, the submission whose name holds the id or the name.
    """
    sources = find_submissions(list(paths), each)
    left = dict.fromkeys(sources)
    found: list[tuple[Student, Source | None]] = []
    for student in students:
        source = next((one for one in left if _is_of(student, one)), None)
        left.pop(source, None)
        found.append((student, source))
    return found + [(Student(), source) for source in left]


def _is_of(student: Student, source: Source) -> bool:
    if student.path:
        path = Path(student.path)
        whole = Path(source.path, source.inside)
        return whole.parts[-len(path.parts) :] == path.parts
    if student.id and student.id in re.findall(r"\w+?(?=_|\W|$)|\d+", source.name):
        return True
    return bool(student.name) and _plain(student.name) in _plain(source.name)


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def name_alike(grades: list) -> None:
    """Tell each grade which others have a log with the same accuracies, at least three of them."""
    holders: dict[tuple, list] = {}
    for grade in grades:
        for series in {judged.iteration.series for judged in grade.judged}:
            if len(series) > 2 and len(set(series)) > 1:
                holders.setdefault(series, []).append(grade)
    for alike in holders.values():
        for grade in alike if len(alike) > 1 else ():
            names = [other.name for other in alike if other is not grade]
            grade.alike = sorted({*grade.alike, *names})[:20]


def read_points(text: str) -> dict[str, float]:
    """Points a rule, from "accuracy=4,parameters=3,epochs=2,fully_connected=1". Raises UsageError."""
    points = {}
    for part in text.split(","):
        key, _, number = part.partition("=")
        if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", number.strip()):
            raise UsageError(f"points are a rule and a number as in accuracy=4, got {clean_name(part)!r}")
        points[key.strip().replace(" ", "_")] = float(number)
    return points


def total(grade, points: dict[str, float]) -> float:
    """The points of a submission's best iteration, for the rules that it passes. Raises UsageError."""
    if not grade.best:
        return 0.0
    verdicts = grade.best.verdicts
    keys = [verdict.key for verdict in verdicts]
    if unknown := sorted(points.keys() - set(keys)):
        raise UsageError(f"points for {', '.join(unknown)}; the rules are {', '.join(keys)}")
    return sum(points.get(verdict.key, 0.0) for verdict in verdicts if verdict.outcome == PASS)


def id_of(grade) -> str:
    """A student's id: the roster's, else the one that Canvas or Moodle put into the name."""
    found = EXPORTED.search(grade.name)
    return grade.id or (found and (found[1] or found[2])) or ""


def canvas_rows(grades: list, points: dict[str, float], assignment: str) -> list[list]:
    """The rows that Canvas imports: its five columns of the student, then the assignment."""
    rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment]]
    rows.append(["    Points Possible", "", "", "", "", f"{sum(points.values()):g}"])
    for grade in grades:
        earned = f"{total(grade, points):g}"
        rows.append([grade.student or grade.name, id_of(grade), "", "", "", earned])
    return rows


def moodle_rows(grades: list, points: dict[str, float], feedback) -> list[list]:
    """The rows of Moodle's offline grading worksheet; `feedback(grade)` is its comment."""
    rows = [["Identifier", "Full name", "Grade", "Maximum Grade", "Feedback comments"]]
    for grade in grades:
        earned, most = f"{total(grade, points):g}", f"{sum(points.values()):g}"
        number = id_of(grade)
        identifier = f"Participant {number}" if number else ""
        rows.append([identifier, grade.student or grade.name, earned, most, feedback(grade)])
    return rows
