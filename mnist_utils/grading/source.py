"""What the code of a notebook says: models, their layers, which cell makes and uses them.

    code = read_code(document, helpers)
    code.models["Net"].layers

The text of the code is searched and never executed. What does not parse was never run as it stands:
its fully connected layers are noted, and decide nothing.
"""

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

from .facts import letters
from .lines import Line, check_time
from .tables import layer_kind

MAX_SOURCE = 100_000  # characters of one cell that are read
MAX_PARSED = 1_000_000  # characters of one document that are read
MAGIC = re.compile(r"^(\s*)(?:[%!?]|\w[\w., ]{0,80}=\s*[!%]|[\w.]{1,80}\?{1,2}\s*$).*")
CELL_MAGIC = re.compile(r"\s*%%(?:time|timeit|capture|prun|python3?|(?:write)?file .*\.py)\b")
COMMENT = re.compile(r"#[^\n]*|('''|\"\"\").*?\1", re.S)
# A class or function is its line and all that is indented below it.
CLASS = re.compile(r"^class\s+(\w+)\s*\(([^)\n]{0,200})\)\s*:(.*?)(?=^\S|\Z)", re.M | re.S)
FUNCTION = re.compile(r"^([ \t]*)def\s+(\w+)\s*\((.*?)(?=^\1?\S|\Z)", re.M | re.S)
SEQUENTIAL = re.compile(
    r"^[ \t]*(\w+)(?:\s*=\s*(?:\w+\.){0,4}Sequential|\.add)\s*\((.*?)(?=^[ \t]*\w+\s*[.=]|^\S|\Z)",
    re.M | re.S,
)
MADE = re.compile(r"^[ \t]*(\w+)\s*=(?!=)\s*(.*)", re.M)
SUMMARY = re.compile(r"(?:summary\s*\(\s*(?:model\s*=\s*)?(\w+)|(\w+)\.summary\s*\()")
# a functional layer, an attribute that is set, or a call of a class with its module
PART = re.compile(
    r"\bF(?:unctional)?\.((?:bi)?linear|dropout|(?:adaptive_)?avg_pool2d)\s*\("
    r"|self\.(\w+)\s*=(?!=)|(?<![\w.])((?:\w+\.){0,4})([A-Z]\w*)\s*\(",
)
LINEAR = re.compile(r"(?:nn\.|layers\.|[=(]\s{0,4})(?:Linear|LazyLinear|Dense)\s{0,4}\(")
BASES = re.compile(r"\b(?:Module|LightningModule|Model|Sequential)\b")
IS_WEIGHTED = re.compile(
    r"(?:Lazy)?(?:Conv|Convolution|DepthwiseConv|SeparableConv)\w*[123][dD]$"
    r"|^(?:Lazy)?Linear$|^Dense$"
)
LIBRARY = re.compile(
    r"[123][dD]$|(?:Norm|Normalization|Dropout|ReLU|LU|Softmax|Sigmoid|Tanh|Swish|Mish)$"
    r"|^(?:Lazy)?Linear$|^(?:Dense|Flatten|Unflatten|Activation|Input|Identity|Sequential"
    r"|ModuleList|ModuleDict|Parameter|Lambda|Reshape)$"
)
KERNEL = re.compile(r"kernel_size\s*=\s*\(?\s*(\d+)(?:\s*,\s*(\d+))?")
BATCH_SIZE = re.compile(r"batch_?size['\"]?\s{0,4}[=:]\s{0,4}(\w+)", re.I)
NUMBERS = re.compile(r"^\s{0,40}(\w{1,60})\s{0,4}=\s{0,4}(\d{1,6})\s{0,4}(?:#|$)", re.M)
ACCURACY_TEXT = re.compile(r"['\"]([^'\"\n]{0,200}?)acc", re.I)


class Layer(NamedTuple):
    """A layer that code makes, kept in an attribute or "functional"; `kernel` is its largest side
    in pixels, None where that is unknown."""

    kind: str
    attribute: str
    line: Line
    kernel: int | None = None


