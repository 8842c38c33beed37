"""What the code of a notebook says, read as a syntax tree: models, their layers, loops and batch sizes.

    code = read_code(documents)
    code.models[0].layers

Nothing is executed. Where a cell does not parse, its text is searched for fully connected layers, and that is said.
"""

import ast
import re
import warnings
from dataclasses import dataclass, field
from functools import partial

from .lines import Line
from .reading import Cell, Document
from .tables import KINDS, NOT_FULLY_CONNECTED

MAX_SOURCE = 100_000  # characters of one cell that are parsed
MAX_NODES = 60_000  # nodes of one cell's tree
MAGIC = re.compile(r"^(\s*)(?:[%!?]|\w[\w., ]{0,80}=\s*[!%]|[\w.]{1,80}\?{1,2}\s*$)")
CELL_MAGIC = re.compile(r"\s*%%(\w+)(.*)")
PYTHON_MAGICS = {"time", "timeit", "capture", "prun", "writefile", "file", "python", "python3"}
DEFINES_LINEAR = re.compile(r"(?:nn\.|layers\.|=\s{0,4}|\(\s{0,4})(Linear|LazyLinear|Dense)\s{0,4}\(")
BASES = {"Module", "LightningModule", "Model", "Sequential"}
PRODUCTS = {"linear": "F.linear", "bilinear": "F.bilinear"}
IS_LAYER = re.compile(
    r"(?:Lazy)?(?:Conv|Convolution|DepthwiseConv|SeparableConv)\w*(?:1D|2D|3D|1d|2d|3d)$|^(?:Lazy)?Linear$|^Dense$"
)


LIBRARY = re.compile(
    r"[123][dD]$|(?:Norm|Normalization|Dropout|ReLU|LU|Softmax|Sigmoid|Tanh|Swish|Mish)$|^(?:Lazy)?Linear$|"
    r"^(?:Dense|Flatten|Unflatten|Activation|Input|Identity|Sequential|ModuleList|ModuleDict|Parameter|Lambda|Reshape)$"
)


@dataclass(frozen=True)
class Layer:
    """A layer that code makes: its kind (`tables.KINDS`), the attribute it is kept in, its arguments where known."""

    kind: str
    attribute: str
    line: Line
    arguments: tuple = ()
    keywords: tuple = ()

    def argument(self, position: int, name: str):
        """What it is given, or None where that cannot be told."""
        return dict(self.keywords).get(name, self.arguments[position] if position < len(self.arguments) else None)


@dataclass(eq=False)
class Model:
    """A class (or a Sequential) that is a network: its layers, and those that its forward does not use."""

    name: str
    line: Line
    layers: list[Layer] = field(default_factory=list)
    used: set[str] | None = None  # the attributes that are used; None where all are
    blocks: set[str] = field(default_factory=set)  # names of other classes in it
    plain: bool = True  # without loops and blocks: each layer is in it once, as written
    known: bool = True  # whether each part of it is a layer of a library or a class that was read
    products: list[Line] = field(default_factory=list)  # functional fully connected layers
    pools: list[Line] = field(default_factory=list)  # functional global pooling
    drops: list[Line] = field(default_factory=list)

    def of(self, kind: str) -> list[Layer]:
        """The layers of a kind that are used."""
        return [x for x in self.layers if x.kind == kind and (self.used is None or x.attribute in self.used)]


@dataclass
class CellCode:
    """One cell's part: which models it makes under which names, what it summarises, what it loops over."""

    parsed: bool = True
    made: list[tuple[str, Model]] = field(default_factory=list)  # variable, model
    uses: dict[Model, None] = field(default_factory=dict)  # models whose variable it uses, in order
    summarised: list[Model] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    trains: bool = False


@dataclass
class Code:
    """All code of a document, cell by cell."""

    cells: dict[int, CellCode] = field(default_factory=dict)
    models: list[Model] = field(default_factory=list)
    batch_sizes: set[int] = field(default_factory=set)
    splits: list[tuple[tuple[int, ...], Line]] = field(default_factory=list)
    train_flags: set[bool] = field(default_factory=set)  # of datasets.MNIST(train=...)
    unparsed: list[Line] = field(default_factory=list)  # fully connected layers in text that does not parse
    prints: list[tuple[str, str]] = field(default_factory=list)  # letters around "acc", "train" or "test"
    model_at: dict[int, Model | None] = field(default_factory=dict)  # the one last made, at the end of each cell


def read_code(document: Document, helpers: list[Document] = ()) -> Code:
    """The code of a document; `helpers` are Python files beside it, from which it may import its models."""
    code, reader = Code(), _Reader()
    for helper in helpers:
        for cell in helper.cells:
            aside = Code()
            reader.read(helper, cell, aside)
            code.models += aside.models
    for cell in document.cells:
        if cell.kind == "code" and cell.source.strip():
            code.cells[cell.number] = reader.read(document, cell, code)
        code.model_at[cell.number] = reader.current
    return code


