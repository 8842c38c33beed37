"""What the code of a notebook says: models, their layers, which cell makes and uses them.

    code = read_code(document, helpers)
    code.models["Net"].layers

The code is parsed and never executed. What does not parse was never run as it stands: its fully
connected layers are noted, and decide nothing.
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
MAX_LAYERS = 1_000  # of one model, whose parts may hold each other many times over
MAX_NAMES = 100  # outer variables of one function, which many cells may call
MAGIC = re.compile(r"^(\s*)(?:[%!?]|\w[\w., ]{0,80}=\s*[!%]|[\w.]{1,80}\?{1,2}\s*$).*")
CELL_MAGIC = re.compile(r"\s*%%(?:time|timeit|capture|prun|python3?|(?:write)?file .*\.py)\b")
COMMENT = re.compile(r"#[^\n]*|('''|\"\"\").*?\1", re.S)
LINEAR = re.compile(r"(?:nn\.|layers\.|[=(]\s{0,4})(?:Linear|LazyLinear|Dense)\s{0,4}\(")
BASES = {"Module", "LightningModule", "Model", "Sequential"}
FUNCTIONS = {"linear", "dropout", "avg_pool2d", "adaptive_avg_pool2d"}
WEIGHTED = re.compile(r"conv\w*[123]d$|^(?:lazy)?linear$|^dense$", re.I)
LIBRARY = re.compile(
    r"[123]d$|(?:norm|normalization|dropout|lu|softmax|sigmoid|tanh|swish|mish)$|^(?:lazy)?linear$"
    r"|^(?:dense|(?:un)?flatten|activation|input|identity|sequential|parameter|lambda|reshape)$"
    r"|^module(?:list|dict)$",
    re.I,
)
BATCH_SIZE = re.compile(r"batch_?size['\"]?\s{0,4}[=:]\s{0,4}(\w+)", re.I)
NUMBERS = re.compile(r"^\s{0,40}(\w{1,60})\s{0,4}=\s{0,4}(\d{1,6})\s{0,4}$", re.M)
RESETS = re.compile(
    r"reset|init|apply|clone|load_(?:state|weights)|set_weights|clear_session", re.I
)
LOADS = {"load_model", "load_weights", "load_from_checkpoint", "from_pretrained"}
VALUE = re.compile(r"\{[^{}]{0,80}\}|%[-+.\d]{0,8}[a-z]")  # in a text that is filled in
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class Layer(NamedTuple):
    """A layer that code makes; `kernel` is its largest side in pixels, None where unknown."""

    kind: str
    attribute: str  # of the class that keeps it, or "functional"
    line: Line
    kernel: int | None = None


@dataclass(eq=False)
class Model:
    """A class or Sequential that is a network, with the layers that it uses, also those of
    classes in it. `known` says that all its parts were read."""

    name: str
    layers: list[Layer] = field(default_factory=list)
    known: bool = True


@dataclass
class Code:
    """All code of a document. `made`, `used` and `last` have a cell's number as their key."""

    models: dict[str, Model] = field(default_factory=dict)
    held: dict[str, Model] = field(default_factory=dict)  # variables that hold one
    made: dict[int, list[Model]] = field(default_factory=dict)
    used: dict[int, list[Model]] = field(default_factory=dict)  # made, or else named, or defined
    last: dict[int, Model | None] = field(default_factory=dict)  # the newest one at its end
    newest: Model | None = None  # made or defined
    left: int = MAX_PARSED
    batch_sizes: set[int] = field(default_factory=set)
    unparsed: list[Line] = field(default_factory=list)  # fully connected layers in broken code
    prints: dict[str, set[str]] = field(default_factory=dict)  # letters before "acc", whose it is
    # variables that a cell gives to calls
    handed: dict[int, set[str]] = field(default_factory=dict)
    # variables that a cell sets or resets: all, and those from its first loop on, if it has one
    renewed: dict[int, set[str]] = field(default_factory=dict)
    renewed_late: dict[int, set[str]] = field(default_factory=dict)
    loads: list[int] = field(default_factory=list)  # cells that read weights, before any loop
    # variables from outside of a function: those that it gives to calls, those that it renews
    reached: dict[str, set[str]] = field(default_factory=dict)
    renews: dict[str, set[str]] = field(default_factory=dict)

    def role_of(self, said: str) -> str:
        """Whether the function that prints such a line trains or tests; `said` has letters only."""
        ends = {said[at:] for at in range(max(0, len(said) - 24), len(said) + 1)}
        roles = set().union(*(self.prints.get(end, ()) for end in ends))
        return roles.pop() if len(roles) == 1 else ""


def read_code(document, helpers=()) -> Code:
    """The code of a document; `helpers` are Python files beside it, which may hold its models."""
    code = Code()
    for helper in helpers:
        for cell in helper.cells:
            _read_cell(helper, cell, code)
    for cell in document.cells:
        if cell.kind == "code":
            made, code.used[cell.number] = _read_cell(document, cell, code)
            code.made[cell.number] = made
            code.last[cell.number] = code.newest
    return code


