"""Tables and plots over seeds, against scipy and statistics, and the committed pages against the committed records."""

import base64
import json
import shutil
import statistics
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT, make_record
from PIL import Image
from safetensors.torch import load_file
from scipy import stats
from torch import nn

from mnist_utils.__main__ import main
from mnist_utils.data import MEAN, STD
from mnist_utils.errors import RecordError
from mnist_utils.records import RunRecord
from mnist_utils.reports import frontier, hardest, html, pad
from mnist_utils.reports import pages as reports
from mnist_utils.reports.export import load_run

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
        for index in ("README.md", "index.html"):
            assert f'alt="Validation accuracy by epoch of {name}, 4 seeds' in (folder / "reports" / index).read_text()
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
    assert (ROOT / "reports/README.md").read_text() == reports.index(results, ROOT / "reports")
    readme = (ROOT / "README.md").read_text()
    assert readme == reports.with_table(readme, results, "reports/")


def words(text: str) -> list[str]:
    """What a page says, its pictures' alternative texts included, whichever version of a library wrote its tags."""
    page = BeautifulSoup(text, "html.parser")
    for part in page(["style", "script"]):
        part.decompose()
    for picture in page("img"):
        picture.replace_with(f" {picture['alt']} ")
    return page.get_text().split()


def test_the_committed_html_says_what_the_markdown_beside_it_says(tmp_path):
    for page in [ROOT / "reports/README.md", *(ROOT / "reports").glob("*/README.md")]:
        (tmp_path / "README.md").write_text(page.read_text())
        rendered = html.render_page(tmp_path / "README.md").read_text()
        assert words(rendered) == words(page.with_name("index.html").read_text()), page


def test_the_committed_plots_say_what_the_records_say():
    results = reports.collect(ROOT / "reports")
    for axis in ("parameters", "epochs"):
        with Image.open(ROOT / f"reports/{axis}.png") as picture:
            said = picture.info["Description"]
        assert said == frontier.describe(axis, reports.points(results))
        assert said in (ROOT / "reports/README.md").read_text()
        for result in results:
            value = result.first.model["parameters"] if axis == "parameters" else len(result.first.epochs)
            mean = f"{statistics.mean(result.last):.3f}%" if len(result.last) > 1 else f"{result.last[0]:.2f}%"
            assert f"{value:,} {axis}, {result.name} {mean}" in said
    runs = hardest.read(reports.run_folders(ROOT / "reports", results))
    if runs:
        assert (ROOT / "reports/hardest/README.md").read_text() == hardest.page(runs)
        with Image.open(ROOT / "reports/hardest/digits.png") as picture:
            assert picture.info["Description"] == hardest.describe(runs)


def test_the_committed_pad_holds_the_weights_of_the_best_result():
    root = ROOT / "reports"
    best = reports.best_with_weights(root, reports.collect(root))
    held = BeautifulSoup((root / "pad.html").read_text(), "html.parser").find(id="network").string
    expected = pad.program(load_run(root / best.name / f"seed-{best.first.seed}")[1])
    assert json.loads(held) == {"mean": MEAN, "std": STD, "steps": expected}
    weights = [np.frombuffer(base64.b64decode(s["weight"]), "<f4") for s in expected if "weight" in s]
    saved = load_file(root / best.name / f"seed-{best.first.seed}/model.safetensors")
    for flat in weights:
        assert any(
            tensor.numel() == len(flat) and (tensor.flatten().numpy() == flat).all() for tensor in saved.values()
        )


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 10, 3, dilation=2), nn.Upsample(scale_factor=2)])
def test_a_network_that_the_pad_cannot_run_is_refused(layer):
    with pytest.raises(ValueError, match="network.js has no (conv2d|upsample_nearest2d)"):
        pad.program(nn.Sequential(layer))


def test_the_plots_draw_the_points_they_describe():
    points = [frontier.Point("a", 3_000, 3, 99.3, 99.4, 10, 0.05), frontier.Point("b", 9_954, 19, 99.5, 99.5)]
    for figure, places in (
        (frontier.against_parameters(points), [3_000, 9_954]),
        (frontier.against_epochs(points), [3, 19]),
    ):
        axes = figure.axes[0]
        drawn = [bars.lines[0].get_xydata()[0].tolist() for bars in axes.containers]
        assert drawn == [[places[0], 99.3], [places[1], 99.5]]
        ends = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
        assert list(ends) == pytest.approx([99.25, 99.35])
        published, (low, high) = axes.collections[0].get_offsets(), axes.get_xlim()
        assert len(published) == len(frontier.PUBLISHED) and low < published[:, 0].min() < published[:, 0].max() < high
    assert frontier.against_parameters(points).axes[0].get_xscale() == "log"


def test_the_verdict_over_seeds_counts_them_and_shows_the_evidence():
    result = reports.Result("a", {0: make_record((9940,)), 1: make_record((9939,))})
    rows = reports.verdict(result).splitlines()[2:]
    assert rows[0].startswith("| at least 99.4% at the last epoch | 1 of 2 seeds pass | 1 of 2 seeds; mean 99.395%")
    assert rows[1] == "| fewer than 20,000 parameters | pass | 9,954 parameters |"


@pytest.fixture
def misreading(folder):
    """Runs of the first notebook that kept what they misread: one image by all, one by three, one by one."""
    rows = {0: ["7,4,9,0.9", "947,8,9,0.5"], 1: ["7,4,9,0.7"], 2: ["7,4,6,0.8", "947,8,9,1.0"]}
    rows[3] = ["947,8,0,1.0", "3,1,7,0.4", "7,4,9,0.6"]
    for seed, lines in rows.items():
        text = "\n".join(["image,label,guess,confidence", *lines]) + "\n"
        (folder / f"reports/01_first/seed-{seed}/misread.csv").write_text(text)
    return folder


