"""The assignment as data, and the verdict on a run.

    judge(record)       # a Verdict for each rule, with its evidence
    overall(verdicts)   # "pass", "fail" or "not judged"

A verdict follows from the record alone; nothing is trained, tested or looked up.
"""

from dataclasses import dataclass
from fractions import Fraction

PASS, FAIL, NOT_JUDGED = "pass", "fail", "not judged"


@dataclass(frozen=True)
class Assignment:
    """At least `target` of the validation images right at the last epoch, with fewer than
    `parameters` parameters, in fewer than `epochs` epochs, without a fully connected layer."""

    target: Fraction = Fraction(994, 1000)
    parameters: int = 20_000
    epochs: int = 20
    validation_images: int = 10_000


ASSIGNMENT = Assignment()


@dataclass(frozen=True)
class Verdict:
    """One rule's `outcome`, "pass", "fail" or "not judged", and the `evidence` for it."""

    rule: str
    outcome: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.outcome.upper():<10}  {self.rule}: {self.evidence}"


def judge(record) -> list[Verdict]:
    """The verdict on a `records.RunRecord`, one for each rule, accuracy first.

    The last epoch counts; the best is only mentioned. Not judged is the accuracy on another dataset
    than MNIST, on the holdout images, or of a run that did not complete.
    """
    return [_accuracy(record), _parameters(record), _epochs(record), _fully_connected(record)]


def overall(verdicts: list[Verdict]) -> str:
    """ "fail" where a rule failed, else "pass", or what another rule has that is neither."""
    outcomes = [verdict.outcome for verdict in verdicts]
    if FAIL in outcomes:
        return FAIL
    return next((outcome for outcome in outcomes if outcome != PASS), PASS)


def summary(record) -> str:
    """The verdict on a run in one line, with the reason where it is not judged."""
    said = overall(judge(record))
    if said == NOT_JUDGED:
        said += f": {_why_not_judged(record) or 'the record is incomplete'}"
    reached = "no epoch"
    if record.epochs:
        reached = f"{record.last.validation_accuracy:.2%} at epoch {record.last.epoch}"
    parameters = f"{record.model.get('parameters', 0):,} parameters"
    return f"{said} ({reached}, {parameters}, {_counted(len(record.epochs))})"


def _accuracy(record) -> Verdict:
    rule = f"at least {float(ASSIGNMENT.target):.1%} at the last epoch"
    reason = _why_not_judged(record)
    if not record.epochs:
        return Verdict(rule, NOT_JUDGED, reason)
    last = record.last
    best = record.best
    counts = f"{last.validation_correct:,} of {last.validation_total:,}"
    evidence = (
        f"{counts} ({last.validation_accuracy:.2%}) at epoch {last.epoch}; "
        f"best {best.validation_accuracy:.2%} at epoch {best.epoch}"
    )
    if reason:
        return Verdict(rule, NOT_JUDGED, f"{reason}; {evidence}")
    reached = Fraction(last.validation_correct, last.validation_total) >= ASSIGNMENT.target
    return Verdict(rule, PASS if reached else FAIL, evidence)


def _why_not_judged(record) -> str:
    if record.dataset.get("name") != "mnist":
        return "not MNIST"
    if not record.epochs:
        return "no epoch was finished"
    wanted = ASSIGNMENT.validation_images
    if record.dataset.get("split") != "assignment" or record.last.validation_total != wanted:
        return f"not the {wanted:,} test images"
    if record.status != "completed":
        return f"the run is {record.status}"
    return ""


def _parameters(record) -> Verdict:
    rule = f"fewer than {ASSIGNMENT.parameters:,} parameters"
    count = record.model.get("parameters")
    if count is None:
        return Verdict(rule, NOT_JUDGED, "no model in the record")
    return Verdict(rule, PASS if count < ASSIGNMENT.parameters else FAIL, f"{count:,} parameters")


def _epochs(record) -> Verdict:
    rule = f"fewer than {ASSIGNMENT.epochs} epochs"
    count = len(record.epochs)
    told = _counted(count)
    if count < ASSIGNMENT.epochs and record.status != "completed":
        return Verdict(rule, NOT_JUDGED, f"{told} so far, the run is {record.status}")
    return Verdict(rule, PASS if count < ASSIGNMENT.epochs else FAIL, told)


def _counted(epochs: int) -> str:
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def _fully_connected(record) -> Verdict:
    rule = "no fully connected layer"
    layers = record.model.get("layers")
    if not layers:
        return Verdict(rule, NOT_JUDGED, "no layers in the record")
    found = [f"{layer['name']}: {why}" for layer in layers if (why := _why_fully_connected(layer))]
    if found:
        return Verdict(rule, FAIL, "; ".join(found))
    convolutions = [layer for layer in layers if layer["kind"] == "convolution"]
    kernels = sorted({"x".join(map(str, layer["kernel"])) for layer in convolutions})
    told = f"{len(convolutions)} convolutions ({', '.join(kernels)}), none over a whole map"
    return Verdict(rule, PASS, told)


def _why_fully_connected(layer: dict) -> str:
    """A matrix product, or a convolution that is one in disguise; "" for an honest layer."""
    if layer["kind"] == "matrix product":
        return "a matrix product with trained weights"
    if layer["kind"] == "flat convolution":
        return "a convolution of flattened pixels"
    if layer["kind"] != "convolution":
        return ""
    reach = [d * (k - 1) + 1 for d, k in zip(layer["dilation"], layer["kernel"])]
    covers = all(r >= size for r, size in zip(reach, layer["input_size"]))
    one_output = all(size == 1 for size in layer["output_size"])
    if covers and one_output and any(size > 1 for size in layer["input_size"]):
        return f"a convolution over its whole {'x'.join(map(str, layer['input_size']))} map"
    return ""