def parse(text: str) -> ast.Module | None:
    """A cell as a syntax tree, its IPython lines passed over; None where it is not Python."""
    lines = [MAGIC.sub(r"\1pass", line[:400]) + line[400:] for line in text.split("\n")]
    if text.lstrip().startswith("%%") and not CELL_MAGIC.match(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _nodes(tree: ast.AST, *without: type) -> list[ast.AST]:
    """What a tree holds, in the order of the text, and nothing inside of nodes of some types."""
    found = []
    left = [tree]
    while left:
        node = left.pop()
        if node is tree or not isinstance(node, without):
            found.append(node)
            left += ast.iter_child_nodes(node)
    placed = [node for node in found if hasattr(node, "lineno")]
    return sorted(placed, key=lambda node: (node.lineno, node.col_offset))


def _name(node: ast.AST) -> str:
    """The last name of `a`, `a.b` or a call of these."""
    if isinstance(node, ast.Call):
        node = node.func
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _owner(node: ast.AST) -> ast.AST | None:
    """What stands before the last name: `a` of `a.b`."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.value if isinstance(node, ast.Attribute) else None


def _read_cell(document, cell, code: Code) -> tuple[list[Model], list[Model]]:
    """The models that a cell makes, and those that it makes, or else names, or else defines."""
    check_time()
    code.left -= len(cell.source)
    if len(cell.source) > min(MAX_SOURCE, code.left):
        return [], []
    lines = cell.source.split("\n")
    place = (document.name, cell.number * (document.form != "python"), cell.count, "source")

    def line_at(number: int) -> Line:
        return Line(lines[number - 1][:400], *place, number)

    text = COMMENT.sub("", cell.source)
    numbers = dict(NUMBERS.findall(text))
    sizes = [numbers.get(value, value) for value in BATCH_SIZE.findall(text)]
    code.batch_sizes |= {int(size) for size in sizes if re.fullmatch("[1-9][0-9]{0,4}", size)}
    tree = parse(cell.source)
    if tree is None:
        linear = [n for n, line in enumerate(lines, 1) if LINEAR.search(line.partition("#")[0])]
        code.unparsed += map(line_at, linear)
        return [], []
    defined = []
    for node in _nodes(tree):
        bases = set(map(_name, getattr(node, "bases", ())))
        if bases & BASES or bases & code.models.keys():
            model = _read_class(node, code, line_at)
            code.models.pop(model.name, None)  # of equal names the last
            code.models[model.name] = model
            defined = [model]
        elif isinstance(node, FUNCTION):
            _note_prints(node, code)
            parts = _nodes(node)
            outer = [part.names for part in parts if isinstance(part, ast.Global)]
            own = _set(parts).difference(*outer)
            code.reached[node.name] = _few(_handed(parts) - own)
            code.renews[node.name] = _few(_renewed(parts, code) - own)
    made = _read_made(tree, code, line_at)
    code.newest = [code.newest, *defined, *made][-1]
    names = code.models | code.held
    outside = _nodes(tree, ast.ClassDef, *FUNCTION)
    used = [names[node.id] for node in outside if getattr(node, "id", None) in names]
    _note_variables(outside, place[1], code)
    return made, made or list(dict.fromkeys(used)) or defined


def _note_variables(outside: list[ast.AST], cell: int, code: Code) -> None:
    """Which variables a cell gives to calls, which it sets or resets, and whether it reads weights
    from a file; functions aside."""
    calls = [node for node in outside if isinstance(node, ast.Call)]
    # A function that is called may use variables from outside of it.
    names = set(map(_name, calls))
    reached = [code.reached.get(name, set()) for name in names]
    code.handed[cell] = _handed(calls).union(*reached)
    code.renewed[cell] = code.renewed_late[cell] = _renewed(outside, code)
    early = names
    loops = [node for node in outside if isinstance(node, (ast.For, ast.While))]
    if loops:
        late = [node for node in outside if node.lineno >= loops[0].lineno]
        code.renewed_late[cell] = _renewed(late, code)
        early = {_name(call) for call in calls if call.lineno < loops[0].lineno}
    if cell and (early & LOADS or {"load", "load_state_dict"} <= early):
        code.loads.append(cell)


def _renewed(nodes: list[ast.AST], code: Code) -> set[str]:
    """The variables that code sets or resets, itself or in the functions that it calls."""
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    resets = [call for call in calls if RESETS.search(_name(call))]
    within = [code.renews.get(name, set()) for name in set(map(_name, calls))]
    return (_set(nodes) | _handed(resets)).union(*within)


def _few(names: set[str]) -> set[str]:
    return set(sorted(names)[:MAX_NAMES])


def _handed(nodes: list[ast.AST]) -> set[str]:
    """The variables that are called, whose methods are called, or that a call is given."""
    found = set()
    for call in nodes:
        if isinstance(call, ast.Call):
            parts = [call.func, _owner(call), *call.args, *(word.value for word in call.keywords)]
            found |= {part.id for part in parts if isinstance(part, ast.Name)}
    return found


def _set(nodes: list[ast.AST]) -> set[str]:
    """The variables that code sets, a function's arguments among them."""
    stored = [node for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)]
    names = {node.id for node in stored if isinstance(node, ast.Name)}
    return names | {node.arg for node in nodes if isinstance(node, ast.arg)}


