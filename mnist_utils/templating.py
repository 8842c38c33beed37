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

    rules = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    places = Environment(loader=FileSystemLoader(TEMPLATES), **rules)
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