def parse(text: str) -> ast.Module | None:
    """The tree of a cell whose IPython lines are passed over; None where it is no Python or too large."""
    if len(text) > MAX_SOURCE:
        return None
    lines = text.split("\n")
    if match := next((m for line in lines[:3] if (m := CELL_MAGIC.match(line))), None):
        if match[1] not in PYTHON_MAGICS or (match[1] in ("writefile", "file") and ".py" not in match[2]):
            return None
        lines = ["" if CELL_MAGIC.match(line) else line for line in lines]
    lines = [f"{match[1]}pass" if (match := MAGIC.match(line[:400])) else line for line in lines]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    count = 0
    for _ in ast.walk(tree):
        count += 1
        if count > MAX_NODES:
            return None
    return tree


class _Reader:
    """Reads cells in their order and remembers names: numbers, models, variables that hold one."""

    def __init__(self):
        self.numbers: dict[str, object] = {}
        self.known: dict[str, Model] = {}
        self.held: dict[str, Model] = {}
        self.current: Model | None = None

    def read(self, document: Document, cell: Cell, code: Code) -> CellCode:
        facts, tree = CellCode(), parse(cell.source)
        lines = cell.source.split("\n")
        number = 0 if document.form == "python" else cell.number
        self.line = partial(_line, lines, document.name, number, cell.count)
        if tree is None:
            facts.parsed = False
            code.unparsed += [
                self.line(n)
                for n, text in enumerate(lines, 1)
                if DEFINES_LINEAR.search(text[:500]) and not text.lstrip().startswith("#")
            ]
            return facts
        try:
            for statement in tree.body:
                self._statement(statement, facts, code)
        except RecursionError:
            facts.parsed = False
        return facts

    def _statement(self, statement: ast.stmt, facts: CellCode, code: Code) -> None:
        if isinstance(statement, ast.ClassDef):
            model = self._class(statement)
            if model:
                self.known[model.name] = self.current = model
                code.models.append(model)
            self._notes(statement, facts, code)
            return
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self._assign(node, facts, code)
            elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
                self.numbers[node.target.id] = self._value(node.value)
            elif isinstance(node, ast.Call):
                self._call(node, facts, code)
            elif isinstance(node, ast.Name) and node.id in self.held and not isinstance(statement, ast.FunctionDef):
                facts.uses[self.held[node.id]] = None
        self._notes(statement, facts, code)

    def _notes(self, statement: ast.stmt, facts: CellCode, code: Code) -> None:
        """Loops, batch sizes, splits and prints, wherever they stand."""
        for node in ast.walk(statement):
            if isinstance(node, ast.For):
                self._loop(node, facts)
            elif isinstance(node, ast.FunctionDef):
                code.prints += _prints(node)
            elif isinstance(node, ast.Call):
                for keyword in node.keywords:
                    value = self._value(keyword.value)
                    if keyword.arg == "batch_size" and isinstance(value, int) and value > 0:
                        code.batch_sizes.add(value)
                    if keyword.arg in ("epochs", "nb_epoch", "max_epochs") and isinstance(value, int):
                        facts.epochs.add(value)
                self._data(node, code)
            elif isinstance(node, ast.Attribute) and node.attr in ("backward", "fit"):
                facts.trains = True
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if (
                    "batch_size" in node.targets[0].id.lower()
                    and isinstance(v := self._value(node.value), int)
                    and v > 0
                ):
                    code.batch_sizes.add(v)

    def _loop(self, node: ast.For, facts: CellCode) -> None:
        source = node.iter
        while isinstance(source, ast.Call) and _name(source) in ("tqdm", "trange", "tqdm_notebook", "enumerate"):
            if _name(source) == "trange" or not source.args:
                break
            source = source.args[0]
        if (
            "epoch" in ast.unparse(node.target).lower()
            and isinstance(source, ast.Call)
            and _name(source) in ("range", "trange")
        ):
            values = [self._value(argument) for argument in source.args]
            if all(isinstance(value, int) for value in values) and 1 <= len(values) <= 2:
                facts.epochs.add(values[-1] - (values[0] if len(values) == 2 else 0))

    def _data(self, call: ast.Call, code: Code) -> None:
        name = _name(call)
        if name == "MNIST":
            flags = [keyword.value for keyword in call.keywords if keyword.arg == "train"] + call.args[1:2]
            code.train_flags.add(flags[0].value if flags and isinstance(flags[0], ast.Constant) else True)
        if name == "random_split" and len(call.args) > 1 and isinstance(call.args[1], ast.List):
            sizes = tuple(self._value(element) for element in call.args[1].elts)
            if len(sizes) > 1 and all(isinstance(size, int) and size > 1 for size in sizes):
                code.splits.append((sizes, self.line(call.lineno)))

    def _assign(self, node: ast.Assign, facts: CellCode, code: Code) -> None:
        target = node.targets[0]
        if not isinstance(target, ast.Name):
            return
        self.numbers[target.id] = self._value(node.value)
        model = self._made(node.value) or self._sequential(target.id, node.value, code)
        if model:
            self.held[target.id] = self.current = model
            facts.made.append((target.id, model))

    def _made(self, value: ast.expr) -> Model | None:
        """The model that `Net().to(device)` and the like make."""
        for _ in range(12):
            if isinstance(value, ast.Call) and _name(value) in self.known:
                return self.known[_name(value)]
            if isinstance(value, ast.Name):
                return self.held.get(value.id)
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
                value = value.func.value if not value.args or _name(value) in ("to", "cuda", "type") else value.args[0]
            elif isinstance(value, ast.Call) and value.args:
                value = value.args[0]
            else:
                break
        return None

    def _sequential(self, name: str, value: ast.expr, code: Code) -> Model | None:
        """A Sequential of torch or Keras, which is a model without a class."""
        call = next((n for n in ast.walk(value) if isinstance(n, ast.Call) and _name(n) == "Sequential"), None)
        if call is None:
            return None
        model = Model(name, self.line(call.lineno))
        self._layers(call, "", model)
        code.models.append(model)
        return model

    def _call(self, node: ast.Call, facts: CellCode, code: Code) -> None:
        name = _name(node)
        if name == "add" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            if model := self.held.get(node.func.value.id):
                self._layers(node, "", model)
        if name in ("summary", "torchsummary", "model_summary"):
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            for value in [
                *node.args[:1],
                *[k.value for k in node.keywords if k.arg == "model"],
                *([owner] if owner else []),
            ]:
                if model := self._made(value):
                    facts.summarised.append(model)
                    break

    def _class(self, node: ast.ClassDef) -> Model | None:
        bases = {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}
        if not bases & (BASES | self.known.keys()):
            return None
        model = Model(node.name, self.line(node.lineno))
        for base in bases & self.known.keys():
            model.blocks.add(base)
            model.plain = False
        used: set[str] = set()
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                self._init(method, model)
            elif isinstance(method, ast.FunctionDef):
                used |= self._method(method, model)
        model.used = used | {""} if used else None
        return model

    def _init(self, method: ast.FunctionDef, model: Model) -> None:
        defaults = method.args.defaults
        before = dict(self.numbers)
        for argument, default in zip(method.args.args[len(method.args.args) - len(defaults) :], defaults):
            self.numbers[argument.arg] = self._value(default)
        for node in ast.walk(method):
            if isinstance(node, (ast.For, ast.While, ast.comprehension)):
                model.plain = False
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.numbers[node.targets[0].id] = self._value(node.value)
        taken: set[ast.AST] = set()
        for node in ast.walk(method):
            if isinstance(node, ast.Assign) and (attribute := _attribute(node.targets[0])):
                if isinstance(value := self._value(node.value), int):
                    self.numbers[f"self.{attribute}"] = value
                self._layers(node.value, attribute, model, taken)
        self._layers(method, "", model, taken)
        self.numbers = before

    def _layers(self, root: ast.AST, attribute: str, model: Model, taken: set | None = None) -> None:
        """The layers that are made below `root`, in the order of the text."""
        taken = set() if taken is None else taken
        calls = [node for node in ast.walk(root) if isinstance(node, ast.Call) and node not in taken]
        for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
            taken.add(call)
            name = _name(call)
            if name in self.known:
                model.blocks.add(name)
                model.plain = False
            elif isinstance(call.func, ast.Name) and name[:1].isupper() and not LIBRARY.search(name):
                model.known = model.plain = False
            kind = "" if NOT_FULLY_CONNECTED.search(name) else next((k for k, p in KINDS if p.search(name)), "")
            if (
                not kind
                or not name[:1].isupper()
                or (kind in ("fully connected", "convolution") and not IS_LAYER.search(name))
            ):
                continue
            arguments = tuple(self._value(argument) for argument in call.args)
            keywords = tuple((k.arg, self._value(k.value)) for k in call.keywords if k.arg)
            model.layers.append(Layer(kind, attribute, self.line(call.lineno), arguments, keywords))

    def _method(self, method: ast.FunctionDef, model: Model) -> set[str]:
        used = set()
        for node in ast.walk(method):
            if attribute := _attribute(node):
                used.add(attribute)
            if isinstance(node, ast.Call):
                name = _name(node)
                if name in PRODUCTS and _owner(node) in ("F", "functional"):
                    model.products.append(self.line(node.lineno))
                if name in ("adaptive_avg_pool2d",) or (name == "mean" and _is_over_map(node)):
                    model.pools.append(self.line(node.lineno))
                if name == "avg_pool2d":
                    model.pools.append(self.line(node.lineno))
                if name in ("dropout", "dropout2d", "alpha_dropout") and _owner(node) in ("F", "functional"):
                    model.drops.append(self.line(node.lineno))
        return used

    def _value(self, node: ast.AST, depth: int = 0):
        """The number, flag, text or tuple that an expression is, or None where only running it would tell."""
        if depth > 20:
            return None
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, bool)):
            return node.value
        if isinstance(node, ast.Name):
            return self.numbers.get(node.id)
        if attribute := _attribute(node):
            return self.numbers.get(f"self.{attribute}")
        if isinstance(node, (ast.Tuple, ast.List)) and len(node.elts) <= 4:
            return tuple(self._value(element, depth + 1) for element in node.elts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)):
            left, right = self._value(node.left, depth + 1), self._value(node.right, depth + 1)
            if type(left) is int and type(right) is int and abs(left) < 10**9 and abs(right) < 10**9:
                return _calculated(node.op, left, right)
        return None


