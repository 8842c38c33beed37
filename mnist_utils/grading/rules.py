"""Rules as data, and the verdict on what was found: pass, fail, or not shown, each with its evidence.

rules = load_rules("4")                     # the course's fourth assignment; "5", or a TOML file
verdicts = judge(iteration, rules)
"""

import tomllib
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

from ..assignment import FAIL, PASS, Assignment, Verdict
from ..errors import UsageError
from .finding import Iteration
from .logs import Accuracy
from .reading import clean_name

NOT_SHOWN = "not shown"
COUNTS = ("last", "best", "last_five")
LAST = 5  # epochs that are "the last ones"
KINDS = ("batch normalization", "dropout", "global average pooling")


@dataclass(frozen=True)
class Rules(Assignment):
    """An assignment as a grader holds a submission to it.

    `counts` says which epoch is held to the target: "last", "best" or "last_five" (each of the last five).
    `fully_connected` allows such layers; `marked` is a number of parameters under which a submission is marked;
    `required` names layers that must be there.
    """

    name: str = "the fourth assignment"
    counts: str = "last"
    fully_connected: bool = False
    marked: int = 0
    required: tuple[str, ...] = ()


FOURTH = Rules()
FIFTH = Rules(name="the fifth assignment", parameters=10_000, epochs=16, counts="last_five", marked=8_000)
BUILT_IN = {"4": FOURTH, "5": FIFTH}


def load_rules(name: str) -> Rules:
    """The fourth or fifth assignment ("4", "5"), or those of a TOML file. Raises UsageError.

    Such a file has any of name, target (percent), parameters (fewer than), epochs (fewer than), counts,
    fully_connected, marked, required and validation_images; what it leaves out is as in the fourth assignment.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise UsageError(f"rules are 4, 5 or a TOML file, got {clean_name(name)!r}")
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{clean_name(name)} cannot be read as rules ({clean_name(str(error))})") from None
    known = {f.name for f in fields(Rules)}
    if unknown := sorted(facts.keys() - known):
        raise UsageError(
            f"{clean_name(name)}: unknown {', '.join(map(clean_name, unknown))}; there are {', '.join(sorted(known))}"
        )
    return Rules(**{key: _checked(key, value) for key, value in {"name": clean_name(path.stem), **facts}.items()})


def _checked(key: str, value):
    if key == "target":
        is_percent = isinstance(value, (int, float)) and not isinstance(value, bool) and 1 < value <= 100
        return Fraction(str(value)) / 100 if is_percent else _wrong(key, "a percentage such as 99.4", value)
    if key in ("parameters", "epochs", "marked", "validation_images"):
        return value if type(value) is int and value >= 0 else _wrong(key, "a whole number", value)
    if key == "counts":
        return value if value in COUNTS else _wrong(key, f"one of {', '.join(COUNTS)}", value)
    if key == "fully_connected":
        return value if isinstance(value, bool) else _wrong(key, "true or false", value)
    if key == "required":
        is_list = isinstance(value, list) and all(kind in KINDS for kind in value)
        return tuple(value) if is_list else _wrong(key, f"a list of {', '.join(KINDS)}", value)
    return clean_name(value) if isinstance(value, str) else _wrong(key, "a text", value)


def _wrong(key: str, wanted: str, value):
    raise UsageError(f"{key} must be {wanted}, got {clean_name(repr(value))[:80]}")


def judge(iteration: Iteration, rules: Rules = FOURTH) -> list[Verdict]:
    """A verdict a rule, accuracy first. What is not shown is never passed, what is only said passes nothing."""
    verdicts = [_accuracy(iteration, rules), _parameters(iteration, rules), _epochs(iteration, rules)]
    if not rules.fully_connected:
        verdicts.append(_fully_connected(iteration))
    return verdicts + [_required(iteration, kind) for kind in rules.required]


def overall(verdicts: list[Verdict]) -> str:
    """ "fail" where a rule failed, else "not shown" where one is not, else "pass"."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return FAIL if FAIL in outcomes else NOT_SHOWN if NOT_SHOWN in outcomes or not outcomes else PASS


def _accuracy(iteration: Iteration, rules: Rules) -> Verdict:
    which = {
        "last": "at the last epoch",
        "best": "at the best epoch",
        "last_five": f"in each of the last {LAST} epochs",
    }
    rule, training = f"at least {_percent(rules.target)} {which[rules.counts]}", iteration.training
    counted = _counted(iteration, rules)
    if not counted:
        said = f"; said: {iteration.claims[0]} ({iteration.claims[0].line.where})" if iteration.claims else ""
        return Verdict(rule, NOT_SHOWN, f"no accuracy of test images is logged{said}")
    worst = min(counted, key=lambda accuracy: accuracy.percent)
    outcomes = {_reaches(accuracy, rules.target) for accuracy in counted}
    outcome = FAIL if FAIL in outcomes else NOT_SHOWN if NOT_SHOWN in outcomes else PASS
    return Verdict(rule, *_with_reason(outcome, iteration, rules, _told(iteration, counted, worst, training)))


