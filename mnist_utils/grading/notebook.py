"""One file as a document of cells: a notebook, its HTML, a text or a program's log, or Python.

    document = read_document("a.ipynb", data)

HTML has the classes of nbconvert's templates basic, classic ("full" before it) and lab. Its tags
are found from left to right and never looked at twice, so that the time is linear.
"""

import json
import re
from html import unescape
from pathlib import PurePosixPath
from typing import NamedTuple

from .lines import clean, clean_name, cut

MAX_MARKS = 3_000_000  # commas and brackets of one JSON file, which bound the objects it becomes
MAX_TAGS = 300_000
MAX_CELLS = 2_000
MAX_TEXT = 4 << 20  # characters of source and output in one file; those of images are not counted
FORMS = {".ipynb": "notebook", ".html": "html", ".htm": "html", ".py": "python"}
FORMS |= dict.fromkeys((".md", ".markdown", ".txt", ".log"), "text")
# A line that a program logged begins with a time or a level; Markdown has headings, fences, lists.
LOGGED = re.compile(r"\W{0,2}\d{2,4}[-/:]\d{1,2}[-/:]\d|\W{0,2}(?:INFO|DEBUG|WARNING)\b")
MARKDOWN = re.compile(r"^ {0,3}#{1,6}\s|^ {0,3}```|^ {0,3}[*-] ", re.M)

# No part of a tag crosses a "<", so that what does not end is looked at only once.
TAG = re.compile(
    r"<(/?[a-zA-Z][a-zA-Z0-9-]{0,20})(?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+')*+>|<[!?][^<>]{0,200}>"
)
CELL = re.compile(r"<div[^<>]{0,200}class=[\"'][^\"'<>]{0,200}?(?<![\w-])(?:jp-Cell|cell)(?![\w-])")
OUTPUT = re.compile(
    r"<div[^<>]{0,200}class=[\"'][^\"'<>]{0,200}?(?:jp-OutputArea-output|output_subarea)"
)
SOURCE = re.compile(r"jp-(?:InputArea-editor|CodeMirror|Markdown)|input_area|text_cell_render")
CODE = re.compile(r"[^>]{0,300}?(?:code_cell|jp-CodeCell)")
PROMPT = re.compile(r"(?:In|Code|this run|and defaults)\s*\[\s*(\d{0,6}|\*)\s*\]:?")  # also our own
OUT = re.compile(r"^\s*Out\s*\[\s*\d{0,6}\s*\]:?", re.M)
# What is hidden ends with its tag, or else with the page: no part is looked at twice.
HIDDEN = re.compile(
    r"<(script|style|svg|head|template|noscript)\b[^<>]{0,2000}>.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)",
    re.I | re.S,
)
BREAKS = "p div br tr pre li ul ol table h1 h2 h3 h4 h5 h6 /p /tr /pre /table /li".split()
SPACES = dict.fromkeys(BREAKS, "\n") | {"/td": " | ", "/th": " | "}


class Refused(Exception):
    """Something that is not read, with the reason."""


class Cell(NamedTuple):
    """One cell, numbered from 1 as it stands; a text is a single cell.

    `kind` is "code", "markdown" or "text"; `output` what was printed, or the whole of a text.
    `count` is the execution count, None where there is none and 0 where Colab did not keep it.
    """

    number: int
    kind: str
    source: str = ""
    output: str = ""
    count: int | None = None
    error: str = ""


class Document(NamedTuple):
    """One file: its path within the submission, its form (a value of FORMS) and its cells.

    `prose` says of a text that a person wrote it, rather than a program.
    """

    name: str
    form: str
    cells: tuple[Cell, ...]
    prose: bool = False


