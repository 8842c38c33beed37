"""Grades for people and programs: a table in the terminal, CSV, JSON, and an HTML page that needs no network.

    print(terminal_table(grades))
    write_html(Path("grades.html"), grades, rules)

All of it holds text that strangers wrote: HTML is escaped, a spreadsheet is given no formula, a terminal no escapes.
"""

import csv
import dataclasses
import io
import json
from fractions import Fraction

from ..assignment import FAIL, PASS
from ..templating import STYLE, fill
from . import Grade, Judged
from .logs import Accuracy
from .reading import cut
from .rules import LAST, NOT_SHOWN, Rules

COLUMNS = (
    "submission outcome iteration parameters parameters_from last best best_epoch last_five epochs at_target "
    "fully_connected batch_normalization dropout global_average_pooling batch_size iterations verdicts flags problems"
).split()


def terminal_table(grades: list[Grade]) -> str:
    """One row a submission, then a line for what could not be read; fits 120 columns where names are short."""
    head = ("submission", "outcome", "last", "best", "parameters", "epochs", "fully connected", "flags")
    rows = [head, *(_terminal_row(grade) for grade in grades)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"{grade.name}: {problem}" for grade in grades for problem in grade.problems]
    counts = {outcome: sum(grade.outcome == outcome for grade in grades) for outcome in (PASS, FAIL, NOT_SHOWN)}
    return "\n".join([*lines, ", ".join(f"{count} {outcome}" for outcome, count in counts.items())])


def _terminal_row(grade: Grade) -> tuple[str, ...]:
    facts = _facts(grade, grade.best)
    best = f"{facts['best']} (epoch {facts['best_epoch']})" if facts["best"] else "-"
    said = ", said" if facts["parameters_from"] == "text" else ""
    shown = [facts["last"], best, facts["parameters"] + said, facts["epochs"], facts["fully_connected"]]
    flags = len(grade.best.iteration.flags) if grade.best else 0
    return (cut(grade.name, 40), grade.outcome, *(str(value) or "-" for value in shown), str(flags or "-"))


def evidence(grade: Grade) -> str:
    """Everything about one submission, as lines: each iteration, its verdicts and flags."""
    lines = [f"{grade.name}: {grade.outcome}", *(f"  not read: {problem}" for problem in grade.problems)]
    for judged in sorted(grade.judged, key=lambda j: j.rank):
        chosen = " (counts)" if judged is grade.best and len(grade.judged) > 1 else ""
        lines.append(f"  {judged.iteration.name}{chosen}: {judged.outcome}")
        lines += [f"    {verdict}" for verdict in judged.verdicts]
        lines += [f"    {'LOOK':<10}  {flag}" for flag in judged.iteration.flags]
    return "\n".join(lines)


def _facts(grade: Grade, judged: Judged | None, target: float = 100.0) -> dict:
    """One row, in the order of COLUMNS; "" where something is not shown."""
    row = dict.fromkeys(COLUMNS, "") | dict(
        submission=grade.name, outcome=grade.outcome, problems="; ".join(grade.problems)
    )
    if judged is None:
        return row
    iteration, training = judged.iteration, judged.iteration.training
    row |= dict(iteration=iteration.name, outcome=judged.outcome, parameters_from=iteration.parameters_from)
    row |= dict(parameters=str(iteration.parameters or ""), fully_connected=_fully_connected(judged))
    row |= {kind.replace(" ", "_"): "yes" if kind in iteration.layers else "" for kind in _KINDS}
    row |= dict(batch_size=iteration.batch_size or "", iterations=iteration.iterations or "")
    row |= dict(flags="; ".join(iteration.flags))
    row |= dict(verdicts="; ".join(f"{v.outcome}: {v.rule}: {v.evidence}" for v in judged.verdicts))
    if training:
        last = training.last or (training.after[-1] if training.after else None)
        row |= dict(last=_percent(last), best=_percent(training.best), best_epoch=training.best_epoch or "")
        row |= dict(last_five=" ".join(map(_percent, training.accuracies[-LAST:])), epochs=training.epochs or "")
        row |= dict(at_target=_at_target(training, target))
    return row