def _with_reason(outcome: str, iteration: Iteration, rules: Rules, told: str) -> tuple[str, str]:
    """The outcome, or "not shown" with the reason why a log cannot decide it."""
    training = iteration.training
    totals = {a.total for a in _counted(iteration, rules) if a.total}
    reasons = []
    if training.images == "unnamed":
        reasons.append("not said of which images")
    totals |= {training.validated_on} - {0}
    if totals - {rules.validation_images}:
        reasons.append(f"not the {rules.validation_images:,} test images")
    if rules.counts != "best" and training.announced > training.epochs and training.first_epoch == 1:
        reasons.append(f"{training.epochs} of {training.announced} announced epochs are logged")
    if reasons:
        return NOT_SHOWN, f"{'; '.join(reasons)}; {told}"
    if outcome == NOT_SHOWN:
        return outcome, f"too rounded to tell; {told}"
    return outcome, told


def _told(iteration: Iteration, counted: list[Accuracy], worst: Accuracy, training) -> str:
    if not training.accuracies:
        return f"{worst}, measured after training ({worst.line.where})"
    place = training.epoch_of(worst)
    lowest = "" if len(counted) == 1 else f", the lowest of {len(counted)}"
    best = training.best
    also = "" if worst is best else f"; best {best} at epoch {training.best_epoch}"
    also += "" if worst is training.last else f"; last {training.last}"
    return f"{worst} at epoch {place}{lowest}{also} ({worst.line.where})"


def _counted(iteration: Iteration, rules: Rules) -> list[Accuracy]:
    """The accuracies that are held to the target."""
    training = iteration.training
    if training is None:
        return []
    if not training.accuracies:  # Keras' `evaluate` after the last epoch, where no epoch was tested
        return training.after[-1:]
    if rules.counts == "best":
        return [training.best]
    return training.accuracies[-LAST:] if rules.counts == "last_five" else [training.last]


def _reaches(accuracy: Accuracy, target: Fraction) -> str:
    """Exact where counts are shown; what was rounded passes only if all it may stand for does."""
    if accuracy.total:
        return PASS if Fraction(accuracy.correct, accuracy.total) >= target else FAIL
    wanted = float(100 * target)
    low, high = accuracy.percent - accuracy.half, accuracy.percent + accuracy.half
    return PASS if low >= wanted - 1e-6 else FAIL if high < wanted - 1e-6 else NOT_SHOWN


def _percent(target: Fraction) -> str:
    return f"{float(100 * target):g}%"


def _parameters(iteration: Iteration, rules: Rules) -> Verdict:
    rule, count = f"fewer than {rules.parameters:,} parameters", iteration.parameters
    if count is None:
        return Verdict(rule, NOT_SHOWN, "no table, print or text counts them")
    outcome = PASS if count.high < rules.parameters else FAIL if count.low >= rules.parameters else NOT_SHOWN
    marked = f", under the {rules.marked:,} to be marked" if rules.marked and count.high < rules.marked else ""
    how = {"table": "", "print": "", "code": ", computed from the code", "text": ", only said"}[
        iteration.parameters_from
    ]
    if iteration.parameters_from == "text" and outcome == PASS:
        outcome = NOT_SHOWN
    return Verdict(rule, outcome, f"{count}{how}{marked} ({count.line})")


def _epochs(iteration: Iteration, rules: Rules) -> Verdict:
    rule, training = f"fewer than {rules.epochs} epochs", iteration.training
    if training is None or not training.epochs:
        return Verdict(rule, NOT_SHOWN, "no epoch is logged")
    count, reached = training.epochs, training.epochs + training.first_epoch - 1
    if count < rules.epochs <= reached:
        return Verdict(rule, FAIL, f"{count} are logged, numbered up to {reached} ({training.line.where})")
    if count < rules.epochs and (training.first_epoch > 1 or any("truncated" in note for note in training.notes)):
        return Verdict(rule, NOT_SHOWN, f"{count} epochs, but the log's beginning is not shown ({training.line.where})")
    if count < rules.epochs <= training.announced:
        return Verdict(rule, NOT_SHOWN, f"{count} are logged, {training.announced} announced ({training.line.where})")
    return Verdict(rule, PASS if count < rules.epochs else FAIL, f"{count} epochs are logged ({training.line.where})")


def _fully_connected(iteration: Iteration) -> Verdict:
    rule = "no fully connected layer"
    shown = [found for found in iteration.fully_connected if found.shown]
    suspected = [found for found in iteration.fully_connected if not found.shown]
    if shown:
        return Verdict(rule, FAIL, "; ".join(map(str, shown[:4])))
    if suspected:
        return Verdict(rule, NOT_SHOWN, "; ".join(map(str, suspected[:4])))
    if not iteration.layers_from:
        return Verdict(rule, NOT_SHOWN, "no summary table, and no code of the model that was trained")
    where = iteration.table.line.where if iteration.table else f"{iteration.document}, {iteration.model}"
    whole = "none over a whole map" if iteration.layers_from == "table" else "none larger than 3x3"
    count = iteration.convolutions
    return Verdict(rule, PASS, f"{count} convolutions in the {iteration.layers_from}, {whole} ({where})")


def _required(iteration: Iteration, kind: str) -> Verdict:
    found = iteration.layers.get(kind)
    if found:
        return Verdict(kind, PASS, str(found))
    return Verdict(kind, NOT_SHOWN, "neither in a table nor in the code that was read")