def _read_made(tree: ast.AST, code: Code, line_at) -> list[Model]:
    """The models that a piece of code makes; their variables are kept in `code.held`."""
    made = []
    for node in _nodes(tree, ast.ClassDef):
        holder = code.held.get(_name(_owner(node)))
        if holder and isinstance(node, ast.Call) and _name(node) == "add":
            _read_parts(holder, node, code, line_at)
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        value = node.value
        calls = [part for part in _nodes(value) if isinstance(part, ast.Call)]
        called = [_name(part) for part in calls if _name(part) in code.models]
        model = None
        if isinstance(value, ast.Call) and _name(value) == "Sequential":
            model = code.models[name] = Model(name)
            _read_parts(model, value, code, line_at)
        elif called:
            model = code.models[called[0]]
        else:
            copied = _owner(value) if _name(value) in ("to", "cuda", "type") else value
            model = code.held.get(getattr(copied, "id", ""))
        if model:
            code.held[name] = model
            made.append(model)
    return made


def _read_class(node: ast.ClassDef, code: Code, line_at) -> Model:
    """The layers that a class makes and uses outside of its __init__, and those it inherits."""
    model = Model(node.name)
    used = set()
    methods = {part.name: part for part in node.body if isinstance(part, FUNCTION)}
    for name, method in methods.items():
        _read_parts(model, method, code, line_at)
        for part in _nodes(method):
            is_used = name != "__init__" and isinstance(getattr(part, "ctx", None), ast.Load)
            if is_used and _name(_owner(part)) == "self":
                used.add(part.attr)
    if used:
        model.layers = [x for x in model.layers if x.attribute in used | {"", "functional"}]
    for base in map(_name, node.bases):
        model.layers += code.models.get(base, Model("")).layers
    del model.layers[MAX_LAYERS:]
    return model


def _read_parts(model: Model, tree: ast.AST, code: Code, line_at) -> None:
    """Add the layers that a method or Sequential makes, in the order of the text."""
    attribute = ""  # to which the layers up to the line `end` are assigned
    end = 0
    for node in _nodes(tree):
        if isinstance(node, ast.Assign) and _name(_owner(node.targets[0])) == "self":
            attribute = node.targets[0].attr
            end = node.end_lineno
        if not isinstance(node, ast.Call) or node is tree or len(model.layers) >= MAX_LAYERS:
            continue
        name, owner = _name(node), _owner(node)
        held_in = attribute * (node.lineno <= end)
        if name in FUNCTIONS and _name(owner) in ("F", "functional"):
            kind = layer_kind(name.replace("adaptive_avg", "global_avg"))
            model.layers.append(Layer(kind, "functional", line_at(node.lineno)))
        elif name in code.models:
            part = code.models[name]
            room = MAX_LAYERS - len(model.layers)
            model.layers += [layer._replace(attribute=held_in) for layer in part.layers[:room]]
            model.known = model.known and part.known
        elif name[:1].isupper():
            model.known = model.known and bool(owner or LIBRARY.search(name))
            kind = layer_kind(name.replace("AdaptiveAvg", "GlobalAvg"))
            weighted = kind in ("fully connected", "convolution")
            if kind and (not weighted or WEIGHTED.search(name)):
                layer = Layer(kind, held_in, line_at(node.lineno), _kernel(name, node))
                model.layers.append(layer)


def _kernel(name: str, call: ast.Call) -> int | None:
    """The largest side of a convolution's kernel: Keras' second argument, torch's third."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    place = 1 if name.endswith("D") else 2
    sides = named.get("kernel_size", dict(enumerate(call.args)).get(place))
    values = [getattr(side, "value", None) for side in getattr(sides, "elts", [sides])]
    known = "dilation" not in named and all(type(value) is int for value in values)
    return max(values) if known and values else None


def _note_prints(node: ast.FunctionDef, code: Code) -> None:
    """The letters before each "acc" that a function prints, and whether it trains or tests."""
    name = node.name.lower()
    parts = _nodes(node)
    called = {_name(part) for part in parts if isinstance(part, ast.Call)}
    trains = "backward" in called
    role = ""
    if re.search("test|val", name):
        role = "test"
    elif re.search("train|fit", name) or trains:
        role = "train"
    elif called & {"eval", "no_grad", "inference_mode"}:
        role = "test"
    if not role or (trains and "eval" in called):
        return
    for part in parts:
        pieces = part.values if isinstance(part, ast.JoinedStr) else [part]
        said = [piece.value for piece in pieces if isinstance(piece, ast.Constant)]
        text = VALUE.sub("", "".join(map(str, said))[:400].lower())
        if "acc" in text:
            code.prints.setdefault(letters(text.partition("acc")[0])[-24:], set()).add(role)