def read_document(name: str, data: bytes) -> Document:
    """Raises Refused, ValueError or RecursionError where the bytes are not what the name says."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in FORMS:
        raise Refused("not a notebook, HTML, Markdown or text")
    form = FORMS[suffix]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = data.decode("utf-16" if is_wide else "cp1252", "replace")
    if form in ("notebook", "html") and text.count("<") > MAX_TAGS:
        raise Refused(f"HTML of more than {MAX_TAGS:,} tags")
    if form == "notebook":
        cells = _notebook_cells(text)
    elif form == "python":
        cells = [Cell(1, "code", text)]
    else:
        cells = _html_cells(text) if form == "html" else []
        if not cells:
            shown = text_of(text) if form == "html" else text
            cells = [Cell(1, "text", "", shown)]
            form = "text"
    cells = [cell._replace(source=clean(cell.source), output=clean(cell.output)) for cell in cells]
    if sum(len(cell.source) + len(cell.output) for cell in cells) > MAX_TEXT:
        raise Refused(f"more than {MAX_TEXT >> 20} MiB of text, images aside")
    prose = form == "text" and suffix != ".log"
    if prose:
        first = text[:200_000].split("\n", 2_000)[:2_000]
        is_logged = sum(bool(LOGGED.match(line[:40])) for line in first) > 3
        is_plain = suffix == ".txt" and not MARKDOWN.search(text[:200_000])
        prose = not is_logged and not is_plain
    return Document(clean_name(name), form, tuple(cells), prose)


def _notebook_cells(text: str) -> list[Cell]:
    if sum(map(text.count, "[{,")) > MAX_MARKS:
        raise Refused("JSON of too many parts")
    try:
        notebook = json.loads(text)
    except ValueError as error:
        raise Refused(f"not JSON ({error})") from None
    if not isinstance(notebook, dict):
        raise Refused("not a notebook")
    cells = notebook.get("cells")
    if cells is None and (sheets := _dicts(notebook.get("worksheets"))):  # as nbformat 3 has it
        cells = [cell for sheet in sheets for cell in _dicts(sheet.get("cells"))]
    if not isinstance(cells, list):
        raise Refused("not a notebook: it has no cells")
    _check_count(cells)
    numbered = enumerate(cells, 1)
    return [_notebook_cell(number, cell) for number, cell in numbered if isinstance(cell, dict)]


def _check_count(cells: list) -> None:
    if len(cells) > MAX_CELLS:
        raise Refused(f"more than {MAX_CELLS:,} cells")


def _notebook_cell(number: int, cell: dict) -> Cell:
    source = _text(cell.get("source", cell.get("input")))
    if cell.get("cell_type") != "code":
        return Cell(number, "markdown", source)
    shown = ""
    errors: list[str] = []
    before = None
    for output in _dicts(cell.get("outputs")):
        kind = output.get("output_type")
        if kind in ("error", "pyerr"):
            said = f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}".strip(": ")
            errors.append(said or "an error")
            continue
        # each output has lines of its own, but a stream that was cut in pieces is whole again
        stream = kind == "stream" and output.get("name", output.get("stream"))
        if shown and not shown.endswith("\n") and (not stream or stream != before):
            shown += "\n"
        before = stream
        data = output.get("data")
        if not isinstance(data, dict):
            data = output
        rich = _text(data.get("text/html", data.get("html")))
        if "<td" in rich or "<pre" in rich:
            shown += text_of(rich)
        else:
            plain = _text(data.get("text/plain", data.get("text")))
            shown += plain or _text(data.get("text/markdown"))
    count = cell.get("execution_count", cell.get("prompt_number"))
    if type(count) is not int or not 0 <= count < 10**9:
        count = None
    error = cut(clean("; ".join(errors)), 300)
    return Cell(number, "code", source, shown, count, error)


def _dicts(value) -> list[dict]:
    return [part for part in _list(value) if isinstance(part, dict)]


def _text(value) -> str:
    return "".join(part for part in _list(value) if isinstance(part, str))


def _list(value) -> list:
    return value if isinstance(value, list) else [value]


def _html_cells(html: str) -> list[Cell]:
    """The cells of a notebook that nbconvert made into HTML; none where it is other HTML."""
    html = HIDDEN.sub("", html)
    starts = [match.start() for match in CELL.finditer(html)]
    _check_count(starts)
    found = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(html)]), 1):
        places = [match.start() for match in OUTPUT.finditer(html, start, end)]
        first = min([*places, end])
        marked = SOURCE.search(html, start, first)
        source = text_of(html[html.find(">", marked.end()) + 1 : first]) if marked else ""
        prompt = PROMPT.search(text_of(html[start:first]))
        if not prompt and not CODE.match(html, start, start + 300):
            found.append(Cell(number, "markdown", source.strip()))
            continue
        count = int(prompt[1]) if prompt and prompt[1].isdecimal() else None
        outputs: list[str] = []
        error = ""
        for place, after in zip(places, [*places[1:], end]):
            piece = text_of(html[place:after]).strip("\n")
            if re.match(r"[^>]{0,300}output_(?:py)?err", html[place : place + 300]):
                error = " ".join(piece.strip()[-300:].split()[-30:])
            else:
                outputs.append(OUT.sub("", piece))
        found.append(Cell(number, "code", source.strip("\n"), "\n".join(outputs), count, error))
    return found


def text_of(html: str) -> str:
    """The text of HTML; of a table a line a row, with bars between the columns."""
    html = HIDDEN.sub("", html)
    text = unescape(TAG.sub(lambda tag: SPACES.get((tag[1] or "").lower(), ""), html))
    return re.sub(r"\n[ \t]{0,1000}(?:\n[ \t]{0,1000}){1,1000}", "\n", text).strip("\n")
