"""Rules as data, and the verdict on an iteration: pass, fail or not shown, each with its evidence.

    rules = load_rules("4")                 # the course's fourth assignment; "5", or a TOML file
    verdicts = judge(iteration, rules)
"""

import tomllib
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

from ..assignment import FAIL, PASS, Assignment, Verdict
from ..errors import UsageError
from .facts import Accuracy
from .iterations import LAYERS, Found, Iteration
from .lines import clean_name
from .words import ROLES

NOT_SHOWN = "not shown"
LAST = 5  # epochs that are "the last ones"
COUNTS = {
    "last": "at the last epoch",
    "best": "at the best epoch",
    "last_five": f"in each of the last {LAST} epochs",
}
WHOLE_MAP = ("allowed", "marked", "fully connected")



@dataclass(frozen=True)
class Rules(Assignment):
    """An assignment as a grader holds a submission to it.

    `counts` says which epoch is held to the target: "last", "best" or "last_five" (each of them).
    `fully_connected` allows such layers. `whole_map` says what a convolution over its whole map is:
    "allowed", "marked" (it passes, and a flag names it) or "fully connected". `marked` is a number of
    parameters under which a submission is marked, `required` names layers that must be there,
    `words` are more words of a log as pairs of a role and words (see `words.TABLE`).
    """

    name: str = "the fourth assignment"
    counts: str = "last"
    fully_connected: bool = False
    whole_map: str = "marked"
    marked: int = 0
    required: tuple[str, ...] = ()
    words: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Judgement(Verdict):
    """A verdict with the rule's short name, and by how much the rule was missed."""

    key: str = ""
    missed: str = ""


FOURTH = Rules()
FIFTH = Rules(
    name="the fifth assignment", parameters=10_000, epochs=16, counts="last_five", marked=8_000
)
BUILT_IN = {"4": FOURTH, "5": FIFTH}


def load_rules(name: str) -> Rules:
    """The fourth or fifth assignment ("4", "5"), or those of a TOML file. Raises UsageError.

    Such a file has any of the fields of Rules and of Assignment, the target in percent; what it leaves
    out is as in the fourth assignment.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path, shown = Path(name), clean_name(name)
    if path.suffix != ".toml":
        raise UsageError(f"rules are 4, 5 or a TOML file, got {shown!r}")
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{shown} cannot be read as rules ({clean_name(str(error))})") from None
    known = sorted(f.name for f in fields(Rules))
    unknown = [clean_name(key) for key in sorted(facts) if key not in known]
    if unknown:
        raise UsageError(f"{shown}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    given = {"name": clean_name(path.stem)} | {k: _checked(k, v) for k, v in facts.items()}
    return Rules(**given)


def _checked(key: str, value):
    """The value of a rules file as Rules has it. Raises UsageError."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key == "target":
        if is_number and 1 < value <= 100:
            return Fraction(str(value)) / 100
        wanted = "a percentage such as 99.4"
    elif key in ("parameters", "epochs", "marked", "validation_images"):
        if type(value) is int and value >= 0:
            return value
        wanted = "a whole number"
    elif key in ("counts", "whole_map"):
        choices = WHOLE_MAP if key == "whole_map" else tuple(COUNTS)
        if value in choices:
            return value
        wanted = f"one of {', '.join(choices)}"
    elif key == "fully_connected":
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    elif key == "required":
        if isinstance(value, list) and all(kind in LAYERS for kind in value):
            return tuple(value)
        wanted = f"a list of {', '.join(LAYERS)}"
    elif key == "words":
        if isinstance(value, dict) and all(k in ROLES and _is_words(v) for k, v in value.items()):
            return tuple((role, tuple(words)) for role, words in value.items())
        wanted = f"a table of any of {', '.join(ROLES)}, each a list of words"
    else:
        if isinstance(value, str):
            return clean_name(value)
        wanted = "a text"
    raise UsageError(f"{key} must be {wanted}, got {clean_name(repr(value))[:80]}")


def _is_words(value) -> bool:
    return isinstance(value, list) and all(isinstance(w, str) and w.strip() for w in value)


