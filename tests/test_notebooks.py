"""The notebooks as sources: what papermill, Colab, GitHub and a reader need of them."""

import ast
import re
import tomllib

import nbformat
import papermill
import pytest
from conftest import ROOT

from mnist_utils.notebooks import read_parameters

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


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


def test_badge_and_bootstrap_point_to_the_repository(path, cells):
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    assert f"colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{path.name})" in cells[0].source
    assert "no-report" in cells[0].metadata.tags  # the badge is a picture from the network
    assert any(f"git+{REPOSITORY}\n" in cell.source + "\n" for cell in cells)


def test_it_calls_train_and_test_in_a_visible_loop(cells):
    loop = next(cell.source for cell in cells if "for epoch in range(checkpoints.restore(), epochs + 1)" in cell.source)
    assert "train(model, device" in loop and re.search(r"test\((model|average), device", loop)
