"""What people read: tables and plots over all seeds, built from the committed records alone.

    rebuild(Path("reports"), Path("README.md"))     # every page, plot and table of results

Nothing is executed or trained here. The pages' words stand in `templates/*.md.j2`.
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path

from .. import plots
from ..assignment import ASSIGNMENT, judge, overall
from ..errors import RecordError, UsageError
from ..records import write_text
from ..templating import fill
from . import figures, frontier, hardest
from . import results as stats
from .html import others, refresh, render, render_page
from .repository import UNKNOWN, current, site
from .results import Result, collect, paired, run_folders, with_weights

BEGIN = "<!-- results: `python -m mnist_utils report` writes what follows -->"
END = "<!-- end of results -->"


def rebuild(
    root: Path, readme: Path, sources: Path = Path("notebooks"), data_dir: str | Path = "data"
) -> list[Result]:
    """Write every page, plot and table of results under `root` and in `readme`; what was read.

    The executed notebooks that are kept get the words that their sources have now (`refresh`).
    Which digits are hardest is shown with MNIST's test images in `data_dir`; without them that page
    stays as it is. Raises RecordError for records that do not belong together, before any page is
    written, and UsageError without such a folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder of reports")
    for executed in root.glob("*/seed-*/*.ipynb"):
        refresh(executed, sources / executed.name)
    results = collect(root)
    repository = current(readme.parent, UNKNOWN)
    readme_text = with_table(readme.read_text(encoding="utf-8"), results, root, repository)
    # First what the headers lead to, since each header names the pages that are there.
    _write_figures(root, results)
    for result in results:
        write_text(root / result.name / "README.md", page(result, results, repository))
    _write_hardest(root, results, data_dir)
    kept = with_weights(root, results)
    if kept:
        from . import pad

        write_text(root / "pad.html", pad.page(kept, root))
    write_text(root / "README.md", index(results, root, repository))
    write_text(readme, readme_text)
    for markdown in [root / "README.md", *sorted(root.glob("*/README.md"))]:
        render_page(markdown, root, ("sort.js",) if markdown.parent.name == "search" else ())
    for folder in run_folders(root, results):
        executed = folder / f"{folder.parent.name}.ipynb"
        if executed.exists():
            render(executed, root)
    return results


def _write_figures(root: Path, results: list[Result]) -> None:
    for result in results:
        figures.save(figures.seed_curves(result, results), root / result.name / "seeds")
    if results:
        for axis in ("parameters", "epochs"):
            figures.save(frontier.against(axis, frontier.points(results)), root / axis)
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
    folders = [f for f in run_folders(root, results) if (f / "misread.csv").exists()]
    runs, folder = hardest.read(folders), root / "hardest"
    test_set = hardest.cached_test_set(data_dir) if runs else None
    if test_set:
        folder.mkdir(exist_ok=True)
        plots.save(hardest.picture(test_set[0], runs), folder / "digits.png")
        write_text(folder / "README.md", hardest.page(runs, counted(folders)))
        write_text(folder / "to_try.json", json.dumps(hardest.to_try(*test_set, runs), indent=1))


def counted(folders: Iterable[Path]) -> str:
    """Which runs these are, as in "every_seed, seeds 0; smallest, seeds 0-9"."""
    seeds: dict[str, list[int]] = {}
    for folder in folders:
        seeds.setdefault(folder.parent.name, []).append(int(folder.name.removeprefix("seed-")))
    return "; ".join(f"{name}, seeds {ranges(numbers)}" for name, numbers in seeds.items())


def with_table(text: str, results: list[Result], root: Path, repository: str) -> str:
    """`text` with the picture and the short table of results between its two marks.

    Raises RecordError where it has none.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise RecordError(f"the README must hold the lines {BEGIN!r} and {END!r} once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    alt = frontier.describe("parameters", frontier.points(results))
    # The numbered steps from one goal to the next are on the index page.
    goals = [result for result in results if not result.name[0].isdigit()] or results
    block = fill("readme.md.j2", goals=goals, alt=alt, folder=root.name, repository=repository)
    return f"{before}{BEGIN}\n\n{block.strip()}\n\n{END}{after}"


def index(results: list[Result], root: Path, repository: str = UNKNOWN) -> str:
    """The page that opens `root`: the answer, one table, where the results stand, all curves."""
    return fill(
        "index.md.j2",
        results=results,
        answer=answer(results),
        points=frontier.points(results),
        describe=frontier.describe,
        published=frontier.PUBLISHED,
        others=others(root),
        repository=repository,
        site=site(repository),
    )


def answer(results: list[Result]) -> dict[str, Result]:
    """The question's answer: of the results that satisfy every rule on average, the one with the
    fewest parameters, the fewest epochs, the highest mean, and the largest share of seeds that pass.
    """
    target = 100 * ASSIGNMENT.target
    good = [
        r for r in results if r.mean >= target and all(passed for _, passed, _ in r.rules()[1:])
    ]
    if not good:
        return {}
    return {
        "smallest": min(good, key=lambda r: r.parameters),
        "fewest": min(good, key=lambda r: r.epochs),
        "highest": max(good, key=lambda r: r.mean),
        "surest": max(good, key=lambda r: (r.reaching(r.last) / len(r.last), len(r.last))),
    }


def page(result: Result, others: Iterable[Result] = (), repository: str = UNKNOWN) -> str:
    """A notebook's page over all its seeds, as Markdown."""
    machines = {
        f"{r.device.get('name')}, threads {r.device.get('threads')}, torch {r.versions.get('torch')}"
        for r in result.records.values()
    }
    return fill(
        "notebook.md.j2",
        result=result,
        pairs=[(o, paired(result, o)) for o in others if o.name == result.first.against],
        seeds=ranges(result.records),
        machines="; ".join(sorted(machines)),
        verdicts={seed: overall(judge(record)) for seed, record in result.records.items()},
        mean=statistics.mean,
        stats=stats,
        repository=repository,
        site=site(repository),
    )


def ranges(seeds: Iterable[int]) -> str:
    """0, 1, 2 as "0-2"; where there are gaps, each seed."""
    seeds = sorted(seeds)
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))
