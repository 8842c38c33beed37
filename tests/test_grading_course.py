"""A course of many students: rosters, points, imports, likeness, and files that mean harm."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import submissions as made
from conftest import ROOT
from submissions import code, course_log, notebook

from mnist_utils.__main__ import main
from mnist_utils.assignment import FAIL, PASS
from mnist_utils.errors import UsageError
from mnist_utils.grading import FOURTH, NOT_SHOWN, course, facts, grade, lines, output, trainings


def handed_in(tmp_path, **submissions):
    folder = tmp_path / "handed-in"
    folder.mkdir()
    for name, right in submissions.items():
        (folder / f"{name}.ipynb").write_bytes(made.submission(right))
    return folder


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


# Rosters, points, imports


def test_a_line_a_student_says_which_rule_failed_and_by_how_much(tmp_path, capsys):
    folder = handed_in(tmp_path, ann=(9930, 9941), bob=(9942, 9931), cid=[9941] * 22)
    (folder / "dee").mkdir()
    for name in ("s1.ipynb", "s2.ipynb"):
        (folder / "dee" / name).write_bytes(made.submission((9900, 9950)))
    assert main(["grade", str(folder), "--each", "--csv", str(tmp_path / "g.csv")]) == 1
    found = rows((tmp_path / "g.csv").read_text())
    assert [row["submission"] for row in found] == ["ann.ipynb", "bob.ipynb", "cid.ipynb", "dee"]
    assert [row["missed"] for row in found] == [
        "",
        "accuracy 0.09 points too low",
        "3 epochs too many",
        "",
    ]
    said = capsys.readouterr().out
    assert "3 epochs too many" in said and said.count("\n") == 7


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_roster_names_students_and_who_handed_in_nothing(tmp_path, separator):
    folder = handed_in(tmp_path, ann_miller=(9930, 9941), s_1234_x=(9900, 9901), other=(9930, 9942))
    text = "Name,ID,Path\nBo Li,1234,\nMiller Ann,7,ann_miller.ipynb\nEve,99,eve.ipynb\n".replace(
        ",", separator
    )
    (tmp_path / "roster.csv").write_text(text)
    grades = grade([folder], each=True, roster=tmp_path / "roster.csv")
    assert [(one.student, one.id, one.outcome) for one in grades] == [
        ("Bo Li", "1234", FAIL),
        ("Miller Ann", "7", PASS),
        ("Eve", "99", NOT_SHOWN),
        ("", "", PASS),
    ]
    assert grades[2].problems == ["nothing was handed in"] and grades[3].name == "other.ipynb"
    shown = output.terminal_table(grades)
    assert "Bo Li (s_1234_x.ipynb)" in shown and "Eve (Eve)" not in shown


def test_a_roster_without_a_heading_has_names_and_paths(tmp_path):
    folder = handed_in(tmp_path, a=(9930, 9941))
    (tmp_path / "roster.csv").write_text("Ann,a.ipynb\n")
    assert [one.student for one in grade([folder], each=True, roster=tmp_path / "roster.csv")] == [
        "Ann"
    ]
    (tmp_path / "empty.csv").write_text("")
    for name in ("empty.csv", "none.csv"):
        with pytest.raises(UsageError):
            grade([folder], each=True, roster=tmp_path / name)


def test_points_a_rule(tmp_path, capsys):
    folder = handed_in(tmp_path, ann=(9930, 9941), bob=(9942, 9931))
    points = "accuracy=4,parameters=3,epochs=2,fully_connected=1"
    files = ["--csv", str(tmp_path / "g.csv"), "--html", str(tmp_path / "g.html")]
    assert main(["grade", str(folder), "--each", "--points", points, *files]) == 1
    assert [row["points"] for row in rows((tmp_path / "g.csv").read_text())] == ["10", "6"]
    for wrong in ("accuracy", "accuracy=x", "speed=3"):
        assert main(["grade", str(folder), "--each", "--points", wrong]) == 2
    assert "the rules are accuracy, parameters, epochs, fully_connected" in capsys.readouterr().err


def test_imports_for_canvas_and_moodle(tmp_path):
    folder = tmp_path / "handed-in"
    folder.mkdir()
    for name in ("doejane_4711_99_hw4.ipynb", "Max Roe_815_assignsubmission_file_.ipynb"):
        (folder / name).write_bytes(
            made.submission((9942, 9931) if "Max" in name else (9930, 9941))
        )
    canvas, moodle = tmp_path / "canvas.csv", tmp_path / "moodle.csv"
    words = ["--points", "accuracy=4,epochs=1", "--canvas", str(canvas), "--moodle", str(moodle)]
    main(["grade", str(folder), "--each", *words])
    table = list(csv.reader(io.StringIO(canvas.read_text())))
    assert table[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert table[1][0].strip() == "Points Possible" and table[1][5] == "5"
    assert [(row[1], row[5]) for row in table[2:]] == [("815", "1"), ("4711", "5")]
    found = rows(moodle.read_text())
    assert [(row["Identifier"], row["Grade"]) for row in found] == [
        ("Participant 815", "1"),
        ("Participant 4711", "5"),
    ]
    assert found[0]["Feedback comments"] == "accuracy 0.09 points too low"


def test_only_some_files_of_a_repository_with_many_sessions(tmp_path):
    for session, right in (("session4", (9930, 9941)), ("session5", (9900, 9910))):
        (tmp_path / "ann" / session).mkdir(parents=True)
        (tmp_path / "ann" / session / "a.ipynb").write_bytes(made.submission(right))
    assert len(grade([tmp_path / "ann"])[0].judged) == 2
    (found,) = grade([tmp_path / "ann"], only="session5/*")
    assert found.outcome == FAIL and len(found.judged) == 1
    assert grade([tmp_path / "ann"], only="s9/*")[0].problems == ["no file in it matches 's9/*'"]


def test_submissions_with_the_same_log_are_named(tmp_path, capsys):
    folder = handed_in(
        tmp_path, ann=(9901, 9930, 9941), bob=(9901, 9930, 9941), cid=(9901, 9930, 9942)
    )
    grades = grade([folder], each=True)
    assert [one.alike for one in grades] == [["bob.ipynb"], ["ann.ipynb"], []]
    assert "the same log, accuracy by accuracy" in output.to_html(grades, FOURTH).lower()
    assert "ann.ipynb: the same log as bob.ipynb" in output.terminal_table(grades)
    (tmp_path / "roster.csv").write_text("Ann,ann.ipynb\nBo Li,bob.ipynb\n")
    grades = grade([folder], each=True, roster=tmp_path / "roster.csv")
    assert [one.alike for one in grades] == [["Bo Li"], ["Ann"], []]


def test_of_very_many_with_the_same_log_twenty_are_named(tmp_path):
    (one,) = grade([handed_in(tmp_path, ann=(9901, 9930, 9941)) / "ann.ipynb"])
    grades = [replace(one, name=f"{n:02}.ipynb") for n in range(40)]
    course.name_alike(grades)
    assert {len(grade.alike) for grade in grades} == {20}
    assert not [grade for grade in grades if grade.name in grade.alike]


def test_what_a_readme_claims_stands_on_a_line_of_its_own(tmp_path):
    folder = tmp_path / "ann"
    folder.mkdir()
    (folder / "a.ipynb").write_bytes(made.submission((9901, 9935, 9942)))
    (folder / "README.md").write_text("# MNIST\n\nBest test accuracy: 99.61%\n")
    grades = grade([folder])
    line = "said: 99.61% (README.md, line 3); the log shows 99.42% at best"
    assert rows(output.to_csv(grades, FOURTH))[0]["said"] == line
    assert f"  {line}" in output.evidence(grades[0]).splitlines() and line in output.to_html(
        grades, FOURTH
    )
    assert not any("99.61" in flag for flag in grades[0].best.iteration.flags)


# What spreadsheets, terminals and folders could do


@pytest.mark.parametrize(
    "text", ["=1+1", " =1", "a;=cmd()", "a; +1", "x,@SUM(1)", "-2", "＝1", "a|=1", "a;\n=1"]
)
def test_no_cell_begins_a_formula_wherever_a_spreadsheet_cuts_it(text):
    (line,) = output.as_csv([[text, "b"]]).splitlines()
    for separator in ",;\t|":
        for cell in next(csv.reader([line], delimiter=separator)):
            assert cell.strip()[:1] not in tuple("=+-@＝"), (line, cell)


def test_files_are_written_before_a_terminal_that_cannot_show_a_name(tmp_path):
    (tmp_path / "Zoë 名.ipynb").write_bytes(made.submission())
    words = [sys.executable, "-m", "mnist_utils", "grade", "Zoë 名.ipynb", "--csv", "g.csv"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    said = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, timeout=120)
    assert said.returncode == 0 and b"Zo? ?.ipynb" in said.stdout, said.stderr
    assert "Zoë 名.ipynb" in (tmp_path / "g.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("safe", [False, True])
def test_nothing_in_the_folder_where_it_is_started_is_executed(tmp_path, safe):
    """`python -m` puts that folder first: a package of our name there needs `-P` or the script."""
    (tmp_path / "a.ipynb").write_bytes(made.submission())
    names = ["jinja2", "zipfile", "argparse", "json", "fnmatch", "tomllib", "html", "csv", "click"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"open('executed-{name}', 'w')\n")
    if safe:
        (tmp_path / "mnist_utils").mkdir()
        (tmp_path / "mnist_utils" / "__main__.py").write_text("open('executed-main', 'w')\n")
    words = [
        sys.executable,
        *["-P"] * safe,
        "-m",
        "mnist_utils",
        "grade",
        "a.ipynb",
        "--html",
        "g.html",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0 and (tmp_path / "g.html").exists(), said.stderr
    assert not list(tmp_path.glob("executed-*"))


# Time grows as the text does


HOSTILE = {
    "claims and tests": "best acc 99.1 / test acc 98.5%\n",
    "counts": "a test accuracy: 99.41 is 9941/10000\n",
    "epochs that fall": "epoch: 5\nacc: 99.1\nepoch: 4\nacc: 99.2\n",
    "epochs on one line": "Epoch 1 test acc 99.1 ",
    "tables": "Layer (type) Param #\nConv2d-1 [-1, 1, 1, 1] 1\n",
    "shapes": "aa [1, 1] (",
    "parameters": "parameters 9,954 ",
    "bars": "\r100%|█| 469/469 [00:15]",
    "sections": "# a\ntest accuracy: 9942/10000\n",
}


class Work:
    """Counts what is looked at, in place of time, which another process may take."""

    def __init__(self, monkeypatch):
        self.count = 0
        for module, name in ((facts, "_value"), (trainings, "_training"), (lines, "check_time")):
            self._wrap(monkeypatch, module, name, getattr(module, name))

    def _wrap(self, monkeypatch, module, name, original):
        def counted(*given):
            self.count += 1
            return original(*given)

        monkeypatch.setattr(module, name, counted)


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_no_faster_than_the_text(tmp_path, monkeypatch, name):
    work, spent = Work(monkeypatch), []
    for size in (20_000, 40_000, 80_000):
        piece = HOSTILE[name]
        (tmp_path / "a.txt").write_text(piece * (size // len(piece)))
        before = work.count
        (found,) = grade([tmp_path / "a.txt"])
        assert not [problem for problem in found.problems if "could not" in problem]
        spent.append(max(work.count - before, 1))
    assert spent[2] <= 2.3 * spent[1] <= 2.3**2 * spent[0], spent


def test_more_lines_than_any_log_has_are_cut_off_and_said(tmp_path):
    (tmp_path / "a.log").write_text("epoch: 1\ntest acc 99.1\n" + "loss 0.1\n" * 60_000)
    (found,) = grade([tmp_path / "a.log"])
    assert any(
        "only the first 40,000 lines of a.log were read" in flag
        for flag in found.best.iteration.flags
    )


def test_json_says_everything(tmp_path):
    (tmp_path / "a.ipynb").write_bytes(
        notebook(code(made.NET), code(made.LOOP, course_log([9930, 9941])))
    )
    said = json.loads(output.to_json(grade([tmp_path / "a.ipynb"]), FOURTH))["submissions"][0]
    iteration = said["iterations"][said["best"]]
    assert iteration["accuracies"][1]["correct"] == 9941 and iteration["epochs"] == 2
    assert [verdict["key"] for verdict in iteration["verdicts"]] == [
        "accuracy",
        "parameters",
        "epochs",
        "fully_connected",
    ]
    assert course.total(grade([tmp_path / "a.ipynb"])[0], {"accuracy": 4}) == "4"
