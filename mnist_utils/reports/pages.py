"""What people read: tables and plots over all seeds, built from the committed records alone.

    rebuild(Path("reports"), Path("README.md"))     # every page, plot and table of results

Nothing is executed or trained here. The pages' words stand in `templates/*.md.j2`.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from .. import assignment, plots
from ..errors import RecordError, UsageError
from ..records import write_text
from ..templating import fill
from . import figures, hardest, html
from . import results as stats
from .repository import UNKNOWN, current, site
from .results import Result, collect, run_folders, with_weights

BEGIN = "<!-- results: `python -m mnist_utils report` writes what follows -->"
END = "<!-- end of results -->"


@plots.own_style
def rebuild(
    root: Path, readme: Path, sources: Path = Path("notebooks"), data_dir: str | Path = "data"
) -> list[Result]:
    """Write every page, plot and table of results under `root` and in `readme`; what was read.

    The executed notebooks that are kept get the words that their sources have now (`html.refresh`).
    Which digits are hardest is shown with MNIST's test images in `data_dir`; without them that page
    stays as it is. Raises RecordError for records that do not belong together, before any page is
    written, and UsageError without such a folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder of reports")
    for executed in root.glob("*/seed-*/*.ipynb"):
        html.refresh(executed, sources / executed.name)
    results = collect(root)
    repository = current(readme.parent, UNKNOWN)
    readme_text = with_table(readme.read_text(encoding="utf-8"), results, root, repository)
    # First what the headers lead to, since each header names the pages that are there.
    _write_figures(root, results)
    for result in results:
        write_text(root / result.name / "README.md", page(result, results, repository))
    _write_hardest(root, results, data_dir)
    _write_pad(root, with_weights(root, results))
    write_text(root / "README.md", index(results, root, repository))
    write_text(readme, readme_text)
    for markdown in [root / "README.md", *sorted(root.glob("*/README.md"))]:
        html.render_page(markdown, root)
    for folder in run_folders(root, results):
        executed = folder / f"{folder.parent.name}.ipynb"
        if executed.exists():
            html.render(executed, root)
    return results


def _write_figures(root: Path, results: list[Result]) -> None:
    for result in results:
        figures.save(figures.seed_curves(result, results), root / result.name / "seeds")
    if results:
        for axis in ("parameters", "epochs"):
            figures.save(figures.against(axis, figures.points(results)), root / axis)
    measured = {
        "search/log.jsonl": (figures.search_scatter, "search/trials"),
        "bench/bench.json": (figures.speed_bars, "bench/speed"),
    }
    for source, (draw, place) in measured.items():
        try:
            if (root / source).exists():
                figures.save(draw((root / source).read_text(encoding="utf-8")), root / place)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RecordError(f"{root / source}: damaged ({error})") from error


def _write_hardest(root: Path, results: list[Result], data_dir: str | Path) -> None:
    runs, folder = hardest.read(run_folders(root, results)), root / "hardest"
    test_set = hardest.cached_test_set(data_dir) if runs else None
    if test_set:
        folder.mkdir(exist_ok=True)
        plots.save(hardest.picture(test_set[0], runs), folder / "digits.png")
        write_text(folder / "README.md", hardest.page(runs))
        write_text(folder / "to_try.json", json.dumps(hardest.to_try(*test_set, runs), indent=1))


def _write_pad(root: Path, folders: list[Path]) -> None:
    """The page on which the reader draws a digit and the models of these runs answer.

    A network that its scripts cannot run is left out, and standard error says so. It offers the test
    images that `hardest/to_try.json` holds, where it is there.
    """
    from .export import pad_model

    models = []
    for folder in folders:
        try:
            models.append(pad_model(folder))
        except (RecordError, ValueError) as error:
            print(f"not on the pad: {folder.parent.name} ({error})", file=sys.stderr)
    if not models:
        return
    file = root / "hardest/to_try.json"
    images = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    # In a script, "</" would end it.
    data = json.dumps({"models": models, "images": images}).replace("<", "\\u003c")
    body = fill("pad.html.j2", models=models, images=images, data=data)
    scripts = ["network.js", "image.js", "pad.js"]
    html.write_page(root / "pad.html", root, "Draw a digit", body, scripts)


def with_table(text: str, results: list[Result], root: Path, repository: str) -> str:
    """`text` with the picture and the short table of results between its two marks.

    Raises RecordError where it has none.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise RecordError(f"the README must hold the lines {BEGIN!r} and {END!r} once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    facts = {"results": results, "figures": figures, "folder": root.name, "repository": repository}
    return f"{before}{BEGIN}\n\n{fill('readme.md.j2', **facts).strip()}\n\n{END}{after}"


def index(results: list[Result], root: Path, repository: str = UNKNOWN) -> str:
    """The page that opens `root`: the answer, one table, where the results stand, all curves."""
    others = {place: name for place, name in html.places(root).items() if place in html.OTHERS}
    facts = {"results": results, "figures": figures, "others": others}
    return fill("index.md.j2", **facts, repository=repository, site=site(repository))


def page(result: Result, others: Iterable[Result] = (), repository: str = UNKNOWN) -> str:
    """A notebook's page over all its seeds, as Markdown."""
    machines = {
        f"{r.device.get('name')}, threads {r.device.get('threads')}, torch {r.versions.get('torch')}"
        for r in result.records.values()
    }
    return fill(
        "notebook.md.j2",
        result=result,
        others=others,
        machines="; ".join(sorted(machines)),
        assignment=assignment,
        stats=stats,
        repository=repository,
        site=site(repository),
    )