@dataclass(eq=False)
class Model:
    """A class or Sequential that is a network, with the layers that it uses, also those of
    classes in it. `known` says that all its parts were read."""

    name: str
    layers: list[Layer] = field(default_factory=list)
    known: bool = True

    def of(self, kind: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind == kind]


class CellCode(NamedTuple):
    """The models that a cell makes, those that it uses (or else defines), and those it
    summarises."""

    made: list[Model]
    used: list[Model]
    summarised: list[Model]


@dataclass
class Code:
    """All code of a document, cell by cell; `held` are variables that hold a model."""

    cells: dict[int, CellCode] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    held: dict[str, Model] = field(default_factory=dict)
    batch_sizes: set[int] = field(default_factory=set)
    unparsed: list[Line] = field(default_factory=list)  # fully connected layers in broken code
    prints: dict[str, set[str]] = field(default_factory=dict)  # letters before "acc", whose it is
    last_made: dict[int, Model | None] = field(default_factory=dict)  # at the end of each cell

    def role_of(self, said: str) -> str:
        """Whether the function that prints such a line trains or tests; `said` has letters only."""
        roles: set[str] = set()
        for length in range(min(24, len(said)) + 1):
            roles |= self.prints.get(said[len(said) - length :], set())
        return roles.pop() if len(roles) == 1 else ""


def read_code(document, helpers=()) -> Code:
    """The code of a document; `helpers` are Python files beside it, which may hold its models."""
    code, left, last = Code(), MAX_PARSED, None
    for source in [*helpers, document]:
        for cell in source.cells:
            check_time()
            left -= len(cell.source)
            if cell.kind == "code" and len(cell.source) <= min(MAX_SOURCE, left):
                known = len(code.models)
                found = _read_cell(source, cell, code)
                defined = list(code.models.values())[known:]
                last = [last, *defined, *found.made][-1]
                if source is document:
                    code.cells[cell.number] = found
            if source is document:
                code.last_made[cell.number] = last
    return code


def parses(text: str) -> bool:
    """Whether a cell is Python, its IPython lines passed over."""
    lines = [MAGIC.sub(r"\1pass", line[:400]) + line[400:] for line in text.split("\n")]
    if lines[0].lstrip().startswith("pass") and text.lstrip().startswith("%%"):
        return bool(CELL_MAGIC.match(text))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _read_cell(document, cell, code: Code) -> CellCode:
    lines = cell.source.split("\n")
    place = (document.name, cell.number * (document.form != "python"), cell.count, "source")
    # comments and texts over several lines are blanked, so that places stay as they are
    text = COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), cell.source)

    def line_at(offset: int) -> Line:
        number = text.count("\n", 0, offset) + 1
        return Line(lines[number - 1][:400], *place, number)

    numbers = dict(NUMBERS.findall(text))
    sizes = [numbers.get(value, value) for value in BATCH_SIZE.findall(text)]
    code.batch_sizes |= {int(size) for size in sizes if re.fullmatch("[1-9][0-9]{0,4}", size)}
    if not parses(cell.source):
        code.unparsed += [line_at(match.start()) for match in LINEAR.finditer(text)]
        return CellCode([], [], [])
    defined = []
    for match in CLASS.finditer(text):
        bases = re.findall(r"\w+", match[2])
        if BASES.search(match[2]) or code.models.keys() & set(bases):
            model = _read_class(match, code, line_at)
            inherited = [code.models[base].layers for base in bases if base in code.models]
            model.layers += [layer for layers in inherited for layer in layers]
            code.models.pop(model.name, None)  # of equal names the last
            code.models[model.name] = model
            defined.append(model)
    for match in FUNCTION.finditer(text):
        _note_prints(match[2].lower(), match[3], code)
    outside = CLASS.sub("", text)
    made = _read_made(outside, code)
    for match in SEQUENTIAL.finditer(text):
        if match[1] in code.held:
            _read_parts(code.held[match[1]], text, match.span(2), code, line_at)
    names = code.models | code.held
    summarised = [names[a or b] for a, b in SUMMARY.findall(text) if (a or b) in names]
    words = dict.fromkeys(re.findall(r"\w+", FUNCTION.sub("", outside)))
    used = list(dict.fromkeys(names[word] for word in words if word in names))
    return CellCode(made, used or defined[-1:], summarised)


