"""The command line, `mnist-utils --help` or `python -m mnist_utils --help`: parsing only.

Each command imports the room that does its work when it is called, so that help needs none of them.
"""

import os
import sys

# `python -m` puts the current folder first on the path. Whatever lies there must not be imported
# in place of a library: a student's folder may hold a jinja2.py. The package's own folder goes to
# the end, for processes that are started from this one.
if sys.path and sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:
    del sys.path[0]
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import contextlib
import re
import signal
from pathlib import Path

import click

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
LIMIT = click.FloatRange(min=0, min_open=True)
# In a command's help, the heading stands above this option and holds for those after it.
HEADINGS = {
    "--parameter": "What to run",
    "--dataset": "Where things lie",
    "--data": "Where things lie",
    "--jobs": "How many at a time",
    "--timeout": "Limits",
    "--time-limit": "Limits",
    "--evidence": "What to write",
    "--help": "Options",
}


class Command(click.Command):
    """A command whose help groups its options, and whose -p takes NAME=VALUE as well as two words."""

    def parse_args(self, context, arguments: list[str]) -> list[str]:
        words = []
        for word in arguments:
            pair = words[-1:] in (["-p"], ["--parameter"]) and re.match(r"\w+=", word)
            words += word.split("=", 1) if pair else [word]
        return super().parse_args(context, words)

    def format_options(self, context, formatter) -> None:
        heading = "Options"
        groups = {}
        for one in self.get_params(context):
            heading = HEADINGS.get(one.opts[-1], heading)
            if isinstance(one, click.Option):
                groups.setdefault(heading, []).append(one.get_help_record(context))
        for heading, lines in groups.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli():
    """Small, honest, reproducible MNIST submissions."""


def command(*examples: str, name: str | None = None):
    """Make a function a command whose help ends with these examples."""
    lines = "\n".join(f"  mnist-utils {example}" for example in examples)
    return cli.command(name, cls=Command, epilog=f"\b\nExamples:\n{lines}")


def option(flag: str, text: str, *names: str, **settings):
    """click.option for a flag written as the help shows it, as in "--out FOLDER"."""
    flag, _, metavar = flag.partition(" ")
    shown = settings.get("default") not in (None, "")
    settings |= {"metavar": metavar or None, "help": text, "show_default": shown}
    return click.option(flag, *names, **settings)


