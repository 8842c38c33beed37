"""Try recipes on the holdout images; every trial ever made is a line of a log.

    mnist-utils search reports/search/trials.txt --jobs 2

Each line of that file names seeds and the words in which a trial differs from the defaults of
`Trial`; after a # stands what came of it. A line that starts with # is a heading. Trials whose
outcome is in `log.jsonl` beside the file are not run again; all of them are a table in `README.md`.

    1000,1001  blocks=c8_d12_M_d20 batch_size=64 learning_rate=0.1,0.15    # dropped: too slow

A word with several values makes a trial of each. The test images are not looked at.
"""

import itertools
import json
import statistics
import sys
import time
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..augment import Affine
from ..batch.executor import engine
from ..data import Data, load_data, make_loaders
from ..errors import UsageError
from ..models import ConvNet, SeedModel, count_parameters
from ..muon import Muon, split_parameters
from ..records import write_text
from ..templating import literal
from ..training import Pass, choose_device, rise_and_fall, set_seed, test, train
from . import fill_page

LEFT = "Tried, and taken out of the list of trials"
NEW_PAGE = "# The search\n\n<!-- trials -->\n<!-- end -->\n"


@dataclass(frozen=True)
class Trial:
    """A model and a recipe; `augmentation` scales an affine of 10 degrees, 7% shift, 10% size, 6
    degrees of slant. `shear` is the slant in degrees, where it is not to be scaled; `deskew=1`
    straightens the images before."""

    blocks: str = "seed"
    activation: str = "ReLU"
    epochs: int = 19
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.2
    warmup: float = 0.0
    weight_decay: float = 5e-4
    augmentation: float = 1.0
    elastic: float = 0.0
    averaging: float = 0.0
    deskew: int = 0
    shear: float = -1.0

    @classmethod
    def read(cls, text: str) -> "Trial":
        """From words like epochs=4. Raises ValueError for a word or a value that is none."""
        types = {field.name: field.type for field in fields(cls)}
        values = {}
        for word in text.split():
            name, _, value = word.partition("=")
            if name not in types:
                raise ValueError(f"unknown word {word!r}; there are {', '.join(types)}")
            values[name] = types[name](value.replace("_", " ") if name == "blocks" else value)
        trial = cls(**values)
        if trial.epochs < 1 or trial.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        try:
            trial.build()
        except (KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"unknown optimizer or activation: {error}") from error
        return trial

    def build(self, device="cpu") -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """A new network, its weights drawn from torch's global generator, and its optimizer."""
        if self.blocks == "seed":
            model = SeedModel(dropout=0.0)
        else:
            model = ConvNet(self.blocks, self.activation)
        model = model.to(device, memory_format=torch.channels_last)
        rates = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "muon":
            return model, Muon(split_parameters(model), **rates)
        kinds = {
            "adamw": partial(torch.optim.AdamW, fused=True),
            "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
        }
        return model, kinds[self.optimizer](model.parameters(), **rates)

    def train(
        self, data: Data, seed: int, device: torch.device
    ) -> tuple[torch.nn.Module, list[tuple[Pass, Pass]]]:
        """The trained model, and what each epoch gave: its training pass and the test after it.

        Where weights are averaged, the average is tested.
        """
        set_seed(seed)
        model, optimizer = self.build(device)
        a = self.augmentation
        shear = self.shear
        if shear < 0:
            shear = 6 * a
        distort = None
        if a or shear or self.elastic:
            distort = Affine(10 * a, 0.07 * a, 0.1 * a, shear, self.elastic)
        deskew = bool(self.deskew)
        loader, held_out = make_loaders(data, self.batch_size, seed, device, distort, deskew)
        scheduler = rise_and_fall(optimizer, self.epochs * len(loader), self.warmup)
        average = None
        if self.averaging:
            averages = get_ema_multi_avg_fn(self.averaging)
            average = AveragedModel(model, multi_avg_fn=averages, use_buffers=True)
        passes = []
        for epoch in range(1, self.epochs + 1):
            trained = train(model, device, loader, optimizer, epoch, scheduler, False, average)
            passes.append((trained, test(average or model, device, held_out, progress=False)))
        return model, passes


# The table's columns; the network is the first of a trial's words.
WORDS = [field.name for field in fields(Trial)[1:]]
COLUMNS = ["holdout", "parameters", "n", "standard deviation", "training", "network", *WORDS]
COLUMNS += ["other words", "kept or dropped, and why"]


def run_trial(run: tuple[str, int], data_dir: str = "data") -> dict:
    """Train a trial with a seed, on one CPU thread; the log's line, with the last two accuracies."""
    words, seed = run
    data = load_data("mnist", data_dir, split="holdout")
    device = choose_device("cpu", threads=1)
    started = time.perf_counter()
    model, passes = Trial.read(words).train(data, seed, device)
    return {
        "trial": words,
        "seed": seed,
        "parameters": count_parameters(model),
        "accuracies": [tested.accuracy for _, tested in passes[-2:]],
        "train_accuracy": round(passes[-1][0].accuracy, 5),
        "seconds": round(time.perf_counter() - started, 1),
    }


