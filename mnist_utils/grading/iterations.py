"""From documents to iterations: each training with its model, its numbers and its flags.

    for iteration in find_iterations(submission): iteration.parameters, iteration.training.last

A flag is something that a person should look at; it decides nothing.
"""

import math
import re
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from .facts import Accuracy, Fact, read_facts
from .lines import Line, check_time, cut, lines_of
from .source import Model, read_code
from .tables import PASTED, Count, Table, find_counts, find_tables
from .trainings import Training, find_trainings
from .words import Words, read_words

TEST_IMAGES = 10_000  # of MNIST
TRAINED_ON = {60_000: "", 70_000: "training and test images together", 10_000: "the test images"}
COMMON_BATCHES = (16, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 600, 1000, 1024, 2048)
COUNTING = re.compile(r"numel|count_params|nelement|n_param|num_param")
MAX_LINES = 40_000  # of one document; twenty epochs with a line a batch are 19,000
MAX_FACTS = 10_000  # of one document; 300 epochs of ten facts are 3,000
MAX_PLACED = 200  # tables or counts of one document
LAYERS = ("batch normalization", "dropout", "global average pooling")


class Found(NamedTuple):
    """Something and the line that shows it; `shown` is False where it is only a suspicion."""

    what: str
    line: Line
    shown: bool = True

    def __str__(self) -> str:
        return f"{self.what} ({self.line})"


@dataclass
class Iteration:
    """One training and the model that belongs to it, or a model whose training is not shown.

    `parameters_from` is "table", "print", "text" (only said) or "notes" (said in a notebook);
    `layers_from` what the layers were read from: "table", "code" or nothing. `whole_map` are
    convolutions over a whole map, which a rule may take for fully connected layers.
    """

    document: str
    form: str
    training: Training
    table: Table
    model: str = ""
    parameters: Count | None = None
    parameters_from: str = ""
    layers_from: str = ""
    convolutions: int = 0
    fully_connected: list[Found] = field(default_factory=list)
    whole_map: list[Found] = field(default_factory=list)
    layers: dict[str, Found] = field(default_factory=dict)  # by LAYERS
    batch_size: int | None = None
    iterations: int | None = None
    flags: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        line = self.training.line
        place = ""
        if line.cell:
            place = f"cell {line.cell}"
        elif line.text:
            place = f"line {line.number}"
        return ", ".join(part for part in (self.document, place, self.model) if part)

    @property
    def result(self) -> Accuracy | None:
        """The last epoch's accuracy, or what was measured where no epoch was tested."""
        return ([None] + (self.training.accuracies or self.training.after))[-1]

    @property
    def series(self) -> tuple[float, ...]:
        """The accuracy of each epoch in percent, by which equal logs are known."""
        return tuple(round(accuracy.percent, 4) for accuracy in self.training.accuracies)


NOTHING = Iteration("", "", Training(Line("", ""), Line("", "")), Table(Line("", "")))


def find_iterations(submission, more_words: tuple = ()) -> list[Iteration]:
    """Every training of a submission, or its models where none is shown.

    Documents come notebooks first: what a README repeats of a notebook is named there once.
    """
    words = read_words(more_words)
    helpers = [document for document in submission.documents if document.form == "python"]
    kept: list[Iteration] = []
    known: dict[tuple, Iteration] = {}
    for document in submission.documents:
        if document.form == "python":
            continue
        for iteration in _Reading(document, helpers, words).iterations():
            check_time()
            twin = known.get(iteration.series[1:] and iteration.series)
            counts = {one.parameters.low for one in (twin, iteration) if one and one.parameters}
            if twin and twin.document != iteration.document and len(counts) < 2:
                twin.flags.append(f"the same log stands in {iteration.document}")
                twin.training.claims += iteration.training.claims
            else:
                known.setdefault(iteration.series, iteration)
                kept.append(iteration)
    trained = {one.document for one in kept if one.training.epochs}
    if not trained:
        return kept
    shown = [i for i in kept if i.training.epochs or (i.table.rows and i.document not in trained)]
    for one in kept:
        if one.form == "text" and not one.training.epochs:
            shown[0].training.claims += one.training.claims
    return shown


class _Placed(NamedTuple):
    """A table or count at a place of a document, and the model it is known to belong to."""

    what: Table | Count
    model: Model | None = None

    @property
    def at(self) -> tuple[int, int]:
        return self.what.line.at


def _each_its_model(things: list, models: list[Model]) -> list[_Placed]:
    """As many tables or counts as models in a cell belong to them in their order."""
    if len(models) != len(things):
        models = [_only(models)] * len(things)
    return list(map(_Placed, things, models))


def _only(models: list[Model]) -> Model | None:
    return models[0] if len(models) == 1 else None


