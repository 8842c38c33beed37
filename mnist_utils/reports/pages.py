"""What people read: tables and plots over all seeds, built from the committed records alone.

    rebuild(Path("reports"), Path("README.md"))     # every page, plot and table of results

Nothing is executed or trained here. The pages' words stand in `templates/*.md.j2`.
"""

import html as escaping
import json
import re
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..assignment import ASSIGNMENT, judge, overall
from ..errors import RecordError, UsageError
from ..records import RunRecord, write_text
from ..templating import fill, literal
from .html import OTHERS, refresh, render, render_page
from .repository import BADGE, NOBODY, colab, current, site
from .results import (
    Result,
    collect,
    interval,
    paired,
    run_folders,
    spread,
    wilson,
    with_weights,
)

BEGIN = "<!-- results: `python -m mnist_utils report` writes what follows -->"
END = "<!-- end of results -->"


@dataclass(frozen=True)
class Words:
    """What a notebook says of itself: `title`, and its paragraphs Target and Result as Markdown."""

    title: str
    target: str = ""
    result: str = ""

    @property
    def goal(self) -> tuple[str, str]:
        """The title's short name and what follows it."""
        name, _, text = self.title.partition(" · ")
        return name, text


def rebuild(
    root: Path, readme: Path, sources: Path = Path("notebooks"), data_dir: str | Path = "data"
) -> list[Result]:
    """Write every page, plot and table of results under `root` and the table in `readme`; what was read.

    The executed notebooks that are kept get the words that their sources have now (`refresh`). Which
    digits are hardest is shown with MNIST's test images in `data_dir`; without them that page stays as
    it is. Records that cannot be read are left out, and standard error says so.

    Raises RecordError for records that do not belong together.
    """
    left_out: list[str] = []
    results = collect(root, left_out)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    repository = _repository(readme.parent)
    readme_text = with_table(readme.read_text(encoding="utf-8"), results, root, repository)
    # First what the pages' headers lead to, since a header names the pages that are there.
    for result in results:
        _write_result(root, result, results, sources, repository)
    _write_figures(root, results)
    _write_hardest(root, results, data_dir)
    _write_pad(root, results)
    write_text(root / "README.md", index(results, root, repository))
    write_text(readme, readme_text)
    for markdown in [root / "README.md", *sorted(root.glob("*/README.md"))]:
        scripts = ("sort.js",) if markdown.parent.name == "search" else ()
        render_page(markdown, root, scripts)
    for folder in run_folders(root, results):
        executed = folder / f"{folder.parent.name}.ipynb"
        if executed.exists():
            render(executed, root, sources / executed.name)
    return results


def _repository(folder: Path) -> str:
    """owner/name of the project in `folder`, or that of nobody where there is none."""
    try:
        return current(folder)
    except UsageError:
        return f"{NOBODY}/mnist-utils"


def _write_result(root: Path, result: Result, others: list[Result], sources: Path, repository: str) -> None:
    from . import figures

    folder = root / result.name
    for run in run_folders(root, [result]):
        refresh(run / f"{result.name}.ipynb", sources / f"{result.name}.ipynb")
    figures.save(figures.seed_curves(result), folder / "seeds")
    small = figures.small_curves(result, figures.lowest(others))
    write_text(folder / "curve.svg", figures.svg(small))
    write_text(folder / "README.md", page(result, others, root, repository))


def _write_figures(root: Path, results: list[Result]) -> None:
    from . import figures, frontier

    if results:
        points = frontier.points(results)
        figures.save(frontier.against_parameters(points), root / "parameters")
        figures.save(frontier.against_epochs(points), root / "epochs")
    log, bench = root / "search/log.jsonl", root / "bench/bench.json"
    if log.exists():
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        figures.save(figures.search_scatter(rows), root / "search/trials")
    if bench.exists():
        measured = json.loads(bench.read_text(encoding="utf-8"))["loop"]
        figures.save(figures.speed_bars(measured), root / "bench/speed")


def _write_hardest(root: Path, results: list[Result], data_dir: str | Path) -> None:
    from .. import plots
    from . import hardest

    folders = [f for f in run_folders(root, results) if (f / "misread.csv").exists()]
    runs, folder = hardest.read(folders), root / "hardest"
    test_set = hardest.cached_test_set(data_dir) if runs else None
    if test_set is not None:
        folder.mkdir(exist_ok=True)
        plots.save(hardest.picture(test_set[0], runs), folder / "digits.png")
        write_text(folder / "README.md", hardest.page(runs, counted(folders)))
        write_text(folder / "to_try.json", json.dumps(hardest.to_try(*test_set, runs), indent=1) + "\n")


