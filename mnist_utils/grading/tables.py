"""Summary tables (torchsummary, torchinfo, Keras, Lightning, torchsummaryX) and lines that say a sum of parameters.

    for table in find_tables(lines): table.total, table.rows

Widths and rules differ; what all share is a line a layer with its name, its output shape and its parameters.
"""

import math
import re
from dataclasses import dataclass, field

from .lines import Line

KINDS = (
    ("fully connected", re.compile(r"(?<!bi)linear|dense(?!net|block|ly)", re.I)),
    ("convolution", re.compile(r"conv(olution)?(2d|1d|3d|$|\W|_)|conv2d", re.I)),
    ("batch normalization", re.compile(r"batch_?norm", re.I)),
    ("dropout", re.compile(r"drop_?out", re.I)),
    ("global average pooling", re.compile(r"global_?(average|avg|mean)_?pool", re.I)),
    ("average pooling", re.compile(r"(average|avg)_?pool", re.I)),
    ("max pooling", re.compile(r"max_?pool", re.I)),
    ("flatten", re.compile(r"flatten", re.I)),
)
WEIGHTED = ("fully connected", "convolution")
NOT_FULLY_CONNECTED = re.compile(r"Identity|NonDynamicallyQuantizable", re.I)
HEADER = re.compile(
    r"layer\b.{0,120}param|param\s?#|\|\s*name\s*\|\s*type\s*\|\s*params|kernel shape.{0,40}params", re.I
)
SHAPE = re.compile(
    r"[\[(]\s*((?:-?\d{1,7}|None|\?)(?:\s*,\s*(?:-?\d{1,7}|None|\?)){0,5}|\[[^\[\]]{1,60}\])\s*,?\s*[\])]"
)
COUNT = re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d{1,12})(?:\.0+)?(?![\w.,]*\w)")
PASTED = re.compile(r"\s*(?:total|trainable) params:\s*[\d,]{3,15}\s*", re.I)
TOTAL = re.compile(r"\btotal\s+(?:number\s+of\s+)?(?:params?|parameters)\b(?!\s*size)", re.I)
PARAMS = re.compile(r"\bparam(?:eter)?s?\b", re.I)
NOT_COUNTED = re.compile(r"non-?\s?trainable|size|\bMB\b|estimated|mult-adds|learning|hyper", re.I)
WISHED = re.compile(
    r"less|fewer|under|below|within|<|limit|at most|target|goal|aim|budget|constraint|require|reduce|max", re.I
)
AFTER = re.compile(r"[^0-9\n]{0,48}?(\d[\d,_]{0,14}(?:\.\d{1,6})?)\s?([KkMm]\b)?")
BEFORE = re.compile(
    r"(?<![\w.,])(\d[\d,_]{0,14}(?:\.\d{1,6})?)\s?([KkMm]\b)?\**\s*(?:(?:total|trainable|learnable|model|network)\s+){0,3}$",
    re.I,
)
MAX_ROWS = 600
MAX_TABLES = 60  # of one cell


@dataclass(frozen=True)
class Count:
    """A number of parameters as it stands somewhere: from `low` to `high` where it was rounded ("9.9 K")."""

    low: int
    high: int
    line: Line

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def __str__(self) -> str:
        return f"{self.low:,}" if self.exact else f"about {(self.low + self.high) // 2:,}"


@dataclass(frozen=True)
class Row:
    """One layer of a table; `shape` is (channels, height, width) or (features,), empty where the table has none."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    line: Line


@dataclass
class Table:
    """One summary table; `total` is what it says itself."""

    line: Line
    rows: list[Row] = field(default_factory=list)
    total: Count | None = None

    @property
    def sum(self) -> int:
        """The sum of its own rows, of which a container's is left out."""
        return sum(row.parameters for row in self.rows)

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row.kind == kind]


