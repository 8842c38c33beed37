"""Grades for people and programs: a terminal's table, CSV, JSON, and an HTML page without network.

    show(terminal_table(grades))
    write_text(Path("grades.html"), to_html(grades, rules))

All of it holds text that strangers wrote: HTML is escaped, a spreadsheet is given no formula, a
terminal no escapes.
"""

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
import sys
from fractions import Fraction

from ..assignment import FAIL, PASS
from ..templating import STYLE, TEMPLATES, fill
from . import course
from .facts import Accuracy
from .lines import Line, cut
from .rules import FOURTH, LAYERS, LAST, NOT_SHOWN, Rules

COLUMNS = (
    "student id submission outcome points missed last best best_epoch parameters parameters_from epochs "
    "fully_connected whole_map last_five at_target batch_normalization dropout global_average_pooling "
    "batch_size iterations trainings flags alike said problems iteration verdicts"
).split()


def facts(grade, rules: Rules, points: dict[str, float] | None = None) -> dict[str, str]:
    """One submission in words, by COLUMNS, from its best iteration; "" where something is not shown."""
    row = dict.fromkeys(COLUMNS, "")
    row |= {"student": grade.student, "id": grade.id, "submission": grade.name}
    row |= {"outcome": grade.outcome, "problems": "; ".join(grade.problems)}
    row |= {"alike": ", ".join(grade.alike), "trainings": str(len(grade.judged) or "")}
    row["missed"] = missed(grade)
    if points is not None:
        row["points"] = f"{course.total(grade, points):g}"
    if not grade.best:
        return row
    iteration, verdicts = grade.best.iteration, grade.best.verdicts
    row |= {kind.replace(" ", "_"): "yes" for kind in LAYERS if kind in iteration.layers}
    row |= {"iteration": iteration.name, "parameters": str(iteration.parameters or "")}
    row |= {"parameters_from": iteration.parameters_from, "flags": "; ".join(iteration.flags)}
    row |= {"fully_connected": _fully_connected(iteration), "said": said(grade)}
    row["whole_map"] = str(sum(found.shown for found in iteration.whole_map) or "")
    row |= {"batch_size": str(iteration.batch_size or "")}
    row |= {"iterations": str(iteration.iterations or ""), "last": percent(iteration.result)}
    row["verdicts"] = "; ".join(f"{v.outcome}: {v.rule}: {v.evidence}" for v in verdicts)
    if training := iteration.training:
        row |= {"best": percent(training.best), "best_epoch": str(training.best_epoch or "")}
        row |= {"epochs": str(training.epochs or "")}
        row["last_five"] = " ".join(map(percent, training.accuracies[-LAST:]))
        target = float(100 * rules.target) - 1e-6
        pairs = zip(training.numbers, training.accuracies)
        row["at_target"] = " ".join(str(n) for n, a in pairs if a.percent >= target)
    return row


def missed(grade) -> str:
    """Which rules were not passed, and by how much."""
    if not grade.best:
        return "; ".join(grade.problems[:1])
    return "; ".join(verdict.missed for verdict in grade.best.verdicts if verdict.missed)


def said(grade) -> str:
    """What the texts of a submission say was reached, beside what its log shows."""
    iteration = grade.best.iteration
    claims = [claim for claim in iteration.claims if claim.percent >= 90][:3]
    if not claims or iteration.form not in ("notebook", "html") and not iteration.training:
        return ""
    told = ", ".join(f"{claim} ({claim.line.where})" for claim in claims)
    best = iteration.training.best if iteration.training else None
    return f"said {told}; the log shows {percent(best) or 'no accuracy'} at best"


def percent(accuracy: Accuracy | None) -> str:
    return str(accuracy).partition(" ")[0] if accuracy else ""


def _fully_connected(iteration) -> str:
    shown = sum(layer.shown for layer in iteration.fully_connected)
    if shown:
        return str(shown)
    return "?" if iteration.fully_connected or not iteration.layers_from else "none"


