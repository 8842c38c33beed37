"""The command line: `python -m mnist_utils run | list`. Parsing only; each command opens the room it needs."""

import argparse
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

    command = commands.add_parser("list", help="show the notebooks and their parameters")
    command.set_defaults(command=list_notebooks)
    return parser


if __name__ == "__main__":
    sys.exit(main())
