"""The templates that reports and grades share, and how they are filled in."""

import base64
import hashlib
import html
import re
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "report/static/report.css"


def fill(template: str, **facts) -> str:
    """A template of `TEMPLATES` with these facts in it, escaped as HTML unless it says otherwise.

    In Markdown templates `text | literal` is not taken for Markdown, `text | prose` only for that.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    places = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    places.filters["literal"] = lambda text: Markup(literal(text))
    places.filters["prose"] = lambda text: Markup(html.escape(text, quote=False))
    return places.get_template(template).render(**facts)


def literal(text) -> str:
    """Text as one line of Markdown that shows it as it is: no markup, no HTML, no formula."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    # An underscore inside a word is no markup; names of notebooks stay readable.
    return re.sub(r"[\\`*\[\]|~${}]|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], line)


def policy(*scripts: str) -> str:
    """A content security policy under which a page shows pictures that lie beside it or within it
    and runs these scripts of its own; it asks for nothing else, from anywhere."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {allowed or repr('none')}"
    )


def aligned(text: str) -> str:
    """The text with its Markdown tables set in columns for a terminal, figures to the right."""
    lines, table = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            table.append([re.sub(r"\*\*|`|\\(?=[|*_])", "", cell) for cell in cells])
        else:
            lines += _columns(table) + [line]
            table = []
    return "\n".join(lines[:-1])


def _columns(table: list[list[str]]) -> list[str]:
    rows = [row for row in table if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    if rows:
        rows.insert(1, ["-" * width for width in widths])
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if re.match(r"[-+]?\d", cell) else cell.ljust(width)
            for cell, width in zip(row, widths)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
