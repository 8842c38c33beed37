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
from .iterations import LAYERS, Iteration
from .lines import clean_name
from .trainings import Training
from .words import ROLES

NOT_SHOWN = "not shown"
LAST = 5  # epochs that are "the last ones"
COUNTS = {"last": "at the last epoch", "best": "at the best epoch"}
COUNTS["last_five"] = f"in each of the last {LAST} epochs"
WHOLE_MAP = ("allowed", "marked", "fully connected")


@dataclass(frozen=True)
class Rules(Assignment):
    """An assignment as a grader holds a submission to it.

    `counts` says which epoch is held to the target: "last", "best" or "last_five" (each of them).
    `fully_connected` allows such layers. `whole_map` says what a convolution over its whole map
    is: "allowed", "marked" (it passes, and a flag names it) or "fully connected". `marked` is a
    number of parameters under which a submission is marked, `required` names layers that must be
    there, `words` are more words of a log as pairs of a role and words (see `words`).
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
    """A verdict with by how much the rule was missed, and the rule's short name."""

    missed: str = ""
    key: str = ""


FOURTH = Rules()
FIFTH = Rules(
    name="the fifth assignment", parameters=10_000, epochs=16, counts="last_five", marked=8_000
)
BUILT_IN = {"4": FOURTH, "5": FIFTH}