_KINDS = ("batch normalization", "dropout", "global average pooling")


def _fully_connected(judged: Judged) -> str:
    found = judged.iteration.fully_connected
    shown = sum(layer.shown for layer in found)
    return str(shown) if shown else "?" if found or not judged.iteration.layers_from else "none"


def _percent(accuracy: Accuracy | None) -> str:
    return "" if accuracy is None else str(accuracy).partition(" ")[0]


def _at_target(training, target: float) -> str:
    """The epochs at or above the target, as "16 19"."""
    return " ".join(str(n) for n, a in enumerate(training.accuracies, 1) if a.percent >= target - 1e-6)


def to_csv(grades: list[Grade], rules: Rules) -> str:
    """One line an iteration, the best of each submission first; text that a spreadsheet would calculate is quoted."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for grade in grades:
        for judged in sorted(grade.judged, key=lambda j: j.rank) or [None]:
            table.writerow(
                {key: _inert(value) for key, value in _facts(grade, judged, float(100 * rules.target)).items()}
            )
    return text.getvalue()


def _inert(value) -> str:
    """Without the beginnings by which a spreadsheet knows a formula."""
    text = " ".join(str(value).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def to_json(grades: list[Grade], rules: Rules) -> str:
    """Everything that was found, with its lines; for programs."""
    found = [
        dict(
            name=grade.name,
            outcome=grade.outcome,
            best=grade.judged.index(grade.best) if grade.best else None,
            problems=grade.problems,
            iterations=[_iteration(judged) for judged in grade.judged],
        )
        for grade in grades
    ]
    return (
        json.dumps({"rules": _plain(rules), "submissions": found}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _iteration(judged: Judged) -> dict:
    iteration, training = judged.iteration, judged.iteration.training
    accuracies = training.accuracies if training else []
    facts = dict(
        document=iteration.document,
        model=iteration.model,
        outcome=judged.outcome,
        verdicts=_plain(judged.verdicts),
        parameters=iteration.parameters.low if iteration.parameters and iteration.parameters.exact else None,
        parameters_shown=str(iteration.parameters) if iteration.parameters else None,
        parameters_from=iteration.parameters_from or None,
        parameters_line=str(iteration.parameters.line) if iteration.parameters else None,
        fully_connected=[dict(what=f.what, line=str(f.line), shown=f.shown) for f in iteration.fully_connected],
        layers={kind: str(found) for kind, found in iteration.layers.items()},
        epochs=training.epochs if training else None,
        best=_accuracy(training.best) if training else None,
        best_epoch=training.best_epoch or None if training else None,
        last=_accuracy(training.last or (training.after or [None])[-1]) if training else None,
        accuracies=[_accuracy(accuracy) for accuracy in accuracies],
        images=training.images if training and accuracies else None,
        tested_again=[_accuracy(accuracy) for accuracy in training.after] if training else [],
        training_accuracies=[round(accuracy.percent, 4) for accuracy in training.train] if training else [],
        batch_size=iteration.batch_size,
        iterations=iteration.iterations,
        flags=iteration.flags,
    )
    return facts


def _accuracy(accuracy: Accuracy | None) -> dict | None:
    if accuracy is None:
        return None
    counts = dict(correct=accuracy.correct, total=accuracy.total) if accuracy.total else {}
    return dict(percent=round(accuracy.percent, 4), **counts, where=accuracy.line.where, text=cut(accuracy.line.text))


def _plain(value):
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Fraction) else value


def to_html(grades: list[Grade], rules: Rules) -> str:
    """The page: a row a submission, and below it the evidence, folded away."""
    counts = {outcome: sum(grade.outcome == outcome for grade in grades) for outcome in (PASS, FAIL, NOT_SHOWN)}
    shown = dict(grades=grades, rules=rules, css=STYLE.read_text(encoding="utf-8"), counts=counts)
    return fill("grades/grades.html.j2", facts=_facts, percent=_percent, cut=cut, **shown)