data_option = option("--data FOLDER", "Where MNIST is cached.", "data_dir", default="data")
mirror_option = option("--mirror URL|FOLDER", "Where MNIST's four .gz files are.", default="")
scheduler_option = option("--scheduler ADDRESS", "Use this Dask cluster, as in tcp://host:8786.")


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 where all is well, 1 where a run failed, 2 for bad input, 130 after Ctrl-C.
    """
    from .errors import DataError, ExportError, RecordError, UsageError

    # A batch system's stop and a closed terminal end a run as Ctrl-C does: with a record.
    # What `nohup` ignores stays ignored.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    # A terminal or log that cannot show a character shows a question mark; no run ends for it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return cli.main(arguments, prog_name="mnist-utils", standalone_mode=False) or 0
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except (UsageError, RecordError, DataError, ExportError) as error:
        click.echo(f"error: {error}", err=True)
        return 2
    except BrokenPipeError:
        # The reader of the output left early, as `head` does. Nothing more can be shown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        click.echo(f"error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        return 2


@command("run 01_seed_model --seed 7 -p epochs 3", "run every_seed --seeds 0-29 --jobs auto")
@click.argument("notebooks", nargs=-1, metavar="[NOTEBOOK]...")
@option("-p NAME VALUE", "Set a parameter; rate 0.1,0.2 makes two runs.", "--parameter", "given",
        nargs=2, multiple=True)  # fmt: skip
@option("--seed K", "The same as -p seed K.")
@option("--seeds LIST", "One run for each seed, as in 0-9,12.")
@option("--batch FILE", "Read what to run from a TOML or YAML file.", "batch_file", type=PATH)
@option("--force", "Repeat runs that are done.", is_flag=True)
@option("--dry-run", "Show the runs and which are done, and run nothing.", is_flag=True)
@option("--dataset NAME", "mnist, digits (small, not judged), or auto: mnist if it can be had.")
@option("--data FOLDER", "Where MNIST is cached.", "data_dir")
@option("--mirror URL|FOLDER", "Where MNIST's four .gz files are.")
@option("--out FOLDER", "Where the runs go.", type=PATH, default=Path("reports/local"))
@option("--copy-to URL", "Copy the results there too, as in s3://bucket/runs.", default="")
@option("--jobs N|auto", "Runs side by side, as the machine allows.", default="1")
@scheduler_option
@option("--timeout SECONDS", "Stop a run that takes longer.", type=LIMIT)
@option("--memory GIB", "Stop a run that uses more memory.", type=LIMIT)
def run(notebooks, given, seeds, batch_file, dry_run, out, copy_to, jobs, **settings):
    """Execute notebooks into executed copies, pages, plots and records.

    Without NOTEBOOK the submission runs. A run that was stopped resumes when the same command is
    given again. A batch does not repeat runs that are done; a single run is made anew.
    """
    from .batch import devices, executor, plan
    from .parameters import SUBMISSION, find_notebook
    from .reports.html import render

    flags = {name: settings.pop(name) for name in ("seed", "dataset", "data_dir", "mirror")}
    given = dict(given) | {name: value for name, value in flags.items() if value is not None}
    if batch_file:
        names, values, numbers = plan.read_batch(batch_file)
        notebooks, given, seeds = notebooks or names, values | given, seeds or numbers
    paths = [find_notebook(name) for name in notebooks or [SUBMISSION]]
    planned = plan.plan(paths, given, seeds, out, copy_to)
    workers = min(len(planned), devices.choose_workers(jobs))
    if dry_run:
        click.echo(plan.describe(planned, workers, settings["force"]))
        return 0
    if not notebooks:
        click.echo(f"{SUBMISSION} is the submission; 01_seed_model, the original, fails on purpose")
    several = len(planned) > 1 or seeds is not None or batch_file or copy_to
    if several or settings["force"] or settings["scheduler"]:
        records, stopped = executor.run_batch(planned, workers, render=render, **settings)
    else:
        records = [run_one(planned[0], settings["timeout"], settings["memory"])]
        stopped = records[0].status == "interrupted"
    if stopped:
        return 130
    return int(any(record.status != "completed" for record in records))


def run_one(job, timeout: float | None, memory: float | None):
    """Run one notebook, show what it prints and what came of it, and return its record."""
    from .batch.execute import run_notebook
    from .batch.summary import describe
    from .errors import RecordError
    from .reports.html import render
    from .reports.results import overview

    name = job.path.stem
    click.echo(f"{name}: running, output in {job.folder}")
    # What to expect; damaged reports are no reason not to run.
    with contextlib.suppress(RecordError):
        if recorded := overview(Path("reports"), name).get(name):
            click.echo(f"recorded runs of it: {recorded}")
    limits = {"timeout": timeout, "memory": memory}
    record = run_notebook(job.path, job.values, job.out, render=render, **limits)
    # A notebook that came to its verdict has printed it.
    if record.error or not record.verdict:
        click.echo(f"{name}: {describe(record)}")
    page = job.folder / f"{name}.html"
    if page.exists():
        click.echo(f"the report: {page}")
    return record


@command("list", "list every_seed", name="list")
@click.argument("notebook", required=False)
def list_notebooks(notebook):
    """Show the notebooks, a line each; with NOTEBOOK, its parameters."""
    from . import parameters
    from .reports.results import overview

    if notebook is None:
        recorded = overview(Path("reports"))
        for path in parameters.all_notebooks():
            click.echo(f"{path.stem:<20} {recorded.get(path.stem, 'no recorded runs')}")
        return
    for one in parameters.read_parameters(parameters.find_notebook(notebook)).values():
        choices = ""
        if one.choices:
            choices = f"; one of {', '.join(map(str, one.choices))}"
        click.echo(f"{one.name:<20} {one.type:<6} {one.default!r:<14} {one.meaning}{choices}")


@command("report")
@option("--reports FOLDER", "The records.", type=PATH, default=Path("reports"))
@option("--readme FILE", "Whose table of results is written.", type=PATH, default=Path("README.md"))
def report(reports, readme):
    """Rebuild every page, plot and table of results from the records."""
    from .reports import pages

    results = pages.rebuild(reports, readme)
    records = sum(len(result.records) for result in results)
    click.echo(f"{records} records of {len(results)} notebooks")


@command("export reports/every_seed/seed-0 --to model.onnx")
@click.argument("folder", type=PATH, metavar="RUN_FOLDER")
@option("--to FILE", "Without it, model.onnx or model.pt2 in RUN_FOLDER.", type=PATH)
@option("--format onnx|torch", "ONNX, or a torch.export program.", "form", default="onnx",
        type=click.Choice(["onnx", "torch"]))  # fmt: skip
def export(folder, to, form):
    """Write a run's trained model for other runtimes."""
    from .reports.export import export as write

    path, difference = write(folder, to, form)
    size = path.stat().st_size
    click.echo(f"{path}: {size:,} bytes; a logit differs from torch's by at most {difference:.1e}")


