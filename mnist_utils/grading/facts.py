"""What the lines of a log say: epochs, bars and accuracies, in the order in which they stand.

    facts = read_facts(lines, words)

All is found in one pass over the lines, whose length is bounded, so that the time is linear
whatever a file holds. An accuracy is taken for one of test images
where its line, its bar or its counts say so; else it stays "unnamed".
"""

import re
from itertools import islice
from typing import NamedTuple

from .lines import Line
from .notebook import LOGGED
from .words import Words

# What may stand between a word for accuracy and its number.
ON_IMAGES = re.compile(r"\s{1,3}(?:of|on)\s[^:=|\d]{0,40}(\d{4,6})?[^:=|\d]{0,40}", re.I)
OF_A_CLASS = re.compile(
    r"\s{1,3}(?:of|for)\s{1,3}(?:class|digit|label|\d\b)|\s{1,3}(?:of|for)\s{1,3}"
    r"(?!the|net|model|test|train|val)['\"]?\w{1,14}['\"]?\s{0,9}[:=]",
    re.I,
)
BETWEEN = re.compile(
    r"(?:\.(?=[\s:=]))?(?:\s{0,3}(?:\([^()\d]{0,14}\)|\[[^\[\]\d]{0,8}\]))?[\s:=\-–|>*_~'\"│┃%:]{0,40}"
    r"(?:(?:is|was|of|at|tensor|es|ist|est)\b[\s(:=]{0,4})?[(\[]?\s{0,3}"
)
COUNTS = re.compile(
    r"(\d{1,6})(?:\.0)?\s{0,2}/\s{0,2}(\d{1,6})\b"
    r"(?:\s{0,3}[(=,:\[]{0,2}\s{0,3}\d{1,3}(?:[.,]\d{1,17})?\s{0,2}%)?"
)
COUNTS_AFTER = re.compile(r"\s{0,3}[(\[]\s{0,2}(\d{1,6})\s{0,2}/\s{0,2}(\d{1,6})\s{0,2}[)\]]")
NUMBER = re.compile(r"(\d{1,3}(?:[.,]\d{1,20})?|\.\d{1,20})(?!\.?\d|e-?\d|/)\s{0,2}(%?)")

# Progress bars: of tqdm, and of Keras 1 to 3.
BAR = re.compile(
    r"(?<!\d)(\d{1,3})%(?:\|[^|\n]{0,400}\|)?\s{0,3}(\d{1,9})/(\d{1,9})\s{0,3}\[([^\]\n]{0,400})\]?"
)
KERAS_BAR = re.compile(r"(?<!\d)(\d{1,6})/(\d{1,6})\s(?:\[[=>.]{10,60}\]|(?=[━╸╺])[━╸╺ ]{10,60})")
# Bytes of the archives of MNIST and Fashion-MNIST, also rounded up to blocks: bars of downloads.
DOWNLOADS = {28881, 32768, 4542, 8192, 29515, 5148}
MAX_WORDS = 60  # for epochs or accuracies that are looked at on one line
MAX_STEPS = 70_000  # of a bar over images

KERAS_LINE = re.compile(r"val_\w{0,20}acc|\s-\s(?:val_)?(?:loss|acc|accuracy):\s", re.I)
SPLIT = re.compile(r"train on (\d{1,6}) samples, validate on (\d{1,6}) samples", re.I)
EVALUATED = re.compile(
    r"\s{0,4}[\[(]\s{0,3}\d{1,2}\.\d{1,20}\s{0,2},\s{0,3}([01]\.\d{1,20})\s{0,3}[\])]\s*$"
)
TRUNCATED = re.compile(r"output truncated to the last|output exceeds the size limit", re.I)
HEADING = re.compile(
    r"\s{0,3}#{1,6}\s|\s{0,3}<h[1-6]|\s{0,3}(?:\*\*|__|<b>)[^*_]{3,80}(?:\*\*|__|</?b>|</?i>)\s?:?$",
    re.I,
)
# An epoch counts as a heading where it begins its line, and not in "the best was epoch 12".
EPOCH_LEAD = re.compile(
    r"[\W\d_]{0,60}(?:INFO|DEBUG|root)?[\W_]{0,40}(?:(?:current|start(?:ing|ed)?|train(?:ing)?|begin"
    r"|running|for|test|val|end of|after)\W{1,4}){0,2}$",
    re.I,
)
EPOCH_ASIDE = re.compile(
    r"best|reached|achieved|\bat\b|\bin\b|learning ?rate|saving|improve|early|@", re.I
)
TRAIN_TOTAL = 20_000  # an accuracy over more images is of training images, unless it says "test"


