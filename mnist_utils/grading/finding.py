"""From what was read to what was found: each training of a submission with its model, its numbers and its flags.

    for iteration in find_iterations(submission): iteration.parameters, iteration.training.last, iteration.flags

A finding has the line it was read from. A flag is something that a person should look at; it decides nothing.
"""

import math
import re
from dataclasses import dataclass, field

from .lines import Line, output_lines, source_lines
from .logs import PYTHON_ERROR, Accuracy, Training, find_claims, find_trainings
from .reading import Document, Submission, cut
from .source import CellCode, Code, Model, read_code, total_parameters
from .tables import PASTED, Count, Row, Table, find_counts, find_tables, pools_all, unlikely_rows, whole_map

IMAGES = 60_000  # MNIST's training images
TEST_IMAGES = 10_000
COMMON_BATCHES = (16, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 600, 1000, 1024, 2048)
MAX_TRAININGS = 200  # of one file
MAX_PLACED = 2_000  # tables, prints or claims of one file
IMPLAUSIBLE = 99.8  # percent; above what single small networks reach without the test images


@dataclass(frozen=True)
class Found:
    """Something that was found and the line that shows it; `shown` is False where it is only a suspicion."""

    what: str
    line: Line
    shown: bool = True

    def __str__(self) -> str:
        return f"{self.what} ({self.line})"


@dataclass
class Iteration:
    """One training and the model that belongs to it, or a model whose training is not shown.

    `parameters_from` is "table", "print", "code" or "text" (only said); `layers_from` what the layers were read
    from: "table", "code" or nothing.
    """

    document: str
    line: Line
    model: str = ""
    training: Training | None = None
    table: Table | None = None
    parameters: Count | None = None
    parameters_from: str = ""
    layers_from: str = ""
    convolutions: int = 0
    fully_connected: list[Found] = field(default_factory=list)
    layers: dict[str, Found] = field(default_factory=dict)  # batch normalization, dropout, global average pooling
    batch_size: int | None = None
    iterations: int | None = None
    claims: list[Accuracy] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        place = f"cell {self.line.cell}" if self.line.cell else f"line {self.line.number}" if self.line.text else ""
        return ", ".join(part for part in (self.document, place, self.model) if part)


def find_iterations(submission: Submission) -> list[Iteration]:
    """Every training of a submission, or its models where none is shown; the same one in two files is named once."""
    helpers = [document for document in submission.documents if document.form == "python"]
    found: list[Iteration] = []
    for document in submission.documents:
        if document.form != "python":
            found += _Reading(document, helpers).iterations()
    kept: list[Iteration] = []
    known: dict[tuple, list[Iteration]] = {}
    for iteration in found:
        alike = known.setdefault(_series(iteration), [])
        twin = next((other for other in alike[:MAX_TRAININGS] if _is_same(other, iteration)), None)
        if twin is None:
            kept.append(iteration)
            alike.append(iteration)
        else:
            twin.flags.append(f"the same log stands in {iteration.document}")
    trained = [iteration for iteration in kept if iteration.training]
    documents = {iteration.document for iteration in trained}
    return [i for i in kept if i.training or not documents or (i.table and i.document not in documents)]


def _series(iteration: Iteration) -> tuple[float, ...]:
    return tuple(a.percent for a in iteration.training.accuracies) if iteration.training else ()


def _is_same(one: Iteration, other: Iteration) -> bool:
    if one.document == other.document or not (one.training and other.training):
        return False
    same_model = one.parameters is None or other.parameters is None or one.parameters.low == other.parameters.low
    return len(_series(one)) > 1 and _series(one) == _series(other) and same_model


@dataclass
class _Placed:
    """Something at a place of a document, and the model it is known to belong to."""

    at: tuple[int, int]
    what: object
    model: Model | None = None