def test_the_digits_misread_most_come_first_with_their_most_frequent_guess(misreading):
    runs = hardest.read(reports.run_folders(misreading / "reports", reports.collect(misreading / "reports")))
    ranked = hardest.rank(runs)
    assert [(d.image, d.guess, d.count) for d in ranked] == [(7, 9, 4), (947, 9, 3), (3, 7, 1)]
    assert ranked[0].confidence == pytest.approx(0.75)
    text = hardest.page(runs)
    assert "3 of the 10,000 test images were misread at least once and 1 by every run" in text
    assert "| 947 | 8 | 9 | 3 of 4 | 83% | 0 of 5 |" in text and "| 7 | 4 | 9 | 4 of 4 | 75% |  |" in text


def test_their_page_stays_as_it_is_where_mnist_is_not_at_hand(misreading, tmp_path):
    root, readme = misreading / "reports", misreading / "README.md"
    reports.rebuild(root, readme, data_dir=tmp_path / "nothing")
    assert not (root / "hardest").exists()
    (root / "hardest").mkdir()
    (root / "hardest/README.md").write_text("# As it was")
    reports.rebuild(root, readme, data_dir=tmp_path / "nothing")
    assert [path.name for path in sorted((root / "hardest").iterdir())] == ["README.md", "index.html"]
    assert (root / "hardest/README.md").read_text() == "# As it was"
    assert "hardest/README.md" in (root / "README.md").read_text()


def test_their_pictures_are_the_images_named(misreading):
    runs = hardest.read(reports.run_folders(misreading / "reports", reports.collect(misreading / "reports")))
    images = np.arange(10_000, dtype=np.uint16)[:, None, None] * np.ones((1, 28, 28), np.uint16)
    shown = [axes.images[0].get_array()[0, 0] for axes in hardest.picture(images, runs).axes if axes.images]
    titles = [axes.get_title() for axes in hardest.picture(images, runs).axes if axes.images]
    assert shown == [7, 947, 3] and titles == ["4 read 9\n4 of 4", "8? read 9\n3 of 4", "1 read 7\n1 of 4"]


def test_the_doubted_labels_are_those_that_mnist_gives(real_data):
    given = {947: 8, 1621: 0, 1901: 9, 2130: 4, 2462: 2, 2597: 5, 2654: 6, 3520: 6, 3558: 5, 5937: 5, 6651: 0}
    given |= {6783: 1, 8527: 4, 9679: 6, 9729: 5}  # as published beside the raters' votes
    assert given.keys() == hardest.HELD.keys()
    assert all(int(real_data.validation_labels[image]) == label for image, label in given.items())


@pytest.mark.parametrize("text", ["image,label\n1,2\n", "image,label,guess,confidence\n1,x,3,0.5\n"])
def test_a_damaged_list_of_misread_images_is_named(folder, capsys, text):
    (folder / "reports/01_first/seed-0/misread.csv").write_text(text)
    assert main(["report", "--reports", str(folder / "reports"), "--readme", str(folder / "README.md")]) == 2
    assert "misread.csv: not a list of misread images" in capsys.readouterr().err


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


def test_a_rendered_notebook_shows_its_verdict_command_and_contents(tmp_path):
    folder = tmp_path / "02_second/seed-3"
    parameters = {"epochs": 3, "rate": 0.5, "name": "a b"}
    make_record(seed=3, device={"threads": 2}).save(folder)
    record = RunRecord.load(folder)
    record.parameters = parameters
    record.save(folder)
    declared = "epochs: int = 3\nrate: float = 0.1\nname: str = 'x'\nthreads: int = 0"
    cells = [
        nbformat.v4.new_markdown_cell("# A title\n\nAgainst [01](01_first.ipynb) and [none](09_none.ipynb)."),
        nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("## A part"),
        nbformat.v4.new_code_cell("print(1)", metadata={"tags": ["no-report"]}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "02_second.ipynb")
    (tmp_path / "01_first").mkdir()
    (tmp_path / "01_first/README.md").write_text("# 01")
    first = html.render(folder / "02_second.ipynb").read_bytes()
    assert html.render(folder / "02_second.ipynb").read_bytes() == first
    page = BeautifulSoup(first, "html.parser")
    assert [row.find_all("td")[1].text for row in page.select(".verdict tbody tr")] == ["fail", "pass", "pass", "pass"]
    assert page.select_one(".verdict pre").text == (
        "python -m mnist_utils run 02_second --seed 3 -p rate 0.5 -p name 'a b' -p threads 2"
    )
    assert [(a.text, a["href"]) for a in page.select("nav a")] == [("A part", "#A-part")]
    assert page.find("a", string="01")["href"] == "../../01_first/index.html"
    assert not page.find("a", string="none") and "and none." in page.text and "print(1)" not in page.text
    assert page.select_one("details.code summary").text.startswith("Parameters")


def test_a_rendered_run_that_failed_says_so(tmp_path):
    make_record(status="failed", error="cell In [3]: ValueError: <no>").save(tmp_path)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    page = BeautifulSoup(html.render(tmp_path / "a.ipynb").read_text(), "html.parser")
    assert "not judged, seed 0: the run is failed, cell In [3]: ValueError: <no>" in page.select_one(".verdict").text
