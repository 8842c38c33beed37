"""Notebooks and pages as HTML that needs no network: one look, light and dark, wide and narrow.

render(Path("reports/01_seed_model/seed-0/01_seed_model.ipynb"))    # the .html beside it
render_page(Path("reports/README.md"), Path("reports"))             # index.html beside it
"""

import base64
import json
import mimetypes
import os
import re
import shlex
from contextlib import suppress
from html import escape
from pathlib import Path
from urllib.parse import unquote

from ..assignment import ASSIGNMENT, judge, overall
from ..errors import RecordError, UsageError
from ..parameters import read_notebook, read_parameters
from ..records import RunRecord, write_text
from ..templating import STYLE, TEMPLATES, fill, policy
from .results import order

# The pages that belong to no notebook, in the order in which a reader meets them.
OTHERS = {
    "pad.html": "Draw a digit",
    "hardest/index.html": "Hardest digits",
    "search/index.html": "Search",
    "bench/index.html": "Speed",
    "faults/index.html": "Faults",
}


def render(notebook: Path, root: Path | None = None) -> Path:
    """Write the executed `notebook` as HTML beside it and return that path.

    Cells tagged `no-report` are left out, code is folded. On top stand the verdict on the record
    beside it, the command that repeats the run and a list of contents. The header leads to the other
    pages of the reports in `root`. Pictures are taken from beside the notebook or from beside its
    source, which papermill noted. Raises UsageError for a file that is no notebook.
    """
    from nbconvert import HTMLExporter

    noted = read_notebook(notebook)["metadata"].get("papermill", {})
    source = Path(str(noted.get("input_path", notebook)))
    # templates/report/conf.json leaves out the cells tagged so.
    places = {"template_name": "report", "extra_template_basedirs": [str(TEMPLATES)]}
    exporter = HTMLExporter(**places, embed_images=True)
    path = notebook.with_suffix(".html")
    facts = {"policy": policy(), "header": header(path, root)}
    page = _soup(exporter.from_filename(str(notebook), facts)[0])
    headings = [(heading["id"], heading.get_text()) for heading in page("h2")]
    front = _soup(fill("front.html.j2", headings=headings, **_facts(notebook)))
    page.h1.insert_after(front) if page.h1 else page.main.insert(0, front)
    _finish(page, root, [notebook.parent, source.parent])
    write_text(path, str(page))
    return path


def render_page(markdown: Path, root: Path) -> Path:
    """Write a README.md of the reports in `root` as index.html beside it and return that path."""
    from nbconvert.filters import markdown2html

    path = markdown.with_name("index.html")
    body = _soup(markdown2html(markdown.read_text("utf-8")))
    _finish(body, root, [markdown.parent])
    title = body.h1.get_text() if body.h1 else markdown.parent.name
    write_page(path, root, title, str(body), ["sort.js"] if path.parent.name == "search" else [])
    return path


def write_page(path: Path, root: Path, title: str, body: str, scripts: list[str]) -> None:
    """Write the page at `path`: header, HTML `body`, and these templates as its scripts."""
    code = [(TEMPLATES / name).read_text("utf-8") for name in scripts]
    facts = dict(title=title, header=header(path, root), body=body, scripts=code)
    style = STYLE.read_text("utf-8")
    write_text(path, fill("page.html.j2", policy=policy(*code), style=style, **facts))


def header(path: Path, root: Path | None) -> str:
    """What stands on top of the page at `path`: the project and its assignment, where the reader is,
    the pages before and after, and all others of the reports in `root`, where there are any."""
    found, here = {}, path.name
    if root is not None:
        found, here = places(root, path), path.relative_to(root).as_posix()
    links = [
        (place, name, os.path.relpath(root / place, path.parent)) for place, name in found.items()
    ]
    # The page of one run has the neighbours of its notebook's page.
    own = here if here in found else f"{here.partition('/')[0]}/index.html"
    facts = dict(rules=ASSIGNMENT, places=links, here=here, own=own, path=path, others=OTHERS)
    return fill("header.html.j2", **facts)


def places(root: Path, path: Path | None = None) -> dict[str, str]:
    """The pages of the reports in their order, index first: place inside `root` and name of each.

    The page that will lie at `path` is one of them, whether it is there yet or not.
    """
    runs = {run.parent.parent for run in root.glob("*/seed-*/run.json")}
    names = sorted((f.name for f in runs if (f / "README.md").exists()), key=order)
    found = {"index.html": "Home"} | {f"{name}/index.html": name for name in names}
    for place, name in OTHERS.items():
        source = root / place.replace("index.html", "README.md")
        if source.exists() or root / place == path:
            found[place] = name
    return found


