"""Try recipes on the holdout images; every trial ever made is a line of a log.

    python -m mnist_utils search reports/search/trials.txt --jobs 4

Each line of the trials file names seeds and what differs from the defaults of `Trial`; after a # stands what was made
of the outcome. A line starting with # is a heading. Trials whose outcome is in `log.jsonl` beside the file are not run
again. `README.md` there becomes a table of them all.

    1000,1001  blocks=c8_d12_M_d20 batch_size=64 learning_rate=0.15    # dropped: 0.1 below the next

The test images are not looked at. Seeds from 1000 on are for searching only.
"""

import json
import multiprocessing
import statistics
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..augment import Affine
from ..data import Data, load_data, make_loaders
from ..models import ConvNet, SeedModel, build_model, count_parameters
from ..muon import Muon, split_parameters
from ..records import write_text
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
        given = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return " ".join(f"{name}={str(value).replace(' ', '_')}" for name, value in given) or "blocks=seed"


def run_trial(trial: Trial, seed: int, data: Data) -> dict:
    """Train once, on one CPU thread; the line of the log, with the accuracies after the last two epochs."""
    device, started = choose_device("cpu", threads=1), time.perf_counter()
    set_seed(seed)
    model = (SeedModel(dropout=0.0) if trial.blocks == "seed" else ConvNet(trial.blocks, trial.activation)).to(
        memory_format=torch.channels_last
    )
    a = trial.augmentation
    shear = 6 * a if trial.shear < 0 else trial.shear
    augment = None
    if a or shear or trial.elastic:
        augment = Affine(10 * a, 0.07 * a, 0.1 * a, shear, trial.elastic)
    loader, holdout = make_loaders(data, trial.batch_size, seed, device, augment, bool(trial.deskew))
    optimizer = _optimizer(trial, model)
    scheduler = rise_and_fall(optimizer, trial.epochs * len(loader), trial.warmup)
    average = None
    if trial.averaging:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(trial.averaging), use_buffers=True)
    rule, accuracies = dict(progress=False, average=average, label_smoothing=trial.label_smoothing), []
    if trial.teacher:
        rule["teacher"] = build_model("most_accurate").to(memory_format=torch.channels_last)
        rule["teacher"].load_state_dict(load_file(trial.teacher))
    for epoch in range(1, trial.epochs + 1):
        trained = train(model, device, loader, optimizer, epoch, scheduler, **rule)
        if epoch > trial.epochs - 2:
            accuracies.append(test(average or model, device, holdout, progress=False).accuracy)
    return {
        "trial": str(trial),
        "seed": seed,
        "parameters": count_parameters(model),
        "accuracies": accuracies,
        "train_accuracy": round(trained.accuracy, 5),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _optimizer(trial: Trial, model) -> torch.optim.Optimizer:
    lr, decay = trial.learning_rate, trial.weight_decay
    if trial.optimizer == "muon":
        return Muon(split_parameters(model), lr=lr, weight_decay=decay)
    if trial.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)


def search(path: Path, jobs: int = 4, data_dir: str = "data", mirror: str = "") -> None:
    """Run what the trials file asks for and the log does not hold yet, each as a line of its own; then the table.

    Raises ValueError for a line that cannot be read and DataError where MNIST cannot be had.
    """
    asked = [(str(trial), seed) for _, seeds, trial, _ in read_trials(path) for seed in seeds]
    log = path.with_name("log.jsonl")
    done = {(row["trial"], row["seed"]) for row in read_log(log)}
    waiting = [(*job, data_dir) for job in dict.fromkeys(asked) if job not in done]
    if waiting:
        load_data("mnist", data_dir, mirror)
        _run_all(waiting, min(jobs, len(waiting)), log)
    write_text(path.with_name("README.md"), table(path))


def _run_all(waiting: list[tuple[str, int, str]], jobs: int, log: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for row in pool.imap_unordered(_work, waiting, chunksize=1):
            with log.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
            print(f"{row['accuracies'][-1]:.2%}  seed {row['seed']}  {row['trial']}", flush=True)


def _work(job: tuple[str, int, str]) -> dict:
    text, seed, data_dir = job
    return run_trial(Trial.read(text), seed, load_data("mnist", data_dir, split="holdout"))


def read_trials(path: Path) -> list[tuple[str, list[int], Trial, str]]:
    """(heading, seeds, trial, what was made of it) for each trial of the file. Raises ValueError, naming the line."""
    heading, found = "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.strip():
            try:
                words, _, outcome = line.partition("#")
                seeds, _, text = words.strip().partition(" ")
                found.append((heading, [int(seed) for seed in seeds.split(",")], Trial.read(text), outcome.strip()))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return found


def read_log(log: Path) -> list[dict]:
    """The log's rows; none where there is no log yet."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def table(path: Path) -> str:
    """Every trial with its holdout accuracy at the last epoch, as Markdown, under the file's headings."""
    rows: dict[str, dict[int, dict]] = {}
    for row in read_log(path.with_name("log.jsonl")):
        rows.setdefault(row["trial"], {})[row["seed"]] = row
    parts: dict[str, list[str]] = {}
    for heading, seeds, trial, outcome in read_trials(path):
        known = rows.pop(str(trial), {})
        found = [known[seed] for seed in seeds if seed in known]
        parts.setdefault(heading, []).extend([_row(str(trial), found, outcome)] if found else [])
    if rows:
        left = [_row(trial, list(known.values()), "dropped") for trial, known in rows.items()]
        parts["Blocks that were tried and taken out of the code again"] = left
    head = "| trial | parameters | n | holdout, last epoch | standard deviation | training | kept or dropped, and why |"
    lines = [line for heading, rows in parts.items() for line in ("", f"## {heading}", "", head, RULE, *rows)]
    return "\n".join(["# The search, on the holdout images", "", ABOUT, *lines]) + "\n"


RULE = "|---|---|---|---|---|---|---|"
ABOUT = """Every trial that was made, with the accuracy on 10,000 images held out of the training set, after training on
the other 50,000, as was `teacher.safetensors`; the test images were not looked at. Words not given have the defaults of
`Trial` in `mnist_utils/search.py`. Seeds from 1000 on are for searching only; the reports use seeds from 0 on.
`python -m mnist_utils search reports/search/trials.txt` runs what `log.jsonl` lacks and writes this page. With n = 1 a
figure is uncertain by about 0.06 points, more for the smallest models."""


def _row(trial: str, found: list[dict], outcome: str) -> str:
    lasts = [100 * row["accuracies"][-1] for row in found]
    spread = f"{statistics.stdev(lasts):.3f}" if len(lasts) > 1 else ""
    training = f"{100 * statistics.mean(row['train_accuracy'] for row in found):.2f}%"
    cells = [trial, f"{found[0]['parameters']:,}", str(len(found)), f"{statistics.mean(lasts):.3f}%", spread, training]
    return f"| {' | '.join([*cells, outcome])} |"