def judge(iteration: Iteration, rules: Rules = FOURTH) -> list[Judgement]:
    """A verdict a rule, accuracy first. What is not shown or only said is never passed."""
    verdicts = [_accuracy(iteration, rules), _parameters(iteration, rules), _epochs(iteration, rules)]
    if not rules.fully_connected:
        verdicts.append(_fully_connected(iteration, rules))
    return verdicts + [_required(iteration, kind) for kind in rules.required]


def overall(verdicts: list[Judgement]) -> str:
    """ "fail" where a rule failed, else "not shown" where one is not, else "pass"."""
    outcomes = [verdict.outcome for verdict in verdicts]
    if FAIL in outcomes:
        return FAIL
    return PASS if outcomes and set(outcomes) == {PASS} else NOT_SHOWN


def _accuracy(iteration: Iteration, rules: Rules) -> Judgement:
    rule = f"at least {float(100 * rules.target):g}% {COUNTS[rules.counts]}"
    counted = _counted(iteration, rules)
    if not counted:
        evidence = "no accuracy of test images is logged"
        if iteration.claims:
            evidence += f"; said: {iteration.claims[0]} ({iteration.claims[0].line.where})"
        return Judgement(rule, NOT_SHOWN, evidence, "accuracy", "accuracy not shown")
    worst = min(counted, key=lambda accuracy: accuracy.percent)
    outcomes = {_reaches(accuracy, rules.target) for accuracy in counted}
    outcome = next(one for one in (FAIL, NOT_SHOWN, PASS) if one in outcomes)
    evidence = _told(iteration, counted, worst)
    if reasons := _undecided(iteration, rules, counted):
        outcome, evidence = NOT_SHOWN, f"{'; '.join(reasons)}; {evidence}"
    elif outcome == NOT_SHOWN:
        evidence = f"too rounded to tell; {evidence}"
    missed = {PASS: "", NOT_SHOWN: "accuracy not shown"}.get(outcome)
    if missed is None:
        missed = f"accuracy {float(100 * rules.target) - worst.percent:.2f} points too low"
    return Judgement(rule, outcome, evidence, "accuracy", missed)


def _undecided(iteration: Iteration, rules: Rules, counted: list[Accuracy]) -> list[str]:
    """Why a log cannot decide the accuracy, whatever it is."""
    training, reasons = iteration.training, []
    if training.images == "unnamed":
        reasons.append("not said of which images")
    totals = {accuracy.total for accuracy in counted} | {training.validated_on}
    if totals - {rules.validation_images, 0, None}:
        reasons.append(f"not the {rules.validation_images:,} test images")
    unfinished = training.announced > training.epochs and training.first_epoch == 1
    if rules.counts != "best" and unfinished and training.epochs:
        reasons.append(f"{training.epochs} of {training.announced} announced epochs are logged")
    return reasons


def _told(iteration: Iteration, counted: list[Accuracy], worst: Accuracy) -> str:
    training = iteration.training
    if not training.accuracies:
        after = "after training" if training.epochs else "without a training that is logged"
        return f"{worst}, measured {after} ({worst.line.where})"
    told = f"{worst} at epoch {training.epoch_of(worst)}"
    if len(counted) > 1:
        told += f", the lowest of {len(counted)}"
    if training.best is not worst:
        told += f"; best {training.best} at epoch {training.best_epoch}"
    if training.last is not worst:
        told += f"; last {training.last}"
    return f"{told} ({worst.line.where})"


def _counted(iteration: Iteration, rules: Rules) -> list[Accuracy]:
    """The accuracies that are held to the target."""
    training = iteration.training
    if not training or not training.accuracies:
        return [iteration.result] if iteration.result else []
    if rules.counts == "best":
        return [training.best]
    return training.accuracies[-LAST:] if rules.counts == "last_five" else [training.last]


def _reaches(accuracy: Accuracy, target: Fraction) -> str:
    """Exact where counts are shown; what was rounded passes only if all it may stand for does."""
    if accuracy.total:
        return PASS if Fraction(accuracy.correct, accuracy.total) >= target else FAIL
    wanted = float(100 * target) - 1e-6
    if accuracy.percent - accuracy.half >= wanted:
        return PASS
    return FAIL if accuracy.percent + accuracy.half < wanted else NOT_SHOWN


