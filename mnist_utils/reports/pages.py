"""What people read: tables and plots over all seeds, built from the committed records alone.

    rebuild(Path("reports"), Path("README.md"))     # every page, plot and table of results

Nothing is executed or trained here.
"""

import re
import statistics
from collections.abc import Iterable
from pathlib import Path

from ..assignment import PASS, judge, overall
from ..errors import RecordError
from ..records import RunRecord, write_text
from .html import refresh, render, render_page
from .results import Result, best_with_weights, collect, run_folders

BEGIN, END = "<!-- results: `python -m mnist_utils report` writes what follows -->", "<!-- end of results -->"
HEAD = (
    "| notebook | parameters | epochs | seeds | last epoch, mean | standard deviation | lowest to highest "
    "| seeds that end at 99.40% or more | best epoch, mean |\n|---|---|---|---|---|---|---|---|---|"
)


def rebuild(root: Path, readme: Path, sources: Path = Path("notebooks"), data_dir: str | Path = "data") -> list[Result]:
    """Write every page, plot and table of results under `root` and the table in `readme`; what was read.

    The executed notebooks that are kept get the words that their sources have now (`refresh`). The pictures of the
    digits misread most need MNIST's test images in `data_dir`; without them that page stays as it is.

    Raises RecordError for records that cannot be read or do not belong together.
    """
    results = collect(root)
    for result in results:
        _write_result(root / result.name, result, results, sources)
    _write_plots(root, results)
    _write_hardest(root, results, data_dir)
    _write_pad(root, results)
    write_text(root / "README.md", index(results, root))
    for page_ in [root / "README.md", *sorted(root.glob("*/README.md"))]:
        render_page(page_)
    write_text(readme, with_table(readme.read_text(encoding="utf-8"), results, f"{root.name}/"))
    return results


def _write_result(folder: Path, result: Result, others: list[Result], sources: Path) -> None:
    from .. import plots

    plots.save(plots.seed_curves(list(result.records.values())), folder / "seeds.png")
    write_text(folder / "README.md", page(result, others))
    for executed in sorted(folder.glob(f"seed-*/{result.name}.ipynb")):
        refresh(executed, sources / executed.name)
        render(executed)


def _write_plots(root: Path, results: list[Result]) -> None:
    from .. import plots
    from . import frontier

    if results:
        plots.save(frontier.against_parameters(points(results)), root / "parameters.png")
        plots.save(frontier.against_epochs(points(results)), root / "epochs.png")


def _write_hardest(root: Path, results: list[Result], data_dir: str | Path) -> None:
    from .. import plots
    from . import hardest

    runs, folder = hardest.read(run_folders(root, results)), root / "hardest"
    if not runs:
        return
    images = hardest.cached_images(data_dir)
    if images is not None:
        folder.mkdir(exist_ok=True)
        plots.save(hardest.picture(images, runs), folder / "digits.png")
        write_text(folder / "README.md", hardest.page(runs))


def _write_pad(root: Path, results: list[Result]) -> None:
    best = best_with_weights(root, results)
    if best:
        from . import pad

        write_text(root / "pad.html", pad.page(run_folders(root, [best])[0], root))


def points(results: Iterable[Result]) -> list:
    """The results as points of the plots over all notebooks."""
    from .frontier import Point

    return [
        Point(
            result.name, result.first.model["parameters"], len(result.first.epochs), statistics.mean(result.last),
            statistics.mean(result.best), len(result.last), _deviation(result.last),
        )
        for result in results
    ]  # fmt: skip


