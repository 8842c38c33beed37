"""Notebooks and pages as HTML that needs no network: one look, light and dark, wide and narrow, on screen and paper.

    render(Path("reports/01_seed_model/seed-0/01_seed_model.ipynb"))    # the .html beside it
    render_page(Path("reports/README.md"))                              # index.html beside it

Nothing is executed here. A verdict is read off the run.json beside the notebook.
"""

import json
import shlex
from pathlib import Path

from .. import assignment
from ..errors import RecordError, UsageError
from ..parameters import read_parameters
from ..records import RunRecord, write_text
from ..templating import STYLE, TEMPLATES, fill


def render(notebook: Path) -> Path:
    """Write the executed `notebook` as HTML beside it and return that path.

    Cells tagged `no-report` are left out, code is folded. On top stand what the record beside it says, rule by rule,
    the command that repeats the run, and a list of contents. Equal input gives equal bytes.
    """
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config({"TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": {"no-report"}}})
    exporter = HTMLExporter(
        config=config, template_name="report", extra_template_basedirs=[str(TEMPLATES)], embed_images=True
    )
    page = _soup(exporter.from_filename(str(notebook))[0])
    headings = [(heading["id"], heading.get_text()) for heading in page("h2")]
    front = _soup(fill("front.html.j2", headings=headings, **_facts(notebook)))
    page.h1.insert_after(front) if page.h1 else page.main.insert(0, front)
    return _write(_finish(page, notebook.parent), notebook.with_suffix(".html"))


def render_page(markdown: Path) -> Path:
    """Write a README.md of the reports as index.html beside it and return that path."""
    from nbconvert.filters import markdown2html

    body = markdown2html(markdown.read_text(encoding="utf-8"))
    heading = _soup(body).h1
    title = heading.get_text() if heading else markdown.parent.name
    page = _soup(fill("page.html.j2", title=title, body=body, style=STYLE.read_text(encoding="utf-8")))
    return _write(_finish(page, markdown.parent), markdown.with_name("index.html"))


def refresh(executed: Path, source: Path) -> bool:
    """Give an executed notebook the words that `source` has now, where their code is the same, and render it again.

    A result over many seeds is known only after the runs it tells of; code and outputs stay as they were executed.
    Returns whether anything changed.
    """
    if not (executed.exists() and source.exists()):
        return False
    done, now = (json.loads(path.read_text(encoding="utf-8")) for path in (executed, source))
    cells = [cell for cell in done["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    code = [["".join(c["source"]) for c in part if c["cell_type"] == "code"] for part in (cells, now["cells"])]
    pairs = list(zip(cells, now["cells"]))
    if code[0] != code[1] or len(cells) != len(now["cells"]) or all(a["source"] == b["source"] for a, b in pairs):
        return False
    for old, new in pairs:
        old["source"] = new["source"]
    _write(json.dumps(done, indent=1, ensure_ascii=False) + "\n", executed)
    render(executed)
    return True


def _facts(notebook: Path) -> dict:
    """What is known of a run beside its notebook; nothing of one that left no record."""
    try:
        record = RunRecord.load(notebook.parent)
    except RecordError:
        return {"record": None}
    beside = {"record": "run.json", "metrics": "metrics.csv", "executed notebook": notebook.name}
    beside |= {"weights": "model.safetensors", "all seeds": "../README.md"}
    return {
        "record": record,
        "verdicts": assignment.judge(record),
        "overall": assignment.overall(assignment.judge(record)),
        "command": command(record, notebook),
        "links": {name: file for name, file in beside.items() if (notebook.parent / file).exists()},
    }


def command(record: RunRecord, notebook: Path) -> str:
    """What repeats the run: every parameter that is not the notebook's default, and what `auto` stood for then."""
    try:
        defaults = {name: parameter.default for name, parameter in read_parameters(notebook).items()}
    except UsageError:
        defaults = {}
    resolved = {"dataset": record.dataset.get("name"), "threads": record.device.get("threads")}
    used = record.parameters | {name: value for name, value in resolved.items() if value is not None}
    given = {name: value for name, value in used.items() if name in defaults and value != defaults[name]}
    words = ["python", "-m", "mnist_utils", "run", notebook.stem, "--seed", str(record.seed)]
    return shlex.join(words + [word for name, value in given.items() for word in ("-p", name, str(value))])


def _finish(page, folder: Path) -> str:
    """The parsed page as text, its links alive and what is wider than a screen scrolled by itself, by keyboard too."""
    for link in page("a", href=True):
        link["href"] = _target(link["href"], folder)
        if not link["href"]:
            link.unwrap()
    for table in page("table"):
        table.wrap(page.new_tag("div", attrs={"class": "wide", "tabindex": "0"}))
    for wide in page("pre"):
        wide["tabindex"] = "0"
    return str(page)


def _target(href: str, folder: Path) -> str:
    """Where a link leads from a page in `folder`: Markdown pages have HTML beside them; "" where there is nothing.

    Sources name each other as files beside them; under reports/ the other notebook is a folder two levels up.
    """
    if "://" in href or href.startswith(("#", "data:")):
        return href
    path, _, place = href.partition("#")
    if path.endswith(".ipynb") and not (folder / path).exists():
        path = f"../../{Path(path).stem}/README.md"
    if not (folder / path).exists():
        return ""
    return path.removesuffix("README.md") + "index.html" * path.endswith("README.md") + (place and f"#{place}")


def _soup(text: str):
    """The text parsed, without the paragraph signs that nbconvert puts behind headings."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(text, "html.parser")
    for anchor in page("a", class_="anchor-link"):
        anchor.decompose()
    return page


def _write(text: str, path: Path) -> Path:
    write_text(path, text)
    return path