class Accuracy(NamedTuple):
    """An accuracy in percent; counts where they were printed, else rounded to `decimals`."""

    percent: float
    line: Line
    correct: int | None = None
    total: int | None = None
    decimals: int = 2

    @property
    def half(self) -> float:
        """By how many points the true value may differ."""
        return 0.0 if self.total or self.decimals >= 2 else 0.5 / 10**self.decimals

    def __str__(self) -> str:
        if self.total:
            return f"{100 * self.correct / self.total:.2f}% ({self.correct:,} of {self.total:,})"
        return f"{self.percent:.{max(0, min(self.decimals, 2))}f}%"


class Fact(NamedTuple):
    """One thing that a line says.

    `kind` is epoch (`number` of `of`), bar (`of` steps), split, section, truncated, or whose
    accuracy it is: one of ACCURACIES, of which "claim" is said of a best one and "final" measured
    at the end. `form` names the words before an accuracy; equal forms make a series. `said` is a
    person's. `start` is its place in the line.
    """

    kind: str
    line: Line
    accuracy: Accuracy | None = None
    number: int = 0
    of: int = 0
    form: str = ""
    complete: bool = True
    said: bool = False
    start: int = 0


ACCURACIES = ("test", "train", "unnamed", "claim", "final")


def read_facts(lines: list[Line], words: Words, prose: bool, source: str, most: int) -> list[Fact]:
    """What lines say, at most so many facts. `prose` is a text that a person wrote, with headings
    and fences; `source` is the code that printed the lines."""
    reader = _Reader(words, prose, bool(re.search(r"evaluate|score", source)))
    for line in lines:
        reader.take(line)
        if len(reader.found) >= most:
            break
    return reader.found


