"""Notebooks that nbconvert made into HTML, read back into cells; and the text of HTML.

Tags are found from left to right and never looked at twice, so that the time is linear whatever the
file holds. Known are the classes of the templates basic, classic ("full" before it) and lab.
"""

import re
from html import unescape

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
HIDES = re.compile(r"<(script|style|svg|head|template|noscript)\b[^<>]{0,2000}>|<!--", re.I)
BREAKS = set("p div br tr pre li ul ol table h1 h2 h3 h4 h5 h6 /p /tr /pre /table /li".split())
MAX_TAGS = 300_000


def html_cells(html: str, most: int) -> list[tuple]:
    """The cells of a notebook that became HTML, each as (number, kind, source, output, execution
    count, error); none where it is other HTML."""
    html = _visible(html)
    starts = [match.start() for match in CELL.finditer(html)][: most + 1]
    found = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(html)]), 1):
        places = [match.start() for match in OUTPUT.finditer(html, start, end)]
        first = min([*places, end])
        marked = SOURCE.search(html, start, first)
        source = html[html.find(">", marked.end()) + 1 : first] if marked else ""
        shown = text_of(html[start:first])
        prompt = PROMPT.search(shown)
        if not prompt and not CODE.match(html, start, start + 300):
            found.append((number, "markdown", text_of(source).strip()))
            continue
        count = int(prompt[1]) if prompt and prompt[1].isdecimal() else None
        outputs, error = [], ""
        for place, after in zip(places, [*places[1:], end]):
            piece = text_of(html[place:after]).strip("\n")
            if re.match(r"[^>]{0,300}output_(?:py)?err", html[place : place + 300]):
                error = " ".join(piece.strip()[-300:].split()[-30:])
            else:
                outputs.append(OUT.sub("", piece))
        source = text_of(source).strip("\n")
        found.append((number, "code", source, "\n".join(outputs), count, error))
    return found


def _visible(html: str) -> str:
    """Without comments, scripts and other elements that show nothing."""
    parts, at = [], 0
    while match := HIDES.search(html, at):
        parts.append(html[at : match.start()])
        close = f"</{match[1]}" if match[1] else "-->"
        end = html.find(close, match.end())
        at = end + len(close) if end >= 0 else len(html)
    return "".join([*parts, html[at:]])


def text_of(html: str) -> str:
    """The text of HTML; of a table a line a row, with bars between the columns."""
    html = _visible(html)
    parts, at = [], 0
    for match in TAG.finditer(html):
        parts.append(unescape(html[at : match.start()]))
        at = match.end()
        tag = (match[1] or "").lower()
        if tag in BREAKS:
            parts.append("\n")
        elif tag in ("/td", "/th"):
            parts.append(" | ")
    text = "".join([*parts, unescape(html[at:])])
    return re.sub(r"\n[ \t]{0,1000}(?:\n[ \t]{0,1000}){1,1000}", "\n", text).strip("\n")