def search(path: Path, jobs: int = 1, data_dir: str = "data", mirror: str = "") -> None:
    """Run what the file asks for and the log does not hold yet, a line each; then the table.

    Raises UsageError for a line that cannot be read, or after all others ran for trials that
    failed, and DataError where MNIST cannot be had.
    """
    failed = []
    stops = 0
    if next_runs(path):
        load_data("mnist", data_dir, mirror)
        work = partial(run_trial, data_dir=data_dir)
        with engine(jobs) as pool:
            while (waiting := next_runs(path)) and not failed and not pool.stops:
                for run, outcome in pool.map_unordered(work, waiting):
                    if isinstance(outcome, BaseException):
                        failed.append(f"{run[0]} with seed {run[1]}: {outcome}")
                        continue
                    append_log(path.with_name("log.jsonl"), outcome)
                    print(f"{outcome['accuracies'][-1]:.2%}  seed {run[1]}  {run[0]}", flush=True)
            stops = pool.stops
    page = path.with_name("README.md")
    if not page.exists():
        write_text(page, NEW_PAGE)
    fill_page(page, {"trials": table(path)})
    if stops:
        raise KeyboardInterrupt
    if failed:
        hint = "change or remove its line"
        raise UsageError(f"{len(failed)} trials failed; {hint}; the first was {failed[0]}")


def next_runs(path: Path) -> list[tuple[str, int]]:
    """(trial, seed) of what is to be run next and is not in the log.

    A line that makes several trials is a race: all of them run with its first seed, the better half
    of them with its second, and so on, down to one. No training is cut short: where the rate falls
    to zero, an accuracy half-way through says little.
    """
    done = read_log(path.with_name("log.jsonl"))
    waiting = []
    for _, seeds, left, _ in read_trials(path, done):
        for turn, seed in enumerate(seeds, 1):
            missing = [(trial, seed) for trial in left if (trial, seed) not in done]
            waiting += missing
            if len(left) > 1:
                if missing:
                    break
                scores = {t: sum(done[t, s]["accuracies"][-1] for s in seeds[:turn]) for t in left}
                left = sorted(left, key=scores.get, reverse=True)[: -(-len(left) // 2)]
    return list(dict.fromkeys(waiting))


def append_log(log: Path, row: dict) -> None:
    """Add a line; where an earlier write was cut off, on a line of its own."""
    text = log.read_text("utf-8", "replace") if log.exists() else "\n"
    with log.open("a", encoding="utf-8") as lines:
        lines.write("\n" * (not text.endswith("\n")) + json.dumps(row) + "\n")


def read_log(log: Path) -> dict[tuple[str, int], dict]:
    """The log's rows by trial and seed; a line that is none, as one cut off, is said and skipped."""
    rows = {}
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            sum([row["accuracies"][-1], row["train_accuracy"], row["parameters"]])
            rows[str(row["trial"]), int(row["seed"])] = row
        except (ValueError, LookupError, TypeError):
            print(f"{log}, line {number}: no whole line of the log, passed over", file=sys.stderr)
    return rows


def read_trials(path: Path, done: dict) -> list[tuple[str, list[int], list[str], str]]:
    """(heading, seeds, trials, what came of them) of each line. Raises UsageError, naming the line.

    A trial that is `done` with all its seeds is not read, since its words may be of an earlier form.
    """
    heading = ""
    found = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        asked, _, outcome = line.partition("#")
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.strip():
            try:
                first, *words = asked.split()
                seeds = [int(seed) for seed in first.split(",")]
                choices = []
                for word in words:
                    name, _, values = word.partition("=")
                    choices.append([f"{name}={value}" for value in values.split(",")])
                trials = [" ".join(chosen) for chosen in itertools.product(*choices)]
                for trial in trials:
                    if not all((trial, seed) in done for seed in seeds):
                        Trial.read(trial)
            except ValueError as error:
                raise UsageError(f"{path}, line {number}: {error}") from error
            found.append((heading, seeds, trials, outcome.strip()))
    return found


def table(path: Path) -> str:
    """All trials as Markdown: what each scored on the holdout, its words, and what came of it."""
    left = read_log(path.with_name("log.jsonl"))
    tried = {}
    for heading, seeds, trials, outcome in read_trials(path, dict(left)):
        for trial in trials:
            rows = [left.pop((trial, seed)) for seed in seeds if (trial, seed) in left]
            if rows:
                tried.setdefault(heading, []).append(_row(trial, rows, outcome))
    for trial in dict.fromkeys(trial for trial, _ in left):
        rows = [row for (other, _), row in left.items() if other == trial]
        tried.setdefault(LEFT, []).append(_row(trial, rows, ""))
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
    parts = [f"## {literal(title)}\n\n{head}\n" + "\n".join(rows) for title, rows in tried.items()]
    return "\n\n".join(parts)


def _row(trial: str, rows: list[dict], outcome: str) -> str:
    lasts = [100 * row["accuracies"][-1] for row in rows]
    training = statistics.mean(row["train_accuracy"] for row in rows)
    spread = f"{statistics.stdev(lasts):.3f}" if len(lasts) > 1 else ""
    results = [f"**{statistics.mean(lasts):.3f}%**", f"{rows[0]['parameters']:,}", str(len(rows))]
    given = dict(word.partition("=")[::2] for word in trial.split())
    words = [given.pop("blocks", "seed"), *(given.pop(word, "") for word in WORDS)]
    words.append(" ".join(f"{name}={value}" for name, value in given.items()))
    if outcome.startswith("kept") and len(rows) < 2:
        outcome += " (on one seed only)"
    try:
        Trial.read(trial)
    except ValueError:
        outcome += " (cannot be run any more)"
    cells = [*results, spread, f"{training:.2%}", *map(literal, [*words, outcome.strip()])]
    return f"| {' | '.join(cells)} |"
