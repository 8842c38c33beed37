"""Try recipes on the holdout images; every trial ever made is a line of a log.

    mnist-utils search reports/search/trials.txt --jobs 4

Each line of the trials file names seeds and what differs from the defaults of `Trial`; after a # stands what was made
of the outcome. A line starting with # is a heading. Trials whose outcome is in `log.jsonl` beside the file are not run
again. `README.md` there becomes a table of them all.

    1000,1001  blocks=c8_d12_M_d20 batch_size=64 learning_rate=0.15    # dropped: 0.1 below the next

The test images are not looked at. Seeds from 1000 on are for searching only.
"""

import itertools
import json
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..augment import Affine
from ..data import Data, load_data, make_loaders
from ..errors import UsageError
from ..models import ConvNet, SeedModel, count_parameters
from ..muon import Muon, split_parameters
from ..records import write_text
from ..templating import literal
from ..training import choose_device, rise_and_fall, set_seed, test, train


@dataclass(frozen=True)
class Trial:
    """A model and a recipe; `augmentation` scales an affine of 10 degrees, 7% shift, 10% size, 6 degrees of slant.

    `shear` is the slant in degrees, where it is not to be scaled; `deskew=1` straightens the images before.
    `teacher` is a file with weights of the model `most_accurate`, trained on no held-out image.
    """

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
    label_smoothing: float = 0.0
    averaging: float = 0.0
    teacher: str = ""
    deskew: int = 0
    shear: float = -1.0
    amp: int = 0

    def model(self) -> torch.nn.Module:
        """A new network, its weights drawn from torch's global generator."""
        return (
            SeedModel(dropout=0.0)
            if self.blocks == "seed"
            else ConvNet(self.blocks, self.activation)
        )

    def augment(self) -> Affine | None:
        """The distortion of the training images."""
        a = self.augmentation
        shear = 6 * a if self.shear < 0 else self.shear
        if a or shear or self.elastic:
            return Affine(10 * a, 0.07 * a, 0.1 * a, shear, self.elastic)
        return None

    @classmethod
    def read(cls, text: str) -> "Trial":
        """From words like epochs=4; raises ValueError for a word that is none."""
        types, values = {f.name: f.type for f in fields(cls)}, {}
        for word in text.split():
            name, _, value = word.partition("=")
            if name not in types:
                raise ValueError(f"unknown word {word!r}; there are {', '.join(types)}")
            values[name] = types[name](value.replace("_", " ") if name == "blocks" else value)
        return cls(**values)

    def __str__(self) -> str:
        """The words that differ from the defaults, in one order, so that equal trials read alike."""
        given = [
            (f.name, getattr(self, f.name))
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return (
            " ".join(f"{name}={str(value).replace(' ', '_')}" for name, value in given)
            or "blocks=seed"
        )


def train_trial(trial: Trial, seed: int, data: Data, device: torch.device):
    """Train once, and yield (training, validation) passes epoch by epoch; the last two epochs alone are tested."""
    if trial.amp or trial.label_smoothing or trial.teacher:
        raise ValueError(f"{trial}: amp, label_smoothing and teacher were taken out")
    set_seed(seed)
    model, average = trial.model().to(device, memory_format=torch.channels_last), None
    loader, validation = make_loaders(
        data, trial.batch_size, seed, device, trial.augment(), bool(trial.deskew)
    )
    optimizer = _optimizer(trial, model)
    scheduler = rise_and_fall(optimizer, trial.epochs * len(loader), trial.warmup)
    if trial.averaging:
        average = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(trial.averaging), use_buffers=True
        )
    for epoch in range(1, trial.epochs + 1):
        trained = train(model, device, loader, optimizer, epoch, scheduler, False, average)
        if epoch > trial.epochs - 2:
            yield trained, test(average or model, device, validation, progress=False)


def run_trial(trial: Trial, seed: int, data: Data) -> dict:
    """Train once, on one CPU thread; the line of the log, with the accuracies after the last two epochs."""
    device, started = choose_device("cpu", threads=1), time.perf_counter()
    passes = list(train_trial(trial, seed, data, device))
    return {
        "trial": str(trial),
        "seed": seed,
        "parameters": count_parameters(trial.model()),
        "accuracies": [tested.accuracy for _, tested in passes],
        "train_accuracy": round(passes[-1][0].accuracy, 5),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _optimizer(trial: Trial, model) -> torch.optim.Optimizer:
    lr, decay = trial.learning_rate, trial.weight_decay
    if trial.optimizer == "muon":
        return Muon(split_parameters(model), lr=lr, weight_decay=decay)
    if trial.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=True
    )


