"""Text that strangers wrote: cleaned, as lines with their place, and within a limit of time.

Every loop over a submission passes through here line by line, so this is where its time limit is
kept: nothing needs to be killed, and it works alike in one process, in many and on a cluster.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

# A line is searched at most 2,000 characters at once, cut at a blank where there is one.
PIECES = re.compile(r".{1,2000}\Z|.{1000,1999} |.{2000}", re.S)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
UNPRINTABLE = re.compile(
    "[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
ESCAPES = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)?|\x1b.?"
)
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


class TooLong(Exception):
    """A submission took longer than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Inside of this, `check_time` raises TooLong once `seconds` of wall clock are over."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise TooLong where the limit is over; cheap enough to be called for every line."""
    if time.monotonic() > _deadline.get():
        raise TooLong


class Line(NamedTuple):
    """A line and its place, from 1; `cell` is 0 and `count` None where there is none."""

    text: str
    document: str
    cell: int = 0
    count: int | None = None
    part: str = "output"
    number: int = 1

    @property
    def at(self) -> tuple[int, int]:
        """Where it stands in its document, to compare with others."""
        return self.cell, self.number

    @property
    def where(self) -> str:
        if not self.cell:
            return f"{self.document}, line {self.number}"
        count = f" [{self.count}]" if self.count else ""
        return f"{self.document}, cell {self.cell}{count}, {self.part} line {self.number}"

    def __str__(self) -> str:
        return f"{self.where}: {cut(self.text)}"


def lines_of(document, cell, part: str = "output", most: int = 1_000_000) -> list[Line]:
    """The first lines of a cell's output or source that are not blank. Pieces of one that is too
    long, and the states of one that wrote over itself, have the same number."""
    text = cell.output if part == "output" else cell.source
    cell_number = 0 if document.form in ("text", "python") else cell.number
    place = (document.name, cell_number, cell.count, part)
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        check_time()
        if len(found) >= most:
            break
        for state in _drawn(line):
            pieces = [piece for piece in PIECES.findall(state) if not piece.isspace()]
            found += [Line(piece, *place, number) for piece in pieces]
    return found


def _drawn(line: str) -> Iterator[str]:
    """The states of a line that wrote over itself; of a bar on its way only the first."""
    on_its_way = False
    for piece in re.split(r"[\r\x08]+", line):
        unfinished = "%|" in piece and "100%|" not in piece and piece.rstrip().endswith("]")
        if not (unfinished and on_its_way):
            yield piece
        on_its_way = unfinished


def clean(text: str) -> str:
    """Without terminal escapes, control characters and marks that turn the direction of writing;
    carriage returns and backspaces stay, with which progress bars write over themselves."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if "\x1b" in text:
        text = ESCAPES.sub("", text)
    return UNPRINTABLE.sub("", text.replace("\r\n", "\n"))


def cut(text: str, width: int = 160) -> str:
    """On one line of at most `width` characters, none of which moves the cursor."""
    text = " ".join(CONTROL.sub(" ", text).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def clean_name(name: str) -> str:
    """The name of a file, or an error's message, as it can be shown."""
    return cut(clean(name), 200)
