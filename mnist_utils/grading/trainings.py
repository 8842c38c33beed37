"""From the facts of a log to its trainings: which epochs belong together and what was measured.

    for training in find_trainings(document, facts, code): training.last, training.best

A test is an epoch's only where an epoch was logged. What is tested once, after a training or
without one, is kept as `after`; what repeats the numbers of an earlier training is that training.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from .facts import ACCURACIES, Accuracy, Fact, letters
from .lines import Line, check_time
from .source import Code

MAX_TRAININGS = 200  # of one document
TRAINS = re.compile(
    r"(?<![\w.])(?:train|fit|learn|run)\w*\s*\(|\.(?:fit|backward|fit_generator|train_\w+)\s*\("
    r"|for\s+epoch"
)
EVALUATES = re.compile(r"load_state_dict|load_model|load_weights|(?<!\w)test\w*\s*\(|eval\w*\s*\(")


@dataclass
class Training:
    """One training as logged: an accuracy an epoch, in order, and what stands around it.

    `images` is "test" or "unnamed"; `epochs` is how many the log shows, 0 where it shows none;
    `announced` how many it says will come; `numbers` the epoch of each accuracy, from 1; `after`
    what was measured again at the end; `claims` what the text says of a best epoch; `line` and
    `end` are its first and last line.
    """

    line: Line
    end: Line
    accuracies: list[Accuracy] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    images: str = "test"
    epochs: int = 0
    announced: int = 0
    first_epoch: int = 1
    iterations: Counter = field(default_factory=Counter)
    test_iterations: Counter = field(default_factory=Counter)
    train: list[Accuracy] = field(default_factory=list)
    after: list[Accuracy] = field(default_factory=list)
    claims: list[Accuracy] = field(default_factory=list)
    truncated: bool = False
    validated_on: int = 0  # images, where Keras says so
    continues: Line | None = None  # where the training of the same model began

    @property
    def last(self) -> Accuracy | None:
        return next(reversed(self.accuracies), None)

    @property
    def best(self) -> Accuracy | None:
        return max(self.accuracies, key=lambda a: a.percent, default=None)

    @property
    def best_epoch(self) -> int:
        return self.epoch_of(self.best)

    def epoch_of(self, accuracy: Accuracy | None) -> int:
        """Which epoch gave it, as the log numbers them from 1; 0 for none."""
        pairs = zip(self.accuracies, self.numbers)
        return next((number for one, number in pairs if one == accuracy), 0)


def find_trainings(document, facts: dict[int, list[Fact]], code: Code) -> list[Training]:
    """The trainings that a document logs, in their order; where it logs none, what was tested
    once, or what a text says, as one without epochs. `facts` are those of each cell."""
    is_text = document.form == "text"
    trainings: list[Training] = []
    rest = Training(Line("", ""), Line("", ""))  # what belongs to none of them
    last_run: list[Fact] = []
    for cell in document.cells:
        for run in _runs(_numbered(facts.get(cell.number, []))):
            check_time()
            training = _training(run, code)
            if _goes_on(last_run, run, code):
                last_run += run
                trainings[-1] = _training(last_run, code)
            elif not _is_training(training, run, document, cell):
                before = trainings[-1] if trainings and not is_text else rest
                before.after += training.accuracies + training.after
                before.claims += training.claims
            elif earlier := next((t for t in trainings[-3:] if _repeats(training, t)), None):
                _take_over(training, earlier)
            elif len(trainings) < MAX_TRAININGS:
                if trainings and _trains_on(trainings[-1], cell, document, code):
                    training.continues = trainings[-1].line
                    training.epochs += trainings[-1].epochs
                trainings.append(training)
                last_run = run
    if is_text:  # what a text says was tested is only said
        rest.claims = sorted(rest.claims + rest.after, key=lambda accuracy: accuracy.line.at)
        rest.after = []
    for training in trainings:
        training.claims += rest.claims
    if not trainings and (rest.after or rest.claims):
        rest.line = rest.end = (rest.after or rest.claims)[0].line
        return [rest]
    return trainings


def _numbered(facts: list[Fact]) -> list[Fact]:
    """The facts with "Epoch 1/1" numbered on: Keras prints it where an epoch is a `fit` each.
    Beside other headings it says nothing."""
    headings = [fact for fact in facts if fact.kind == "epoch"]
    if any(fact.of != 1 for fact in headings):
        return [fact for fact in facts if fact.kind != "epoch" or fact.of != 1]
    if len(headings) < 2:
        return facts
    numbers = count(1)
    return [f._replace(number=next(numbers), of=0) if f.kind == "epoch" else f for f in facts]


def _runs(facts: list[Fact]) -> list[list[Fact]]:
    """Facts cut where the epochs begin anew, or a text begins a new section."""
    runs: list[list[Fact]] = [[]]
    numbers: list[int] = []  # of this run's epochs
    section = False
    for fact in facts:
        if fact.kind == "section":
            section = True
            continue
        is_next = is_anew = False
        if fact.kind == "epoch" and numbers:
            is_next = fact.number == numbers[-1] + 1
            is_anew = numbers[0] >= fact.number < numbers[-1]
        if is_anew or (section and not is_next):
            runs.append([])
            numbers = []
        section = False
        runs[-1].append(fact)
        if fact.kind == "epoch":
            numbers.append(fact.number)
    # what stands before the first accuracy or bar belongs to what follows; a heading counts nothing
    kept: list[list[Fact]] = []
    before: list[Fact] = []
    for run in runs:
        headings = sum(fact.kind == "epoch" for fact in run)
        if headings > 1 or any(f.kind == "bar" or f.kind in ACCURACIES for f in run):
            kept.append(before + run)
            before = []
        else:
            before += [fact for fact in run if fact.kind != "epoch"]
    return [*kept, before] if before else kept


def _goes_on(before: list[Fact], run: list[Fact], code: Code) -> bool:
    """Whether a run of a later cell counts on, with no model made anew in between."""
    numbers = [fact.number for fact in before if fact.kind == "epoch"]
    first = next((fact.number for fact in run if fact.kind == "epoch"), None)
    if not numbers or first != numbers[-1] + 1 or before[-1].line.cell == run[0].line.cell:
        return False
    between = range(before[-1].line.cell + 1, run[0].line.cell + 1)
    return not any(code.made.get(number) for number in between)


def _trains_on(before: Training, cell, document, code: Code) -> bool:
    """Whether a cell trains the model of a training before, though it counts its epochs from 1."""
    earlier = next((c for c in document.cells if c.number == before.end.cell), cell)
    models = code.held.keys() & code.handed.get(cell.number, set())
    if len(models) != 1 or models != code.held.keys() & code.handed.get(earlier.number, set()):
        return False
    if earlier == cell:
        return not models & code.renewed_late.get(cell.number, set())
    for other in document.cells:
        is_between = earlier.number < other.number <= cell.number
        if earlier.count and cell.count and other.count:  # known in which order they were run
            is_between = earlier.count < other.count <= cell.count
        if is_between and models & code.renewed.get(other.number, set()):
            return False
    return not (earlier.count and cell.count) or earlier.count < cell.count


def _is_training(training: Training, run: list[Fact], document, cell) -> bool:
    """Whether a run logs epochs, rather than tests something or says how a training ended."""
    epochs = training.epochs
    measured = training.accuracies or training.train
    if document.prose:
        is_whole = training.iterations and training.first_epoch < 2
        return bool(measured and (epochs > 1 or (is_whole and epochs)))
    if any(fact.kind == "epoch" for fact in run):
        return epochs > 1 or bool(epochs and (measured or training.after))
    if TRAINS.search(cell.source):
        return epochs > 0
    return epochs > 1 and not EVALUATES.search(cell.source)


def _training(run: list[Fact], code: Code) -> Training:
    """What a run says, put together."""
    training = Training(run[0].line, run[-1].line)
    for fact in run:
        if fact.kind == "bar" and fact.form.startswith("test"):
            training.test_iterations[fact.of] += fact.complete
        elif fact.kind == "bar" and fact.complete:
            training.iterations[fact.of] += 1
        elif fact.kind == "split":
            training.validated_on = fact.number
        elif fact.kind == "claim":
            training.claims.append(fact.accuracy)
        elif fact.kind == "train":
            training.train.append(fact.accuracy)
        elif fact.kind == "truncated":
            training.truncated = True
    if len(training.iterations) == 2 and not training.test_iterations:
        # bars that do not say so are of test images where longer ones stand between them
        (_, n), (short, m) = sorted(training.iterations.items(), reverse=True)
        if abs(n - m) <= 1 + n // 4:
            training.test_iterations[short] = training.iterations.pop(short)
    _choose_series(training, run, code)
    _count_epochs(training, run)
    if len(training.accuracies) == 1 < training.epochs:  # tested once, after the last epoch
        training.after = training.accuracies + training.after
        training.accuracies = []
    return training


def _choose_series(training: Training, run: list[Fact], code: Code) -> None:
    """Of what was printed an epoch in several forms, the one with counts, or the most epochs."""
    tests = [fact for fact in run if fact.kind == "test"]
    finals = [fact for fact in run if fact.kind == "final"]
    if not tests:
        # images that no line names, unless the function that printed them says which
        tests = [fact for fact in run if fact.kind == "unnamed"]
        before = {letters(fact.line.text.lower().partition("acc")[0]) for fact in tests}
        roles = {code.role_of(said) for said in before}
        if roles == {"train"}:
            training.train = [fact.accuracy for fact in tests]
            tests = []
        elif tests and roles != {"test"} and not len(training.train) >= len(tests) > 1:
            training.images = "unnamed"
    if not tests and len(finals) > 2:  # Keras' evaluate, called after each epoch
        tests = finals
        finals = []
    headed = sum(fact.kind in ("epoch", "bar") for fact in run) > 1
    series: dict[str, list[Fact]] = {}
    for fact in tests:
        series.setdefault(fact.form, []).append(fact)
    for form, facts in list(series.items()):
        # a log that was pasted into a text, rather than something that its author says
        is_log = not facts[0].said or form.startswith("table") or (headed and len(facts) > 1)
        if not is_log:
            training.claims += [fact.accuracy for fact in series.pop(form)]
    if series:
        longest = max(map(len, series.values()))
        chosen = max((f for f in series.values() if len(f) >= 0.8 * longest), key=_worth)
        _take_series(training, run, chosen)
        others = [f[0] for f in series.values() if len(f) == 1 and f is not chosen]
        finals = [fact for fact in others if fact.line.at > chosen[-1].line.at] + finals
    training.after += [fact.accuracy for fact in finals]


def _worth(facts: list[Fact]) -> tuple:
    """The 10,000 test images, then counts, "test" before "validation", more epochs and decimals."""
    first = facts[0].accuracy
    decimals = max(fact.accuracy.decimals for fact in facts)
    return first.total == 10_000, bool(first.total), "test" in facts[0].form, len(facts), decimals


def _take_series(training: Training, run: list[Fact], chosen: list[Fact]) -> None:
    """The accuracy of each epoch; what is tested again after the last one is kept as `after`.

    An epoch begins with a heading, with a bar over the training images or with their accuracy.
    Where these do not stand between the tests, as on another stream, each test is an epoch's.
    """
    wanted = (chosen[0].kind, chosen[0].form)
    groups: list[tuple[int | None, list[Fact]]] = []
    number = None
    begins = True
    for fact in run:
        if (fact.kind, fact.form) == wanted:
            groups += [(number, [])] * begins
            begins = False
            groups[-1][1].append(fact)
        elif fact.kind == "epoch":
            begins = begins or fact.number != number
            number = fact.number
        elif fact.kind == "train" or (fact.kind == "bar" and fact.form in ("bar", "keras")):
            same = number is not None and groups and groups[-1][0] == number
            begins = begins or (fact.complete and not same)
    if len(groups) < 0.4 * len(chosen):
        groups = [(None, [fact]) for fact in chosen]
    usual = Counter(len(facts) for _, facts in groups[:-1] or groups).most_common(1)[0][0]
    decimals = max(fact.accuracy.decimals for fact in chosen)
    zero = any(fact.kind == "epoch" and fact.number == 0 for fact in run)
    for index, (number, facts) in enumerate(groups, 1):
        accuracy = facts[min(usual, len(facts)) - 1].accuracy
        if not accuracy.total:  # 99.4 among 99.37 and 99.42 was printed without its last zero
            accuracy = accuracy._replace(decimals=decimals)
        training.accuracies.append(accuracy)
        training.numbers.append(index if number is None else number + zero)
    if len(set(training.numbers)) < len(groups):
        training.numbers = list(range(1, len(groups) + 1))
    training.after += [fact.accuracy for fact in groups[-1][1][usual:]]


def _count_epochs(training: Training, run: list[Fact]) -> None:
    headings = [fact for fact in run if fact.kind == "epoch"]
    numbers = list(dict.fromkeys(fact.number for fact in headings))
    training.announced = max((fact.of for fact in headings), default=0)
    if len(numbers) > 1:
        # the last epoch was stopped where nothing of it was finished, but something of the one before
        places = {fact.number: i for i, fact in enumerate(run) if fact.kind == "epoch"}
        last = places[numbers[-1]]
        done = [f.kind in ACCURACIES or (f.kind == "bar" and f.complete) for f in run]
        if any(done[places[numbers[-2]] : last]) and not any(done[last:]):
            numbers.pop()
    # one accuracy alone may have been measured at any time
    forms = Counter(fact.form for fact in run if fact.kind == "train")
    trained = max(forms.values(), default=0)
    passes = max(training.iterations.values(), default=0)
    training.epochs = max(len(numbers), len(training.accuracies))
    if not numbers and training.epochs < 2:
        training.epochs = max(passes, trained * (trained > 1))
    if len(numbers) < 2:
        return
    low, high = min(numbers), max(numbers)
    if numbers == sorted(numbers) and high - low + 1 > len(numbers):  # every fifth, or chosen ones
        training.epochs = high + (low == 0)
        if low > numbers[1] - numbers[0]:
            training.first_epoch = low
            training.epochs -= low - 1
    elif numbers[0] > 1:
        # a first heading may be missing where its accuracy is not
        training.first_epoch = max(1, numbers[-1] - training.epochs + 1)


def _repeats(later: Training, earlier: Training) -> bool:
    """Whether a later list says again what an earlier training logged, epoch by epoch."""
    if later.iterations or not later.accuracies:
        return False
    if not earlier.accuracies:
        return len(later.accuracies) == earlier.epochs > 1
    known = dict(zip(earlier.numbers, earlier.accuracies))
    for number, accuracy in zip(later.numbers, later.accuracies):
        other = known.get(number)
        if not other:
            return False
        rounded = 0.5 / 10 ** min(accuracy.decimals, other.decimals, 2)
        if abs(accuracy.percent - other.percent) > 1.01 * rounded:
            return False
    return True


def _take_over(later: Training, earlier: Training) -> None:
    """Take from a later list what it says more exactly."""
    old, new = earlier.last, later.last
    if len(later.accuracies) >= max(2, len(earlier.accuracies)):
        if old is None or (bool(new.total), new.decimals) > (bool(old.total), old.decimals):
            earlier.accuracies = later.accuracies
            earlier.numbers = later.numbers
            earlier.images = later.images
    earlier.after += later.after
    earlier.claims += later.claims
