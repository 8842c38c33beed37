"""The bookkeeping of one run, so that a notebook shows the experiment only.

run = Run("every_seed", globals())      # right after the cell with the annotated parameters
data = run.load_data()
...
for epoch in run.epochs(model, optimizer, train_loader, scheduler=scheduler):
    trained = train(model, run.device, train_loader, optimizer, epoch, scheduler)
    tested = test(model, run.device, test_loader)
    run.log(trained, tested)            # a run that is stopped here resumes after this epoch
run.finish(model, data, predict(model, run.device, test_loader))
"""

import ast
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple
from operator import length_hint
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from . import assignment, plots
from .checkpoints import Checkpoints
from .data import Data, load_data
from .errors import RecordError, UsageError
from .layers import trace_layers
from .models import count_parameters
from .records import EpochRow, RunRecord, duration, save_misread
from .training import Pass, choose_device, device_facts, save_weights

TYPES = {"int": int, "float": int | float, "str": str, "bool": bool}
NEEDED = (
    "epochs", "seed", "dataset", "split", "device_name", "threads", "data_dir", "mirror", "out_dir",
)  # fmt: skip
# Where things lie has no part in what comes out, and the seed stands by itself in the record.
NOT_RECORDED = ("seed", "data_dir", "mirror", "out_dir")
SHARES = ("dropout", "warmup", "momentum", "averaging")
FORECAST = 3.0  # seconds of training after which it is said how long all of it will take


class Run:
    """One run of the notebook `name`, from its parameters to its verdict.

    The parameters are those names in `namespace`, the notebook's `globals()`, that were annotated
    as int, float, str or bool. `against` names the notebook that this one changes in one thing.
    What the run leaves behind lies in `folder`; its `record` and its torch `device` are public too.
    Raises UsageError for a parameter that makes no sense, before anything is written.
    """

    def __init__(self, name: str, namespace: dict, against: str = ""):
        self.parameters = annotated_values(namespace)
        check_parameters(self.parameters)
        self.device = choose_device(self.parameters["device_name"], self.parameters["threads"])
        seed = self.parameters["seed"]
        place = home() / "reports/local" / name / f"seed-{seed}"
        self.folder = Path(self.parameters["out_dir"] or place)
        recorded = {key: value for key, value in self.parameters.items() if key not in NOT_RECORDED}
        self.record = RunRecord.start(name, recorded, seed=seed, against=against)
        self.record.device = device_facts(self.device)
        self._optimizer = None

    def load_data(self) -> Data:
        """The dataset that the parameters name; how many images it has is printed.

        Raises DataError where MNIST is asked for and cannot be had.
        """
        places = (self.parameters[name] for name in ("dataset", "data_dir", "mirror", "split"))
        data = load_data(*places)
        self.record.dataset = facts = data.facts()
        counts = f"{facts['train']:,} training and {facts['validation']:,} validation"
        if data.note:
            print(data.note)
        print(f"{data.name}: {counts} images")
        return data

    def epochs(self, model: nn.Module, optimizer: Optimizer, loader, **parts) -> Iterator[int]:
        """The epochs that are left, from 1, or from where a stopped run of the same kind resumes.

        The `model`, the `optimizer`, the `loader`'s generator and all other `parts` (a scheduler,
        an average of the weights) are put back as they were then. After the first seconds it is
        printed how long the training of all these epochs takes here.
        """
        self.record.model = {
            "name": getattr(model, "name", type(model).__name__),
            "parameters": count_parameters(model),
            "layers": [asdict(layer) for layer in trace_layers(model)],
        }
        # The cell may be run again, after a stop or for a new model.
        self.record.epochs, self.record.status = [], "running"
        given = {name: part for name, part in parts.items() if part is not None}
        # The same one where the cell is run again; it must not be watched twice.
        if optimizer is not self._optimizer:
            optimizer.register_step_post_hook(self._forecast)
        self._optimizer = optimizer
        self._checkpoints = Checkpoints(
            self.folder, self.record, loader, model=model, optimizer=optimizer, **given
        )
        left = range(self._checkpoints.restore(), self.parameters["epochs"] + 1)
        self._steps = len(left) * length_hint(loader)
        self._taken = 0
        self._began = time.perf_counter()
        yield from left

    def _forecast(self, *_) -> None:
        """After a step: say once, from the first seconds of training, how long all steps take."""
        self._taken += 1
        seconds = time.perf_counter() - self._began
        if self._steps and seconds > FORECAST:
            about = duration(self._steps * seconds / self._taken)
            # A bar that is shown stays below this line.
            tqdm.write(f"the training takes about {about} here", file=sys.stdout)
            self._steps = 0

    def log(self, trained: Pass, tested: Pass) -> None:
        """Note one finished epoch in the record and keep the state, each whole or not at all."""
        rate = float(self._optimizer.param_groups[0]["lr"])
        epoch = len(self.record.epochs) + 1
        self.record.epochs.append(EpochRow(epoch, rate, *astuple(trained), *astuple(tested)))
        self.record.save(self.folder)
        self._checkpoints.save()

    def finish(self, model: nn.Module, data: Data, probabilities: Tensor) -> None:
        """Save the weights, both curves and the misread images, and print the verdict.

        `probabilities` are the model's for the validation images in their order, float (N, 10).
        """
        save_misread(self.folder, data.validation_labels, probabilities)
        plots.save(plots.accuracy_curve(self.record), self.folder / "accuracy.png")
        plots.save(plots.loss_curve(self.record), self.folder / "loss.png")
        save_weights(model, self.folder / "model.safetensors")
        self.record.finish()
        self.record.verdict = assignment.judge(self.record)
        self.record.save(self.folder)
        self._checkpoints.clear()
        print(*self.record.verdict, sep="\n")
        print(f"\n{assignment.summary(self.record)}")

    def show_seeds(self) -> None:
        """Show the mean over all seeds of this notebook, over that of the one that it changes.

        The records are the repository's; where it is not at hand, say where the figure is.
        """
        groups = [_records(name) for name in (self.record.notebook, self.record.against) if name]
        if all(groups):
            plots.show(plots.seed_curves(*groups))
        else:
            page = f"reports/{self.record.notebook}/README.md"
            print(f"The records of all seeds are in the repository, not here: see {page} there.")