def _read_made(text: str, code: Code) -> list[Model]:
    """The models that a piece of code makes; their variables are kept in `code.held`."""
    made = []
    for match in MADE.finditer(text):
        name = match[1]
        value = match[2][:400]
        called = [w for w in re.findall(r"(\w+)\s*\(", value) if w in code.models]
        copied = re.match(r"(\w+)(?:\s*$|\.(?:to|cuda|type)\s*\()", value)
        model = None
        if re.match(r"(?:\w+\.){0,4}Sequential\s*\(", value):
            model = code.models[name] = Model(name)
        elif called:
            model = code.models[called[0]]
        elif copied:
            model = code.held.get(copied[1])
        if model:
            code.held[name] = model
            made.append(model)
    return made


def _read_class(match: re.Match, code: Code, line_at) -> Model:
    """The layers that a class makes in its __init__ and uses in its other methods."""
    model, used, body = Model(match[1]), set(), match.start(3)
    methods = {found[2]: found for found in FUNCTION.finditer(match[3])}
    for name, found in methods.items():
        span = (body + found.start(3), body + found.end(3))
        _read_parts(model, match.string, span, code, line_at)
        if name != "__init__":
            used |= set(re.findall(r"self\.(\w+)(?!\s*=[^=])", found[3]))
    if used:
        model.layers = [x for x in model.layers if x.attribute in used | {"", "functional"}]
    return model


def _read_parts(model: Model, text: str, span: tuple[int, int], code: Code, line_at) -> None:
    """Add the layers that a piece of a class or Sequential makes, in the order of the text."""
    attribute = ""
    for match in PART.finditer(text, *span):
        line, owner, name = line_at(match.start()), match[3], match[4]
        if match[1]:
            kind = layer_kind(match[1].replace("adaptive_avg", "global_avg"))
            model.layers.append(Layer(kind, "functional", line))
        elif match[2]:
            attribute = match[2]
        elif name in code.models:
            model.layers += [x._replace(attribute=attribute) for x in code.models[name].layers]
            model.known = model.known and code.models[name].known
        else:
            model.known = model.known and bool(owner or LIBRARY.search(name))
            kind = layer_kind(name.replace("AdaptiveAvg", "GlobalAvg"))
            weighted = kind in ("fully connected", "convolution")
            if kind and (not weighted or IS_WEIGHTED.search(name)):
                kernel = _kernel(name, text[match.end() : match.end() + 200])
                model.layers.append(Layer(kind, attribute, line, kernel))


def _kernel(name: str, arguments: str) -> int | None:
    """The largest side of a convolution's kernel: Keras' second argument, torch's third."""
    sides = KERNEL.search(arguments.partition(")\n")[0])
    if not sides:
        place = 1 if name.endswith("D") else 2
        sides = re.match(rf"(?:[^,()]*,){{{place}}}\s*\(?\s*(\d+)\s*(?:,\s*(\d+)\s*\))?", arguments)
    if not sides or "dilation" in arguments.partition(")")[0]:
        return None
    return max(int(side) for side in sides.groups() if side)


def _note_prints(name: str, body: str, code: Code) -> None:
    """The letters before each "acc" that a function prints, and whether it trains or tests."""
    trains, tests = "backward(" in body, re.search(r"\.eval\(|no_grad|inference_mode", body)
    role = ""
    if re.search("test|val", name):
        role = "test"
    elif re.search("train|fit", name) or trains:
        role = "train"
    elif tests:
        role = "test"
    if role and not (trains and ".eval(" in body):
        for before in ACCURACY_TEXT.findall(body):
            code.prints.setdefault(letters(before)[-24:], set()).add(role)
