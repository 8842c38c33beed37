"""The notebooks: what papermill, Colab, GitHub and a reader need, sources and executed copies."""

import ast
import json
import re
import statistics

import nbformat
import papermill
import pytest
from conftest import ROOT, filled_in
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from mnist_utils.parameters import read_parameters
from mnist_utils.records import RunRecord
from mnist_utils.reports.repository import current

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = sorted((ROOT / "reports").glob("*/seed-*/*.ipynb"))
CHANGES = (
    "02_falling_rate",
    "03_augmentation",
    "04_no_dropout",
    "05_weight_average",
    "06_deskew",
)
PLACES = ("dataset", "split", "device_name", "threads", "data_dir", "mirror", "out_dir")
BOOKKEEPING = {*PLACES, "import", "from", "run", "raise"}
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
    assert all(
        not cell.outputs and cell.execution_count is None
        for cell in cells
        if cell.cell_type == "code"
    )
    assert not MACHINE_PATH.search(path.read_text())


def test_colab_gives_it_a_gpu_and_shows_a_form(path, cells):
    metadata = nbformat.read(path, as_version=4).metadata
    assert (
        metadata.accelerator == "GPU"
        and "colab" in metadata
        and metadata.kernelspec.name == "python3"
    )
    form = next(cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert form.metadata["cellView"] == "form" and form.source.startswith("# @title Parameters\n")


def test_the_parts_come_in_the_agreed_order(path, cells):
    text = "\n".join(cell.source for cell in cells)
    marks = [
        "colab-badge",
        "**Target.**",
        "**Result.**",
        "**Analysis.**",
        "find_spec",
        "# @title Parameters",
    ]
    marks += ["## What is different"] if path.stem in CHANGES else []
    marks += [
        "## Data",
        "show_source",
        "summary(models",
        "plots.network",
        "## Training",
        "for epoch in run.epochs(",
    ]
    marks += [
        "## Curves",
        "## Mistakes",
        "## Verdict",
        "## Try it yourself",
        "## What this does not show",
    ]
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
        assert line.startswith("# @") or re.fullmatch(
            r"\w+: \w+ = [^=]+  # @param (\{.*\}|\[.*\])", line
        ), line


def test_nothing_is_derived_in_the_parameters_cell(cells):
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert all(isinstance(statement, ast.AnnAssign) for statement in ast.parse(source).body)


def test_the_badge_opens_this_notebook(path, cells):
    link = (
        f"https://colab.research.google.com/github/{current(ROOT)}/blob/main/notebooks/{path.name})"
    )
    assert link in cells[0].source
    assert "no-report" in cells[0].metadata.tags  # the badge is a picture from the network


def test_the_bootstrap_is_the_same_everywhere_and_comes_before_the_first_import(cells):
    first, code = (
        bootstrap(NOTEBOOKS[0]),
        [cell.source for cell in cells if cell.cell_type == "code"],
    )
    assert code[0] == first and f"git+https://github.com/{current(ROOT)}\n" in first + "\n"
    assert "torch" not in first


def bootstrap(path) -> str:
    return next(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
    )


def statements(cells) -> list[str]:
    """Every line of code, comments and empty lines left out."""
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    lines = "\n".join(sources).splitlines()
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


def is_bookkeeping(line: str) -> bool:
    """Whether a line serves the run instead of the experiment."""
    name = re.match(r"\w+", line.strip())
    return (
        bool(name and name[0] in BOOKKEEPING)
        or "find_spec" in line
        or "Run(" in line
        or "run.log" in line
    )


def test_the_code_is_short_and_at_least_half_of_it_is_the_experiment(cells):
    lines = statements(cells)
    kept = [line for line in lines if not is_bookkeeping(line)]
    imports = [line for line in lines if re.match(r"\s*(import|from) ", line)]
    assert len(lines) <= 85 and len(imports) <= 6 and len(kept) >= len(lines) / 2


def test_a_cell_holds_one_thought(path, cells):
    lengths = [len(statements([cell])) for cell in cells if cell.cell_type == "code"]
    assert statistics.median(lengths) <= 3


def test_the_form_begins_with_the_recipe_and_ends_with_the_places(path):
    names = list(read_parameters(path))
    assert names[0] == "epochs" and names[-len(PLACES) :] == list(PLACES)
    assert names[-len(PLACES) - 1] == "seed"


def test_a_sentence_follows_each_figure(cells):
    for cell, after in zip(cells, cells[1:]):
        if cell.cell_type == "code" and re.search(
            r"plots\.show|summary\(|run\.show_seeds", cell.source
        ):
            assert after.cell_type == "markdown" and re.search(r"[\w)]\.", after.source), (
                cell.source
            )


def test_it_explains_itself_and_asks_three_questions(path, cells):
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert 800 <= sum(len(text.split()) for text in texts) <= 1700
    exercises = next(text for text in texts if text.startswith("## Try it yourself"))
    assert exercises.startswith("## Try it yourself\n\nPredict first")
    assert len(re.findall(r"^\*\*[123]\.\*\* ", exercises, re.MULTILINE)) == 3
    # An empty line inside would end the HTML, and the answer would stand there unfolded.
    folded = re.findall(r"<details>.*?</details>", exercises, re.DOTALL)
    assert len(folded) == 3 and not any("\n\n" in answer for answer in folded)
    assert not re.search(r"^\s*\d+\. ", "\n".join(texts), re.MULTILINE)  # no list was meant
    assert ("against=" in "".join(cell.source for cell in cells)) == (path.stem in CHANGES)


def test_it_runs_in_any_folder_and_installs_nothing_where_the_package_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = filled_in(ROOT / "notebooks/every_seed.ipynb", epochs=1, dataset="digits", threads=1)
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].outputs == [] and [cell.execution_count for cell in code] == list(
        range(1, len(code) + 1)
    )
    assert {path.name for path in tmp_path.iterdir()} == {"reports"}
    assert RunRecord.load(tmp_path / "reports/local/every_seed/seed-0").status == "completed"


def test_where_pip_fails_the_bootstrap_says_so_in_a_line_and_stops(tmp_path):
    source = bootstrap(NOTEBOOKS[0]).replace("mnist_utils", "no_such_package")
    source = re.sub(r"git\+https\S+", "/no/such/folder", source)
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "print('went on')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.raises(
        CellExecutionError, match="SystemExit.*no_such_package is not installed: see pip's message"
    ):
        NotebookClient(
            notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[0].outputs)
    assert "ERROR" in said and "Traceback" not in said and not notebook.cells[1].outputs


def test_it_calls_train_and_test_in_a_visible_loop(cells):
    loop = next(
        cell.source for cell in cells if "for epoch in run.epochs(model, optimizer" in cell.source
    )
    assert "train(model, run.device" in loop and re.search(
        r"test\((model|average), run.device", loop
    )
    assert "run.log(trained, tested)" in loop


@pytest.mark.parametrize(
    "executed", EXECUTED, ids=lambda path: path.relative_to(ROOT / "reports").as_posix()
)
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
    assert (
        epochs == [row.epoch for row in RunRecord.load(executed.parent).epochs]
        and "\r" not in printed
    )
    sources = "".join(cell.source for cell in notebook.cells)
    assert not MACHINE_PATH.search(printed + sources + json.dumps(notebook.metadata))
