"""Grades for people and programs: a terminal's table, CSV, JSON, and an HTML page without network.

    print(terminal_table(grades))
    write_text(Path("grades.html"), to_html(grades, rules))

All of it holds text that strangers wrote: HTML is escaped, a spreadsheet is given no formula, a
terminal no escapes.
"""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

from ..assignment import FAIL, PASS
from ..errors import UsageError
from ..records import csv_text, write_text
from ..templating import STYLE, TEMPLATES, fill, policy
from . import course
from .facts import Accuracy
from .iterations import LAYERS
from .lines import Line, cut
from .rules import FOURTH, LAST, NOT_SHOWN, Rules


def facts(grade, rules: Rules, points: dict[str, float] | None = None) -> dict[str, str]:
    """A submission's best iteration in words, by the column's name; "" where it is not shown."""
    iteration = grade.shown.iteration
    training = iteration.training
    connected = sum(layer.shown for layer in iteration.fully_connected)
    if not connected:
        is_known = iteration.layers_from and not iteration.fully_connected
        connected = "none" if is_known else "?" * bool(grade.judged)
    target = float(100 * rules.target) - 1e-6
    pairs = zip(training.numbers, training.accuracies)
    told = [f"{v.outcome}: {v.rule}: {v.evidence}" for v in grade.shown.verdicts]
    row = {
        "student": grade.student,
        "id": grade.id,
        "submission": grade.name,
        "outcome": grade.outcome,
        "points": course.total(grade, points),
        "missed": missed(grade),
        "last": percent(iteration.result),
        "best": percent(training.best),
        "best_epoch": training.best_epoch,
        "parameters": iteration.parameters,
        "parameters_from": iteration.parameters_from,
        "epochs": training.epochs,
        "fully_connected": connected,
        "whole_map": sum(found.shown for found in iteration.whole_map),
        "last_five": " ".join(map(percent, training.accuracies[-LAST:])),
        "at_target": " ".join(str(n) for n, a in pairs if a.percent >= target),
        **{kind.replace(" ", "_"): "yes" * (kind in iteration.layers) for kind in LAYERS},
        "batch_size": iteration.batch_size,
        "iterations": iteration.iterations,
        "trainings": len(grade.judged),
        "flags": "; ".join(iteration.flags),
        "alike": ", ".join(grade.alike),
        "said": said(grade),
        "problems": "; ".join(grade.problems),
        "iteration": iteration.name,
        "verdicts": "; ".join(told),
    }
    return {name: str(value or "") for name, value in row.items()}


def missed(grade) -> str:
    """Which rules were not passed, and by how much."""
    told = [verdict.missed for verdict in grade.shown.verdicts if verdict.missed]
    return "; ".join(told + grade.problems[: not grade.judged])


def said(grade) -> str:
    """What the texts of a submission say was reached, beside what its log shows."""
    training = grade.shown.iteration.training
    claims = [f"{c} ({c.line.where})" for c in training.claims if c.percent >= 90][:3]
    if not claims:
        return ""
    return f"said: {', '.join(claims)}; the log shows {percent(training.best) or 'no accuracy'} at best"


def percent(accuracy: Accuracy | None) -> str:
    return str(accuracy or "").partition(" ")[0]


def count_outcomes(grades: list) -> dict[str, int]:
    outcomes = [grade.outcome for grade in grades]
    return {outcome: outcomes.count(outcome) for outcome in (PASS, FAIL, NOT_SHOWN)}


def terminal_table(grades: list, rules: Rules = FOURTH, points: dict | None = None) -> str:
    """One row a submission, then a line for what could not be read or has another's log."""
    head = ["submission", "outcome", "last", "best", "parameters", "epochs", "fully connected"]
    rows = [[*head, "flags", *["points"] * (points is not None), "missed"]]
    notes = []
    for grade in grades:
        row = facts(grade, rules, points)
        best = row["best"] and f"{row['best']} (epoch {row['best_epoch']})"
        only_said = ", said" * (row["parameters_from"] in ("text", "notes"))
        flags = len(grade.shown.iteration.flags)
        is_file = grade.student in ("", grade.name)
        name = grade.name if is_file else f"{grade.student} ({grade.name})"
        shown = [cut(name, 40), grade.outcome, row["last"], best, row["parameters"] + only_said]
        shown += [row["epochs"], row["fully_connected"], str(flags or "")]
        shown += [row["points"]] * (points is not None) + [row["missed"]]
        rows.append([value or "-" for value in shown])
        notes += [f"{grade.name}: {problem}" for problem in grade.problems]
        notes += [f"{grade.name}: the same log as {row['alike']}"] * bool(grade.alike)
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    counts = [f"{count} {outcome}" for outcome, count in count_outcomes(grades).items()]
    return "\n".join([*lines, *notes, ", ".join(counts)])


