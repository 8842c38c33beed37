"""The command line, `python -m mnist_utils --help`; each command opens its own room."""

import os
import sys

if __name__ == "__main__" and sys.path[:1] in ([""], [os.getcwd()]):
    del sys.path[0]  # `python -m` puts the current folder there, where a student's jinja2.py may lie

import argparse
import json
import re
import signal
from dataclasses import replace
from pathlib import Path

LOCAL = Path("reports/local")


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 where a run failed, 2 for bad input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is a Ctrl-C
    from .errors import UsageError

    try:
        return options.command(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read along has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(options) -> int:
    """Execute one notebook and show what it prints, or several runs as a batch, and say what came of each."""
    from . import parameters as notebooks
    from .batch import cluster
    from .batch import plan as batch

    names, given, seeds = options.notebooks, {}, options.seeds
    if options.batch:
        batch_names, given, batch_seeds = batch.read_batch(options.batch)
        names, seeds = names or batch_names, seeds or batch_seeds
    flags = {name: getattr(options, name) for name in ("seed", "dataset", "data_dir", "mirror")}
    given |= dict(options.parameter) | {name: value for name, value in flags.items() if value is not None}
    if seeds is not None and "seed" in given:
        raise notebooks.UsageError("give --seed for one run or --seeds for several, not both")
    paths = [notebooks.find_notebook(name) for name in names or [notebooks.SUBMISSION]]
    seeds = None if seeds is None else batch.parse_seeds(seeds)
    url = cluster.check_address(options.copy_to) if options.copy_to else ""
    count = len(batch.plan(paths, given, seeds, options.out))
    workers = min(count, batch.auto_workers(options.per_device) if options.jobs == "auto" else options.jobs)
    jobs = batch.plan(paths, given, seeds, options.out, batch.share_of_cores(workers) if workers > 1 else None)
    jobs = [replace(job, url=url) for job in jobs]
    if options.dry_run:
        return _show_plan(jobs, workers)
    if len(jobs) > 1 or options.seeds or options.batch or options.scheduler or url:
        return _run_batch(jobs, workers, options)
    return _run_one(jobs[0])


def _run_one(job) -> int:
    from . import assignment
    from .batch import execute

    print(f"{job.path.stem}: running, output in {job.folder}", flush=True)
    record = execute.run_notebook(job.path, job.values, job.out, job.variant)
    print(f"{job.path.stem}: {record.status}" + (f", {record.error}" if record.error else ""))
    if record.status == "completed":
        print(f"{job.path.stem}: {assignment.summary(record)}")
    return {"completed": 0, "failed": 1, "interrupted": 130}[record.status]


def _show_plan(jobs: list, workers: int) -> int:
    for job in jobs:
        values = " ".join(f"{name}={value}" for name, value in job.values.items())
        print(f"{'done   ' if job.is_done() else 'to run '} {job.name}  {values}")
    print(f"{sum(not job.is_done() for job in jobs)} of {len(jobs)} to run, {workers} at a time")
    return 0


def _run_batch(jobs: list, workers: int, options) -> int:
    from .batch import plan as batch

    where = dict(scheduler=options.scheduler, resources=options.resources)
    records, stopped = batch.run_batch(jobs, workers, options.force, options.timeout, options.memory, **where)
    bad = [f"  {job.name}: {r.status}, {r.error}" for job, r in zip(jobs, records) if r.status != "completed"]
    print(batch.format_summary(list(zip(jobs, records))))
    print(f"{len(jobs) - len(bad)} of {len(jobs)} runs completed, {options.out / 'summary.csv'} says how each stands")
    if bad:
        print("\n".join(["not completed:", *bad, "the same command goes on with these"]))
    return 130 if stopped else 1 if bad else 0


def list_notebooks(options) -> int:
    """Print each notebook with its parameters: type, default, meaning, choices."""
    from . import parameters as notebooks

    for path in notebooks.all_notebooks():
        print(path)
        for p in notebooks.read_parameters(path).values():
            choices = f" (one of {', '.join(map(str, p.choices))})" if p.choices else ""
            print(f"  {p.name:<20} {p.type:<6} {p.default!r:<24} {p.meaning}{choices}")
    return 0


def repository(options) -> int:
    """Put another owner/name into every link to the repository, or print the one it has."""
    from .reports import repository as room

    if options.name:
        for path in room.rename(options.name):
            print(path)
    else:
        print(room.current())
    return 0


def report(options) -> int:
    """Rebuild every page, plot and table of results from the records."""
    from .errors import RecordError, UsageError
    from .reports import pages as reports

    try:
        results = reports.rebuild(options.reports, options.readme)
    except (RecordError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"{sum(len(result.records) for result in results)} records of {len(results)} notebooks")
    return 0


def export(options) -> int:
    """Write a run's model for other runtimes and say how far its answers are from torch's."""
    from .errors import RecordError, UsageError
    from .reports import export as room

    try:
        path, difference = room.export(options.folder, options.to, options.format)
    except (room.ExportError, RecordError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"{path}: {path.stat().st_size:,} bytes; differs from torch by at most {difference:.1e} in a logit")
    return 0


def search(options) -> int:
    """Run the trials that the log lacks, on the holdout images, and rebuild the search's page."""
    from .bench import search as room
    from .errors import DataError, UsageError

    try:
        room.search(options.trials, options.jobs, options.data_dir, options.mirror)
    except (DataError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return 0


def bench(options) -> int:
    """Measure speed, or pair accuracies, or show a saved measurement again."""
    from .bench import loop as room
    from .bench import throughput
    from .errors import DataError, UsageError

    seeds, where = range(options.seeds), dict(data_dir=options.data_dir)
    try:
        if options.show:
            result = json.loads(options.show.read_text(encoding="utf-8"))
        elif options.paired:
            result = room.paired(seeds, mirror=options.mirror, **where)
        elif options.batch:
            result = throughput.throughput(options.batch, options.epochs, mirror=options.mirror, **where)
        elif options.scheduling:
            result = throughput.scheduling()
        elif options.to:
            result = room.time_to(options.to, seeds, device=options.device, **where)
        else:
            result = room.run_bench(mirror=options.mirror, device=options.device, repeats=options.repeats, **where)
    except (DataError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    shows = {
        "accuracies": room.format_paired,
        "loop": room.format_bench,
        "parts": throughput.format_throughput,
        "dask": throughput.format_scheduling,
    }
    show = next((show for key, show in shows.items() if key in result), json.dumps)
    print(json.dumps(result, indent=1) if options.json else show(result))
    return 0


def grade(options) -> int:
    """Say what submissions show of the rules, without executing them. Returns 0 where all pass, else 1."""
    from . import grading
    from .assignment import PASS
    from .errors import UsageError
    from .grading import course, output
    from .records import write_text

    rules = grading.load_rules(options.rules)
    points = course.read_points(options.points) if options.points else None
    where = dict(only=options.only, roster=options.roster, time_limit=options.time_limit)
    grades = grading.grade(options.submissions, rules, options.each, **where)
    written = {
        "csv": lambda: output.to_csv(grades, rules, points),
        "json": lambda: output.to_json(grades, rules),
        "html": lambda: output.to_html(grades, rules, points),
    }
    for form in ("canvas", "moodle"):
        written[form] = lambda form=form: output.csv_text(
            course.import_rows(form, grades, points or {}, output.missed, rules.name)
        )
    for name, text in written.items():  # files before the terminal, which may fail at what it shows
        path = getattr(options, name)
        try:
            path and write_text(path, text())
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror})") from error
    if options.evidence:
        output.show("\n\n".join(map(output.evidence, grades)))
    else:
        output.show(output.terminal_table(grades, rules, points))
    return 0 if all(one.outcome == PASS for one in grades) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mnist_utils", description="Small, honest MNIST submissions.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, add_options, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(command=function)
        add_options(command)
    return parser


def _run_options(command) -> None:
    command.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="path or name; without one, the submission")
    command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; 0.1,0.2 makes a run for each",
    )
    command.add_argument("--seed", metavar="K", help="the same as -p seed K")
    command.add_argument("--seeds", metavar="LIST", help="one run for each, as in 0-9,12; what is done stays done")
    command.add_argument(
        "--batch", type=Path, metavar="FILE", help="notebooks, seeds, parameters from a TOML or YAML file"
    )
    command.add_argument("--jobs", type=_workers, default=1, metavar="N", help="runs at a time, or auto (1)")
    command.add_argument("--per-device", type=_count, default=1, metavar="N", help="with --jobs auto: runs a GPU (1)")
    command.add_argument("--scheduler", metavar="ADDRESS", help="run on a Dask cluster instead, as in tcp://host:8786")
    command.add_argument(
        "--resources",
        type=_resources,
        metavar="LIST",
        help="what each run takes of a cluster's worker, as in GPU=1",
    )
    command.add_argument(
        "--copy-to", metavar="URL", help="of several runs, copy notebook and record there too, as in s3://bucket/runs"
    )
    command.add_argument("--dry-run", action="store_true", help="show the runs and which are done, run nothing")
    command.add_argument("--force", action="store_true", help="of several runs, make also those that are done")
    command.add_argument("--timeout", type=float, metavar="SECONDS", help="of several runs, stop one that takes longer")
    command.add_argument("--memory", type=float, metavar="GIB", help="of several runs, the most that one may allocate")
    command.add_argument("--dataset", metavar="NAME", help="auto (MNIST, else digits under a banner), mnist or digits")
    command.add_argument("--data", dest="data_dir", metavar="DIR", help="where MNIST is cached (data)")
    command.add_argument("--mirror", metavar="URL-or-folder", help="where MNIST's four .gz files are")
    command.add_argument("--out", type=Path, default=LOCAL, metavar="DIR", help=f"where runs go ({LOCAL})")