def with_table(text: str, results: list[Result], prefix: str = "") -> str:
    """`text` with the results table between its two marks. Raises RecordError where it has none."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise RecordError(f"the README must hold the lines {BEGIN!r} and {END!r} once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{table(results, prefix)}\n\n{END}{after}"


def table(results: Iterable[Result], prefix: str = "") -> str:
    """One row a notebook, as Markdown; links start with `prefix`."""
    return "\n".join([HEAD, *(_row(result, prefix) for result in results)])


def _row(result: Result, prefix: str) -> str:
    last = result.last
    cells = [
        f"[{result.name}]({prefix}{result.name}/README.md)",
        f"{result.first.model['parameters']:,}",
        str(len(result.first.epochs)),
        str(len(last)),
        f"**{statistics.mean(last):.3f}%**",
        _spread(last),
        f"{min(last):.2f}% to {max(last):.2f}%",
        f"{result.reaching(last)} of {len(last)}",
        f"{statistics.mean(result.best):.3f}%",
    ]
    return f"| {' | '.join(cells)} |"


def page(result: Result, others: Iterable[Result] = ()) -> str:
    """A notebook's page over all its seeds, as Markdown."""
    first, n = result.first, len(result.records)
    parts = [
        f"# {result.name}: {n} {'seed' if n == 1 else 'seeds'}",
        f"{first.model['parameters']:,} parameters, {len(first.epochs)} epochs, on MNIST's 10,000 test images. The "
        "last epoch counts; the best is shown beside it. Every seed that was run is here.",
        f"![{_alt(result)}](seeds.png)",
        _numbers(result),
        *[_pair(result, other) for other in others if other.name == first.against],
        verdict(result),
        _links(result),
        _command(result),
        _seeds(result),
        "The standard deviation is over seeds, on the same test images. That these are 10,000 images and not others "
        "adds about 0.08 points of uncertainty to every figure near 99.4%, the same for all seeds.",
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(result: Result) -> str:
    lines = ["| | mean | 95% interval of the mean | standard deviation | lowest | highest | at 99.40% or more |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, values in (("last epoch", result.last), ("best epoch", result.best)):
        spread = _spread(values)
        share = f"{result.reaching(values)} of {len(values)} ({_wilson(result.reaching(values), len(values))})"
        ends = f"{min(values):.2f}% | {max(values):.2f}%"
        lines.append(f"| {name} | {statistics.mean(values):.3f}% | {_interval(values)} | {spread} | {ends} | {share} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{_deviation(values):.3f}" if len(values) > 1 else "one seed"


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _interval(values: list[float], form: str = ".3f") -> str:
    """Student's t, 95%; nothing can be said of a single value or of equal ones."""
    from scipy.stats import t

    if len(values) < 2:
        return "one seed"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values) - half:{form}} to {statistics.mean(values) + half:{form}}"


def _wilson(count: int, n: int) -> str:
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(method="wilson")
    return f"Wilson 95%: {low:.0%} to {high:.0%}"


def paired(result: Result, other: Result) -> list[float]:
    """How much better, in points at the last epoch, `result` is than `other`, for each seed that both ran."""
    mine, theirs = (dict(zip(r.records, r.last)) for r in (result, other))
    return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]


def _pair(result: Result, other: Result) -> str:
    differences = paired(result, other)
    if len(differences) < 2:
        return f"Too few seeds in common with [{other.name}](../{other.name}/README.md) to compare."
    return (
        f"**Against [{other.name}](../{other.name}/README.md)**, which it changes in one thing, paired by seed: "
        f"{statistics.mean(differences):+.3f} points at the last epoch (95% interval {_interval(differences, '+.3f')}, "
        f"n = {len(differences)}; better at {sum(d > 0 for d in differences)}, "
        f"equal at {sum(d == 0 for d in differences)})."
    )


def _command(result: Result) -> str:
    records = list(result.records.values())
    defaults = {"dataset": "mnist"} | (
        {"threads": records[0].device["threads"]} if "threads" in records[0].device else {}
    )
    given = " ".join(f"-p {name} {value}" for name, value in defaults.items())
    machines = "; ".join(sorted({_machine(record) for record in records}))
    command = (
        f"python -m mnist_utils run {result.name} --seeds {_ranges(result.records)} --jobs 4 {given} --out reports"
    )
    return f"```sh\n{command}\n```\n\nRun on: {machines}."


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