def find_tables(lines: list[Line]) -> list[Table]:
    """The summary tables in what one cell printed, the first MAX_TABLES of them."""
    tables: list[Table] = []
    table, idle, output = None, 0, 0
    for line in lines:
        if HEADER.search(line.text) and not (table and not table.rows):
            table, idle, output = Table(line), 0, _output_column(line.text)
            tables.append(table)
            if len(tables) > MAX_TABLES:
                break
            continue
        if table is None:
            continue
        if TOTAL.search(line.text) or (table.rows and PARAMS.search(line.text) and re.search("total", line.text, re.I)):
            table.total, table = _count_on(line), None
            continue
        row = _row(line, output)
        if row and len(table.rows) < MAX_ROWS:
            table.rows.append(row)
        idle = 0 if row else idle + 1
        if idle > 12:
            table = None
    return [_leaves(table) for table in tables if table.rows]


def _row(line: Line, output: int) -> Row | None:
    """A layer's line: a name that has letters, shapes, of which the one numbered `output` counts, and a number."""
    text = line.text.replace("│", "|").replace("┃", "|") if line.text[:1] in "│┃" else line.text
    text = text.strip("| \t\xa0")
    shapes = [m for m in SHAPE.finditer(text) if "," in m[1] or m[1].startswith("[") or "None" in m[1]]
    if not shapes:
        return _listed(line, text)
    name = text[: shapes[0].start()]
    if not re.search("[A-Za-z]{2}", name) or len(name) > 120:
        return None
    after = (COUNT.match(text[shape.end() :].lstrip(" |\t")) for shape in shapes[output:] or shapes)
    number = next((match for match in after if match), None)
    parameters = int(number[1].replace(",", "")) if number else 0
    kind = _kind(name)
    kind = "" if kind in WEIGHTED and not parameters else kind  # a block of them, whose parts have rows of their own
    shape = _shape(shapes[min(output, len(shapes) - 1)][1])
    return Row(re.sub(r"[\s├─└│|]+", " ", name).strip()[:80], kind, shape, parameters, line)


def _output_column(header: str) -> int:
    """Which of the columns of shapes is the output's."""
    columns = [match[1].lower() for match in re.finditer(r"([a-z]{2,12})\s(?:shape|size)", header[:400], re.I)]
    return columns.index("output") if "output" in columns else 0


def _listed(line: Line, text: str) -> Row | None:
    """A line of Lightning's table: number, name, type, parameters in round figures."""
    columns = [column.strip() for column in text.split("|")]
    if (
        len(columns) < 4
        or not columns[0].isdecimal()
        or not (number := re.match(r"([\d,.]{1,12})\s?([KM]?)", columns[3]))
    ):
        return None
    name, size = f"{columns[1]} ({columns[2]})", number[1].replace(",", "").strip(".")
    parameters = (
        round(float(size) * {"": 1, "K": 1e3, "M": 1e6}[number[2]]) if re.fullmatch(r"\d+(\.\d+)?", size) else 0
    )
    return Row(name[:80], _kind(name), (), parameters, line)


def _kind(name: str) -> str:
    inner = re.search(r"\(([A-Za-z_0-9]{2,40})\)", name)  # Keras: conv2d_1 (Conv2D); the type says more than the name
    word = inner[1] if inner else name
    if NOT_FULLY_CONNECTED.search(word):
        return ""
    return next((kind for kind, pattern in KINDS if pattern.search(word)), "")


def _shape(text: str) -> tuple[int, ...]:
    sizes = [int(part) for part in re.findall(r"\d{1,7}", text.replace("None", ""))]
    parts = text.strip("[]").split(",")
    if parts and parts[0].strip().lstrip("-") in ("None", "?", "1") and len(parts) > 1:
        sizes = [int(part) for part in re.findall(r"\d{1,7}", ",".join(parts[1:]))]
    elif len(parts) == 4:
        sizes = sizes[1:]
    channels_last = "None" in parts[0] and len(sizes) == 3
    return (sizes[2], sizes[0], sizes[1]) if channels_last else tuple(sizes)


def _leaves(table: Table) -> Table:
    """Without the rows of containers that say the sum of the rows below them."""
    rows, depth = table.rows, [len(row.line.text) - len(row.line.text.lstrip(" │├└─|")) for row in table.rows]
    tree = any(re.search("[├└]", row.line.text) for row in rows)
    if tree:
        kept = [row for i, row in enumerate(rows) if i + 1 == len(rows) or depth[i + 1] <= depth[i] or row.kind]
        table.rows = kept
    return table