class _Reader:
    """Takes lines from first to last and keeps in `found` what they say; `evaluates` says that
    Keras' `evaluate` is called, whose result is a bare pair of loss and accuracy."""

    def __init__(self, words: Words, prose: bool, evaluates: bool):
        self.words = words
        self.prose = prose
        self.evaluates = evaluates
        self.found: list[Fact] = []
        self.table = EpochTable(words, self._accuracies)
        self.fenced = False
        self.context = ""  # whose accuracy a short line spoke of
        self.age = 9  # lines since then
        self.fresh = False  # an epoch began, and none of Keras' bars was complete since
        self.whole_bar: tuple = ()  # place and form of a complete bar, which may be drawn again
        self.whole_at = 0

    def take(self, line: Line) -> None:
        text = line.text
        if self.prose and text.lstrip().startswith("```"):
            self.fenced = not self.fenced
        elif self.prose and not self.fenced and HEADING.match(text[:200]):
            if not self._epochs(line, text[:200]):
                self.found.append(Fact("section", line))
        if "utput" in text and TRUNCATED.search(text):
            self.found.append(Fact("truncated", line))
        rows = self.table.take(line)
        for fact in self._facts(line) if rows is None else rows:
            if fact.kind == "bar":
                drawn = (line.at, fact.form, fact.of)
                if fact.complete and self.whole_bar == drawn:
                    # drawn again at its end: the later state counts
                    kept = [f for f in self.found[self.whole_at :] if f.form != fact.form]
                    self.found[self.whole_at :] = kept
                if fact.complete:
                    self.whole_bar = drawn
                    self.whole_at = len(self.found)
            self.fresh = self.fresh or fact.kind == "epoch"
            self.found.append(fact)

    def _facts(self, line: Line) -> list[Fact]:
        """What one line says, from left to right: bars, and what stands between and behind them."""
        text = line.text
        found: list[Fact] = []
        at = 0
        for match in BAR.finditer(text) if "[" in text else ():
            lead = text[at : match.start()]
            at = match.end()
            found += self._epochs(line, lead)
            percent, done, total, inside = match.groups()
            if not 1 < int(total) <= MAX_STEPS or int(total) in DOWNLOADS or "B/s" in inside:
                continue
            role = self.words.whose(lead)
            form = "test " * (role == "test") + "bar"
            complete = int(done) == int(total) and percent == "100"
            found.append(Fact("bar", line, of=int(total), form=form, complete=complete))
            if complete:
                found += self._accuracies(line, lead, role or "train", form)
                found += self._accuracies(line, inside, role or "train", form)
        rest = text[at:]
        said = self._said(line, rest)
        self.age += 1
        if len(rest) < 60 and "[" not in rest and not any(fact.accuracy for fact in said):
            if role := self.words.whose(rest):
                self.context = role
                self.age = 0
        return found + said

    def _said(self, line: Line, text: str) -> list[Fact]:
        """Epochs and accuracies of a piece of a line without tqdm's bars."""
        found = self._epochs(line, text)
        if match := "samples" in text and SPLIT.search(text):
            found.append(Fact("split", line, number=int(match[2]), of=int(match[1])))
        evaluation = False
        complete = True
        has_bar = re.search(r"\d \[[=>.]|\d ━", text)
        for match in KERAS_BAR.finditer(text) if has_bar else ():
            # a bar that no epoch went before is what `evaluate` draws
            again = self.whole_bar[:1] == (line.at,)
            evaluation = not (self.fresh or again or found or "val_" in text)
            total = int(match[2])
            complete = int(match[1]) == total
            self.fresh = self.fresh and not complete
            if total > 1:
                form = "test " * evaluation + "keras"
                bar = Fact("bar", line, of=total, form=form, complete=complete)
                found.append(bar._replace(start=match.start()))
        accuracies = []
        if complete:
            accuracies = self._accuracies(line, text, self.context * (self.age < 3))
        if self.evaluates and (match := EVALUATED.match(text)):
            accuracies.append(Fact("final", line, _share(match[1], "", line), form="evaluate"))
        if evaluation:
            accuracies = [fact._replace(kind="final", form="evaluate") for fact in accuracies]
        found += accuracies
        if sum(fact.kind == "epoch" for fact in found) > 1:  # on one line, each with what follows
            found.sort(key=lambda fact: fact.start)
        return found

    def _epochs(self, line: Line, text: str) -> list[Fact]:
        found = []
        if not self.words.says("epoch", text):
            return found
        for match in islice(self.words.epoch.finditer(text), MAX_WORDS):
            before = text[max(0, match.start() - 100) : match.start()]
            starts = match.start() < 100 and EPOCH_LEAD.match(before)
            named = re.search(r"[:=/\[]", match[0]) and not EPOCH_ASIDE.search(before)
            # "epochs: 15" says how many there are, not which one it is
            is_count = match[1][-1] in "sn" and not match[3]
            if (starts or named) and not is_count:
                fact = Fact("epoch", line, number=int(match[2]), of=int(match[3] or 0))
                found.append(fact._replace(start=match.start()))
        return found

    def _accuracies(self, line: Line, text: str, default: str, form: str = "") -> list[Fact]:
        """Each accuracy with whose it is: the nearest word to its left says so."""
        found: list[Fact] = []
        at = 0
        if not self.words.says("accuracy", text):
            return found
        if not form and KERAS_LINE.search(text):
            default = "train"
        for match in islice(self.words.accuracy.finditer(text), MAX_WORDS):
            value = match.start() >= at and _value(line, text, match, self.words)
            if not value:
                continue
            accuracy, end, between = value
            lead = text[at : match.end()]
            at = end
            role = self.words.whose(between) or self.words.whose(lead)
            kind = role or default or "unnamed"
            if accuracy.total and not role:
                kind = "train" if accuracy.total >= TRAIN_TOTAL else default or "test"
            if self.words.claim.search(lead[-60:]):
                kind = "claim"
            elif kind in ("test", "unnamed") and self.words.final.search(lead[-60:]):
                kind = "final"
            name = f"{form or letters(lead)[-40:]}{accuracy.total or ''}"
            is_log = self.fenced or accuracy.total or form or LOGGED.match(line.text)
            said = self.prose and not is_log
            found.append(Fact(kind, line, accuracy, form=name, said=said, start=match.start()))
        return found


def _value(
    line: Line, text: str, match: re.Match, words: Words
) -> tuple[Accuracy, int, str] | None:
    """The number that belongs to a word for accuracy, where it ends, and the words between."""
    at = match.end()
    if OF_A_CLASS.match(text, at):
        return None
    if images := ON_IMAGES.match(text, at) or words.owner.match(text, at):
        at = images.end()
    at = BETWEEN.match(text, at).end()
    between = text[match.end() : at]
    number = NUMBER.match(text, at)
    counts = COUNTS.match(text, at) or (number and COUNTS_AFTER.match(text, number.end()))
    if counts:
        correct, total = int(counts[1]), int(counts[2])
        if 50 <= total and correct <= total:
            accuracy = Accuracy(100 * correct / total, line, correct, total, 9)
            return accuracy, counts.end(), between
    # "correct: 95" counts images of a batch, "correct: 95.00" is a share
    is_count = match[0].lower().endswith("correct") and number and "." not in number[0] + number[2]
    if not number or (is_count and not number[2]):
        return None
    accuracy = _share(number[1], number[2], line)
    return (accuracy, number.end(), between) if accuracy else None