def refresh(executed: Path, source: Path) -> None:
    """Give an executed notebook the words that `source` has now, where their code is the same.

    A result over many seeds is known only after the runs it tells of; code and outputs stay as they
    were executed.
    """
    if not (executed.exists() and source.exists()):
        return
    done, new = read_notebook(executed), read_notebook(source)["cells"]
    old = [c for c in done["cells"] if "injected-parameters" not in c["metadata"].get("tags", [])]
    changed = [(a, b) for a, b in zip(old, new) if a["source"] != b["source"]]
    words = all(a["cell_type"] == b["cell_type"] == "markdown" for a, b in changed)
    if not changed or not words or len(old) != len(new):
        return
    for cell, now in changed:
        cell["source"] = now["source"]
    for cell in done["cells"]:
        # As notebooks are kept, a line of text on each line of the file.
        cell["source"] = cell["source"].splitlines(keepends=True)
    write_text(executed, json.dumps(done, indent=1, ensure_ascii=False) + "\n")


def _facts(notebook: Path) -> dict:
    """What is known of a run beside its notebook; nothing of one that left no record."""
    try:
        record = RunRecord.load(notebook.parent)
    except RecordError:
        return {"record": None}
    verdicts = judge(record)
    facts = {"record": record, "verdicts": verdicts, "overall": overall(verdicts)}
    return facts | {"command": command(record, notebook), "notebook": notebook}


def command(record: RunRecord, notebook: Path) -> str:
    """What repeats the run: each parameter that is not its default, and what `auto` stood for."""
    words = ["python", "-m", "mnist_utils", "run", notebook.stem, "--seed", str(record.seed)]
    resolved = {"dataset": record.dataset.get("name"), "threads": record.device.get("threads")}
    used = record.parameters | {name: v for name, v in resolved.items() if v is not None}
    declared = {}
    with suppress(UsageError):
        declared = read_parameters(notebook)
    for name, value in used.items():
        if name in declared and value != declared[name].default:
            words += ["-p", name, str(value)]
    return shlex.join(words)


def _finish(page, root: Path | None, folders: list[Path]) -> None:
    """Change the parsed page: links alive, pictures at hand, wide tables scrolled by themselves."""
    for link in page("a", href=True):
        link["href"] = _target(link["href"], folders[0], root)
        if not link["href"]:
            link.unwrap()
    for picture in page("img", src=True):
        picture["src"] = _picture(picture["src"], folders)
        if not picture["src"]:
            picture.replace_with(picture.get("alt", ""))
    for table in page("table"):
        table.wrap(page.new_tag("div", attrs={"class": "wide", "tabindex": "0"}))
    for wide in page("pre"):
        wide["tabindex"] = "0"
    # A line would be broken behind a hyphen, and an option's name with it.
    for code in page.select(":not(pre) > code, .command, p + .highlight pre"):
        for text in code.find_all(string=re.compile("-")):
            whole = r'<span class="word">\g<0></span>'
            text.replace_with(_soup(re.sub(r"\S*-\S*", whole, escape(text, quote=False))))


def _picture(src: str, folders: list[Path]) -> str:
    """Where a picture is for a page in the first folder; "" where none of the folders has it."""
    if src.startswith("data:"):
        return src
    for folder in folders:
        file = folder / unquote(src)
        kind = mimetypes.guess_type(file.name)[0] or ""
        if kind.startswith("image/") and file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            return src if folder == folders[0] else f"data:{kind};base64,{data}"
    return ""


def _target(href: str, folder: Path, root: Path | None) -> str:
    """Where a link leads from a page in `folder`; "" where there is nothing.

    Markdown pages have HTML beside them, and what they call by the site's address lies in `root`.
    Sources name each other as files beside them; under reports/ that is a folder two levels up.
    """
    served = re.fullmatch(r"https://[\w-]+\.github\.io/[^/]+/(.+)", href)
    if root and served and (root / served[1]).exists():
        return os.path.relpath(root / served[1], folder)
    if "://" in href or href.startswith(("#", "data:")):
        return href
    path, _, place = href.partition("#")
    if path.endswith(".ipynb") and not (folder / path).exists():
        path = f"../../{Path(path).stem}/README.md"
    if not (folder / path).exists():
        return ""
    return re.sub(r"README\.md$", "index.html", path) + (place and f"#{place}")


def _soup(text: str):
    """The text parsed, without the paragraph signs that nbconvert puts behind headings."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(text, "html.parser")
    for anchor in page("a", class_="anchor-link"):
        anchor.decompose()
    return page