def whole_map(table: Table) -> list[tuple[Row, Row]]:
    """Convolutions over a whole map, each with the row whose map it takes: one output, and weights for all pixels.

    The weights that the row counts must fit the map's size, so a convolution in another branch is not taken for one.
    """
    found, before = [], None
    for row in table.rows:
        if row.kind == "convolution" and before and len(row.shape) == 3 and row.shape[1:] == (1, 1):
            channels, height, width = before.shape
            weights = row.shape[0] * channels * height * width
            depthwise = row.shape[0] * height * width
            known = {weights, weights + row.shape[0], depthwise, depthwise + row.shape[0]}
            if (height, width) != (1, 1) and row.parameters in known:
                found.append((row, before))
        before = row if len(row.shape) == 3 else before
    return found


def pools_all(table: Table) -> Row | None:
    """The row that pools a whole map by its mean, if one does."""
    before = None
    for row in table.rows:
        if row.kind == "global average pooling":
            return row
        if row.kind == "average pooling" and row.shape[1:] == (1, 1) and (not before or before.shape[1:] != (1, 1)):
            return row
        before = row if len(row.shape) == 3 else before
    return None


def unlikely_rows(table: Table) -> list[str]:
    """Rows whose parameters no layer of their shape could have."""
    found, channels = [], None
    for row in table.rows:
        out = row.shape[0] if row.shape else 0
        if row.kind == "convolution" and channels and out and row.parameters and len(row.shape) == 3:
            weights = {row.parameters, row.parameters - out}
            fits = any(w % out == 0 and _is_kernel(w // out, channels) for w in weights if w > 0)
            if not fits:
                found.append(f"{row.name}: no convolution to {out} channels has {row.parameters:,} parameters")
        if row.kind == "batch normalization" and out and row.parameters not in (0, out, 2 * out, 3 * out, 4 * out):
            found.append(
                f"{row.name}: batch normalization of {out} channels has {2 * out} parameters, not {row.parameters:,}"
            )
        channels = out if len(row.shape) == 3 else channels
    return found


def _is_kernel(weights: int, channels: int) -> bool:
    """Whether so many weights an output are a kernel of up to 28 x 28 over some of the channels."""
    return any(weights % area == 0 and channels % (weights // area) == 0 for area in _AREAS if weights // area)


_AREAS = sorted({a * b for a in range(1, 29) for b in range(1, 29)})


def find_counts(lines: list[Line]) -> list[Count]:
    """Lines that say how many parameters there are, outside of wishes such as "less than 20,000"."""
    return [count for line in lines if PARAMS.search(line.text) and (count := _count_on(line))]


def _count_on(line: Line) -> Count | None:
    text = line.text[:400]
    for match in PARAMS.finditer(text):
        around = text[max(0, match.start() - 40) : match.end() + 40]
        before, after = BEFORE.search(text[max(0, match.start() - 60) : match.start()]), AFTER.match(text, match.end())
        if NOT_COUNTED.search(text[max(0, match.start() - 16) : match.end() + 12]):
            continue
        if before and not WISHED.search(text[max(0, match.start() - 60) : match.start()]):
            if count := _number(before, line):
                return count
        if after and not WISHED.search(text[match.start() : after.start(1)]) and not WISHED.search(around[:40]):
            if count := _number(after, line):
                return count
    return None


def _number(match: re.Match, line: Line) -> Count | None:
    digits, unit = match[1].replace(",", "").replace("_", "").rstrip("."), (match[2] or "").lower()
    scale = {"": 1, "k": 1000, "m": 1_000_000}[unit]
    if not unit:
        value = float(digits or "0")
        return Count(int(value), int(value), line) if value >= 100 and value == int(value) < 1e12 else None
    decimals = len(digits.partition(".")[2])
    half = scale / 10**decimals / 2
    low, high = math.ceil(float(digits) * scale - half), math.floor(float(digits) * scale + half)
    if half < 1:
        low = high = round(float(digits) * scale)
    return Count(max(low, 0), high, line) if high >= 100 and high < 1e12 else None