def _share(number: str, sign: str, line: Line) -> Accuracy | None:
    """ "99.42", "99,42" or "0.9942" as an accuracy; None where it cannot be one."""
    digits = number.replace(",", ".")
    percent = float(digits)
    decimals = len(digits.partition(".")[2])
    if percent <= 1 and not sign:
        if not decimals:
            return None
        percent *= 100
        decimals -= 2
    return Accuracy(percent, line, decimals=decimals) if percent <= 100 else None


def letters(text: str) -> str:
    """Its letters alone, in lower case."""
    return "".join(filter(str.isalpha, text)).lower()


class EpochTable:
    """Tables with a row an epoch, as fastai, pandas and Markdown have them.

    The epoch's column comes first and its numbers rise. A table that names models, parameters or
    settings in another column is one of experiments, whose "epochs" are how many each took.
    """

    EXPERIMENTS = re.compile(r"param|model|arch|exper|\bexp\b|version|\brun\b|batch|iter", re.I)
    EPOCH = re.compile(r"\**(?:epoch\s*)?(\d{1,4})(?:\s*/\s*(\d{1,4}))?\**", re.I)

    def __init__(self, words: Words, read):
        self.words = words
        self.read = read  # the accuracies of a line
        self.columns: list[str] = []
        self.is_epochs = False
        self.misses = self.last = 0

    def take(self, line: Line) -> list[Fact] | None:
        """The facts of a row, [] of a heading or rule, None where it is no line of a table."""
        if self._begins(line.text):
            return []
        if not self.columns:
            return None
        if re.fullmatch(r"[\s|:+=\-─━┼╇╪│┃]{3,400}", line.text):
            return []
        cells = split_columns(line.text)
        offset = len(cells) - len(self.columns)  # pandas puts a number before the first column
        if offset in (0, 1):
            # each is read like a line that has its column's name before it
            tests = any(self.words.whose(column) == "test" for column in self.columns)
            default = "test" * tests
            found: list[Fact] = []
            for column, cell in zip(self.columns, cells[offset:]):
                text = f"{column}: {cell.strip('* ✅⭐')}"
                found += self.read(line, text, default, f"table {column}")
            found = [fact for fact in found if fact.kind != "claim"]
            if not self.is_epochs:
                return [fact._replace(kind="claim") for fact in found if fact.kind != "train"]
            epoch = self.EPOCH.fullmatch(cells[offset].strip())
            if epoch and found and (int(epoch[1]) > self.last or int(epoch[1]) < 2):
                self.last = int(epoch[1])
                return [Fact("epoch", line, number=self.last, of=int(epoch[2] or 0)), *found]
        self.misses += 1
        self.columns = self.columns if self.misses < 3 else []
        return None

    def _begins(self, text: str) -> bool:
        words = self.words
        if len(text) > 400 or not (words.says("epoch", text) and words.says("accuracy", text)):
            return False
        columns = [column.strip("*# ") for column in split_columns(text.lower())]
        # the word alone, which has no number: a plural counts as much as a singular
        epochs = [bool(self.words.epoch.fullmatch(f"{column} 1")) for column in columns]
        if len(columns) < 2 or not any(epochs) or re.search(r"\d[.%]", text):
            return False
        first = next((i for i, column in enumerate(columns) if column), 0)
        others = any(self.EXPERIMENTS.search(column) for column in columns)
        is_epochs = epochs[first] and not others
        if not is_epochs and "|" not in text:  # a sentence
            return False
        self.columns = columns[first:]
        self.is_epochs = is_epochs
        self.misses = 0
        self.last = -1
        return True


def split_columns(text: str) -> list[str]:
    """A line of a table as its columns, between bars, wide gaps or blanks."""
    text = text.replace("│", "|").replace("┃", "|").strip()
    if "|" in text:
        return [part.strip() for part in text.strip("|").split("|")]
    columns = re.split(r"\s{2,}|\t", text)
    return columns if len(columns) > 1 else text.split()