class _Reading:
    """One document, and what of it belongs together."""

    def __init__(self, document: Document, helpers: list[Document]):
        self.document = document
        self.code = read_code(document, helpers)
        self.tables: list[_Placed] = []
        self.prints: list[_Placed] = []
        self.said: list[_Placed] = []
        self.claims: list[_Placed] = []
        self.prose: list[Accuracy] = []  # what a text says that has no log
        for cell in document.cells:
            self._cell(cell)
        self.flags = self._document_flags()
        found = find_trainings(document, self.code)
        self.trainings = found[:MAX_TRAININGS]
        if len(found) > MAX_TRAININGS:
            self.trainings[0].notes.append(f"{len(found)} trainings, of which the first {MAX_TRAININGS} are judged")
        for things in (self.tables, self.prints, self.said, self.claims):
            del things[MAX_PLACED:]

    def _cell(self, cell) -> None:
        lines = output_lines(self.document, cell)
        known = self.code.cells.get(cell.number, CellCode()).summarised if cell.kind == "code" else []
        for i, table in enumerate(find_tables(lines)):
            self.tables.append(_Placed(_at(table.line), table, known[i] if i < len(known) else None))
        in_tables = {p.what.total.line for p in self.tables if p.what.total} | {p.what.line for p in self.tables}
        counts = [
            c
            for c in find_counts(lines)
            if c.line not in in_tables and not re.search("non-?trainable", c.line.text, re.I)
        ]
        if cell.kind == "code" and re.search(r"numel|count_params|nelement", cell.source):
            counts += [c for line in lines if (c := _bare_count(line))]
        totals = {
            p.what.total.line.number for p in self.tables if p.what.total and p.what.total.line.cell == _cell_of(lines)
        }
        counts = [c for c in counts if not any(0 < c.line.number - total <= 3 for total in totals)]
        for count in counts:
            only_said = cell.kind == "text" and not PASTED.fullmatch(count.line.text[:80])
            (self.said if only_said else self.prints).append(_Placed(_at(count.line), count))
        if cell.kind == "text":
            self.prose = find_claims(lines)
            return
        prose = source_lines(self.document, cell)
        prose = prose if cell.kind == "markdown" else _comments(prose)
        self.said += [_Placed(_at(c.line), c) for c in find_counts(prose)]
        self.claims += [_Placed(_at(a.line), a) for a in find_claims(prose)]

    def iterations(self) -> list[Iteration]:
        if self.trainings:
            return [self._iteration(i) for i in range(len(self.trainings))]
        if self.tables:
            return [self._untrained(placed) for placed in self.tables]
        if not (self.prints or self.said or self.claims or self.prose or self.code.models):
            return []
        iteration = Iteration(self.document.name, Line("", self.document.name))
        self._model(iteration, self.code.models[-1] if len(self.code.models) == 1 else None)
        self._parameters(
            iteration, self.prints, self.said, self.code.models[-1] if len(self.code.models) == 1 else None
        )
        iteration.claims = [placed.what for placed in self.claims] + self.prose
        iteration.flags += self.flags
        return [iteration]

    def _untrained(self, placed: _Placed) -> Iteration:
        iteration = Iteration(self.document.name, placed.what.line, table=placed.what)
        self._model(iteration, placed.model)
        self._parameters(iteration, [], [], placed.model)
        iteration.claims = [placed.what for placed in self.claims] + self.prose
        iteration.flags += self.flags + _table_flags(placed.what, placed.model)
        return iteration

    def _iteration(self, index: int) -> Iteration:
        training = self.trainings[index]
        model = self._trained_model(training)
        iteration = Iteration(self.document.name, training.line, training=training)
        placed = self._belonging(self.tables, index, model)
        iteration.table = placed.what if placed else None
        model = model or (placed.model if placed else None)
        self._model(iteration, model)
        prints, said = (
            [p] if (p := self._belonging(things, index, None)) else [] for things in (self.prints, self.said)
        )
        self._parameters(iteration, prints, said, model)
        begin, end = self._window(index)
        iteration.claims = training.claims + [
            c.what for c in self.claims if begin < c.at < end or len(self.trainings) == 1
        ]
        self._batches(iteration)
        iteration.flags += training.notes + self.flags + _log_flags(iteration, self.code)
        iteration.flags += _split_flags(iteration, self.code)
        if iteration.table:
            iteration.flags += _table_flags(iteration.table, model)
        iteration.flags = list(dict.fromkeys(iteration.flags))
        return iteration

    def _trained_model(self, training: Training) -> Model | None:
        cells = [self.code.cells[n] for n in self.code.cells if training.span[0] <= n <= training.span[1]]
        if not training.cell or not cells:
            return None
        made = {id(model): model for cell in cells for _, model in cell.made}
        used = {id(model): model for cell in cells for model in cell.uses}
        for models in (made, used):
            if len(models) == 1:
                return next(iter(models.values()))
        return None if made or used else self.code.model_at.get(training.cell)

    def _window(self, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """From the end of the training before to the beginning of the one after."""
        begin = _end(self.trainings[index - 1]) if index else (-1, -1)
        last = index + 1 == len(self.trainings)
        return begin, (math.inf, math.inf) if last else _at(self.trainings[index + 1].line)

    def _belonging(self, things: list[_Placed], index: int, model: Model | None) -> _Placed | None:
        """The table or print that belongs to a training: of its model where that is known, else the one nearest above;
        where they come after the trainings, below."""
        named = [thing for thing in things if model and thing.model is model]
        things = named or [thing for thing in things if not (model and thing.model)]
        start, (begin, end) = _at(self.trainings[index].line), self._window(index)
        above = [thing for thing in things if begin < thing.at < start]
        below = [thing for thing in things if start <= thing.at < end]
        first = _at(self.trainings[0].line)
        after = not any(thing.at < first for thing in things) and any(
            t.at > _at(self.trainings[-1].line) for t in things
        )
        if after and below:
            return below[0]
        if above and not after:
            return above[-1]
        if below and index + 1 == len(self.trainings) and not (self.document.form == "text" and above):
            return below[0]
        before = [thing for thing in things if thing.at < start]
        if before and (named or self.document.form != "text" or len(things) == 1):
            return before[-1]
        return None

    def _parameters(self, iteration: Iteration, prints: list, said: list, model: Model | None) -> None:
        table = iteration.table
        counted = total_parameters(model) if model else None
        if table:
            total = table.total if table.total else Count(table.sum, table.sum, table.line) if table.sum else None
            iteration.parameters, iteration.parameters_from = total, "table" if total else ""
            if prints and total and not _agree(prints[-1].what, total) and not _is_part(prints[-1].what, table):
                iteration.flags.append(
                    f"{prints[-1].what} parameters are printed, the table has {total} ({prints[-1].what.line})"
                )
            if total and counted and not (total.low <= counted <= total.high):
                iteration.flags.append(
                    f"the code of {model.name} has {counted:,} parameters, the table {total} ({model.line})"
                )
        if not iteration.parameters and prints:
            iteration.parameters, iteration.parameters_from = prints[-1].what, "print"
        if not iteration.parameters and counted:
            iteration.parameters, iteration.parameters_from = Count(counted, counted, model.line), "code"
        if not iteration.parameters and said:
            iteration.parameters, iteration.parameters_from = said[-1].what, "text"
        claimed = said[-1].what if said else None
        if claimed and iteration.parameters_from in ("table", "print") and not _agree(claimed, iteration.parameters):
            if not _roughly(claimed, iteration.parameters) and not (table and _is_part(claimed, table)):
                iteration.flags.append(
                    f"the text says {claimed} parameters, not {iteration.parameters} ({claimed.line})"
                )

    def _model(self, iteration: Iteration, model: Model | None) -> None:
        """What the layers are, from the table and from the code."""
        iteration.model = model.name if model else ""
        models = self._with_blocks(model) if model else []
        if table := iteration.table:
            iteration.layers_from = "table" if table.of("convolution") or table.of("fully connected") else ""
            iteration.convolutions = len(table.of("convolution"))
            for row in table.of("fully connected"):
                iteration.fully_connected.append(Found(f"{row.name}, {_shape(row)}", row.line))
            for row, before in whole_map(table):
                size = f"{before.shape[1]}x{before.shape[2]}"
                iteration.fully_connected.append(
                    Found(f"{row.name}, a convolution over its whole {size} map", row.line)
                )
            _note_layers(iteration, table)
        linear = [layer for m in models for layer in m.of("fully connected")]
        for layer in linear:
            if not (iteration.table and iteration.table.of("fully connected")):
                what = f"{cut(layer.line.text.strip(), 80)} in the code of {model.name}"
                what += ", not in the table" if iteration.table else ""
                iteration.fully_connected.append(Found(what, layer.line, shown=not iteration.table))
        iteration.fully_connected += [
            Found("a functional linear layer in the code", x) for m in models for x in m.products
        ]
        for m in models:
            _note_code(iteration, m)
        if models and not iteration.layers_from:
            self._judge_code(iteration, models)
        if not iteration.layers_from or not model:
            known = bool(iteration.fully_connected)
            for line in self.code.unparsed[:3]:
                if not known:
                    iteration.fully_connected.append(Found("in code that does not parse", line, shown=False))

    def _judge_code(self, iteration: Iteration, models: list[Model]) -> None:
        """Without a table the code shows the layers, but not how large the maps are."""
        convolutions = [layer for m in models for layer in m.of("convolution")]
        iteration.convolutions = len(convolutions)
        sizes = [_kernel(layer) for layer in convolutions]
        large = [layer for layer, size in zip(convolutions, sizes) if size is None or size > 3]
        known = all(m.known for m in models)
        iteration.layers_from = "code" if convolutions and not large and known else ""
        for layer in large[:3]:
            what = f"{cut(layer.line.text.strip(), 80)} may cover its whole map, whose size is not shown"
            iteration.fully_connected.append(Found(what, layer.line, shown=False))

    def _with_blocks(self, model: Model) -> list[Model]:
        """The model and the classes in it, of equal names the last."""
        found, names = {model.name: model}, set(model.blocks)
        for other in reversed(self.code.models):
            if other.name in names and other.name not in found:
                found[other.name] = other
                names |= other.blocks
        return list(found.values())

    def _batches(self, iteration: Iteration) -> None:
        training, sizes = iteration.training, sorted(self.code.batch_sizes)
        counted = {n: c for n, c in training.iterations.items() if n < TEST_IMAGES}
        training.train_images.update({n: c for n, c in training.iterations.items() if n >= TEST_IMAGES})
        if counted:
            iteration.iterations = max(counted, key=lambda n: (counted[n], n))
            fitting = [size for size in sizes or COMMON_BATCHES if _fits(iteration.iterations, size, IMAGES)]
            fitting = fitting or [size for size in sizes if _fits(iteration.iterations, size, TEST_IMAGES)]
            iteration.batch_size = fitting[0] if len(fitting) == 1 or (fitting and not sizes) else None
        elif len(sizes) == 1:
            iteration.batch_size = sizes[0]

    def _document_flags(self) -> list[str]:
        if self.document.form not in ("notebook", "html"):
            return []
        cells = [cell for cell in self.document.cells if cell.kind == "code" and cell.source.strip()]
        if not cells:
            return []
        if not any(cell.output or cell.count or cell.error for cell in cells):
            return ["the notebook was never executed, or its outputs were removed"]
        flags, counts = [], [cell.count for cell in cells if cell.count]
        falls = [(a, b) for a, b in zip(counts, counts[1:]) if b <= a]
        if falls:
            flags.append(
                "cells were not run in their order: " + ", ".join(f"[{b}] stands after [{a}]" for a, b in falls[:4])
            )
        idle = [
            cell for cell in cells if cell.count is None and not cell.output and counts and _does_something(cell.source)
        ]
        if idle and len(counts) > len(idle):
            flags.append(f"never run: cell {', '.join(str(cell.number) for cell in idle[:6])}")
        stale = [cell for cell in cells if cell.count is None and cell.output and counts]
        if stale and len(counts) >= len(stale):
            flags.append(
                f"outputs without an execution count: cell {', '.join(str(cell.number) for cell in stale[:6])}"
            )
        for cell in cells:
            if cell.error:
                flags.append(f"cell {cell.number} ended with an error: {cut(cell.error, 120)}")
            elif PYTHON_ERROR.search(cell.output):
                flags.append(f"cell {cell.number} shows a Python traceback")
        return flags[:12]


def _at(line: Line) -> tuple[int, int]:
    return line.cell, line.number


def _end(training: Training) -> tuple[int, int]:
    last = training.last.line if training.last else training.line
    return max(_at(last), _at(training.line))


def _cell_of(lines: list[Line]) -> int:
    return lines[0].cell if lines else 0


def _bare_count(line: Line) -> Count | None:
    match = re.fullmatch(r"\s*\(?\s*(\d{1,3}(?:,\d{3})+|\d{3,9})\s*[,)]?\s*", line.text[:60])
    return Count(*[int(match[1].replace(",", ""))] * 2, line) if match else None


def _comments(lines: list[Line]) -> list[Line]:
    """Comments and texts in triple quotes of a code cell."""
    kept, inside = [], False
    for line in lines:
        quotes = line.text.count('"""') + line.text.count("'''")
        if inside or quotes or line.text.lstrip().startswith("#"):
            kept.append(line)
        inside ^= quotes % 2 == 1
    return kept


def _does_something(source: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in source.split("\n"))


def _agree(one: Count, other: Count) -> bool:
    return one.low <= other.high and other.low <= one.high


def _roughly(one: Count, other: Count) -> bool:
    """Whether a count that was said in round figures may mean the other."""
    return one.low % 100 == 0 and abs(one.low - other.low) <= max(100, other.low // 50)


def _is_part(count: Count, table: Table) -> bool:
    """Whether it counts what is trainable, or one layer."""
    part = sum(row.parameters for row in table.of("batch normalization")) // 2
    return count.low in {row.parameters for row in table.rows} | {table.sum, table.sum - part}


def _shape(row: Row) -> str:
    return f"{row.parameters:,} parameters"


def _kernel(layer) -> int | None:
    kernel = layer.argument(2, "kernel_size")
    kernel = max((k for k in kernel if isinstance(k, int)), default=None) if isinstance(kernel, tuple) else kernel
    dilation = layer.argument(5, "dilation") or 1
    return dilation * (kernel - 1) + 1 if type(kernel) is int and type(dilation) is int else None


def _note_layers(iteration: Iteration, table: Table) -> None:
    for kind in ("batch normalization", "dropout"):
        if rows := table.of(kind):
            iteration.layers[kind] = Found(f"{len(rows)} in the table", rows[0].line)
    if row := pools_all(table):
        iteration.layers["global average pooling"] = Found(row.name, row.line)


def _note_code(iteration: Iteration, model: Model) -> None:
    for kind in ("batch normalization", "dropout", "global average pooling"):
        if (layers := model.of(kind)) and kind not in iteration.layers:
            iteration.layers[kind] = Found(f"{len(layers)} in the code", layers[0].line)
    pools = [x for x in model.of("average pooling") if "Adaptive" in x.line.text] or model.of("average pooling")[-1:]
    lines = model.pools or [layer.line for layer in pools]
    if lines and "global average pooling" not in iteration.layers:
        iteration.layers["global average pooling"] = Found("in the code", lines[-1])
    if model.drops and "dropout" not in iteration.layers:
        iteration.layers["dropout"] = Found("in the code", model.drops[0])


def _fits(iterations: int, batch: int, images: int) -> bool:
    """Whether so many batches are one pass, with the last incomplete one or without it."""
    return iterations in (-(-images // batch), images // batch)


def _table_flags(table: Table, model: Model | None) -> list[str]:
    flags = []
    if table.total and table.total.exact and table.rows and table.sum != table.total.low:
        flags.append(f"the rows of the table sum to {table.sum:,}, it says {table.total} ({table.total.line})")
    flags += [f"{row} in the table" for row in unlikely_rows(table)[:3]]
    if model and model.plain and (convolutions := model.of("convolution")):
        code = [layer.argument(1, "out_channels") for layer in convolutions]
        rows = [row.shape[0] for row in table.of("convolution") if row.shape]
        torch = all(len(layer.arguments) >= 2 or "out_channels" in dict(layer.keywords) for layer in convolutions)
        if torch and None not in code and rows and sorted(code) != sorted(rows):
            told = ", ".join(map(str, code[:12])), ", ".join(map(str, rows[:12]))
            flags.append(
                f"the code of {model.name} convolves to {told[0]} channels, the table to {told[1]} ({model.line})"
            )
    return flags


def _log_flags(iteration: Iteration, code: Code) -> list[str]:
    training, flags = iteration.training, []
    best, last = training.best, training.last
    if best and best.percent > IMPLAUSIBLE:
        flags.append(f"{best} is more than is plausible for one small network ({best.line.where})")
    if best and last and best.percent > last.percent:
        as_best = [
            c
            for c in iteration.claims
            if abs(c.percent - best.percent) < 0.006 and abs(c.percent - last.percent) > 0.005
        ]
        if as_best:
            flags.append(f"the best epoch ({best}) is reported as the result, the last is {last} ({as_best[0].line})")
    shown = [a for a in [*training.accuracies, *training.train, *training.after]]
    above = [
        c for c in iteration.claims if best and c.percent > max(a.percent for a in shown) + 0.006 and c.percent < 100
    ]
    if above:
        flags.append(f"{above[0]} is said, more than any epoch shows ({above[0].line})")
    for again in training.after:
        if last and abs(again.percent - last.percent) > 0.005 + again.half + last.half:
            flags.append(f"tested again: {again}, not the last epoch's {last} ({again.line})")
    if training.first_epoch > 1:
        flags.append(f"the log begins at epoch {training.first_epoch}")
    if training.announced > training.epochs and training.announced > 1 and training.first_epoch == 1:
        flags.append(f"{training.announced} epochs were announced, {training.epochs} are logged")
    cells = [code.cells[n] for n in code.cells if training.span[0] <= n <= training.span[1]]
    loops = {n for cell in cells for n in cell.epochs if n > 0}
    if len(loops) == 1 and training.epochs not in loops and training.epochs != training.announced:
        flags.append(f"the code loops over {loops.pop()} epochs, {training.epochs} are logged")
    if training.images == "unnamed":
        flags.append(f"the accuracy does not say of which images it is ({training.line})")
    return flags


def _split_flags(iteration: Iteration, code: Code) -> list[str]:
    """What the counts of images and batches say of the split."""
    training, flags = iteration.training, []
    totals = {a.total for a in training.accuracies if a.total} | ({training.validated_on} - {0})
    if totals - {TEST_IMAGES}:
        flags.append(f"tested on {', '.join(f'{n:,}' for n in sorted(totals))} images, not on the 10,000 test images")
    trained_on = set(training.train_images)
    if trained_on & {TEST_IMAGES, 70_000}:
        flags.append(f"trained on {max(trained_on & {TEST_IMAGES, 70_000}):,} images: with the test images?")
    count, sizes = iteration.iterations, sorted(code.batch_sizes) or COMMON_BATCHES
    if count and not any(_fits(count, size, IMAGES) for size in sizes):
        for images, what in ((TEST_IMAGES, "the test images"), (70_000, "training and test images together")):
            size = next((size for size in sizes if _fits(count, size, images)), None)
            if size:
                flags.append(f"{count} iterations at batch {size} are {images:,} images: trained on {what}?")
                break
    for parts, line in code.splits:
        batch = iteration.batch_size
        if (
            count
            and batch
            and sum(parts) == IMAGES
            and _fits(count, batch, IMAGES)
            and not _fits(count, batch, parts[0])
        ):
            flags.append(
                f"the code trains on {parts[0]:,} images, {count} iterations at batch {batch} are 60,000 ({line})"
            )
    if code.train_flags == {False}:
        flags.append("the code loads MNIST with train=False only: trained on the test images?")
    return flags