class _Reading:
    """One document, and what of it belongs together; `found` are tables and counts by origin."""

    def __init__(self, document, helpers: list, words: Words):
        self.document = document
        self.code = read_code(document, helpers)
        self.found: dict[str, list[_Placed]] = {"table": [], "print": [], "said": []}
        facts: dict[int, list[Fact]] = {}
        lines_left = MAX_LINES
        facts_left = MAX_FACTS
        for cell in document.cells:
            if cell.kind == "markdown":
                counts = find_counts(lines_of(document, cell, "source"), words)
                self.found["said"] += map(_Placed, counts)
                continue
            lines = lines_of(document, cell, most=lines_left)
            lines_left -= len(lines)
            self._read(cell, lines, words)
            facts[cell.number] = read_facts(lines, words, document.prose, cell.source, facts_left)
            facts_left -= len(facts[cell.number])
        self.trainings = find_trainings(document, facts, self.code)
        self.flags = _cell_flags(document)
        if lines_left <= 0:
            self.flags.append(f"only the first {MAX_LINES:,} lines of {document.name} were read")
        if facts_left <= 0:
            self.flags.append(f"only the first {MAX_FACTS:,} results of {document.name} were read")
        for things in self.found.values():
            del things[MAX_PLACED:]

    def _read(self, cell, lines: list[Line], words: Words) -> None:
        """Find the tables and counts that a cell shows, and the model of each."""
        models = self.code.used.get(cell.number, [])
        tables = find_tables(lines, words)
        self.found["table"] += _each_its_model(tables, models)
        # what a table says of its sum stands in the lines below it
        totals = [(table.total or table).line.number for table in tables]
        in_tables = {number + n for number in totals for n in range(4)}
        in_tables |= {table.line.number for table in tables}
        counts = find_counts(lines, words, bare=bool(COUNTING.search(cell.source)))
        counts = [count for count in counts if count.line.number not in in_tables]
        for placed in _each_its_model(counts, models):
            origin = "print"
            if self.document.prose and not PASTED.fullmatch(placed.what.line.text[:80]):
                origin = "said"
            self.found[origin].append(placed)

    def iterations(self) -> list[Iteration]:
        if self.trainings:
            return [self._trained(index) for index in range(len(self.trainings))]
        if tables := self.found["table"]:
            return [self._iteration(None, {"table": one}, one.model) for one in tables]
        last = {origin: things[-1] for origin, things in self.found.items() if things}
        models = list(self.code.models.values())
        if not last and not models:
            return []
        return [self._iteration(None, last, _only(models))]

    def _trained(self, index: int) -> Iteration:
        training = self.trainings[index]
        first, last = training.line.cell, training.end.cell
        # the only model that its cells make or use, or the last one made before
        cells = [models for cell, models in self.code.used.items() if first <= cell <= last]
        models = list(dict.fromkeys(chain.from_iterable(cells))) or [self.code.last.get(first)]
        model = _only(models)
        found = {"table": self._belonging("table", index, model)}
        model = model or (found["table"] and found["table"].model)
        found["print"] = self._belonging("print", index, model)
        found["said"] = self._belonging("said", index, None)
        iteration = self._iteration(training, found, model)
        flags = _image_flags(training)
        if training.continues:
            flags.append(
                f"trains the model of {training.continues.where} on: those epochs count too"
            )
        # Where a model was made later on, the weights belonged to another one.
        made = max((n for n, models in self.code.made.items() if models and n <= first), default=0)
        if loaded := [cell for cell in self.code.loads if made <= cell <= first]:
            told = f"cell {loaded[-1]} loads weights before this training"
            flags.append(f"{told}: the epochs that made them are not counted")
        flags += _read_batches(iteration, sorted(self.code.batch_sizes)) + iteration.flags
        iteration.flags = list(dict.fromkeys(flags))
        return iteration

    def _belonging(self, origin: str, index: int, model: Model | None) -> _Placed | None:
        """The table or count of a training: of its model where that is known, else the one nearest
        above; where they come after the trainings, below."""
        named = [thing for thing in self.found[origin] if model and thing.model is model]
        things = named or [x for x in self.found[origin] if not (model and x.model)]
        starts = [training.line.at for training in self.trainings]
        begin = self.trainings[index - 1].end.at if index else (-1, -1)
        end = [*starts, (math.inf, 0)][index + 1]
        before = [thing for thing in things if thing.at < starts[index]]
        above = [thing for thing in before if thing.at > begin]
        below = [thing for thing in things if starts[index] <= thing.at < end]
        all_after = things and things[0].at >= starts[0] and things[-1].at > starts[-1]
        if below and (all_after or (not above and index + 1 == len(starts))):
            return below[0]
        if named or self.document.form != "text" or len(things) == 1:
            above = before
        return next(reversed(above), None)

    def _iteration(self, training: Training | None, found: dict, model: Model | None) -> Iteration:
        """A training, if any, with its table, its model and what counts its parameters."""
        table = Table(Line("", self.document.name))
        if found.get("table"):
            table = found["table"].what
        training = training or Training(table.line, table.line)
        iteration = Iteration(self.document.name, self.document.form, training, table)
        iteration.flags += self.flags
        counts = {origin: placed.what for origin, placed in found.items() if placed}
        counts["table"] = table.total or (table.sum and Count(table.sum, table.sum, table.line))
        for origin in ("table", "print", "said"):
            if counts.get(origin):
                iteration.parameters = counts[origin]
                iteration.parameters_from = origin
                break
        if iteration.parameters_from == "said":
            iteration.parameters_from = "text" if self.document.form == "text" else "notes"
        _read_table(iteration)
        if model:
            _read_model(iteration, model)
        if not iteration.fully_connected and not (iteration.layers_from and model):
            for line in self.code.unparsed[:3]:
                found = Found("in code that does not parse", line, shown=False)
                iteration.fully_connected.append(found)
        return iteration