def _records(name: str) -> list[RunRecord]:
    """The repository's records of a notebook's complete runs on MNIST's test images, by seed.

    While a run is repeated, the record that it had before stands for it.
    """
    found = {}
    # In this order a record that was kept as seed-0.previous gives way to seed-0.
    for path in sorted((home() / "reports" / name).glob("seed-*/run.json"), reverse=True):
        with contextlib.suppress(RecordError):
            record = RunRecord.load(path.parent)
            judged = assignment.judge(record)[0].outcome != assignment.NOT_JUDGED
            if judged and path.parent.name.removesuffix(".previous") == f"seed-{record.seed}":
                found[record.seed] = record
    records = [found[seed] for seed in sorted(found)]
    return [record for record in records if len(record.epochs) == len(records[0].epochs)]


def home() -> Path:
    """The repository, where a notebook runs in it or in its notebooks/, else the current folder."""
    here = Path.cwd()
    found = [folder for folder in (here, here.parent) if (folder / "reports/README.md").exists()]
    return found[0] if found else here


def annotated_values(namespace: dict) -> dict:
    """The values of the annotated parameters in a notebook's `globals()`, in their order.

    Raises UsageError where one is missing or has another type than its annotation says.
    """
    # The code is read, since from Python 3.14 on IPython knows only the last cell's annotations.
    cells = namespace.get("In", [])
    kinds = {}
    if not cells and "__file__" in namespace:
        cells = [Path(namespace["__file__"]).read_text(encoding="utf-8")]
    for cell in cells:
        with contextlib.suppress(SyntaxError):
            statements = [s for s in ast.parse(cell).body if isinstance(s, ast.AnnAssign)]
            kinds |= {ast.unparse(s.target): ast.unparse(s.annotation) for s in statements}
    names = [name for name, kind in kinds.items() if kind in TYPES and name in namespace]
    for name in names:
        value = namespace[name]
        kind = kinds[name]
        # In Python a bool is an int too.
        if not isinstance(value, TYPES[kind]) or isinstance(value, bool) != (kind == "bool"):
            raise UsageError(f"{name} must be of type {kind}, got {value!r}")
    if not names:
        raise UsageError("no parameters: run the notebook's cell with the parameters first")
    if missing := [name for name in NEEDED if name not in names]:
        raise UsageError(f"the cell with the parameters must also have {', '.join(missing)}")
    return {name: namespace[name] for name in names}


def check_parameters(parameters: dict) -> None:
    """Raise UsageError, naming the parameter, where a recipe makes no sense."""
    for name, value in parameters.items():
        if isinstance(value, str | bool):
            continue
        if name in ("epochs", "batch_size") and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
        # This is false for "not a number", too.
        if not 0 <= value < 1e300:
            raise UsageError(f"{name} must be a number of at least 0, got {value}")
        if name.endswith("learning_rate") and value == 0:
            raise UsageError(f"{name} must be above 0")
        if name in SHARES and value >= 1:
            raise UsageError(f"{name} must be below 1, got {value}")
        if name == "seed" and value >= 2**32:
            raise UsageError(f"seed must be below {2**32}, got {value}")