def _seeds(result: Result) -> str:
    lines = ["| seed | last epoch | best epoch | training accuracy, last epoch | verdict |", "|---|---|---|---|---|"]
    for seed, record in result.records.items():
        last, best = record.last, record.best
        lines.append(
            f"| {seed} | {last.validation_accuracy:.2%} | {best.validation_accuracy:.2%} (epoch {best.epoch}) "
            f"| {last.train_accuracy:.2%} | {overall(judge(record))} |"
        )
    return "\n".join(lines)


def index(results: list[Result], root: Path = Path("reports")) -> str:
    """The page that opens `reports/`: the table, where the results stand, then each notebook's curves and verdict.

    What lies beside it in `root` is linked where it is there.
    """
    from . import frontier

    parts = [
        "# Reports",
        "Every number comes from the records beside it; `python -m mnist_utils report` rebuilds this page. **The last "
        "epoch counts**, on MNIST's 10,000 test images; the best is shown beside it.",
        _elsewhere(root),
        table(results),
        "## Where these stand",
        "Means over seeds, the bars one standard deviation to either side; results at the same place are set side by "
        "side. The circles are single runs that others published of the same assignment, read in their notebooks' own "
        "output.",
        f"![{frontier.describe('parameters', points(results))}](parameters.png)",
        f"![{frontier.describe('epochs', points(results))}](epochs.png)",
        f"<details><summary>The published runs</summary>\n\n{frontier.table()}\n\n</details>",
    ]
    for result in results:
        parts += [f"## [{result.name}]({result.name}/README.md)", _small(result), verdict(result)]
        parts += [f"{_links(result, result.name + '/')} [All seeds]({result.name}/README.md)."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _elsewhere(root: Path) -> str:
    pages = {
        "pad.html": "Draw a digit and see what the model answers",
        "hardest/README.md": "The test digits that are misread most",
        "search/README.md": "How the recipes were chosen",
        "bench/README.md": "Speed",
        "faults/README.md": "What happens when a batch goes wrong",
    }
    return "\n".join(f"- [{text}]({path})" for path, text in pages.items() if (root / path).exists())


def verdict(result: Result) -> str:
    """The rules of the assignment as Markdown, each with its outcome over all seeds and the evidence."""
    rows = ["| rule | outcome | evidence |", "|---|---|---|"]
    for said in zip(*(judge(record) for record in result.records.values())):
        passed, evidence = sum(v.outcome == PASS for v in said), {v.evidence for v in said}
        outcome = said[0].outcome if len({v.outcome for v in said}) == 1 else f"{passed} of {len(said)} seeds pass"
        rows.append(f"| {said[0].rule} | {outcome} | {evidence.pop() if len(evidence) == 1 else _last(result)} |")
    return "\n".join(rows)


def _last(result: Result) -> str:
    last, first = result.last, result.first
    return (
        f"{result.reaching(last)} of {len(last)} seeds; mean {statistics.mean(last):.3f}% (standard deviation "
        f"{_spread(last)}), {min(last):.2f}% to {max(last):.2f}% at epoch {first.last.epoch}"
    )


def _small(result: Result) -> str:
    alt = _alt(result).replace('"', "&quot;")
    return f'<a href="{result.name}/README.md"><img src="{result.name}/seeds.png" width="420" alt="{alt}"></a>'


def _links(result: Result, prefix: str = "") -> str:
    seed = f"{prefix}seed-{result.first.seed}"
    return (
        f"Seed {result.first.seed}, shown because it is the first: [report]({seed}/{result.name}.html), "
        f"[executed notebook]({seed}/{result.name}.ipynb), [metrics]({seed}/metrics.csv), [record]({seed}/run.json)."
    )


def _alt(result: Result) -> str:
    from .. import plots

    return re.sub(r"[\[\]]", "", plots.describe_seeds(list(result.records.values())))
