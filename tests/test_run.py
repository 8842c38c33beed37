"""The bookkeeping of a run: parameters, record, checkpoints, verdict."""

import ast
import itertools
import math
import runpy
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from mnist_utils import run as run_module
from mnist_utils.data import make_loaders
from mnist_utils.errors import UsageError
from mnist_utils.models import build_model
from mnist_utils.records import RunRecord, duration
from mnist_utils.run import Run, annotated_values, check_parameters
from mnist_utils.training import predict, set_seed, test, train

FORM = """
epochs: int = 2  # @param
batch_size: int = 256
learning_rate: float = 0.05
dropout: float = 0.1
seed: int = 3
dataset: str = "digits"
split: str = "assignment"
device_name: str = "cpu"
threads: int = 1
data_dir: str = "data"
mirror: str = ""
out_dir: str = ""
"""


def notebook(*cells) -> dict:
    """The globals of a notebook in which these cells were run, one after another."""
    namespace = {"In": [""]}
    for cell in (FORM, *cells):
        namespace["In"].append(cell)
        for statement in ast.parse(cell).body:
            exec(compile(ast.Module([statement], []), "cell", "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def start(*cells, name="01_seed_model", **facts) -> Run:
    return Run(name, notebook(*cells), **facts)


def fit(run, stop_after=99):
    """A whole notebook's training, or one that is cut off after an epoch."""
    digits = run.load_data()
    set_seed(3)
    model = build_model("seed", dropout=0.1)
    loader, validation = make_loaders(digits, 256, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 2 * len(loader))
    for epoch in run.epochs(model, optimizer, loader, scheduler=scheduler):
        trained = train(model, run.device, loader, optimizer, epoch, scheduler, progress=False)
        run.log(trained, test(model, run.device, validation, progress=False))
        if epoch == stop_after:
            return
    run.finish(model, digits, predict(model, run.device, validation))


def test_the_parameters_are_the_annotated_names_in_their_order():
    values = annotated_values(notebook("other = 1\nlayers: list = []\nlater: int"))
    assert list(values) == [line.split(":")[0] for line in FORM.split("\n") if line]
    assert values["learning_rate"] == 0.05 and values["seed"] == 3


def test_what_papermill_injects_without_annotations_counts():
    values = annotated_values(
        notebook('# Parameters\nepochs = 1\nout_dir = "there"\nlearning_rate = 1')
    )
    assert (values["epochs"], values["out_dir"], values["learning_rate"]) == (1, "there", 1)


def test_a_cell_that_failed_or_is_no_python_is_passed_over():
    namespace = notebook()
    namespace["In"] += ["this is no Python", "never: int"]
    assert "never" not in annotated_values(namespace)


def test_a_script_has_parameters_as_a_notebook_does(here):
    (here / "script.py").write_text(FORM)
    assert annotated_values(runpy.run_path("script.py")) == annotated_values(notebook())


def test_without_parameters_it_is_said_what_to_do():
    with pytest.raises(UsageError, match="run the notebook's cell with the parameters first"):
        Run("any", {"In": ["x = 1"], "x": 1})


def test_a_parameter_that_every_run_needs_is_named_where_it_was_deleted():
    namespace = notebook()
    namespace["In"] = [
        FORM.replace("epochs: int = 2  # @param\n", "").replace("seed: int = 3\n", "")
    ]
    with pytest.raises(UsageError, match="must also have epochs, seed$"):
        Run("any", namespace)


def test_code_without_a_file_has_no_parameters():
    with pytest.raises(UsageError, match="no parameters"):
        Run("any", {"x": 1})


@pytest.mark.parametrize(
    "line, said",
    [
        ("epochs = 2.0", "epochs must be of type int, got 2.0"),
        ("epochs = True", "epochs must be of type int, got True"),
        ("learning_rate = '0.1'", "learning_rate must be of type float, got '0.1'"),
        ("dataset = None", "dataset must be of type str, got None"),
        ("epochs = 0", "epochs must be at least 1, got 0"),
        ("batch_size = -1", "batch_size must be at least 1, got -1"),
        ("learning_rate = 0.0", "learning_rate must be above 0"),
        ("learning_rate = float('nan')", "learning_rate must be a number of at least 0, got nan"),
        ("learning_rate = 10**400", "learning_rate must be a number of at least 0"),
        ("dropout = -0.1", "dropout must be a number of at least 0, got -0.1"),
        ("dropout = 1.0", "dropout must be below 1, got 1.0"),
        ("seed = 2**32", "seed must be below 4294967296"),
        ("threads = -1", "threads must be a number of at least 0, got -1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_by_name(line, said, here):
    with pytest.raises(UsageError, match=f"^{said}"):
        start(line)
    assert not list(here.iterdir())


def test_every_notebooks_own_parameters_make_sense():
    from mnist_utils.parameters import read_parameters

    for path in ROOT.glob("notebooks/*.ipynb"):
        check_parameters({name: p.default for name, p in read_parameters(path).items()})


def test_a_run_leaves_record_weights_curves_and_mistakes_and_prints_one_verdict(here, capsys):
    fit(start(name="02_falling_rate", against="01_seed_model"))
    folder = here / "reports/local/02_falling_rate/seed-3"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "run.json", "metrics.csv", "misread.csv", "model.safetensors", "accuracy.png", "loss.png",
    }  # fmt: skip
    record = RunRecord.load(folder)
    assert record.status == "completed" and len(record.epochs) == 2 and record.seed == 3
    assert record.epochs[-1].learning_rate == 0 and record.against == "01_seed_model"
    assert record.model["name"] == "seed" and record.model["parameters"] == 9954
    assert record.device["threads"] == 1 and record.dataset["name"] == "digits"
    assert list(record.parameters) == [
        "epochs", "batch_size", "learning_rate", "dropout",
        "dataset", "split", "device_name", "threads",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert said.count("not judged: not MNIST") == 1 and said.count("NOT JUDGED") == 1


def test_a_stopped_run_resumes_and_ends_with_the_same_bits(here, capsys):
    fit(start('out_dir = "whole"'))
    fit(start('out_dir = "parts"'), stop_after=1)
    assert list((here / "parts").glob("checkpoint-*.pt"))
    fit(start('out_dir = "parts"'))
    assert "resuming after epoch 1" in capsys.readouterr().out
    whole, parts = (here / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert not list((here / "parts").glob("checkpoint-*.pt"))


def test_the_training_cell_can_be_run_again_after_a_stop_and_after_the_end(here, capsys):
    run = start('out_dir = "one"')
    fit(run, stop_after=1)
    fit(run)
    assert "resuming after epoch 1" in capsys.readouterr().out
    first = (here / "one/model.safetensors").read_bytes()
    fit(run)
    record = RunRecord.load(here / "one")
    assert [row.epoch for row in record.epochs] == [1, 2] and record.status == "completed"
    assert (here / "one/model.safetensors").read_bytes() == first


@pytest.fixture
def forecasts(monkeypatch, capsys):
    """What is said of the time that is left, where each step takes ten seconds."""
    clock = itertools.count(0, 10)
    monkeypatch.setattr(run_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    def said() -> list[str]:
        return [line for line in capsys.readouterr().out.splitlines() if "takes about" in line]

    return said


def steps_of_an_epoch(folder) -> int:
    return -(-RunRecord.load(folder).dataset["train"] // 256)


def test_how_long_the_training_takes_is_said_once_and_changes_no_bit(here, monkeypatch, forecasts):
    fit(start('out_dir = "said"'))
    steps = 2 * steps_of_an_epoch(here / "said")
    assert forecasts() == [f"the training takes about {duration(10 * steps)} here"]
    monkeypatch.setattr(run_module, "FORECAST", math.inf)
    fit(start('out_dir = "silent"'))
    assert forecasts() == []
    said, silent = (here / name / "model.safetensors" for name in ("said", "silent"))
    assert said.read_bytes() == silent.read_bytes()


def test_a_forecast_is_of_what_is_left_and_none_where_the_steps_cannot_be_counted(here, forecasts):
    fit(start('out_dir = "one"'), stop_after=1)
    forecasts()
    fit(start('out_dir = "one"'))
    steps = steps_of_an_epoch(here / "one")
    assert forecasts() == [f"the training takes about {duration(10 * steps)} here"]
    run, model = start('out_dir = "other"'), build_model("seed")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in run.epochs(model, optimizer, iter([])):
        optimizer.step()
    assert forecasts() == []
    # The cell was stopped after a step, before anything was said, and is run again.
    for _ in range(2):
        next(run.epochs(model, optimizer, [0] * 30))
    optimizer.step()
    assert forecasts() == ["the training takes about 10 minutes here"]


def test_a_model_of_ones_own_is_recorded_by_its_class(here):
    class Mine(torch.nn.Conv2d):
        def forward(self, images):
            return super().forward(images).mean(dim=(2, 3))

    run, model = start(), Mine(1, 10, 3)
    run.load_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert list(run.epochs(model, optimizer, [])) == [1, 2]
    assert run.record.model["name"] == "Mine" and run.record.model["parameters"] == 100


def test_inside_the_repository_results_lie_at_its_root_wherever_the_notebook_is(here, monkeypatch):
    (here / "reports").mkdir()
    (here / "reports/README.md").write_text("")
    (here / "notebooks").mkdir()
    for folder in (here, here / "notebooks"):
        monkeypatch.chdir(folder)
        assert start().folder == here / "reports/local/01_seed_model/seed-3"


def test_all_seeds_are_shown_over_those_of_the_notebook_before(monkeypatch, capsys):
    figures = []
    monkeypatch.setattr(run_module.plots, "show", figures.append)
    run = start(name="02_falling_rate", against="01_seed_model")
    run.show_seeds()
    assert not figures and "see reports/02_falling_rate/README.md" in capsys.readouterr().out
    monkeypatch.chdir(ROOT / "notebooks")
    run.show_seeds()
    text = figures[0].alt_text
    assert "of 01_seed_model, 20 seeds" in text and "of 02_falling_rate, 10 seeds" in text


def test_damaged_unfinished_and_misplaced_records_are_left_out(here, monkeypatch):
    from conftest import make_record

    root = here / "reports/01_seed_model"
    for seed in (0, 1):
        make_record((9940,), seed=seed).save(root / f"seed-{seed}")
    make_record((9000,), seed=0).save(root / "seed-0.previous")
    make_record((9000,), seed=2, status="failed").save(root / "seed-2")
    make_record((9000,), seed=3, dataset={"name": "digits"}).save(root / "seed-3")
    (root / "seed-4").mkdir()
    (root / "seed-4/run.json").write_text("nonsense")
    (here / "reports/README.md").write_text("")
    figures = []
    monkeypatch.setattr(run_module.plots, "show", figures.append)
    start().show_seeds()
    assert "01_seed_model, 2 seeds" in figures[0].alt_text


def test_the_record_of_a_run_that_is_repeated_stands_for_it_meanwhile(here, monkeypatch):
    from conftest import make_record

    root = here / "reports/01_seed_model"
    make_record((9940,), seed=0).save(root / "seed-0.previous")
    make_record((9000,), seed=0, status="running").save(root / "seed-0")
    for seed in (1, 2, 10):
        make_record((9940 + seed,), seed=seed).save(root / f"seed-{seed}")
    (here / "reports/README.md").write_text("")
    found = run_module._records("01_seed_model")
    assert [(r.seed, r.last.validation_correct) for r in found] == [
        (0, 9940), (1, 9941), (2, 9942), (10, 9950)
    ]  # fmt: skip
