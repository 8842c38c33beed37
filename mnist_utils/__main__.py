"""The command line: `python -m mnist_utils run | list | bench`. Parsing only; each command opens the room it needs."""

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
    """Execute the notebooks one after the other and say what came of each."""
    from . import assignment, batch

    flags = {name: getattr(options, name) for name in ("seed", "dataset", "data_dir", "mirror")}
    given = dict(options.parameter) | {name: value for name, value in flags.items() if value is not None}
    paths = [batch.find_notebook(name) for name in options.notebooks or [batch.SUBMISSION]]
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


def list_notebooks(options) -> int:
    """Print each notebook with its parameters: type, default, meaning, choices."""
    from . import batch

    for path in batch.all_notebooks():
        print(path)
        for p in batch.read_parameters(path).values():
            choices = f" (one of {', '.join(map(str, p.choices))})" if p.choices else ""
            print(f"  {p.name:<14} {p.type:<6} {p.default!r:<24} {p.meaning}{choices}")
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

    command = commands.add_parser("list", help="show the notebooks and their parameters")
    command.set_defaults(command=list_notebooks)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
