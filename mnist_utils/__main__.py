"""The command line, `python -m mnist_utils run | report | search | list | bench`; each command opens its own room."""

import argparse
import json
import signal
import sys
from pathlib import Path

LOCAL = Path("reports/local")


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 where a run failed, 2 for bad input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is a Ctrl-C
    from .batch import UsageError

    try:
        return options.command(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def run(options) -> int:
    """Execute the notebooks and say what came of each: one after the other, or as a batch of several seeds."""
    from . import assignment, batch

    flags = {name: getattr(options, name) for name in ("seed", "dataset", "data_dir", "mirror")}
    given = dict(options.parameter) | {name: value for name, value in flags.items() if value is not None}
    paths = [batch.find_notebook(name) for name in options.notebooks or [batch.SUBMISSION]]
    if options.seeds is not None:
        return _run_seeds(paths, given, options)
    jobs = [(path, batch.check_values(path, given)) for path in paths]
    codes = {"completed": 0, "failed": 1, "interrupted": 130}
    worst = 0
    for path, values in jobs:
        print(f"{path.stem}: running, output in {options.out / path.stem}", flush=True)
        record = batch.run_notebook(path, values, options.out)
        worst = max(worst, codes[record.status])
        print(f"{path.stem}: {record.status}" + (f", {record.error}" if record.error else ""))
        if record.status == "completed":
            print(f"{path.stem}: {assignment.summary(record)}")
        if record.status == "interrupted":
            break
    return worst


def _run_seeds(paths: list[Path], given: dict, options) -> int:
    from . import batch

    if "seed" in given:
        raise batch.UsageError("give --seed for one run or --seeds for several, not both")
    jobs = batch.plan(paths, given, batch.parse_seeds(options.seeds), options.out, options.jobs)
    records = batch.run_batch(jobs, options.jobs, options.force)
    bad = [job.name for job, record in zip(jobs, records) if record.status != "completed"]
    print(f"{len(jobs) - len(bad)} of {len(jobs)} runs completed" + (f"; not: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


def list_notebooks(options) -> int:
    """Print each notebook with its parameters: type, default, meaning, choices."""
    from . import batch

    for path in batch.all_notebooks():
        print(path)
        for p in batch.read_parameters(path).values():
            choices = f" (one of {', '.join(map(str, p.choices))})" if p.choices else ""
            print(f"  {p.name:<14} {p.type:<6} {p.default!r:<24} {p.meaning}{choices}")
    return 0


def report(options) -> int:
    """Rebuild every page, plot and table of results from the records."""
    from . import reports
    from .batch import UsageError
    from .records import RecordError

    try:
        results = reports.rebuild(options.reports, options.readme)
    except (RecordError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"{sum(len(result.records) for result in results)} records of {len(results)} notebooks")
    return 0


def search(options) -> int:
    """Run the trials that the log lacks, on the holdout images, and rebuild the search's page."""
    from . import search as room
    from .batch import UsageError
    from .data import DataError

    try:
        room.search(options.trials, options.jobs, options.data_dir, options.mirror)
    except (DataError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return 0


def bench(options) -> int:
    """Measure speed, or pair accuracies, or show a saved measurement again."""
    from . import bench as room
    from .batch import UsageError
    from .data import DataError

    seeds, where = range(options.seeds), dict(data_dir=options.data_dir)
    try:
        if options.show:
            result = json.loads(options.show.read_text(encoding="utf-8"))
        elif options.paired:
            result = room.paired(seeds, mirror=options.mirror, **where)
        elif options.to:
            result = room.time_to(options.to, seeds, device=options.device, **where)
        else:
            result = room.run_bench(mirror=options.mirror, device=options.device, repeats=options.repeats, **where)
    except (DataError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    show = room.format_paired if "accuracies" in result else room.format_bench if "loop" in result else json.dumps
    print(json.dumps(result, indent=1) if options.json else show(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mnist_utils", description="Small, honest MNIST submissions.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="execute notebooks into executed copies, HTML, plots and records")
    command.set_defaults(command=run)
    command.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="path or name; without one, the submission")
    command.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter"
    )
    command.add_argument("--seed", metavar="K", help="the same as -p seed K")
    command.add_argument("--seeds", metavar="LIST", help="one run for each, as in 0-9,12; what is done stays done")
    command.add_argument("--jobs", type=_count, default=1, metavar="N", help="with --seeds: runs at a time (1)")
    command.add_argument("--force", action="store_true", help="with --seeds: run also what is done")
    command.add_argument("--dataset", metavar="NAME", help="auto (MNIST, else digits under a banner), mnist or digits")
    command.add_argument("--data", dest="data_dir", metavar="DIR", help="where MNIST is cached (data)")
    command.add_argument("--mirror", metavar="URL-or-folder", help="where MNIST's four .gz files are")
    command.add_argument("--out", type=Path, default=LOCAL, metavar="DIR", help=f"where runs go ({LOCAL})")

    command = commands.add_parser("bench", help="measure the training loop's speed, as ratios")
    command.set_defaults(command=bench)
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a saved measurement")
    command.add_argument("--repeats", type=_count, default=5, metavar="N", help="turns of each contender (5)")
    command.add_argument("--paired", action="store_true", help="holdout accuracy before and after tuning, seed by seed")
    command.add_argument("--to", type=float, metavar="ACCURACY", help="seconds to this test accuracy, as in 0.994")
    command.add_argument("--seeds", type=_count, default=10, metavar="N", help="seeds of --paired and --to (10)")
    command.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda")
    command.add_argument("--data", dest="data_dir", default="data", metavar="DIR", help="where MNIST is cached (data)")
    command.add_argument("--mirror", default="", metavar="URL-or-folder", help="where MNIST's four .gz files are")

    command = commands.add_parser("report", help="rebuild tables and plots over all seeds from the records")
    command.set_defaults(command=report)
    command.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="the records (reports)")
    command.add_argument(
        "--readme", type=Path, default=Path("README.md"), metavar="FILE", help="whose table is written"
    )

    command = commands.add_parser("search", help="try recipes on the holdout images")
    command.set_defaults(command=search)
    command.add_argument("trials", type=Path, metavar="FILE", help="a line a trial; log and page go beside it")
    command.add_argument("--jobs", type=_count, default=1, metavar="N", help="trials at a time, a thread each (1)")
    command.add_argument("--data", dest="data_dir", default="data", metavar="DIR", help="where MNIST is cached (data)")
    command.add_argument("--mirror", default="", metavar="URL-or-folder", help="where MNIST's four .gz files are")

    command = commands.add_parser("list", help="show the notebooks and their parameters")
    command.set_defaults(command=list_notebooks)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
