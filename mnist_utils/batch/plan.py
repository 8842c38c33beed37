"""Which runs are asked for: batch files, seeds and values become jobs, checked before any starts.

jobs = plan([path], {"learning_rate": "0.1,0.2"}, range(10), Path("reports/local"))
"""

import itertools
import math
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import RecordError, UsageError
from ..parameters import check_values, read_parameters
from ..records import RunRecord
from . import copies
from .fingerprint import fingerprint

BATCH_KEYS = {"notebooks", "seeds", "parameters"}
MOST_RUNS = 10_000
TOO_MANY = f"this asks for more than {MOST_RUNS:,} runs; split the batch"
MOST_BYTES = 100_000  # of a batch file


@dataclass(frozen=True)
class Job:
    """One run to be made: a notebook, the values its parameters are given, and where runs go.

    `variant` names the values in which jobs of the same notebook and seed differ. `url` is where
    notebook and record are copied to as well, if anywhere.
    """

    path: Path
    values: dict
    out: Path
    variant: str = ""
    url: str = ""

    @cached_property
    def seed(self) -> int:
        """The seed given, or else the notebook's own; 0 where it has none."""
        if "seed" in self.values:
            return self.values["seed"]
        declared = read_parameters(self.path)
        return declared["seed"].default if "seed" in declared else 0

    @cached_property
    def name(self) -> str:
        """notebook/variant/seed-K, which is the folder inside `out` too."""
        return "/".join(filter(None, (self.path.stem, self.variant, f"seed-{self.seed}")))

    @cached_property
    def folder(self) -> Path:
        return self.out / self.name

    @cached_property
    def inputs(self) -> dict:
        """What the run's outcome follows from, as its record keeps it."""
        return fingerprint(self.path, self.values)

    def record(self) -> RunRecord:
        """The record in the folder, or else at the address. Raises RecordError without one."""
        # A worker of a cluster may share no folder with us.
        if self.url and not (self.folder / "run.json").exists():
            return copies.load_record(f"{self.url}/{self.name}")
        return RunRecord.load(self.folder)

    def is_done(self, record: RunRecord | None = None) -> bool:
        """Whether the record, by default the job's own, is of a completed run of these inputs.

        A run on MNIST is also one of the dataset `auto`, which means MNIST where it can be had.
        """
        try:
            record = record or self.record()
        except RecordError:
            return False
        asked = [self.inputs]
        parameters = self.inputs["parameters"]
        if parameters.get("dataset") == "auto":
            asked.append(self.inputs | {"parameters": parameters | {"dataset": "mnist"}})
        return record.status == "completed" and record.inputs in asked


def parse_seeds(text: str) -> list[int]:
    """ "0-9,12" as the list of its numbers, each once, at most 10,000. Raises UsageError."""
    found: dict[int, None] = {}
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})(?:-([0-9]{1,18}))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"seeds must look like 0-9 or 0,3,5-7, got {str(text)[:80]!r}")
        seeds = range(int(match[1]), int(match[2] or match[1]) + 1)
        if seeds[-1] >= 2**32:
            raise UsageError(f"seeds must be below {2**32:,}, got {seeds[-1]:,}")
        if len(found) + len(seeds) > MOST_RUNS:
            raise UsageError(f"{str(text)[:80]!r} are more than {MOST_RUNS:,} seeds; split them")
        found.update(dict.fromkeys(seeds))
    return list(found)


def plan(
    paths: list[Path],
    given: dict[str, str | list[str]],
    seeds: Iterable[int] | str | None,
    out: Path,
    copy_to: str = "",
) -> list[Job]:
    """Every notebook with every combination of values and every seed (None: the notebook's own).

    `seeds` may be a text, as for `parse_seeds`. `given` are texts by name. A list is several
    values; so is a text with commas, where the parameter is a number or a choice. Raises UsageError
    for whatever can be known to fail: values that are undeclared or impossible, two runs in one
    folder, more than 10,000 runs, a place or an address that cannot be written.
    """
    _check_place(out)
    if isinstance(seeds, str):
        seeds = parse_seeds(seeds)
    if seeds is not None and "seed" in given:
        raise UsageError("give --seed for one run or --seeds for several, not both")
    url = copies.check_address(copy_to) if copy_to else ""
    jobs: dict[Path, Job] = {}
    for path in paths:
        for values, variant in _combinations(path, given, seeds):
            job = Job(path, values, out, variant, url)
            other = jobs.setdefault(job.folder, job)
            if other != job:
                both = f"{other.path} and {job.path} would share {job.folder}"
                raise UsageError(f"{both}; rename one or change --out")
    if len(jobs) > MOST_RUNS:
        raise UsageError(TOO_MANY)
    return list(jobs.values())


