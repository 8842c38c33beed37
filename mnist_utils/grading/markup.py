"""Notebooks that nbconvert made into HTML, read back into cells; and the text of HTML tables.

The tags are found from left to right and never looked at twice, so that the time is linear whatever
the file holds. Known are the classes of the templates basic, classic ("full" before it) and lab.
"""

import re
from collections.abc import Iterator
from html import unescape

# No part of a tag crosses a "<", so that what does not end is looked at only once.
TAG = re.compile(
    r"<(/?)([a-zA-Z][a-zA-Z0-9-]{0,20})((?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+')*+)>"
)
CLASS = re.compile(r"class\s*=\s*[\"']([^\"']{0,300})[\"']")
PROMPT = re.compile(r"(?:In|Code|this run|and defaults)\s*\[\s*(\d{0,6}|\*)\s*\]")  # also our own
MAX_TAGS = 300_000
HIDDEN = {"script", "style", "svg", "head", "template", "noscript"}
BREAKS = set("p div br tr pre li ul ol table h1 h2 h3 h4 h5 h6".split())
VOID = {"br", "img", "hr", "meta", "link", "input", "col", "wbr"}
MARKS = (
    ("prompt", {"jp-InputPrompt", "input_prompt"}),
    ("source", {"jp-InputArea-editor", "input_area", "jp-CodeMirrorEditor"}),
    ("ignored", {"jp-OutputPrompt", "output_prompt", "prompt"}),
    ("error", {"output_error", "output_pyerr"}),
    ("output", {"jp-OutputArea-output", "output_subarea", "output_text", "output_stream"}),
    ("markdown", {"jp-MarkdownOutput", "text_cell_render"}),
)


def tokens(html: str) -> Iterator[tuple[str, str, str]]:
    """("text", text, ""), ("open", tag, attributes) and ("close", tag, ""), from left to right."""
    at = 0
    while at < len(html):
        start = html.find("<", at)
        if start < 0:
            start = len(html)
        if start > at:
            yield "text", unescape(html[at:start]), ""
        match = TAG.match(html, start)
        if match:
            closing, tag, attributes = match[1], match[2].lower(), match[3]
            at = match.end()
            if tag in HIDDEN and not closing and not attributes.endswith("/"):
                end = html.find(f"</{tag}", at)
                at = len(html) if end < 0 else end
            elif closing:
                yield "close", tag, ""
            elif tag not in VOID or not attributes.endswith("/"):
                yield "open", tag, attributes
        elif html.startswith("<!--", start):
            end = html.find("-->", start)
            at = len(html) if end < 0 else end + 3
        elif html.startswith(("<!", "<?"), start):
            end = html.find(">", start, start + 200)
            at = start + 2 if end < 0 else end + 1
        else:
            if start < len(html):
                yield "text", "<", ""
            at = start + 1


def html_cells(html: str, most: int) -> list[tuple]:
    """The cells of a notebook that became HTML, each as (number, kind, source, output, execution count,
    error); none where it is other HTML."""
    found: list[tuple] = []
    opened: list[str] = []  # what each div that is open means
    parts: dict[str, list[str]] = {}  # of the cell that is open
    kind, pre = "", 0
    for token, value, attributes in tokens(html):
        if token == "open" and value == "div":
            classes = set((CLASS.search(attributes) or ["", ""])[1].split())
            meaning = next((name for name, known in MARKS if classes & known), "")
            inherited = opened[-1] if opened and opened[-1] != "cell" else ""
            if classes & {"jp-Cell", "cell"} and not kind and len(found) < most:
                meaning, kind = "cell", "code" if classes & {"code_cell", "jp-CodeCell"} else "markdown"
            elif meaning == "output" and inherited in ("error", "source"):
                meaning = inherited
            if len(opened) < 10_000:
                opened.append(meaning or inherited)
            if kind and meaning in ("output", "error"):
                parts.setdefault(meaning, []).append("\n")
        elif token == "close" and value == "div":
            if opened and opened.pop() == "cell":
                found.append(_cell(len(found) + 1, kind, parts))
                parts, kind, pre = {}, "", 0
        elif kind:
            if value == "pre" and token != "text":
                pre += 1 if token == "open" else -1
            part = opened[-1] if opened else ""
            between_tags = token == "text" and pre < 1 and not value.strip()
            if part not in ("", "ignored") and not between_tags:
                # what stands in no part of its own can only be the prompt
                text = value if token == "text" else _spacing(token, value)
                parts.setdefault(part.replace("cell", "prompt"), []).append(text)
    return found


def _cell(number: int, kind: str, parts: dict[str, list[str]]) -> tuple:
    texts = {name: "".join(pieces) for name, pieces in parts.items()}
    prompt = PROMPT.search(texts.get("prompt", ""))
    if kind == "markdown" and not prompt:
        return number, "markdown", texts.get("markdown", "").strip()
    count = int(prompt[1]) if prompt and prompt[1].isdecimal() else None
    error = " ".join(texts.get("error", "").strip()[-300:].split()[-30:])
    source, output = texts.get("source", "").strip("\n"), texts.get("output", "").lstrip("\n")
    return number, "code", source, output, count, error


def _spacing(token: str, tag: str) -> str:
    """What a tag means for the text around it: lines and, in a table, columns."""
    if token == "close" and tag in ("td", "th"):
        return " | "
    ends_line = tag in ("p", "tr", "pre", "table", "li")
    return "\n" if tag in BREAKS and (token == "open" or ends_line) else ""


def table_text(html: str) -> str:
    """The text of HTML, a line a row, with bars between the columns."""
    parts = [value if kind == "text" else _spacing(kind, value) for kind, value, _ in tokens(html)]
    return re.sub(r"\n[ \t\n]{1,1000}", "\n", "".join(parts)).strip("\n")
