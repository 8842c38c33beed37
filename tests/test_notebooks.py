"""The notebooks: what papermill, Colab, GitHub and a reader need of the sources and of the executed copies."""

import ast
import json
import re

import nbformat
import papermill
import pytest
from conftest import ROOT, filled_in
from nbclient import NotebookClient

from mnist_utils.parameters import read_parameters
from mnist_utils.records import RunRecord
from mnist_utils.reports.repository import current

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = sorted((ROOT / "reports").glob("*/seed-*/*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|Users|tmp|var|opt|usr|mnt|work)/|\b[A-Z]:\\\\")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return nbformat.read(path, as_version=4).cells


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_it_is_valid_and_without_outputs(path, cells):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert len({cell.id for cell in cells}) == len(cells)
    assert "widgets" not in notebook.metadata
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
    assert not MACHINE_PATH.search(path.read_text())


def test_colab_gives_it_a_gpu_and_shows_a_form(path, cells):
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.accelerator == "GPU" and "colab" in metadata and metadata.kernelspec.name == "python3"
    form = next(cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert form.metadata["cellView"] == "form" and form.source.startswith("# @title Parameters\n")


def test_the_parts_come_in_the_agreed_order(path, cells):
    text = "\n".join(cell.source for cell in cells)
    marks = ["colab-badge", "**Target.**", "**Result.**", "**Analysis.**", "import mnist_utils", "# @title Parameters"]
    marks += ["## Data", "## Model", "## Training", "## Curves", "## Mistakes", "## Verdict", "What this does not show"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "RESULT" not in text and "TODO" not in text


def test_the_parameters_are_tagged_once_and_read_alike_by_papermill(path, cells):
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    ours, theirs = read_parameters(path), papermill.inspect_notebook(path)
    assert list(ours) == list(theirs)
    for name, parameter in ours.items():
        assert parameter.type == theirs[name]["inferred_type_name"]
        assert parameter.default == ast.literal_eval(theirs[name]["default"])
        assert parameter.meaning and type(parameter.default).__name__ == parameter.type


def test_every_parameter_is_a_field_of_the_colab_form(cells):
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    for line in source.splitlines():
        assert line.startswith("# @") or re.fullmatch(r"\w+: \w+ = [^=]+  # @param (\{.*\}|\[.*\])", line), line


def test_nothing_is_derived_in_the_parameters_cell(cells):
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert all(isinstance(statement, ast.AnnAssign) for statement in ast.parse(source).body)


def test_the_badge_opens_this_notebook(path, cells):
    link = f"https://colab.research.google.com/github/{current(ROOT)}/blob/main/notebooks/{path.name})"
    assert link in cells[0].source
    assert "no-report" in cells[0].metadata.tags  # the badge is a picture from the network


def test_the_bootstrap_is_the_same_everywhere_and_comes_before_the_first_import(cells):
    first, code = bootstrap(NOTEBOOKS[0]), [cell.source for cell in cells if cell.cell_type == "code"]
    assert code[0] == first and f"git+https://github.com/{current(ROOT)}\n" in first + "\n"
    assert "torch" not in first


def bootstrap(path) -> str:
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def test_it_runs_in_any_folder_and_installs_nothing_where_the_package_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = filled_in(ROOT / "notebooks/every_seed.ipynb", epochs=1, dataset="digits", threads=1)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].outputs == [] and [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {path.name for path in tmp_path.iterdir()} == {"results"}
    assert RunRecord.load(tmp_path / "results/every_seed").status == "completed"


def test_it_calls_train_and_test_in_a_visible_loop(cells):
    loop = next(cell.source for cell in cells if "for epoch in range(checkpoints.restore(), epochs + 1)" in cell.source)
    assert "train(model, device" in loop and re.search(r"test\((model|average), device", loop)


@pytest.mark.parametrize("executed", EXECUTED, ids=lambda path: path.relative_to(ROOT / "reports").as_posix())
def test_an_executed_copy_is_one_that_github_shows_whole(executed):
    notebook = nbformat.read(executed, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert executed.stat().st_size < 1_000_000 and "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    epochs = [int(number) for number in re.findall(r"^Epoch (\d+): 100%", printed, re.MULTILINE)]
    assert printed.count("Epoch ") == len(epochs)
    assert epochs == [row.epoch for row in RunRecord.load(executed.parent).epochs] and "\r" not in printed
    sources = "".join(cell.source for cell in notebook.cells)
    assert not MACHINE_PATH.search(printed + sources + json.dumps(notebook.metadata))