def terminal_table(grades: list, rules: Rules = FOURTH, points: dict[str, float] | None = None) -> str:
    """One row a submission, then a line for what could not be read."""
    head = ["submission", "outcome", "last", "best", "parameters", "epochs", "fully connected", "flags"]
    head += ["points"] * (points is not None) + ["missed"]
    rows = [head, *(_terminal_row(facts(grade, rules, points), grade, points) for grade in grades)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    lines = [line.rstrip() for line in lines]
    for grade in grades:
        lines += [f"{grade.name}: {problem}" for problem in grade.problems]
        if grade.alike:
            lines.append(f"{grade.name}: the same log as {', '.join(grade.alike)}")
    counts = [f"{n} {outcome}" for outcome, n in count_outcomes(grades).items()]
    return "\n".join([*lines, ", ".join(counts)])


def _terminal_row(row: dict, grade, points) -> list[str]:
    best = f"{row['best']} (epoch {row['best_epoch']})" if row["best"] else ""
    only_said = ", said" if row["parameters_from"] in ("text", "notes") else ""
    flags = len(grade.best.iteration.flags) if grade.best else 0
    name = f"{row['student']} ({row['submission']})" if row["student"] else row["submission"]
    shown = [cut(name, 40), row["outcome"], row["last"], best, row["parameters"] + only_said]
    shown += [row["epochs"], row["fully_connected"], str(flags or "")]
    shown += [row["points"]] * (points is not None) + [row["missed"]]
    return [value or "-" for value in shown]


def count_outcomes(grades: list) -> dict[str, int]:
    outcomes = [grade.outcome for grade in grades]
    return {outcome: outcomes.count(outcome) for outcome in (PASS, FAIL, NOT_SHOWN)}


def evidence(grade) -> str:
    """Everything about one submission, as lines: each iteration, its verdicts and flags."""
    lines = [f"{grade.name}: {grade.outcome}", *(f"  not read: {p}" for p in grade.problems)]
    if grade.alike:
        lines.append(f"  the same log as {', '.join(grade.alike)}")
    if grade.best and said(grade):
        lines.append(f"  {said(grade)}")
    for judged in sorted(grade.judged, key=lambda judged: judged.rank):
        chosen = " (counts)" if judged is grade.best and len(grade.judged) > 1 else ""
        lines.append(f"  {judged.iteration.name}{chosen}: {judged.outcome}")
        lines += [f"    {verdict}" for verdict in judged.verdicts]
        lines += [f"    {'LOOK':<10}  {flag}" for flag in judged.iteration.flags]
    return "\n".join(lines)


def show(text: str) -> None:
    """Print; a terminal that cannot show a character shows a question mark in its place."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding))


def to_csv(grades: list, rules: Rules, points: dict[str, float] | None = None) -> str:
    """One line a submission."""
    rows = [facts(grade, rules, points) for grade in grades]
    return csv_text([COLUMNS, *([row[column] for column in COLUMNS] for row in rows)])


def csv_text(rows: list[list]) -> str:
    """Rows as CSV in which a spreadsheet finds no formula."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([inert(str(cell)) for cell in row] for row in rows)
    return text.getvalue()


def inert(text: str) -> str:
    """Without the beginnings by which a spreadsheet knows a formula, also where it separates cells
    otherwise than this file does, as at semicolons."""
    return re.sub(r"(^|[;,|\t\r\n])(\s*)(?=[=+\-@＝＋－＠])", r"\1\2'", " ".join(text.split()))


def to_json(grades: list, rules: Rules) -> str:
    """Everything that was found, with its lines; for programs."""
    found = []
    for grade in grades:
        judged = [_iteration(one) for one in grade.judged]
        best = grade.judged.index(grade.best) if grade.best else None
        kept = {"name": grade.name, "student": grade.student, "id": grade.id, "outcome": grade.outcome}
        kept |= {"best": best, "alike": grade.alike, "problems": grade.problems}
        found.append(kept | {"iterations": judged})
    whole = {"rules": _plain(rules), "submissions": found}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _iteration(judged) -> dict:
    """An iteration: its fields, and the training's under their own names."""
    iteration, training = judged.iteration, judged.iteration.training
    count = iteration.parameters
    row = {"document": iteration.document, "model": iteration.model, "outcome": judged.outcome}
    row |= {"verdicts": _plain(judged.verdicts), "parameters_shown": str(count) if count else None}
    row["parameters"] = count.low if count and count.low == count.high else None
    row |= {"parameters_from": iteration.parameters_from or None}
    row["parameters_line"] = str(count.line) if count else None
    row |= {"fully_connected": _plain(iteration.fully_connected), "layers": _plain(iteration.layers)}
    row |= {"whole_map": _plain(iteration.whole_map), "last": _plain(iteration.result)}
    row |= {"epochs": None, "best": None, "best_epoch": None, "images": None, "accuracies": []}
    if training:
        row |= {"epochs": training.epochs or None, "best": _plain(training.best)}
        row |= {"best_epoch": training.best_epoch or None, "images": training.images}
        row |= {"accuracies": _plain(training.accuracies), "tested_again": _plain(training.after)}
    row |= {"batch_size": iteration.batch_size, "iterations": iteration.iterations}
    return row | {"said": _plain(iteration.claims), "flags": iteration.flags}


def _plain(value):
    """A value as JSON has it; a line becomes its place and its text."""
    if isinstance(value, Line):
        return str(value)
    if isinstance(value, Accuracy):
        counts = {"correct": value.correct, "total": value.total} if value.total else {}
        place = {"where": value.line.where, "text": cut(value.line.text)}
        return {"percent": round(value.percent, 4), **counts, **place}
    if hasattr(value, "_asdict"):
        return {key: _plain(part) for key, part in value._asdict().items()}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return float(value) if isinstance(value, Fraction) else value


def to_html(grades: list, rules: Rules, points: dict[str, float] | None = None) -> str:
    """The page: a line a submission to be sorted and filtered, the evidence folded below it.

    Its one script is known to the page's security policy by its hash, so that no other one runs.
    """
    script = (TEMPLATES / "grades/grades.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rows = [(grade, facts(grade, rules, points)) for grade in grades]
    shown = {"rows": rows, "rules": rules, "css": STYLE.read_text(encoding="utf-8"), "script": script}
    shown |= {"digest": digest, "counts": count_outcomes(grades), "points": points}
    return fill("grades/grades.html.j2", percent=percent, cut=cut, said=said, **shown)
