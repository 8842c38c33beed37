"""Tables and plots over seeds, against scipy and statistics, and the committed pages against the committed records."""

import shutil
import statistics
from dataclasses import replace

import nbformat
import pytest
from conftest import ROOT, make_record
from scipy import stats

from mnist_utils import reports
from mnist_utils.__main__ import main
from mnist_utils.records import RecordError, RunRecord

MARKS = f"above\n\n{reports.BEGIN}\nold\n{reports.END}\n\nbelow\n"


@pytest.fixture
def folder(tmp_path):
    """Two notebooks of four seeds, the second against the first, and a README."""
    for name, shift, against in (("01_first", 0, ""), ("02_second", 7, "01_first")):
        for seed, correct in enumerate((9931, 9940, 9928, 9939)):
            path = tmp_path / "reports" / name / f"seed-{seed}"
            rows = (9800, 9945, correct + shift + seed)
            replace(make_record(rows, seed=seed, against=against), notebook=name).save(path)
    (tmp_path / "README.md").write_text(MARKS)
    return tmp_path


def test_the_numbers_are_those_of_statistics_and_scipy(folder):
    first, second = reports.collect(folder / "reports")
    assert first.last == [99.31, 99.41, 99.30, 99.42] and first.best == [99.45] * 4
    text = reports.page(second, [first, second])
    mean, spread = statistics.mean(second.last), statistics.stdev(second.last)
    low, high = stats.ttest_1samp(second.last, 0).confidence_interval()
    assert f"{mean:.3f}% | {low:.3f} to {high:.3f} | {spread:.3f} | 99.37% | 99.49%" in text
    low, high = stats.binomtest(2, 4).proportion_ci(method="wilson")
    assert f"2 of 4 (Wilson 95%: {low:.0%} to {high:.0%})" in text


def test_a_comparison_is_paired_by_seed(folder):
    shutil.rmtree(folder / "reports/01_first/seed-1")
    first, second = reports.collect(folder / "reports")
    differences = reports.paired(second, first)
    assert differences == pytest.approx([0.07] * 3)
    shutil.copytree(folder / "reports/02_second/seed-3", folder / "reports/01_first/seed-1")
    record = RunRecord.load(folder / "reports/01_first/seed-1")
    record.seed = 1
    record.save(folder / "reports/01_first/seed-1")
    first, second = reports.collect(folder / "reports")
    text = reports.page(second, [first])
    low, high = stats.ttest_rel(second.last, first.last).confidence_interval()
    assert f"95% interval {low:+.3f} to {high:+.3f}, n = 4; better at 3, equal at 0" in text


def test_the_target_itself_is_reached_and_one_image_less_is_not():
    result = reports.Result("a", {0: make_record((9940,)), 1: make_record((9939,))})
    assert result.reaching(result.last) == 1


def test_only_completed_runs_on_the_test_images_count(folder):
    for seed, facts in enumerate(({"status": "failed"}, {"dataset": {"name": "digits", "split": "assignment"}}), 4):
        make_record(seed=seed, **facts).save(folder / f"reports/01_first/seed-{seed}")
    make_record(seed=6, dataset={"name": "mnist", "split": "holdout"}).save(folder / "reports/01_first/seed-6")
    assert list(reports.collect(folder / "reports")[0].records) == [0, 1, 2, 3]


def test_seeds_run_with_different_parameters_are_no_result(folder):
    record = RunRecord.load(folder / "reports/01_first/seed-2")
    record.parameters["epochs"] = 4
    record.save(folder / "reports/01_first/seed-2")
    with pytest.raises(RecordError, match="01_first.*different parameters"):
        reports.collect(folder / "reports")


def test_everything_is_rebuilt_from_the_records_alone(folder, capsys):
    words = ["report", "--reports", str(folder / "reports"), "--readme", str(folder / "README.md")]
    assert main(words) == 0
    assert capsys.readouterr().out == "8 records of 2 notebooks\n"
    readme = (folder / "README.md").read_text()
    assert readme.startswith("above\n") and readme.endswith("\nbelow\n") and "old" not in readme
    assert "| [02_second](reports/02_second/README.md) | 9,954 | 3 | 4 |" in readme
    for name in ("01_first", "02_second"):
        assert (folder / "reports" / name / "seeds.png").read_bytes().startswith(b"\x89PNG")
        assert f"![Validation accuracy by epoch of {name}, 4 seeds" in (folder / "reports/README.md").read_text()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(words) == 0
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", ["no marks", "record"])
def test_what_cannot_be_rebuilt_is_said_and_nothing_is_lost(folder, capsys, damage):
    if damage == "record":
        (folder / "reports/01_first/seed-0/run.json").write_text("{")
    else:
        (folder / "README.md").write_text("no marks")
    before = (folder / "README.md").read_text()
    assert main(["report", "--reports", str(folder / "reports"), "--readme", str(folder / "README.md")]) == 2
    assert ("run.json: damaged" if damage == "record" else "README must hold") in capsys.readouterr().err
    assert (folder / "README.md").read_text() == before


def test_the_committed_pages_are_what_the_records_say():
    results = reports.collect(ROOT / "reports")
    assert results
    for result in results:
        assert (ROOT / "reports" / result.name / "README.md").read_text() == reports.page(result, results)
    assert (ROOT / "reports/README.md").read_text() == reports.index(results)
    readme = (ROOT / "README.md").read_text()
    assert readme == reports.with_table(readme, results, "reports/")


@pytest.fixture
def executed(tmp_path):
    """An executed notebook and its source, whose words have changed since."""
    cells = [nbformat.v4.new_markdown_cell("**Result.** Not run yet."), nbformat.v4.new_code_cell("print(1)")]
    source = nbformat.v4.new_notebook(cells=cells)
    done = nbformat.reads(nbformat.writes(source), as_version=4)
    done.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    done.cells.insert(1, nbformat.v4.new_code_cell("seed = 3", metadata={"tags": ["injected-parameters"]}))
    source.cells[0].source = "**Result.** 99.5% over ten seeds."
    for name, notebook in (("source", source), ("done", done)):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    return tmp_path / "done.ipynb", tmp_path / "source.ipynb"


def test_an_executed_notebook_gets_the_words_its_source_has_now(executed):
    done, source = executed
    before = nbformat.read(done, 4)
    assert reports.refresh(done, source) and not reports.refresh(done, source)
    after = nbformat.read(done, 4)
    assert after.cells[0].source == "**Result.** 99.5% over ten seeds."
    assert before.cells[1:] == after.cells[1:]
    assert "99.5% over ten seeds" in done.with_suffix(".html").read_text()


def test_words_are_not_given_to_other_code(executed):
    done, source = executed
    other = nbformat.read(source, 4)
    other.cells[1].source = "print(2)"
    nbformat.write(other, source)
    before = done.read_bytes()
    assert not reports.refresh(done, source) and done.read_bytes() == before


def test_the_committed_executed_notebooks_are_their_sources_executed():
    for result in reports.collect(ROOT / "reports"):
        executed = ROOT / f"reports/{result.name}/seed-{result.first.seed}/{result.name}.ipynb"
        cells = [c for c in nbformat.read(executed, 4).cells if "injected-parameters" not in c.metadata.get("tags", [])]
        source = nbformat.read(ROOT / f"notebooks/{result.name}.ipynb", 4).cells
        assert [cell.source for cell in cells] == [cell.source for cell in source], result.name
        assert executed.stat().st_size < 1e6 and executed.with_suffix(".html").stat().st_size < 1.5e6
        assert str(ROOT) not in executed.read_text()