def _bench_options(command) -> None:
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a saved measurement")
    command.add_argument("--repeats", type=_count, default=5, metavar="N", help="turns of each contender (5)")
    command.add_argument("--paired", action="store_true", help="holdout accuracy before and after tuning, seed by seed")
    command.add_argument("--batch", type=_count, metavar="N", help="N runs of 01, bare against through papermill")
    command.add_argument("--epochs", type=_count, default=5, metavar="N", help="epochs of each run of --batch (5)")
    command.add_argument("--scheduling", action="store_true", help="what Dask adds to jobs that do nothing")
    command.add_argument("--to", type=float, metavar="ACCURACY", help="seconds to this test accuracy, as in 0.994")
    command.add_argument("--seeds", type=_count, default=10, metavar="N", help="seeds of --paired and --to (10)")
    command.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    command.add_argument("--data", dest="data_dir", default="data", metavar="DIR", help="where MNIST is cached (data)")
    command.add_argument("--mirror", default="", metavar="URL-or-folder", help="where MNIST's four .gz files are")


def _repository_options(command) -> None:
    command.add_argument(
        "name", nargs="?", metavar="OWNER/NAME", help="as on GitHub; without one, show the present one"
    )


def _report_options(command) -> None:
    command.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="the records (reports)")
    command.add_argument(
        "--readme", type=Path, default=Path("README.md"), metavar="FILE", help="whose table is written"
    )