def search(path: Path, jobs: int = 1, data_dir: str = "data", mirror: str = "") -> None:
    """Run what the trials file asks for and the log does not hold yet, each as a line of its own; then the table.

    Raises UsageError for a line that cannot be read and DataError where MNIST cannot be had.
    """
    from ..batch.executor import engine

    log = path.with_name("log.jsonl")
    if next_runs(path):
        load_data("mnist", data_dir, mirror)
        with engine(jobs) as pool:
            while waiting := [(*run, data_dir) for run in next_runs(path)]:
                for item, outcome in pool.map_unordered(_work, waiting):
                    if isinstance(outcome, BaseException):
                        raise UsageError(
                            f"{item[0]} with seed {item[1]} failed: {outcome}"
                        ) from outcome
                    append_log(log, outcome)
                    print(f"{outcome['accuracies'][-1]:.2%}  seed {item[1]}  {item[0]}", flush=True)
                if pool.stops:
                    break
    write_text(path.with_name("README.md"), table(path))


def next_runs(path: Path) -> list[tuple[str, int]]:
    """(trial, seed) of what is to be run next and is not in the log.

    A line that makes several trials is a race: all of them run with its first seed, the better half of them with its
    second, and so on, down to one. No training is cut short: where the rate falls to zero, an accuracy half-way
    through says little.
    """
    done = {
        (row["trial"], row["seed"]): row["accuracies"][-1]
        for row in read_log(path.with_name("log.jsonl"))
    }
    waiting = []
    for _, seeds, trials, _ in read_trials(path):
        left = [str(trial) for trial in trials]
        for turn, seed in enumerate(seeds):
            missing = [(trial, seed) for trial in left if (trial, seed) not in done]
            waiting += missing
            if missing and len(trials) > 1:
                break
            if not missing:
                left.sort(key=lambda trial: -sum(done[trial, s] for s in seeds[: turn + 1]))
                left = left[: -(-len(left) // 2)]
    return list(dict.fromkeys(waiting))


def append_log(log: Path, row: dict) -> None:
    """Add a line; where an earlier write was cut off, on a line of its own."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    with log.open("a", encoding="utf-8") as lines:
        lines.write("\n" * (text != "" and not text.endswith("\n")) + json.dumps(row) + "\n")


def _work(job: tuple[str, int, str]) -> dict:
    text, seed, data_dir = job
    return run_trial(Trial.read(text), seed, load_data("mnist", data_dir, split="holdout"))


def paired(settings) -> dict:
    """Holdout accuracies of one recipe with and without bfloat16, seed by seed, a thread a run."""
    from ..batch.executor import engine

    base = f"epochs={settings.epochs} learning_rate=0.1 weight_decay=0.0"
    variants = {"ours": base, "ours, amp": f"{base} amp=1"}
    items = [
        (text, 1000 + seed, settings.data_dir)
        for seed in range(settings.seeds)
        for text in variants.values()
    ]
    with engine(os.cpu_count()) as pool:
        found = {
            item: outcome["accuracies"][-1] for item, outcome in pool.map_unordered(_work, items)
        }
    accuracies = {
        name: [found[item] for item in items if item[0] == text] for name, text in variants.items()
    }
    return {"epochs": settings.epochs, "accuracies": accuracies}


def read_trials(path: Path) -> list[tuple[str, list[int], list[Trial], str]]:
    """(heading, seeds, trials, what was made of them) of each line. Raises UsageError, naming the line.

    A word with several values, as in learning_rate=0.1,0.2, makes a trial of each, with several words of each pair.
    """
    heading, found = "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.strip():
            try:
                words, _, outcome = line.partition("#")
                seeds, *values = words.split()
                choices = [
                    [f"{name}={one}" for one in value.split(",")]
                    for name, _, value in map(_cut, values)
                ]
                trials = [Trial.read(" ".join(chosen)) for chosen in itertools.product(*choices)]
                found.append(
                    (heading, [int(seed) for seed in seeds.split(",")], trials, outcome.strip())
                )
            except ValueError as error:
                raise UsageError(f"{path}, line {number}: {error}") from error
    return found


def _cut(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def read_log(log: Path) -> list[dict]:
    """The log's rows; a line that is none, as one whose writing was cut off, is said and passed over."""
    rows = []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            (
                row["trial"],
                row["seed"],
                row["accuracies"][-1],
                row["train_accuracy"],
                row["parameters"],
            )
            rows.append(row)
        except (ValueError, LookupError, TypeError):
            print(f"{log}, line {number}: no whole line of the log, passed over", file=sys.stderr)
    return rows


def table(path: Path) -> str:
    """The page of all trials as Markdown: what each scored on the holdout, then its words, a column each."""
    rows: dict[str, dict[int, dict]] = {}
    for row in read_log(path.with_name("log.jsonl")):
        rows.setdefault(row["trial"], {})[row["seed"]] = row
    # (heading, words of the trial, its rows of the log, what was made of it)
    tried = []
    for heading, seeds, trials, outcome in read_trials(path):
        for trial in map(str, trials):
            known = rows.pop(trial, {})
            tried.append((heading, trial, [known[s] for s in seeds if s in known], outcome))
    left = "Blocks that were tried and taken out of the code again"
    tried += [(left, trial, list(known.values()), "dropped") for trial, known in rows.items()]
    tried = [trial for trial in tried if trial[2]]
    # A word that few trials have gets no column of its own.
    counts = Counter(word.partition("=")[0] for _, text, _, _ in tried for word in text.split())
    words = [name for name in SHORT if counts[name] >= len(tried) / 10]
    names = [*RESULTS, *(SHORT[word] for word in words), "other words", "kept or dropped, and why"]
    head = f"| {' | '.join(names)} |\n|{'---|' * len(names)}"
    parts = [ABOUT]
    for heading in dict.fromkeys(trial[0] for trial in tried):
        lines = [_row(*trial[1:], words) for trial in tried if trial[0] == heading]
        parts.append("\n".join([f"## {literal(heading)}\n", head, *lines]))
    return "\n\n".join(parts) + "\n"


RESULTS = (
    "holdout", "parameters", "n", "standard deviation", "training", "network"
)  # fmt: skip
SHORT = {
    "activation": "activation", "epochs": "epochs", "batch_size": "batch", "optimizer": "optimizer",
    "learning_rate": "rate", "warmup": "warm-up", "weight_decay": "decay", "augmentation": "distortion",
    "elastic": "elastic", "averaging": "averaging", "deskew": "straightened", "shear": "slant",
}  # fmt: skip
ABOUT = """# The search, on the holdout images

Every trial that was made, with its accuracy at the last epoch on 10,000 images held out of the
training set, after training on the other 50,000, as was `teacher.safetensors`. The test images
were not looked at. A word without a value has the default of `Trial` in
`mnist_utils/bench/search.py`. Seeds from 1000 on are for searching only; the reports use seeds
from 0 on. With n = 1 a figure is uncertain by about 0.06 points, more for the smallest models.
Trials of one to four epochs with `deskew=1` were made before two terms of a sum changed places, so
that running them again gives other last digits.
Press a column's name to sort by it.

![Parameters against holdout accuracy of every training of the search, in 19 epochs and in fewer](trials.svg)

`python -m mnist_utils search reports/search/trials.txt` runs what `log.jsonl` lacks and writes this page's text;
`python -m mnist_utils report` then draws the figure."""


def _row(trial: str, found: list[dict], outcome: str, words: list[str]) -> str:
    lasts = [100 * row["accuracies"][-1] for row in found]
    spread = f"{statistics.stdev(lasts):.3f}" if len(lasts) > 1 else ""
    training = f"{100 * statistics.mean(row['train_accuracy'] for row in found):.2f}%"
    given = dict(word.partition("=")[::2] for word in trial.split())
    network = given.pop("blocks", "seed")
    columns = [given.pop(word, "") for word in words]
    others = " ".join(f"{name}={value}" for name, value in given.items())
    if outcome.startswith("kept") and len(found) < 2:
        outcome += " (on one seed only)"
    results = [
        f"**{statistics.mean(lasts):.3f}%**",
        f"{found[0]['parameters']:,}",
        str(len(found)),
        spread,
        training,
    ]
    return f"| {' | '.join([*results, *map(literal, [network, *columns, others, outcome])])} |"