def _parameters(iteration: Iteration, rules: Rules) -> Judgement:
    rule, count = f"fewer than {rules.parameters:,} parameters", iteration.parameters
    missed = "parameters not shown"
    if count is None:
        evidence = "no table, print or text counts them"
        return Judgement(rule, NOT_SHOWN, evidence, "parameters", missed)
    only_said = iteration.parameters_from in ("text", "notes")
    outcome = NOT_SHOWN
    if count.high < rules.parameters and not only_said:
        outcome, missed = PASS, ""
    elif count.low >= rules.parameters and iteration.parameters_from != "notes":
        outcome, missed = FAIL, f"{count.low - rules.parameters + 1:,} parameters too many"
    evidence = f"{count}, only said" if only_said else str(count)
    if count.high < rules.marked:
        evidence += f", under the {rules.marked:,} to be marked"
    return Judgement(rule, outcome, f"{evidence} ({count.line})", "parameters", missed)


def _epochs(iteration: Iteration, rules: Rules) -> Judgement:
    rule, training = f"fewer than {rules.epochs} epochs", iteration.training
    if training is None or not training.epochs:
        evidence = "no epoch is logged"
        return Judgement(rule, NOT_SHOWN, evidence, "epochs", "epochs not shown")
    count, reached = training.epochs, training.epochs + training.first_epoch - 1
    outcome, evidence = PASS, f"{count} epochs are logged"
    if reached >= rules.epochs:
        outcome = FAIL
        if reached > count:
            evidence = f"{count} are logged, numbered up to {reached}"
    elif training.first_epoch > 1 or training.truncated:
        outcome, evidence = NOT_SHOWN, f"{count} epochs, but the log's beginning is not shown"
    elif rules.epochs <= training.announced:
        outcome, evidence = NOT_SHOWN, f"{count} are logged, {training.announced} announced"
    missed = {PASS: "", NOT_SHOWN: "epochs not shown"}.get(outcome)
    if missed is None:
        missed = f"{reached - rules.epochs + 1} epochs too many"
    return Judgement(rule, outcome, f"{evidence} ({training.line.where})", "epochs", missed)


def _fully_connected(iteration: Iteration, rules: Rules) -> Judgement:
    rule, key = "no fully connected layer", "fully_connected"
    found = list(iteration.fully_connected)
    if rules.whole_map == "fully connected":
        found += iteration.whole_map
    shown = [layer for layer in found if layer.shown]
    if shown:
        missed = f"{len(shown)} fully connected layer" + "s" * (len(shown) > 1)
        return Judgement(rule, FAIL, _list(shown), key, missed)
    missed = "layers not shown"
    if found:
        return Judgement(rule, NOT_SHOWN, _list(found), key, missed)
    if not iteration.layers_from:
        evidence = "no summary table, and no code of the model that was trained"
        return Judgement(rule, NOT_SHOWN, evidence, key, missed)
    where = f"{iteration.document}, {iteration.model}"
    if iteration.table:
        where = iteration.table.line.where
    evidence = f"{iteration.convolutions} convolutions in the {iteration.layers_from}"
    if iteration.whole_map:
        evidence += f", {rules.whole_map}: {_list(iteration.whole_map)}"
    else:
        which = "over a whole map" if iteration.layers_from == "table" else "larger than 3x3"
        evidence += f", none {which} ({where})"
    return Judgement(rule, PASS, evidence, key)


def _list(found: list[Found]) -> str:
    return "; ".join(map(str, found[:4]))


def _required(iteration: Iteration, kind: str) -> Judgement:
    key, found = kind.replace(" ", "_"), iteration.layers.get(kind)
    if found:
        return Judgement(kind, PASS, str(found), key)
    evidence = "neither in a table nor in the code that was read"
    return Judgement(kind, NOT_SHOWN, evidence, key, f"{kind} not shown")