def _export_options(command) -> None:
    command.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="with run.json and model.safetensors")
    command.add_argument("--to", type=Path, metavar="FILE", help="without it, model.onnx or model.pt2 in RUN_FOLDER")
    command.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="onnx, or torch for a .pt2 (onnx)")


def _search_options(command) -> None:
    command.add_argument("trials", type=Path, metavar="FILE", help="a line a trial; log and page go beside it")
    command.add_argument("--jobs", type=_count, default=1, metavar="N", help="trials at a time, a thread each (1)")
    command.add_argument("--data", dest="data_dir", default="data", metavar="DIR", help="where MNIST is cached (data)")
    command.add_argument("--mirror", default="", metavar="URL-or-folder", help="where MNIST's four .gz files are")


def _grade_options(command) -> None:
    command.add_argument("submissions", nargs="+", metavar="PATH", help="notebook, HTML, text, folder or zip: one each")
    command.add_argument("--each", action="store_true", help="every entry of a folder or zip file is a submission")
    command.add_argument("--rules", default="4", metavar="4|5|FILE", help="the course's assignment or a TOML file (4)")
    command.add_argument("--evidence", action="store_true", help="print each verdict with the line it was read from")
    for name in ("csv", "json", "html"):
        command.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write the grades as {name.upper()} too")
    command.add_argument("--only", default="", metavar="PATTERN", help="of each, read these files, as session4/*")
    command.add_argument("--roster", type=Path, metavar="FILE", help="a CSV file of students: name, id, path")
    command.add_argument("--points", metavar="LIST", help="points a rule, as in accuracy=4,parameters=3")
    command.add_argument("--canvas", type=Path, metavar="FILE", help="write the points for Canvas to import")
    command.add_argument("--moodle", type=Path, metavar="FILE", help="write the points for Moodle to import")
    command.add_argument(
        "--time-limit", type=float, default=60.0, metavar="SECONDS", help="the most one submission may take (60)"
    )


def _workers(text: str):
    return text if text == "auto" else _count(text)


def _resources(text: str) -> dict[str, float]:
    found = re.findall(r"(\w+)=(\d+(?:\.\d+)?)(?:,|$)", text)
    if ",".join(f"{name}={amount}" for name, amount in found) != text:
        raise argparse.ArgumentTypeError(f"names and amounts as in GPU=1 or GPU=0.5,memory=2, got {text!r}")
    return {name: float(amount) for name, amount in found}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, got {text!r}")
    return int(text)


COMMANDS = {  # what each does, its options, and what --help says of it
    "run": (run, _run_options, "execute notebooks into executed copies, HTML, plots and records"),
    "bench": (bench, _bench_options, "measure the training loop's speed, as ratios"),
    "repository": (repository, _repository_options, "change the repository's owner and name in every badge and link"),
    "report": (report, _report_options, "rebuild tables and plots over all seeds from the records"),
    "export": (export, _export_options, "write a run's trained model as ONNX or as a torch.export program"),
    "search": (search, _search_options, "try recipes on the holdout images"),
    "grade": (grade, _grade_options, "say what submissions show of the rules, without executing them"),
    "list": (list_notebooks, lambda command: None, "show the notebooks and their parameters"),
}


if __name__ == "__main__":
    sys.exit(main())
