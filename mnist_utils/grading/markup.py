"""Notebooks that nbconvert made into HTML, read back into cells; and the text of HTML tables.

The tags are found from left to right and never looked at twice, so that the time is linear whatever the file holds.
Known are the classes of the templates basic, classic (and "full" before it) and lab; other HTML is read as a text.
"""

import re
from collections.abc import Iterator
from html import unescape

TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]{0,20})((?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+')*+)>")  # none crosses a "<"
CLASS = re.compile(r"class\s*=\s*[\"']([^\"']{0,300})[\"']")
PROMPT = re.compile(r"(?:In|Code|this run|and defaults)\s*\[\s*(\d{0,6}|\*)\s*\]")  # the latter in our own reports
MAX_TAGS = 300_000
HIDDEN = {"script", "style", "svg", "head", "template", "noscript"}
BREAKS = {"p", "div", "br", "tr", "pre", "li", "ul", "ol", "table", "h1", "h2", "h3", "h4", "h5", "h6"}
VOID = {"br", "img", "hr", "meta", "link", "input", "col", "wbr"}
CELL = {"jp-Cell", "cell"}
MARKS = (
    ("prompt", {"jp-InputPrompt", "input_prompt"}),
    ("source", {"jp-InputArea-editor", "input_area", "jp-CodeMirrorEditor"}),
    ("ignored", {"jp-OutputPrompt", "output_prompt", "prompt"}),
    ("error", {"output_error", "output_pyerr"}),
    ("output", {"jp-OutputArea-output", "output_subarea", "output_text", "output_stream"}),
    ("markdown", {"jp-MarkdownOutput", "text_cell_render"}),
)


def tokens(html: str) -> Iterator[tuple[str, str, str]]:
    """("text", text, ""), ("open", tag, its attributes) and ("close", tag, ""), from left to right. Raises ValueError
    where there are more than MAX_TAGS."""
    at = 0
    if html.count("<") > MAX_TAGS:
        raise ValueError(f"HTML of more than {MAX_TAGS:,} tags")
    while at < len(html):
        start = html.find("<", at)
        if start < 0:
            start = len(html)
        if start > at:
            yield "text", unescape(html[at:start]) if "&" in html[at:start] else html[at:start], ""
        if start == len(html):
            return
        if html.startswith("<!--", start):
            end = html.find("-->", start)
            at = len(html) if end < 0 else end + 3
            continue
        match = TAG.match(html, start)
        if not match:
            skip = 2 if html.startswith(("<!", "<?"), start) else 1
            end = html.find(">", start, start + 200) if skip == 2 else -1
            if skip == 1 or end < 0:
                yield "text", html[start : start + skip], ""
                at = start + skip
            else:
                at = end + 1
            continue
        closing, tag, attributes = match[1], match[2].lower(), match[3]
        at = match.end()
        if tag in HIDDEN and not closing and not attributes.endswith("/"):
            end = html.find(f"</{tag}", at)
            at = len(html) if end < 0 else end
            continue
        if closing:
            yield "close", tag, ""
        elif not attributes.endswith("/") or tag not in VOID:
            yield "open", tag, attributes


def html_cells(html: str, most: int) -> list[dict]:
    """The cells of a notebook that became HTML, as the fields of `reading.Cell`; else the whole as one text."""
    cells = _Cells(most)
    for kind, value, attributes in tokens(html):
        cells.take(kind, value, attributes)
    return cells.found or [dict(number=1, kind="text", output=table_text(html))]


class _Cells:
    """Takes tokens and keeps in `found` the cells they make; `open` holds what each open div means."""

    def __init__(self, most: int):
        self.found: list[dict] = []
        self.most, self.open, self.pre = most, [], 0
        self.pieces: dict[str, list[str]] = {}

    def take(self, kind: str, value: str, attributes: str) -> None:
        if kind == "open" and value == "div":
            self._open(set((CLASS.search(attributes) or ["", ""])[1].split()))
        elif kind == "close" and value == "div":
            if self.open and self.open.pop() == "cell":
                self._finish()
        elif self.pieces:
            if value == "pre" and kind != "text":
                self.pre += 1 if kind == "open" else -1
            self._add(kind, value)

    def _open(self, classes: set[str]) -> None:
        meaning = next((name for name, known in MARKS if classes & known), "")
        if classes & CELL and not self.pieces and len(self.found) < self.most:
            meaning, self.pieces = "cell", {"kind": ["code" if _is_code(classes) else "markdown"]}
        inherited = self.open[-1] if self.open and self.open[-1] != "cell" else ""
        if meaning == "output" and inherited in ("error", "source"):
            meaning = inherited
        if len(self.open) < 10_000:
            self.open.append(meaning or inherited)
        if meaning in ("output", "error") and self.pieces:
            self._add("open", "p")

    def _add(self, kind: str, value: str) -> None:
        part = self.open[-1] if self.open else ""
        part = "prompt" if part == "cell" else part  # what stands in no part of its own can only be that
        between_tags = kind == "text" and self.pre < 1 and not value.strip()
        if part in ("", "ignored") or between_tags:
            return
        text = value if kind == "text" else _spacing(kind, value)
        if text:
            self.pieces.setdefault(part, []).append(text)

    def _finish(self) -> None:
        pieces = {name: "".join(texts) for name, texts in self.pieces.items()}
        prompt = PROMPT.search(pieces.get("prompt", ""))
        count = int(prompt[1]) if prompt and prompt[1].isdecimal() else None
        code = pieces["kind"] == "code" or bool(prompt)
        said = pieces.get("error", "").strip()
        self.pieces, self.pre = {}, 0
        self.found.append(
            dict(
                number=len(self.found) + 1,
                kind="code" if code else "markdown",
                source=pieces.get("source", "").strip("\n") if code else pieces.get("markdown", "").strip(),
                output=pieces.get("output", "").lstrip("\n") if code else "",
                count=count,
                error=" ".join(said[-300:].split()[-30:]),
            )
        )


def _is_code(classes: set[str]) -> bool:
    return bool(classes & {"code_cell", "jp-CodeCell"})


def _spacing(kind: str, tag: str) -> str:
    """What a tag means for the text around it: lines and, in a table, columns."""
    if kind == "close" and tag in ("td", "th"):
        return " | "
    return "\n" if tag in BREAKS and (kind == "open" or tag in ("p", "tr", "pre", "table", "li")) else ""


def table_text(html: str) -> str:
    """The text of HTML, a line a row, with bars between the columns."""
    parts = [value if kind == "text" else _spacing(kind, value) for kind, value, _ in tokens(html)]
    return re.sub(r"\n[ \t\n]{1,1000}", "\n", "".join(parts)).strip("\n")