def counted(folders: Iterable[Path]) -> str:
    """Which runs these are, as in "every_seed seed 0; smallest seeds 0-9"."""
    seeds: dict[str, list[int]] = {}
    for folder in folders:
        seeds.setdefault(folder.parent.name, []).append(int(folder.name.removeprefix("seed-")))
    return "; ".join(f"{name} seed{'s' * (len(s) > 1)} {_ranges(s)}" for name, s in seeds.items())


def _write_pad(root: Path, results: list[Result]) -> None:
    kept = with_weights(root, results)
    if kept:
        from . import pad

        write_text(root / "pad.html", pad.page(kept, root))


def read_words(root: Path, result: Result) -> Words:
    """What the notebook of the first seed says of itself; only its name where none was kept."""
    path = run_folders(root, [result])[0] / f"{result.name}.ipynb"
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [c for c in notebook["cells"] if c["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    except (OSError, ValueError, LookupError, TypeError):
        return Words(result.name)
    said = {
        name: " ".join(paragraph.split())
        for name, paragraph in re.findall(r"^\*\*(Target|Result)\.\*\* (.*?)(?:\n\n|\Z)", text, re.M | re.S)
    }
    title = notebook["metadata"].get("title") or result.name
    return Words(title, said.get("Target", ""), said.get("Result", ""))


def own_target_missed(result: Result, target: str) -> str:
    """Which limits of a notebook's own target, as its words give them, the result misses; "" if none."""
    missed = []
    for limit, unit in re.findall(r"\bat most ([\d,]+) (parameters|epochs)", target):
        if getattr(result, unit) > int(limit.replace(",", "")):
            missed.append(f"at most {limit} {unit}")
    for least in re.findall(r"\bmean of at least ([\d.]+\d)%", target):
        if result.mean < float(least):
            missed.append(f"a mean of at least {least}%")
    return " and ".join(missed)


def with_table(text: str, results: list[Result], root: Path, repository: str) -> str:
    """`text` with the picture and the short table of results between its two marks.

    Raises RecordError where it has none.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise RecordError(f"the README must hold the lines {BEGIN!r} and {END!r} once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    # The steps from one goal to the next are on the index page.
    goals = [result for result in results if not result.name[:1].isdigit()] or results
    rows = [_cells(result, root, repository, f"{root.name}/") for result in goals]
    from . import frontier

    block = fill(
        "readme.md.j2",
        rows=rows,
        alt=frontier.describe("parameters", frontier.points(results)),
        folder=root.name,
        badge=BADGE,
        nobody=repository.startswith(f"{NOBODY}/"),
        repository=repository,
    )
    return f"{before}{BEGIN}\n\n{block.strip()}\n\n{END}{after}"


def _cells(result: Result, root: Path, repository: str, prefix: str = "") -> dict:
    """What a table over all notebooks says of one."""
    words, n = read_words(root, result), len(result.last)
    marks = []
    for rule, passed, _ in result.rules():
        letter = "P" if passed == n else "S" if passed else "F"
        marks.append((letter, f"{rule}: {passed} of {n} seeds pass"))
    return {
        "name": result.name,
        "goal": words.goal,
        "link": f"{prefix}{result.name}/README.md",
        "mean": f"{result.mean:.3f}%",
        "share": f"{result.reaching(result.last)} of {n}",
        "parameters": f"{result.parameters:,}",
        "epochs": result.epochs,
        "seeds": n,
        "marks": marks,
        "colab": colab(repository, result.name),
        "missed": own_target_missed(result, words.target),
    }


def index(results: list[Result], root: Path, repository: str) -> str:
    """The page that opens `root`: the answer, one table, where the results stand, all curves."""
    from . import frontier

    points = frontier.points(results)
    others = []
    for place, name in OTHERS.items():
        markdown = place.replace("index.html", "README.md")
        if (root / markdown).exists():
            others.append((name, site(repository) + place if markdown == place else markdown))
    return fill(
        "index.md.j2",
        answer=answer(results),
        rows=[_cells(result, root, repository) for result in results],
        badge=BADGE,
        nobody=repository.startswith(f"{NOBODY}/"),
        repository=repository,
        parameters=frontier.describe("parameters", points),
        epochs=frontier.describe("epochs", points),
        published=frontier.PUBLISHED,
        curves=[(result.name, _alt(result)) for result in results],
        others=others,
    )


def answer(results: list[Result]) -> str:
    """The question's answer in a sentence, from the results that satisfy every rule on average."""
    good = [
        r
        for r in results
        if r.mean >= 100 * ASSIGNMENT.target and all(passed for _, passed, _ in r.rules()[1:])
    ]
    if not good:
        return "No notebook here reaches it on average yet."
    small, quick = min(good, key=lambda r: r.parameters), min(good, key=lambda r: r.epochs)
    high = max(good, key=lambda r: r.mean)
    sure = max(good, key=lambda r: (r.reaching(r.last) / len(r.last), len(r.last)))
    return (
        f"**{small.parameters:,} parameters** are enough (mean {small.mean:.3f}%, {_to(small)}), or "
        f"**{quick.epochs} epochs** ({quick.mean:.3f}%, {_to(quick)}). The highest mean is "
        f"**{high.mean:.3f}%** ({_to(high)}). The surest, {_to(sure)}, reaches 99.40% at "
        f"**{sure.reaching(sure.last)} of {len(sure.last)} seeds**."
    )


def _to(result: Result) -> str:
    return f"[{result.name}]({result.name}/README.md)"


def page(result: Result, others: Iterable[Result], root: Path, repository: str) -> str:
    """A notebook's page over all its seeds, as Markdown."""
    words, seed = read_words(root, result), f"seed-{result.first.seed}"
    records = list(result.records.values())
    given = {"dataset": "mnist"}
    if "threads" in records[0].device:
        given["threads"] = records[0].device["threads"]
    passes = overall(judge(result.first)) == "pass" or result.mean >= 100 * ASSIGNMENT.target
    return fill(
        "notebook.md.j2",
        result=result,
        n=len(records),
        title=words.title,
        missed=own_target_missed(result, words.target) if passes else "",
        words=[
            f"**{name}.** {escaping.escape(said, quote=False)}"
            for name, said in (("Target", words.target), ("Result", words.result))
            if said
        ],
        alt=_alt(result),
        numbers=[_numbers(result, "last epoch", result.last), _numbers(result, "best epoch", result.best)],
        pairs=[_pair(result, other) for other in others if other.name == result.first.against],
        rules=verdict(result),
        report=f"{site(repository)}{result.name}/{seed}/{result.name}.html",
        seed=seed,
        badge=BADGE,
        colab=colab(repository, result.name),
        seeds=_ranges(result.records),
        given="".join(f" -p {name} {value}" for name, value in given.items()),
        machines="; ".join(sorted({_machine(record) for record in records})),
        each=[_seed(record) for record in records],
    )


def _numbers(result: Result, name: str, values: list[float]) -> list[str]:
    deviation = f"{spread(values):.3f}" if len(values) > 1 else "one seed"
    reached = result.reaching(values)
    share = f"{reached} of {len(values)} ({wilson(reached, len(values))})"
    ends = [f"{min(values):.2f}%", f"{max(values):.2f}%"]
    return [name, f"{statistics.mean(values):.3f}%", deviation, *ends, share, interval(values)]


def _pair(result: Result, other: Result) -> str:
    differences = paired(result, other)
    name = f"[{other.name}](../{other.name}/README.md)"
    if len(differences) < 2:
        return f"Too few seeds in common with {name} to compare."
    return (
        f"**Against {name}**, which it changes in one thing, paired by seed: "
        f"{statistics.mean(differences):+.3f} points at the last epoch "
        f"(95% interval {interval(differences, '+.3f')}, n = {len(differences)}; "
        f"better at {sum(d > 0 for d in differences)}, equal at {sum(d == 0 for d in differences)})."
    )


def _machine(record: RunRecord) -> str:
    threads = record.device.get("threads")
    with_threads = f", {threads} {'thread' if threads == 1 else 'threads'} a run" if threads else ""
    return f"{record.device.get('name')}{with_threads}, torch {record.versions.get('torch')}"


def _ranges(seeds: Iterable[int]) -> str:
    """0, 1, 2, 5 as "0-2,5"."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _seed(record: RunRecord) -> list[str]:
    last, best = record.last, record.best
    return [
        str(record.seed),
        f"{last.validation_accuracy:.2%}",
        f"{best.validation_accuracy:.2%} (epoch {best.epoch})",
        f"{last.train_accuracy:.2%}",
        overall(judge(record)),
    ]


def verdict(result: Result) -> list[tuple[str, str, str]]:
    """The rules of the assignment, each with its outcome over all seeds and the evidence."""
    rows, n, last = [], len(result.last), result.last
    for (rule, passed, evidence), first in zip(result.rules(), judge(result.first)):
        outcome = first.outcome if passed in (0, n) else f"{passed} of {n} seeds pass"
        said = (
            f"{result.reaching(last)} of {n} seeds; mean {result.mean:.3f}%, "
            f"{min(last):.2f}% to {max(last):.2f}% at epoch {result.first.last.epoch}"
        )
        rows.append((rule, outcome, evidence.pop() if len(evidence) == 1 else said))
    return rows


def _alt(result: Result) -> str:
    from .. import plots

    return re.sub(r"[\[\]]", "", plots.describe_seeds(list(result.records.values())))
