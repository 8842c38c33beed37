"""Epochs and accuracies as people print them: lines, progress bars, Keras, tables of epochs; grouped into trainings.

    for training in find_trainings(document, code): training.last, training.best

An accuracy is taken for one of test images where its line, its bar, its counts or the function that printed it says so;
else it stays "unnamed", and nothing passes by it.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from .lines import Line, output_lines
from .reading import Document
from .source import Code, letters

TRAIN = r"train(?:ing|ed)?|trn"
TEST = r"test(?:ing)?|val(?:id(?:ation|ating)?)?|eval(?:uation)?|dev|held-?out|holdout"
QUALIFIER = re.compile(rf"(?<![a-z])(?:({TRAIN})|({TEST}))(?![a-z])|(?<![a-z])(?:(train)|(test|val))(?=acc)", re.I)
ACCURACY = re.compile(
    r"(?<![a-z])(?:(?:train|test|val|valid)?acc(?:uracy)?|accuracies|correct)(?![a-z])|(?<=_)acc(?:uracy)?(?![a-z])",
    re.I,
)
CLAIMS = re.compile(
    r"(?<![a-z])(best|max(?:imum)?|highest|peak|target|goal|required?|reach\w{0,4}|achiev\w{0,5}|threshold|desired|top)(?![a-z])",
    re.I,
)
FINAL = re.compile(r"(?<![a-z])(final|overall)(?![a-z])", re.I)
ON_IMAGES = re.compile(r"\s{1,3}(?:of|on)\s[^:=|\d]{0,40}(\d{4,6})?[^:=|\d]{0,40}", re.I)
OF_A_CLASS = re.compile(
    r"\s{1,3}(?:of|for)\s{1,3}(?:class|digit|label|\d\b)|\s{1,3}(?:of|for)\s{1,3}(?!the|net|model|test|train|val)['\"]?\w{1,14}['\"]?\s{0,9}[:=]",
    re.I,
)
BETWEEN = re.compile(
    r"(?:\s{0,3}(?:\([^()\d]{0,14}\)|\[[^\[\]\d]{0,8}\]))?[\s:=\-–|>*_~'\"│┃%]{0,40}(?:(?:is|was|of|at|tensor)\b[\s(:=]{0,4})?[(\[]?\s{0,3}"
)
COUNTS = re.compile(
    r"(\d{1,6})(?:\.0)?\s{0,2}/\s{0,2}(\d{1,6})\b(?:\s{0,3}[(=,:\[]{0,2}\s{0,3}(\d{1,3}(?:\.\d{1,17})?)\s{0,2}%)?"
)
COUNTS_AFTER = re.compile(r"\s{0,3}[(\[]\s{0,2}(\d{1,6})\s{0,2}/\s{0,2}(\d{1,6})\s{0,2}[)\]]")
NUMBER = re.compile(r"(\d{1,3}(?:\.\d{1,20})?|\.\d{1,20})(?![\d.]|e-?\d)\s{0,2}(%?)")
BAR = re.compile(r"(?<!\d)(\d{1,3})%(?:\|[^|\n]{0,400}\|)?\s{0,3}(\d{1,9})/(\d{1,9})\s{0,3}\[([^\]\n]{0,400})\]?")
COUNTER = re.compile(r"(?<![\d.])(\d{1,7})it\s\[([^\]\n]{0,400})\]")
KERAS_BAR = re.compile(r"(?<!\d)(\d{1,6})/(\d{1,6})\s\[[=>.]{10,60}\]|(?<!\d)(\d{1,6})/(\d{1,6})\s[━╸╺ ]{10,60}")
KERAS_TEST = re.compile(r"(?<!\d)(?:10000/10000|313/313)\s[\[━]")
WIDGET = re.compile(r"(?:Float|Int)Progress\(([^)]{0,200})\)")
EPOCH = re.compile(
    r"(?<![a-z])epochs?(?:\s{0,3}(?:no\.?|number|#|id))?\s{0,4}[:=\-#(\[]{0,3}\s{0,4}(\d{1,4})(?![\d.%]|\w)(?:\s{0,3}(?:/|of)\s{0,3}(\d{1,4}))?",
    re.I,
)
EPOCH_LEAD = re.compile(
    r"[\W_]{0,40}(?:(?:current|start(?:ing|ed)?|train(?:ing)?|begin|running|for|test|end of|after)\W{1,4}){0,2}$", re.I
)
EPOCH_ASIDE = re.compile(r"best|reached|achieved|\bat\b|learning ?rate|saving|improve|early|@", re.I)
KERAS_LINE = re.compile(r"val_acc|\s-\s(?:val_)?(?:loss|acc|accuracy):\s")
SPLIT = re.compile(r"train on (\d{1,6}) samples, validate on (\d{1,6}) samples", re.I)
IMAGES = re.compile(r"\[\s{0,3}(\d{1,6})/(\d{4,6})\s{0,2}\(")
EVALUATED = re.compile(r"^\s{0,4}[\[(]\s{0,3}(\d{1,2}\.\d{1,20})\s{0,2},\s{0,3}([01]\.\d{1,20})\s{0,3}[\])]\s*$")
TRUNCATED = re.compile(r"output truncated to the last|output exceeds the size limit", re.I)
HEADING = re.compile(
    r"\s{0,3}#{1,6}\s|\s{0,3}<h[1-6]|\s{0,3}(?:\*\*|__|<b>)[^*_]{3,80}(?:\*\*|__|</?b>|</?i>)\s{0,3}:?$", re.I
)
PYTHON_ERROR = re.compile(r"Traceback \(most recent call last\)")
MAX_RUNS = 200  # of one cell
TRAIN_TOTAL = 20_000  # more images than this are no test images of MNIST


@dataclass(frozen=True)
class Accuracy:
    """One printed accuracy in percent; counts where they were printed, else rounded to `decimals` of a percent."""

    percent: float
    line: Line
    correct: int | None = None
    total: int | None = None
    decimals: int = 2

    @property
    def half(self) -> float:
        """By how much the true value may differ, in points."""
        return 0.0 if self.total else 0.5 / 10**self.decimals if self.decimals < 2 else 0.0

    def __str__(self) -> str:
        if self.total:
            return f"{100 * self.correct / self.total:.2f}% ({self.correct:,} of {self.total:,})"
        return f"{self.percent:.{max(0, min(self.decimals, 2))}f}%"


@dataclass
class Training:
    """One training as logged: an accuracy an epoch, in order, and what stands around it.

    `images` is "test" or "unnamed"; `epochs` the number that was logged; `announced` the number that the log says will
    come; `iterations` those of an epoch as the bars count them; `after` accuracies that were measured again at the end.
    """

    document: str
    cell: int
    line: Line
    accuracies: list[Accuracy] = field(default_factory=list)
    images: str = "test"
    epochs: int = 0
    announced: int = 0
    first_epoch: int = 1
    iterations: Counter = field(default_factory=Counter)
    test_iterations: Counter = field(default_factory=Counter)
    train: list[Accuracy] = field(default_factory=list)
    train_images: Counter = field(default_factory=Counter)
    after: list[Accuracy] = field(default_factory=list)
    claims: list[Accuracy] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    validated_on: int = 0  # images, where Keras says so
    span: tuple[int, int] = (0, 0)  # cells, or lines of a text, from and to

    @property
    def last(self) -> Accuracy | None:
        return self.accuracies[-1] if self.accuracies else None

    @property
    def best(self) -> Accuracy | None:
        return max(self.accuracies, key=lambda a: a.percent, default=None)

    @property
    def best_epoch(self) -> int:
        return self.epoch_of(self.best) if self.accuracies else 0

    def epoch_of(self, accuracy: Accuracy) -> int:
        """Which epoch gave it, from 1; of a log that begins later, as it is numbered there."""
        return self.accuracies.index(accuracy) + (self.first_epoch if len(self.accuracies) == self.epochs else 1)


@dataclass(frozen=True)
class _Event:
    kind: str  # epoch, bar, test, train, unnamed, claim, final, images, truncated
    line: Line
    accuracy: Accuracy | None = None
    number: int = 0
    of: int = 0
    form: str = ""
    section: int = 0
    complete: bool = True


def find_trainings(document: Document, code: Code | None = None) -> list[Training]:
    """The trainings that a document logs, in their order."""
    runs: list[list[_Event]] = []
    for cell in document.cells:
        if cell.kind == "markdown" or not cell.output:
            continue
        evaluates = cell.kind == "code" and bool(re.search(r"evaluate|score", cell.source))
        events = _events(output_lines(document, cell), evaluates, cell.kind == "text")
        for run in _runs(events, prose=cell.kind == "text"):
            before = runs[-1] if runs else []
            if before and _goes_on(before, run, code):
                before += run
            else:
                runs.append(run)
    trainings: list[Training] = []
    for run in runs:
        training = _training(run, document, code)
        shown = training.accuracies + training.after
        alone = len(shown) <= 1 and not training.iterations and training.epochs <= 1
        if alone and trainings and document.form in ("notebook", "html"):
            trainings[-1].after += shown
            trainings[-1].claims += training.claims
        elif shown or training.epochs > 1 or (training.epochs and training.train):
            trainings.append(training)
        elif trainings:
            trainings[-1].claims += training.claims
    return trainings


def _goes_on(before: list[_Event], run: list[_Event], code: Code | None) -> bool:
    """Whether a run in a later cell counts on from the one before, with no model made anew in between."""
    numbers = [event.number for event in before if event.kind == "epoch"]
    first = next((event.number for event in run if event.kind == "epoch"), None)
    if not numbers or first != numbers[-1] + 1 or before[-1].line.cell == run[0].line.cell:
        return False
    between = [c for n, c in (code.cells if code else {}).items() if before[-1].line.cell < n <= run[0].line.cell]
    return not any(cell.made for cell in between)


def _runs(events: list[_Event], prose: bool) -> list[list[_Event]]:
    """Events cut where the epochs begin anew, or a text begins a new section."""
    runs: list[list[_Event]] = [[]]
    last = lowest = None
    for event in events:
        anew = event.kind == "epoch" and last is not None and event.number < last and event.number <= lowest
        section = prose and runs[-1] and event.section != runs[-1][-1].section
        goes_on = event.kind == "epoch" and last is not None and event.number == last + 1
        if (anew or (section and not goes_on)) and len(runs) < MAX_RUNS:
            runs.append([])
            last = lowest = None
        runs[-1].append(event)
        if event.kind == "epoch":
            last, lowest = event.number, min(event.number, event.number if lowest is None else lowest)
    return _merged([run for run in runs if run])


def _merged(runs: list[list[_Event]]) -> list[list[_Event]]:
    """What stands before the first accuracy or bar belongs to what follows, but for headings, which count nothing."""
    kept: list[list[_Event]] = []
    before: list[_Event] = []
    for run in runs:
        if any(event.kind in ("test", "train", "unnamed", "bar") for event in run):
            kept.append(before + run)
            before = []
        else:
            before += [event for event in run if event.kind != "epoch"]
    return [*kept, before] if before else kept


def _events(lines: list[Line], evaluates: bool, prose: bool) -> list[_Event]:
    found: list[_Event] = []
    context, age, section, fenced = "", 9, 0, False
    table = _EpochTable()
    open_bar: _Event | None = None  # a complete bar that may still be drawn again, and its place
    open_at = 0
    for line in lines:
        text = line.text
        if prose and text.lstrip().startswith("```"):
            fenced = not fenced
        if prose and not fenced and HEADING.match(text[:200]) and not re.search("epoch", text[:200], re.I):
            section += 1
        if TRUNCATED.search(text):
            found.append(_Event("truncated", line, section=section))
        rows = table.take(line)
        if rows is not None:
            found += [_Event(e.kind, e.line, e.accuracy, e.number, e.of, e.form, section) for e in rows]
            continue
        new, context, age = _line_events(line, evaluates, section, context, age)
        for event in new:
            if event.kind == "bar":
                again = open_bar and open_bar.line.number == line.number and open_bar.form == event.form
                if event.complete and again and open_bar.of == event.of:  # drawn again at its end: the later one counts
                    found[open_at:] = [e for e in found[open_at:] if e.form != event.form]
                open_bar = event if event.complete else None if again else open_bar
                open_at = len(found) if event.complete else open_at
            found.append(event)
    return found


def _line_events(line: Line, evaluates: bool, section: int, context: str, age: int) -> tuple[list[_Event], str, int]:
    """What one line says, from left to right; `context` is what a short line before it spoke of."""
    text, events, at = line.text, [], 0
    for match in BAR.finditer(text):
        lead = text[at : match.start()]
        events += _said(line, lead, section, bar=match) + _bar(line, lead, match, section)
        at = match.end()
    for match in COUNTER.finditer(text, at):
        events.append(_Event("bar", line, of=int(match[1]), form="counter", section=section))
    if match := WIDGET.search(text):
        value = re.search(r"max=(\d{1,7})", match[1])
        if value and int(value[1]) > 1:
            is_test = "test " if (q := QUALIFIER.search(text)) and (q[2] or q[4]) else ""
            events.append(
                _Event("bar", line, of=int(value[1]), form=f"{is_test}widget", section=section, complete=False)
            )
        return events, context, age + 1
    rest = text[at:]
    events += _said(line, rest, section, context=context if age < 3 else "")
    if evaluates and (match := EVALUATED.match(rest)):
        percent = 100 * float(match[2])
        decimals = max(0, len(match[2].partition(".")[2]) - 2)
        events.append(
            _Event("final", line, Accuracy(percent, line, decimals=decimals), form="evaluate", section=section)
        )
    if not any(event.accuracy for event in events) and len(rest.strip()) < 40 and (q := QUALIFIER.search(rest)):
        return events, "train" if q[1] or q[3] else "test", 0
    return events, context, age + 1


def _bar(line: Line, lead: str, match: re.Match, section: int) -> list[_Event]:
    done, total, inside = int(match[2]), int(match[3]), match[4]
    said = QUALIFIER.search(lead)
    is_test = bool(said and (said[2] or said[4]))
    complete = done == total and match[1] == "100"
    form = ("test " if is_test else "") + "bar"
    events = []
    if total > 1:
        events.append(_Event("bar", line, of=total, form=form, section=section, complete=complete))
    if complete:
        events += _accuracies(line, inside, section, "test" if is_test else "train", form)
    return events


def _said(line: Line, text: str, section: int, bar: re.Match | None = None, context: str = "") -> list[_Event]:
    """Epoch headings and accuracies of a piece of a line, in the order they stand."""
    if len(text) < 4:
        return []
    found: list[tuple[int, _Event]] = []
    lower = text.lower()
    if "epoch" in lower:
        found += _headings(line, text, section)
    if "[" in text and (match := IMAGES.search(text)):
        found.append((match.start(), _Event("images", line, of=int(match[2]), section=section)))
    if match := SPLIT.search(text):
        found.append((match.start(), _Event("split", line, number=int(match[2]), of=int(match[1]), section=section)))
    for match in KERAS_BAR.finditer(text) if "[" in text or "━" in text else ():
        done, total = (int(n) for n in (match[1] or match[3], match[2] or match[4]))
        if total > 1:
            event = _Event("bar", line, of=total, form="keras", section=section, complete=done == total)
            found.append((match.start(), event))
    if "acc" in lower or "correct" in lower:
        if bar:
            said = list(QUALIFIER.finditer(text))
            default = "test" if said and (said[-1][2] or said[-1][4]) else "train"
            form = ("test " if default == "test" else "") + "bar"
            events = _accuracies(line, text, section, default, form) if bar[1] == "100" else []
        else:
            tested = KERAS_TEST.search(text) and "val_" not in text and "epoch" not in lower
            events = _accuracies(line, text, section, context)
            if tested:  # what Keras prints when it evaluates
                events = [_Event("final", e.line, e.accuracy, e.number, 0, e.form, section) for e in events]
        found += [(len(text), event) for event in events] if len(found) < 2 else _placed(text, events, found)
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def _placed(text: str, events: list[_Event], found: list) -> list[tuple[int, _Event]]:
    """Where several epochs stand on one line, each accuracy at its own place."""
    places = [match.start() for match in ACCURACY.finditer(text)]
    return [(places[event.number] if event.number < len(places) else len(text), event) for event in events]


def _headings(line: Line, text: str, section: int) -> list[tuple[int, _Event]]:
    found = []
    for match in EPOCH.finditer(text):
        before = text[max(0, match.start() - 60) : match.start()]
        starts = match.start() < 60 and EPOCH_LEAD.match(before)
        named = re.search(r"[:=/\[]", match[0]) and not EPOCH_ASIDE.search(before)
        if match[0][:6].lower() == "epochs" and not match[2]:  # how many there are, not which it is
            continue
        if starts or named:
            found.append(
                (match.start(), _Event("epoch", line, number=int(match[1]), of=int(match[2] or 0), section=section))
            )
    return found


def _accuracies(line: Line, text: str, section: int, default: str = "", form: str = "") -> list[_Event]:
    """The accuracies of a piece of text, each with whose it is: the nearest word to its left says so."""
    events, at, keras = [], 0, bool(KERAS_LINE.search(text))
    for order, match in enumerate(ACCURACY.finditer(text)):
        if match.start() < at:
            continue
        value = _value(line, text, match)
        if value is None:
            continue
        accuracy, end, on = value
        lead = text[at : match.end()]
        kind = _whose(lead, on, accuracy, "train" if keras else default)
        name = form or letters(lead)[-40:]
        events.append(_Event(kind, line, accuracy, number=order, form=name, section=section))
        at = end
    return events


def _value(line: Line, text: str, match: re.Match) -> tuple[Accuracy, int, str] | None:
    """The number that belongs to a word for accuracy, where it ends, and the words between."""
    at = match.end()
    if OF_A_CLASS.match(text, at):
        return None
    if images := ON_IMAGES.match(text, at):
        at = images.end()
    at = BETWEEN.match(text, at).end()
    on = text[match.end() : at]
    if counts := COUNTS.match(text, at):
        correct, total = int(counts[1]), int(counts[2])
        if 0 < total and correct <= total and total >= 50:
            return Accuracy(100 * correct / total, line, correct, total, 9), counts.end(), on
        return None
    number = NUMBER.match(text, at)
    if not number or match[0].lower() == "correct":
        return None
    percent, decimals = float(number[1]), len(number[1].partition(".")[2])
    if percent <= 1 and not number[2]:
        if not decimals:
            return None
        percent, decimals = 100 * percent, decimals - 2
    if percent > 100 or text[number.end() : number.end() + 1] == "/":
        return None
    if (counts := COUNTS_AFTER.match(text, number.end())) and 50 <= int(counts[2]) >= int(counts[1]):
        correct, total = int(counts[1]), int(counts[2])
        return Accuracy(100 * correct / total, line, correct, total, 9), counts.end(), on
    return Accuracy(percent, line, decimals=decimals), number.end(), on


def _whose(lead: str, on: str, accuracy: Accuracy, default: str) -> str:
    if CLAIMS.search(lead[-60:]):
        return "claim"
    said = [*QUALIFIER.finditer(lead), *QUALIFIER.finditer(on)]
    kind = default or "unnamed"
    if said:
        kind = "train" if said[-1][1] or said[-1][3] else "test"
    if accuracy.total:
        kind = "train" if accuracy.total >= TRAIN_TOTAL else "test" if kind == "unnamed" else kind
    return "final" if kind in ("test", "unnamed") and FINAL.search(lead[-60:]) else kind


class _EpochTable:
    """Tables with a column of epochs and one of accuracies, as fastai, pandas and Markdown have them."""

    def __init__(self):
        self.columns: list[str] = []
        self.misses = 0

    def take(self, line: Line) -> list[_Event] | None:
        """The events of a row, [] for a heading or rule of the table, None where the line is none of it."""
        text = line.text
        lower = text[:400].lower()
        if "epoch" in lower and "acc" in lower and not re.search(r"\d", text) and len(text) < 400:
            columns = [column.lower() for column in _columns(text)]
            if len(columns) > 1 and any(_is_epoch(column) for column in columns):
                self.columns, self.misses = columns, 0
                return []
        if not self.columns:
            return None
        if re.fullmatch(r"[\s|:+=\-─━┼╇╪│┃]{3,400}", text):
            return []
        cells = _columns(text)
        offset = len(cells) - len(self.columns)
        if offset in (0, 1) and (row := self._row(line, cells[offset:])):
            return row
        self.misses += 1
        self.columns = self.columns if self.misses < 3 else []
        return None

    def _row(self, line: Line, cells: list[str]) -> list[_Event] | None:
        at = next(i for i, column in enumerate(self.columns) if _is_epoch(column))
        epoch = re.fullmatch(r"\**(?:epoch\s*)?(\d{1,4})(?:\s*/\s*(\d{1,4}))?\**", cells[at].strip(), re.I)
        if not epoch:
            return None
        events = [_Event("epoch", line, number=int(epoch[1]), of=int(epoch[2] or 0))]
        named = any(re.search("val|test", column) for column in self.columns)
        for column, cell in zip(self.columns, cells):
            number = NUMBER.match(cell.strip("* ✅⭐"))
            if "acc" not in column or not number or CLAIMS.search(column):
                continue
            percent, decimals = float(number[1]), len(number[1].partition(".")[2])
            percent, decimals = (100 * percent, decimals - 2) if percent <= 1 and not number[2] else (percent, decimals)
            said = QUALIFIER.search(column)
            kind = ("train" if said[1] or said[3] else "test") if said else "test" if named else "unnamed"
            if percent <= 100:
                events.append(_Event(kind, line, Accuracy(percent, line, decimals=decimals), form=f"table {column}"))
        return events if len(events) > 1 else None


def _is_epoch(column: str) -> bool:
    return column.strip("*# ").rstrip("s") == "epoch"


def _columns(text: str) -> list[str]:
    text = text.replace("│", "|").replace("┃", "|")
    if "|" in text:
        return [part.strip() for part in text.strip().strip("|").split("|")]
    return re.split(r"\s{2,}|\t", text.strip()) if re.search(r"\S\s{2,}\S|\t", text) else text.split()


def _training(run: list[_Event], document: Document, code: Code | None) -> Training:
    first, last = run[0].line, run[-1].line
    training = Training(document.name, first.cell, first)
    training.span = (first.cell, last.cell) if first.cell else (first.number, last.number)
    begun: Counter = Counter()
    for event in run:
        if event.kind == "bar" and event.form.startswith("test"):
            training.test_iterations[event.of] += event.complete
        elif event.kind == "bar":
            (training.iterations if event.complete else begun)[event.of] += 1
        elif event.kind == "images":
            training.train_images[event.of] += 1
        elif event.kind == "split":
            training.train_images[event.of] += 1
            training.validated_on = event.number
        elif event.kind == "claim":
            training.claims.append(event.accuracy)
        elif event.kind == "truncated":
            training.notes.append("the output is truncated, its beginning is not shown")
    training.iterations = training.iterations or begun  # widgets show only how they begin
    _split_bars(training)
    training.train = [event.accuracy for event in run if event.kind == "train"]
    training.train_images += Counter(a.total for a in training.train if a.total)
    _choose_series(training, run, document, code)
    _count_epochs(training, run)
    if len(training.accuracies) == 1 < training.epochs:  # tested once, after the last epoch
        training.after, training.accuracies = training.accuracies + training.after, []
    return training


def _split_bars(training: Training) -> None:
    """Bars that do not say so are of the test images where longer ones stand between them."""
    if len(training.iterations) == 2 and not training.test_iterations:
        (long, n), (short, m) = sorted(training.iterations.items(), reverse=True)
        if short < long and abs(n - m) <= 1 + n // 4:
            training.test_iterations[short] = training.iterations.pop(short)


def _choose_series(training: Training, run: list[_Event], document: Document, code: Code | None) -> None:
    """Of what was printed an epoch in several forms, the one with the most epochs, counts rather than percentages."""
    tests = [event for event in run if event.kind == "test"]
    prose = document.form == "text"
    if not tests:
        tests = [event for event in run if event.kind == "unnamed"]
        roles = {_role(event, code) for event in tests}
        if roles == {"train"}:
            training.train, tests = [event.accuracy for event in tests], []
        elif roles != {"test"} and tests and not (training.train and len(training.train) >= len(tests) > 1):
            training.images = "unnamed"
    series: dict[str, list[_Event]] = {}
    for event in tests:
        series.setdefault(event.form + ("/" if event.accuracy.total else ""), []).append(event)
    if prose:
        headed = any(event.kind in ("epoch", "bar") for event in run)
        series = {form: events for form, events in series.items() if _is_logged(events, headed)}
        kept = {id(event) for events in series.values() for event in events}
        training.claims += [event.accuracy for event in tests if id(event) not in kept]
    finals = [event.accuracy for event in run if event.kind == "final"]
    if not series:
        training.after += finals if not prose else []
        training.claims += finals if prose else []
        return
    longest = max(map(len, series.values()))
    usable = [events for events in series.values() if len(events) >= 0.8 * longest]
    chosen = max(usable, key=_worth)
    chosen = _one_an_epoch(chosen, run, training)
    decimals = _decimals(chosen)
    training.accuracies = [_precise(event.accuracy, decimals) for event in chosen]
    counted = set(map(id, chosen))
    others = [events[0] for events in series.values() if len(events) == 1 and id(events[0]) not in counted]
    training.after += [event.accuracy for event in others if event.line.number > chosen[-1].line.number] + finals


def _worth(events: list[_Event]) -> tuple:
    """Counts before percentages, test images before validation images, then more epochs and more decimals."""
    return bool(events[0].accuracy.total), "test" in events[0].form, len(events), _decimals(events)


def _is_logged(events: list[_Event], headed: bool) -> bool:
    """Whether lines of a text are a pasted log, with epochs or bars, rather than something that the author says."""
    return bool(events[0].accuracy.total) or len(events) > 2 or (headed and len(events) > 1) or "bar" in events[0].form


def _role(event: _Event, code: Code | None) -> str:
    """Whether the function that printed the line trains or tests."""
    said = letters(event.line.text.lower().partition("acc")[0])
    roles = {role for before, role in (code.prints if code else ()) if said.endswith(before)}
    return roles.pop() if len(roles) == 1 else ""


def _decimals(events: list[_Event]) -> int:
    return max(event.accuracy.decimals for event in events)


def _precise(accuracy: Accuracy, decimals: int) -> Accuracy:
    """99.4 among 99.37 and 99.42 was printed without its last zero."""
    return (
        accuracy
        if accuracy.total
        else Accuracy(accuracy.percent, accuracy.line, decimals=max(decimals, accuracy.decimals))
    )


def _one_an_epoch(events: list[_Event], run: list[_Event], training: Training) -> list[_Event]:
    """Where every epoch has the same form printed several times, the last of each."""
    groups: list[list[_Event]] = [[]]
    chosen = {id(event) for event in events}
    number = None
    for event in run:
        if event.kind == "epoch" and event.number != number:
            groups.append([])
            number = event.number
        elif id(event) in chosen:
            groups[-1].append(event)
    groups = [group for group in groups if group]
    sizes = {len(group) for group in groups}
    if len(groups) > 1 and len(sizes) == 1 and sizes != {1}:
        training.notes.append(f"{sizes.pop()} accuracies in the same form an epoch; the last of each is taken")
        return [group[-1] for group in groups]
    return events


def _count_epochs(training: Training, run: list[_Event]) -> None:
    numbers = list(dict.fromkeys(event.number for event in run if event.kind == "epoch"))
    bars = any(event.kind == "bar" and event.complete and not event.form.startswith("test") for event in run)
    scores = max(len(training.accuracies), len(training.train) if training.train and not training.accuracies else 0)
    training.announced = max((event.of for event in run if event.kind == "epoch"), default=0)
    training.epochs = max(scores, len(numbers))
    if not training.epochs and bars:
        training.epochs = max(training.iterations.values())
    if numbers and numbers[0] > 1 and len(numbers) > 1:
        training.first_epoch = numbers[0]


SAID_BEFORE = re.compile(r"(?<![\d.])(\d{2}(?:\.\d{1,3})?)\s?%?\**\s{0,2}(?:[a-z]{2,12}\s){0,3}acc", re.I)
WISHES = re.compile(
    r"target|goal|\baim|need|should|must|want|try|tried|expect|at least|less than|not able|could ?n.t|below|beyond",
    re.I,
)


def find_claims(lines: list[Line]) -> list[Accuracy]:
    """Test accuracies of at least 90% that prose says were reached; wishes are left out."""
    found = []
    for line in lines:
        text = line.text
        if "acc" not in text.lower() or WISHES.search(text[:400]):
            continue
        said = [e.accuracy for e in _accuracies(line, text, 0, "claim") if e.kind in ("claim", "test", "final")]
        if not said and (match := SAID_BEFORE.search(text)) and not re.search(TRAIN, match[0], re.I):
            said = [Accuracy(float(match[1]), line, decimals=len(match[1].partition(".")[2]))]
        reached = bool(CLAIMS.search(text))
        said = [a for a in said if reached or (a.percent, a.decimals) != (99.4, 1)]  # the assignment's own
        if not re.search(TRAIN, text[:60], re.I):
            found += [a for a in said if 90 <= a.percent <= 100]
    return found
