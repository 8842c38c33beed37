"""Summary tables (torchsummary, torchinfo, Keras, Lightning, torchsummaryX) and printed sums.

    for table in find_tables(lines, words): table.total, table.rows

Widths and rules differ; what all share is a line a layer with its name, its output shape and its
parameters.
"""

import math
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from .facts import split_columns
from .lines import Line
from .words import Words

KINDS = (
    ("fully connected", re.compile(r"(?<!bi)linear|dense(?!net|block|ly)", re.I)),
    ("convolution", re.compile(r"conv(olution)?(2d|1d|3d|$|\W|_)|conv2d", re.I)),
    ("batch normalization", re.compile(r"batch_?norm", re.I)),
    ("dropout", re.compile(r"drop_?out", re.I)),
    ("global average pooling", re.compile(r"global_?(average|avg|mean)_?pool", re.I)),
    ("average pooling", re.compile(r"(average|avg)_?pool", re.I)),
)
HEADER = re.compile(
    r"layer\b.{0,120}param|param\s?#|\|\s{0,9}name\s{0,200}\|\s{0,9}type\s{0,200}\|\s{0,9}params"
    r"|kernel shape.{0,40}params",
    re.I,
)
SIZE = r"(?:-?\d{1,7}|None|\?)"
SHAPE = re.compile(rf"[\[(]\s?({SIZE}(?:\s?,\s?{SIZE}){{0,5}}|\[[^\[\]]{{1,60}}\])\s?,?\s?[\])]")
COUNT = re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d{1,12})(?:\.0+)?(?![\w.,]*\w)")
PASTED = re.compile(r"\W{0,9}(?:total|trainable) params:\W{0,9}[\d,]{3,15}\W{0,9}", re.I)
NOT_COUNTED = re.compile(
    r"non-?\s?trainable|size|\bMB\b|estimated|mult-adds|learning|hyper|increas|reduc|add(?:s|ed)\b",
    re.I,
)
WISHED = re.compile(
    r"less|fewer|under|below|within|<|limit|at most|target|goal|aim|budget|constraint|require"
    r"|reduce|max",
    re.I,
)
AFTER = re.compile(r"[^0-9\n]{0,48}?(\d[\d,_]{0,14}(?:\.\d{1,6})?)\s?([KkMm]\b)?")
BEFORE = re.compile(
    r"(?<![\w.,])(\d[\d,_]{0,14}(?:\.\d{1,6})?)\s?([KkMm]\b)?\*{0,2}\s{0,12}"
    r"(?:(?:total|trainable|learnable|model|network)\s{1,3}){0,3}$",
    re.I,
)
BARE = re.compile(r"\s{0,40}\(?\s{0,9}(\d{1,3}(?:,\d{3})+|\d{3,9})\s{0,9}[,)]?\s{0,40}")
SCALE = {"": 1, "k": 1_000, "m": 1_000_000}
MAX_ROWS = 600


class Count(NamedTuple):
    """A number of parameters: from `low` to `high` where it was rounded ("9.9 K")."""

    low: int
    high: int
    line: Line

    def __str__(self) -> str:
        about = "about " * (self.low < self.high)
        return f"{about}{(self.low + self.high) // 2:,}"


class Row(NamedTuple):
    """One layer; `shape` is (channels, height, width) or (features,), empty where there is none.
    `whole_map` is the size of the map that a convolution covers whole, as "12x12"."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    line: Line
    whole_map: str = ""


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


def layer_kind(name: str) -> str:
    """One of KINDS for the name of a layer's class, or nothing."""
    return next((kind for kind, pattern in KINDS if pattern.search(name)), "")


def find_tables(lines: list[Line], words: Words) -> list[Table]:
    """The summary tables in what one cell printed."""
    tables: list[Table] = []
    table = None
    idle = 0  # lines since its last row
    output = 0  # which of a row's shapes is that of its output
    for line in lines:
        lower = line.text.lower()
        if "param" in lower and HEADER.search(lower[:400]) and not (table and not table.rows):
            table = Table(line)
            idle = 0
            named = re.findall(r"([a-z]{2,12})\s(?:shape|size)", lower[:400])
            output = named.index("output") if "output" in named else 0
            tables.append(table)
        elif table and "total" in lower and words.parameters.search(line.text):
            table.total = count_on(line, words)
            table = None
        elif table:
            idle += 1
            row = _row(line, output)
            if row and len(table.rows) < MAX_ROWS:
                table.rows.append(row)
                idle = 0
            if idle > 12:
                table = None
    for table in tables:
        # a container says the sum of the rows below it, which stand further to the right
        texts = [row.line.text for row in table.rows]
        if any(re.search("[├└]", text) for text in texts):
            depth = [len(text) - len(text.lstrip(" │├└─|")) for text in texts] + [0]
            rows = enumerate(table.rows)
            table.rows = [row for i, row in rows if depth[i + 1] <= depth[i] or row.kind]
        _mark_whole_maps(table.rows)
    return [table for table in tables if table.rows]