def _calculated(operator: ast.operator, left: int, right: int) -> int | None:
    if isinstance(operator, ast.FloorDiv):
        return left // right if right else None
    return (
        left + right
        if isinstance(operator, ast.Add)
        else left - right
        if isinstance(operator, ast.Sub)
        else left * right
    )


def _line(lines: list[str], document: str, cell: int, count: int | None, number: int) -> Line:
    text = lines[number - 1] if 0 < number <= len(lines) else ""
    return Line(text[:400], document, cell, count, "source", number)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _owner(call: ast.Call) -> str:
    value = getattr(call.func, "value", None)
    return value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")


def _attribute(node: ast.AST) -> str:
    """The name after `self.`, or nothing."""
    is_self = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return node.attr if is_self else ""


def _is_over_map(call: ast.Call) -> bool:
    """Whether a mean is over two dimensions."""
    values = [*call.args, *[keyword.value for keyword in call.keywords if keyword.arg in ("dim", "axis")]]
    return any(isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == 2 for value in values)


def _prints(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """The letters before each "acc" that a function prints, and whether it trains or tests."""
    inside = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    name = function.name.lower()
    role = "train" if "backward" in inside else "test" if inside & {"eval", "no_grad", "inference_mode"} else ""
    role = "test" if re.search("test|val", name) else "train" if re.search("train|fit", name) else role
    if "backward" in inside and "eval" in inside:
        return []
    texts = [n.value for n in ast.walk(function) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [(letters(text.lower().partition("acc")[0])[-24:], role) for text in texts if role and "acc" in text.lower()]


def letters(text: str) -> str:
    """Its letters alone, in lower case."""
    return re.sub("[^a-z]", "", text.lower())


def total_parameters(model: Model) -> int | None:
    """The parameters of a torch model, where every layer of it is written out with its sizes; else None."""
    counts = [_parameters(layer) for layer in model.layers if model.used is None or layer.attribute in model.used]
    has_weights = any(counts)
    return sum(counts) if model.plain and has_weights and None not in counts else None


def _parameters(layer: Layer) -> int | None:
    if layer.kind not in ("convolution", "fully connected", "batch normalization"):
        return 0
    first, second = layer.argument(0, "in_channels"), layer.argument(1, "out_channels")
    if layer.kind == "batch normalization":
        first = layer.argument(0, "num_features")
        affine = layer.argument(3, "affine")
        return None if type(first) is not int else 0 if affine is False else 2 * first
    if layer.kind == "fully connected":
        first, second = layer.argument(0, "in_features"), layer.argument(1, "out_features")
    kernel = layer.argument(2, "kernel_size") if layer.kind == "convolution" else 1
    kernel = (kernel, kernel) if type(kernel) is int else kernel
    groups = layer.argument(6, "groups") if layer.kind == "convolution" else 1
    bias = layer.argument(7, "bias") if layer.kind == "convolution" else layer.argument(2, "bias")
    groups = 1 if groups is None and "groups" not in dict(layer.keywords) else groups
    sure = type(first) is int and type(second) is int and type(groups) is int and groups > 0
    if not sure or not (isinstance(kernel, tuple) and all(type(k) is int for k in kernel)):
        return None
    if bias is None and "bias" in dict(layer.keywords):
        return None
    area = 1
    for size in kernel:
        area *= size
    return second * (first // groups) * area + (0 if bias is False or bias == 0 else second)
