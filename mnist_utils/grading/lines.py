"""Where something was read, and text as lines that are short enough to be searched."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .reading import Cell, Document, cut

LONGEST = 2_000  # characters of a line that are searched at once
OVERWRITTEN = re.compile(r"[\r\x08]+")


@dataclass(frozen=True)
class Line:
    """A line and where it stands: document, cell (0: the document has none), execution count, part, number from 1."""

    text: str
    document: str
    cell: int = 0
    count: int | None = None
    part: str = "output"
    number: int = 1

    @property
    def where(self) -> str:
        if not self.cell:
            return f"{self.document}, line {self.number}"
        count = f" [{self.count}]" if self.count else ""
        return f"{self.document}, cell {self.cell}{count}, {self.part} line {self.number}"

    def __str__(self) -> str:
        return f"{self.where}: {cut(self.text)}"


def output_lines(document: Document, cell: Cell) -> list[Line]:
    """What a cell printed, or a text; the pieces of a bar that wrote over itself are lines of the same number."""
    number = 0 if cell.kind == "text" else cell.number
    return [Line(t, document.name, number, cell.count, "output", n) for n, t in split(cell.output)]


def source_lines(document: Document, cell: Cell) -> list[Line]:
    """A cell's own text."""
    number = 0 if document.form == "python" else cell.number
    part = "text" if cell.kind == "markdown" else "source"
    return [Line(t, document.name, number, cell.count, part, n) for n, t in split(cell.source)]


def split(text: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of all that is not blank; what is longer than LONGEST comes in pieces, cut at a blank."""
    for number, line in enumerate(text.split("\n"), 1):
        for piece in _drawn(line) if "\r" in line or "\x08" in line else (line,):
            while len(piece) > LONGEST:
                at = piece.rfind(" ", LONGEST // 2, LONGEST) + 1 or LONGEST
                yield number, piece[:at]
                piece = piece[at:]
            if piece.strip():
                yield number, piece


def _drawn(line: str) -> Iterator[str]:
    """The states of a line that wrote over itself; of those of a bar on its way only the first."""
    on_its_way = False
    for piece in OVERWRITTEN.split(line) if "\x08" in line else line.split("\r"):
        unfinished = "%|" in piece and "100%|" not in piece and piece.rstrip().endswith("]")
        if not (unfinished and on_its_way):
            yield piece
        on_its_way = unfinished