def _mark_whole_maps(rows: list[Row]) -> None:
    """Mark what makes one output of a whole map: a global average, or a convolution over all of it,
    whose weights fit the map's size, so that one in another branch is not taken for it."""
    before = None  # the last row that has a map
    for i, row in enumerate(rows):
        if before and row.shape[1:] == (1, 1) != before.shape[1:]:
            channels, height, width = before.shape
            weights = [n * row.shape[0] * height * width for n in (channels, 1)]
            fits = row.parameters in {n + bias for n in weights for bias in (0, row.shape[0])}
            if row.kind == "average pooling":
                rows[i] = row._replace(kind="global average pooling")
            elif row.kind == "convolution" and fits:
                rows[i] = row._replace(whole_map=f"{height}x{width}")
        if len(row.shape) == 3:
            before = row


def _row(line: Line, output: int) -> Row | None:
    """A layer's line: a name, shapes, of which the one numbered `output` counts, and a number;
    or, as Lightning has it, number, name, type and parameters in round figures."""
    text = line.text.replace("│", "|").replace("┃", "|").strip("| \t\xa0")
    shapes = [m for m in SHAPE.finditer(text) if "," in m[1] or m[1][0] == "[" or "None" in m[1]]
    if not shapes:
        parts = split_columns(text)
        if len(parts) < 4 or not parts[0].isdecimal():
            return None
        number = re.match(r"(\d[\d,]{0,11}(?:\.\d{1,3})?)\s?([KM]?)", parts[3])
        parameters = round(_scaled(number)) if number else 0
        return Row(f"{parts[1]} ({parts[2]})"[:80], layer_kind(parts[2]), (), parameters, line)
    name = text[: shapes[0].start()]
    if not re.search("[A-Za-z]{2}", name) or len(name) > 120:
        return None
    ends = [shape.end() for shape in shapes[output:] or shapes]
    numbers = [COUNT.match(text[end : end + 200].lstrip(" |\t")) for end in ends]
    parameters = int(next((number[1].replace(",", "") for number in numbers if number), 0))
    # the type says more than the name: conv2d_1 (Conv2D)
    inner = re.search(r"\(([A-Za-z_0-9]{2,40})\)", name)
    kind = layer_kind(inner[1] if inner else name)
    if kind in ("fully connected", "convolution") and not parameters:
        kind = ""  # a block, whose parts have rows of their own
    shape = _shape(shapes[min(output, len(shapes) - 1)][1])
    return Row(re.sub(r"[\s├─└│|]+", " ", name).strip()[:80], kind, shape, parameters, line)


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.strip("[]").split(",")]
    batch = ""
    if len(parts) > 1 and (parts[0].lstrip("-") in ("None", "?", "1") or len(parts) == 4):
        batch = parts.pop(0)
    sizes = tuple(int(part.lstrip("-")) for part in parts if part.lstrip("-").isdecimal())
    if batch == "None" and len(sizes) == 3:  # Keras puts the channels last
        return sizes[2], sizes[0], sizes[1]
    return sizes


def find_counts(lines: list[Line], words: Words, bare: bool = False) -> list[Count]:
    """Lines that say how many parameters there are, outside of wishes such as "less than 20,000".

    `bare` takes a number alone on its line too, as a cell shows it that ends in a sum.
    """
    found = []
    for line in lines:
        count = count_on(line, words)
        if not count and bare and (match := BARE.fullmatch(line.text[:100])):
            number = int(match[1].replace(",", ""))
            count = Count(number, number, line)
        if count and not re.search("non-?trainable", line.text[:400], re.I):
            found.append(count)
    return found


def count_on(line: Line, words: Words) -> Count | None:
    """The number of parameters that a line says."""
    text = line.text[:400]
    if not words.says("parameters", text):
        return None
    for match in islice(words.parameters.finditer(text), 9):
        lead = text[max(0, match.start() - 60) : match.start()]
        before, after = BEFORE.search(lead), AFTER.match(text, match.end())
        if NOT_COUNTED.search(lead[-16:] + text[match.start() : match.end() + 12]):
            continue
        if before and not WISHED.search(lead) and (count := _number(before, line)):
            return count
        if after and not WISHED.search(lead[-40:] + text[match.start() : after.start(1)]):
            if count := _number(after, line):
                return count
    return None


def _number(match: re.Match, line: Line) -> Count | None:
    value = _scaled(match)
    scale = SCALE[(match[2] or "").lower()]
    if not 100 <= value < 1e12 or (scale == 1 and value % 1):
        return None
    # half a unit of its last digit, by which it may have been rounded
    half = scale / 10 ** len(match[1].rstrip(".").partition(".")[2]) / 2
    if half < 1:
        return Count(round(value), round(value), line)
    return Count(math.ceil(value - half), math.floor(value + half), line)


def _scaled(match: re.Match) -> float:
    """A number as "9,954" or "9.9 K", whose second group is the scale."""
    digits = match[1].replace(",", "").replace("_", "")
    return float(digits or "0") * SCALE[(match[2] or "").lower()]