def evidence(grade) -> str:
    """Everything about one submission, as lines: each iteration, its verdicts and flags."""
    lines = [f"{grade.name}: {grade.outcome}", *(f"  not read: {p}" for p in grade.problems)]
    if grade.alike:
        lines.append(f"  the same log as {', '.join(grade.alike)}")
    if claims := said(grade):
        lines.append(f"  {claims}")
    for judged in sorted(grade.judged, key=lambda judged: judged.rank):
        chosen = " (counts)" * (judged is grade.best and len(grade.judged) > 1)
        lines.append(f"  {judged.iteration.name}{chosen}: {judged.outcome}")
        lines += [f"    {verdict}" for verdict in judged.verdicts]
        lines += [f"    {'LOOK':<10}  {flag}" for flag in judged.iteration.flags]
    return "\n".join(lines)


def write(files: dict[str, Path | None], grades: list, rules: Rules, points: dict | None) -> None:
    """Write the files that are given, by kind: csv, json, html, canvas, moodle. Raises UsageError."""
    writers = {"csv": to_csv, "json": to_json, "html": to_html}
    for kind, path in files.items():
        if not path:
            continue
        if kind in writers:
            text = writers[kind](grades, rules, points)
        else:
            text = as_csv(course.import_rows(kind, grades, points or {}, missed, rules.name))
        try:
            write_text(path, text)
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror})") from error


def to_csv(grades: list, rules: Rules, points: dict[str, float] | None = None) -> str:
    """One line a submission, of which there is at least one."""
    rows = [facts(grade, rules, points) for grade in grades]
    return as_csv([list(rows[0]), *(list(row.values()) for row in rows)])


def as_csv(rows: list[list[str]]) -> str:
    """Rows as CSV, each on a line of its own whatever its cells hold."""
    return csv_text([[" ".join(cell.split()) for cell in row] for row in rows])


def to_json(grades: list, rules: Rules, points: dict[str, float] | None = None) -> str:
    """Everything that was found, with its lines; for programs."""
    found = []
    for grade in grades:
        best = grade.judged.index(grade.best) if grade.judged else None
        row = vars(grade) | {"outcome": grade.outcome, "best": best, "iterations": []}
        for judged in row.pop("judged"):
            iteration = judged.iteration
            training = iteration.training
            one = vars(iteration) | vars(training)
            del one["training"]  # each of its parts stands here itself
            one |= {"outcome": judged.outcome, "verdicts": judged.verdicts}
            count = iteration.parameters
            one["parameters_shown"] = str(count or "")
            one["parameters"] = count.low if count and count.low == count.high else None
            one |= {"iterations": iteration.iterations, "epochs": training.epochs or None}
            one |= {"last": iteration.result, "best": training.best}
            one["best_epoch"] = training.best_epoch or None
            row["iterations"].append(one)
        found.append(row)
    whole = _plain({"rules": rules, "submissions": found})
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value):
    """A value as JSON has it; a line becomes its place and its text."""
    if isinstance(value, Line):
        return str(value)
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, Accuracy):
        place = {"where": value.line.where, "text": cut(value.line.text)}
        said = {"percent": round(value.percent, 4), "correct": value.correct, "total": value.total}
        return {key: part for key, part in said.items() if part is not None} | place
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def to_html(grades: list, rules: Rules, points: dict[str, float] | None = None) -> str:
    """The page: a line a submission to be sorted and filtered, the evidence folded below it.

    Its one script is known to the page's security policy, so that no other one runs.
    """
    script = (TEMPLATES / "grades/grades.js").read_text(encoding="utf-8")
    rows = [(grade, facts(grade, rules, points)) for grade in grades]
    shown = {"rows": rows, "rules": rules, "css": STYLE.read_text(encoding="utf-8")}
    shown |= {"script": script, "policy": policy(script), "points": points}
    shown["counts"] = count_outcomes(grades)
    return fill("grades/grades.html.j2", percent=percent, cut=cut, **shown)