@command("search reports/search/trials.txt --jobs 2")
@click.argument("trials", type=PATH, metavar="FILE")
@option("--jobs N", "Trials side by side.", type=COUNT, default=1)
@data_option
@mirror_option
def search(trials, **settings):
    """Try the recipes in FILE, a line each, on held-out images.

    Only the trials that the log beside FILE lacks are run.
    """
    from .bench.search import search as run_trials

    run_trials(trials, **settings)


@command("bench loop", "bench target --seeds 3 --to reports/bench/bench.json")
@click.argument("what", default="loop")
@option("--show FILE", "Print saved measurements instead of making one.", type=PATH)
@option("--to FILE", "Keep the result in FILE, and its tables in the README.md beside it.",
        type=PATH)  # fmt: skip
@option("--repeats N", "Turns of each contender, seeds for target, runs for batch.", "--seeds",
        "--runs", "repeats", type=COUNT)  # fmt: skip
@option("--epochs N", "Epochs of a run, for batch.", type=COUNT, default=2)
@option("--device NAME", "auto, cpu or cuda, for loop and target.", default="auto")
@data_option
@mirror_option
def bench(what, show, to, **settings):
    """Measure speed, as ratios in one run.

    WHAT is loop (an epoch beside the usual loop and the convolutions alone), target (seconds to
    99.4% on one core and on all), threads (the default beside 1 and 2 threads, on a quiet and on a
    busy machine), step (the network of most_accurate beside what it was first) or batch (a batch
    beside the same trainings without notebooks).
    """
    from . import bench as room

    # What would be lost after minutes is looked at before.
    if to and to.exists():
        room.read(to)
    elif to:
        to.parent.mkdir(parents=True, exist_ok=True)
    if show:
        result = room.read(show)
    else:
        from .bench.speed import measure

        result = measure(what, **settings)
    if to:
        room.keep(result, to)
    click.echo(room.show(result))


@command("grade class.zip --each --csv grades.csv", "grade my_notebook.ipynb --evidence")
@click.argument("submissions", nargs=-1, required=True, metavar="PATH...")
@option("--each", "Every entry of a folder or zip file is a submission.", is_flag=True)
@option("--only PATTERN", "Of each submission, read these files, as session4/*.", default="")
@option("--rules 4|5|FILE", "The course's assignment, or a TOML file.", default="4")
@option("--roster FILE", "A CSV file of the students: name, id, path.", type=PATH)
@option("--points LIST", "Points for the rules, as in accuracy=4,parameters=3.", default="")
@option("--evidence", "Print each verdict with the line it rests on.", is_flag=True)
@option("--csv FILE", "Write the grades as CSV.", type=PATH)
@option("--json FILE", "Write the grades as JSON.", type=PATH)
@option("--html FILE", "Write the grades as a page.", type=PATH)
@option("--canvas FILE", "Write the points for Canvas to import.", type=PATH)
@option("--moodle FILE", "Write the points for Moodle to import.", type=PATH)
@option("--jobs N", "Processes that read side by side.", type=COUNT, default=1)
@scheduler_option
@option("--time-limit SECONDS", "The most that one submission may take.", type=LIMIT, default=60)
def grade(submissions, rules, points, evidence, jobs, scheduler, **settings):
    """Say what submissions show of the rules. Nothing in them is executed.

    A PATH is one submission: a notebook, HTML, text, a folder or a zip file. In a folder that you
    do not trust, use the command mnist-utils: `python -m` itself imports from that folder.
    """
    from . import grading
    from .assignment import PASS
    from .batch.executor import engine
    from .grading import course, output

    files = {name: settings.pop(name) for name in ("csv", "json", "html", "canvas", "moodle")}
    loaded = grading.load_rules(rules)
    worth = course.read_points(points) if points else None
    if jobs == 1 and not scheduler:
        grades = grading.grade(submissions, loaded, **settings)
    else:
        # The workers of a cluster have other current folders.
        paths = [Path(path).absolute() for path in submissions]
        with engine(jobs, scheduler) as pool:
            grades = grading.grade(paths, loaded, mapper=pool.map, **settings)
    # The files come first: a terminal that fails must not cost them.
    output.write(files, grades, loaded, worth)
    # click.echo would write UTF-8 to a terminal that cannot show it.
    if evidence:
        print("\n\n".join(map(output.evidence, grades)))
    else:
        print(output.terminal_table(grades, loaded, worth))
    return int(any(one.outcome != PASS for one in grades))


@command("repository", "repository ada-l/small-mnist")
@click.argument("name", required=False, metavar="[OWNER/NAME]")
def repository(name):
    """Put OWNER/NAME into every badge and link; without it, print the present one."""
    from .reports import repository as links

    if name is None:
        click.echo(links.current())
        return
    for path in links.rename(name):
        click.echo(path)


if __name__ == "__main__":
    sys.exit(main())
