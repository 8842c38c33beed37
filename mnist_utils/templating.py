"""The HTML templates that reports and grades share, and how they are filled in."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "report/static/report.css"


def fill(template: str, **facts) -> str:
    """A template of `TEMPLATES` with these facts in it, escaped as HTML unless it says otherwise."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return places.get_template(template).render(**facts)