def _read_table(iteration: Iteration) -> None:
    table = iteration.table
    for row in table.rows:
        if row.kind == "fully connected":
            what = f"{row.name}, {row.parameters:,} parameters"
            iteration.fully_connected.append(Found(what, row.line))
        if row.whole_map:
            what = f"{row.name}, a convolution over its whole {row.whole_map} map"
            iteration.whole_map.append(Found(what, row.line))
    for kind in LAYERS:
        if rows := [row for row in table.rows if row.kind == kind]:
            iteration.layers[kind] = Found(f"{len(rows)} in the table", rows[0].line)
    iteration.convolutions = sum(row.kind == "convolution" for row in table.rows)
    if iteration.convolutions or iteration.fully_connected:
        iteration.layers_from = "table"


def _read_model(iteration: Iteration, model: Model) -> None:
    """What the code says of the layers, where a table does not; it does not say the maps' sizes."""
    iteration.model = model.name
    in_table = bool(iteration.fully_connected)
    has_table = bool(iteration.table.rows)
    for layer in model.layers:
        if layer.kind == "fully connected" and layer.attribute == "functional":
            found = Found("a functional linear layer in the code", layer.line)
            iteration.fully_connected.append(found)
        elif layer.kind == "fully connected" and not in_table:
            what = f"{cut(layer.line.text, 80)} in the code of {model.name}"
            what += ", not in the table" * has_table
            iteration.fully_connected.append(Found(what, layer.line, shown=not has_table))
        elif layer.kind in LAYERS and layer.kind not in iteration.layers:
            iteration.layers[layer.kind] = Found(f"{layer.kind} in the code", layer.line)
    if not iteration.layers_from:
        convolutions = [layer for layer in model.layers if layer.kind == "convolution"]
        iteration.convolutions = len(convolutions)
        iteration.layers_from = "code" * bool(convolutions and model.known)
        for layer in convolutions:
            if layer.kernel is None or layer.kernel > 3:
                what = f"{cut(layer.line.text, 80)} may cover its whole map"
                iteration.whole_map.append(Found(what, layer.line, shown=False))


def _cell_flags(document) -> list[str]:
    """Which cells of a notebook were run out of their order or ended with an error."""
    flags = []
    cells = [cell for cell in document.cells if cell.kind == "code" and cell.source.strip()]
    counts = [cell.count for cell in cells if cell.count]
    falls = [f"[{b}] stands after [{a}]" for a, b in zip(counts, counts[1:]) if b <= a]
    if falls:
        flags.append("cells were not run in their order: " + ", ".join(falls[:4]))
    for cell in cells:
        if cell.error:
            flags.append(f"cell {cell.number} ended with an error: {cut(cell.error, 120)}")
        elif "Traceback (most recent call last)" in cell.output:
            flags.append(f"cell {cell.number} shows a Python traceback")
    return flags[:12]


def _image_flags(training: Training) -> list[str]:
    """Where a log does not say of which images it is, or says that they are others."""
    flags = []
    if training.images == "unnamed":
        flags.append(f"the accuracy does not say of which images it is ({training.line})")
    totals = {a.total for a in training.accuracies} | {training.validated_on}
    totals -= {None, 0, TEST_IMAGES}
    if totals:
        told = ", ".join(f"{n:,}" for n in sorted(totals))
        flags.append(f"tested on {told} images, not on the 10,000 test images")
    return flags


def _read_batches(iteration: Iteration, sizes: list[int]) -> list[str]:
    """Of which size the batches were, of those that the code names or of usual ones, and a flag
    where an epoch's iterations are a pass over other images than the training set."""
    counted = {n: c for n, c in iteration.training.iterations.items() if n < TEST_IMAGES}
    if counted:
        iteration.iterations = max(counted, key=lambda n: (counted[n], n))
    elif len(sizes) == 1:
        iteration.batch_size = sizes[0]
    for images, what in TRAINED_ON.items():
        # with the last incomplete batch or without it
        known = sizes or COMMON_BATCHES
        fitting = [n for n in known if iteration.iterations in (-(-images // n), images // n)]
        if not fitting:
            continue
        if len(fitting) == 1 or not sizes:
            iteration.batch_size = fitting[0]
        if not what:
            return []
        told = f"{iteration.iterations} iterations at batch {fitting[0]} are {images:,} images"
        return [f"{told}: trained on {what}?"]
    return []