def load_rules(name: str) -> Rules:
    """The fourth or fifth assignment ("4", "5"), or those of a TOML file. Raises UsageError.

    Such a file has any of the fields of Rules and of Assignment, the target in percent; what it
    leaves out is as in the fourth assignment.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = Path(name)
    shown = clean_name(name)
    if path.suffix != ".toml":
        raise UsageError(f"rules are 4, 5 or a TOML file, got {shown!r}")
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{shown} cannot be read as rules ({clean_name(str(error))})") from None
    known = sorted(f.name for f in fields(Rules))
    if unknown := [clean_name(key) for key in sorted(facts) if key not in known]:
        raise UsageError(f"{shown}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    for key, value in facts.items():
        is_right, wanted = CHECKS.get(key, CHECKS["parameters"])
        if not is_right(value):
            raise UsageError(f"{key} must be {wanted}, got {clean_name(repr(value))[:80]}")
    if "target" in facts:
        facts["target"] = Fraction(str(facts["target"])) / 100
    facts["name"] = clean_name(facts.get("name", path.stem))
    facts["required"] = tuple(facts.get("required", ()))
    facts["words"] = tuple((role, tuple(words)) for role, words in facts.get("words", {}).items())
    return Rules(**facts)


def _is_list(value, allowed: tuple = ()) -> bool:
    """Whether it is a list of texts, of the allowed ones where these are given."""
    if not isinstance(value, list):
        return False
    return all(isinstance(v, str) and v.strip() and (not allowed or v in allowed) for v in value)


def _are_words(value) -> bool:
    known = isinstance(value, dict) and value.keys() <= set(ROLES)
    return known and all(map(_is_list, value.values()))


CHECKS = {  # what a rules file may say; other fields are whole numbers
    "target": (lambda v: type(v) in (int, float) and 1 < v <= 100, "a percentage such as 99.4"),
    "parameters": (lambda v: type(v) is int and v >= 0, "a whole number"),
    "counts": (lambda v: v in tuple(COUNTS), f"one of {', '.join(COUNTS)}"),
    "whole_map": (lambda v: v in WHOLE_MAP, f"one of {', '.join(WHOLE_MAP)}"),
    "fully_connected": (lambda v: isinstance(v, bool), "true or false"),
    "required": (lambda v: _is_list(v, LAYERS), f"a list of {', '.join(LAYERS)}"),
    "words": (_are_words, f"a table of any of {', '.join(ROLES)}, each a list of words"),
    "name": (lambda v: isinstance(v, str), "a text"),
}


def judge(iteration: Iteration, rules: Rules = FOURTH) -> list[Judgement]:
    """A verdict a rule, accuracy first. What is not shown or only said is never passed."""
    rule = f"at least {float(100 * rules.target):g}% {COUNTS[rules.counts]}"
    verdicts = [Judgement(rule, *_accuracy(iteration, rules), "accuracy")]
    rule = f"fewer than {rules.parameters:,} parameters"
    verdicts.append(Judgement(rule, *_parameters(iteration, rules), "parameters"))
    rule = f"fewer than {rules.epochs} epochs"
    verdicts.append(Judgement(rule, *_epochs(iteration.training, rules), "epochs"))
    if not rules.fully_connected:
        rule = "no fully connected layer"
        verdicts.append(Judgement(rule, *_fully_connected(iteration, rules), "fully_connected"))
    for kind in rules.required:
        answer = NOT_SHOWN, "neither in a table nor in the code that was read", f"{kind} not shown"
        if kind in iteration.layers:
            answer = PASS, str(iteration.layers[kind]), ""
        verdicts.append(Judgement(kind, *answer, kind.replace(" ", "_")))
    return verdicts


# Each rule's answer is (outcome, evidence, by how much it was missed).


def _accuracy(iteration: Iteration, rules: Rules) -> tuple[str, str, str]:
    training = iteration.training
    counted = training.accuracies[-1:] or training.after[-1:]
    if training.accuracies and rules.counts == "best":
        counted = [training.best]
    elif training.accuracies and rules.counts == "last_five":
        counted = training.accuracies[-LAST:]
    if not counted:
        told = "no accuracy of test images is logged"
        if training.claims:
            told += f"; said: {training.claims[0]} ({training.claims[0].line.where})"
        return NOT_SHOWN, told, "accuracy not shown"
    worst = min(counted, key=lambda accuracy: accuracy.percent)
    told = f"{_told(training, counted, worst)} ({worst.line.where})"
    if reasons := _undecided(training, rules, counted):
        return NOT_SHOWN, "; ".join([*reasons, told]), "accuracy not shown"
    # exact where counts are shown; what was rounded passes only if all it may stand for does
    gap = float(100 * rules.target) - worst.percent
    if gap + worst.half < 1e-6:
        return PASS, told, ""
    return FAIL, told, f"accuracy {gap:.2f} points too low"


def _told(training: Training, counted: list[Accuracy], worst: Accuracy) -> str:
    if not training.accuracies:
        after = "after training" if training.epochs else "without a training that is logged"
        return f"{worst}, measured {after}"
    told = f"{worst} at epoch {training.epoch_of(worst)}"
    told += f", the lowest of {len(counted)}" * (len(counted) > 1)
    if training.best is not worst:
        told += f"; best {training.best} at epoch {training.best_epoch}"
    if training.last is not worst:
        told += f"; last {training.last}"
    return told


def _undecided(training: Training, rules: Rules, counted: list[Accuracy]) -> list[str]:
    """Why a log does not decide the accuracy."""
    reasons = []
    wanted = float(100 * rules.target) - 1e-6
    low = min(accuracy.percent - accuracy.half for accuracy in counted)
    high = min(accuracy.percent + accuracy.half for accuracy in counted)
    if low < wanted <= high:
        reasons.append("too rounded to tell")
    if training.images == "unnamed":
        reasons.append("not said of which images")
    totals = {accuracy.total for accuracy in counted} | {training.validated_on}
    if totals - {rules.validation_images, 0, None}:
        reasons.append(f"not the {rules.validation_images:,} test images")
    unfinished = training.first_epoch == 1 and training.announced > training.epochs > 0
    if unfinished and rules.counts != "best":
        reasons.append(f"{training.epochs} of {training.announced} announced epochs are logged")
    return reasons


def _parameters(iteration: Iteration, rules: Rules) -> tuple[str, str, str]:
    count = iteration.parameters
    if count is None:
        return NOT_SHOWN, "no table, print or text counts them", "parameters not shown"
    only_said = iteration.parameters_from in ("text", "notes")
    told = f"{count}" + ", only said" * only_said
    if count.high < rules.marked:
        told += f", under the {rules.marked:,} to be marked"
    told += f" ({count.line})"
    if count.high < rules.parameters and not only_said:
        return PASS, told, ""
    if count.low >= rules.parameters and iteration.parameters_from != "notes":
        return FAIL, told, f"{count.low - rules.parameters + 1:,} parameters too many"
    return NOT_SHOWN, told, "parameters not shown"


def _epochs(training: Training, rules: Rules) -> tuple[str, str, str]:
    count = training.epochs
    reached = count + training.first_epoch - 1
    where = f"({training.line.where})"
    if count and reached >= rules.epochs:
        told = f"{count} epochs are logged"
        if reached > count:
            told = f"{count} are logged, numbered up to {reached}"
        return FAIL, f"{told} {where}", f"{reached - rules.epochs + 1} epochs too many"
    if not count:
        told = "no epoch is logged"
    elif training.first_epoch > 1 or training.truncated:
        told = f"{count} epochs, but the log's beginning is not shown {where}"
    elif rules.epochs <= training.announced:
        told = f"{count} are logged, {training.announced} announced {where}"
    else:
        return PASS, f"{count} epochs are logged {where}", ""
    return NOT_SHOWN, told, "epochs not shown"


def _fully_connected(iteration: Iteration, rules: Rules) -> tuple[str, str, str]:
    found = list(iteration.fully_connected)
    if rules.whole_map == "fully connected":
        found += iteration.whole_map
    shown = [layer for layer in found if layer.shown]
    listed = "; ".join(map(str, (shown or found or iteration.whole_map)[:4]))
    if shown:
        return FAIL, listed, f"{len(shown)} fully connected layer" + "s" * (len(shown) > 1)
    if found:
        return NOT_SHOWN, listed, "layers not shown"
    if not iteration.layers_from:
        told = "no summary table, and no code of the model that was trained"
        return NOT_SHOWN, told, "layers not shown"
    told = f"{iteration.convolutions} convolutions in the {iteration.layers_from}, "
    if listed:
        told += f"{rules.whole_map}: {listed}"
    elif iteration.layers_from == "code":
        told += f"none larger than 3x3 ({iteration.model})"
    else:
        told += f"none over a whole map ({iteration.table.line.where})"
    return PASS, told, ""