def _combinations(path: Path, given: dict, seeds: Iterable[int] | None):
    """(values, variant) of each run of one notebook."""
    declared = read_parameters(path)
    choices = {}
    for name, texts in given.items():
        parameter = declared.get(name)
        if isinstance(texts, str) and parameter and (parameter.type != "str" or parameter.choices):
            texts = [text.strip() for text in texts.split(",")]
        choices[name] = texts if isinstance(texts, list) else [texts]
    varied = [name for name in choices if len(choices[name]) > 1]
    if seeds is not None:
        if "seed" not in declared:
            raise UsageError(f"{path.name} has no parameter 'seed', so --seeds cannot be given")
        choices["seed"] = list(seeds)
    if math.prod(map(len, choices.values())) > MOST_RUNS:
        raise UsageError(TOO_MANY)
    for texts in itertools.product(*choices.values()):
        values = check_values(path, dict(zip(choices, texts)), declared)
        variant = ",".join(f"{name}={values[name]}" for name in varied)
        yield values, re.sub(r"[^\w=.,+-]", "_", variant)


def _check_place(out: Path) -> None:
    """Raise UsageError where runs cannot be written under `out`."""
    if re.match(r"[A-Za-z][\w+.-]+:/", str(out)):
        raise UsageError(f"--out takes a folder, got {str(out)!r}; give an address to --copy-to")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {out} (see {there}); choose another --out")


def describe(jobs: list[Job], workers: int, force: bool = False) -> str:
    """The plan, a line for each job, and how many of them are to be run; `force` runs all."""
    lines = []
    for job in jobs:
        values = " ".join(f"{name}={value}" for name, value in job.values.items())
        state = "to run" if force or not job.is_done() else "done  "
        lines.append(f"{state}  {job.name}  {values}")
    left = sum(line.startswith("to run") for line in lines)
    return "\n".join([*lines, f"{left} of {len(jobs)} to run, {workers} at a time"])


def read_batch(file: Path) -> tuple[list[str], dict[str, str | list[str]], str | None]:
    """Notebooks, parameters and seeds, as texts, from a TOML or YAML file. Raises UsageError.

    notebooks = ["01_seed_model"]
    seeds = "0-9"
    [parameters]
    learning_rate = [0.1, 0.2]
    """
    if not file.exists():
        raise UsageError(f"{file}: there is no such batch file")
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        text = file.read_text(encoding="utf-8")
        asked = tomllib.loads(text) if file.suffix == ".toml" else _read_yaml(text)
        if unknown := ", ".join(sorted(set(asked) - BATCH_KEYS)):
            raise ValueError(f"unknown {unknown}; there are {', '.join(sorted(BATCH_KEYS))}")
        names = _texts(asked["notebooks"])
        given = {name: _texts(value) for name, value in asked.get("parameters", {}).items()}
        seeds = _texts(asked.get("seeds", []))
    except Exception as error:  # either parser has errors of its own
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{file} cannot be read as a batch ({reason})") from error
    names = [names] if isinstance(names, str) else names
    return names, given, (seeds if isinstance(seeds, str) else ",".join(seeds)) or None


def _read_yaml(text: str) -> dict:
    """YAML with each value the text that stands there, so that 010 is not 8, and no aliases."""
    import yaml

    found = yaml.load(text, Loader=yaml.BaseLoader)
    # A few aliases of aliases stand for billions of values.
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise ValueError("aliases (*name) are not read")
    return found


def _texts(value) -> str | list[str]:
    """A value of a batch file as a text, or a list of values as a list of texts."""
    if isinstance(value, list):
        return [str(_texts(one)) for one in value]
    if isinstance(value, dict):
        raise ValueError(f"expected a value or a list of values, got {str(value)[:60]}")
    return str(value).lower() if isinstance(value, bool) else str(value)
