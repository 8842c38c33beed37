"""The command line: what it accepts, what it refuses and how, and what it imports."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from mnist_utils import __main__ as program
from mnist_utils.__main__ import cli, main
from mnist_utils.records import RunRecord


def parse(*words: str) -> dict:
    """The values that a command gets from these words; nothing is run."""
    name, *rest = words
    return cli.commands[name].make_context(name, rest).params


def refused(capsys, *words: str) -> str:
    """The message of a command that is refused with exit code 2."""
    assert main(list(words)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "words, pair",
    [
        (("-p", "rate", "-1e-3"), ("rate", "-1e-3")),
        (("-p", "rate=-1e-3"), ("rate", "-1e-3")),
        (("--parameter", "epochs", "2"), ("epochs", "2")),
        (("--parameter", "epochs=2"), ("epochs", "2")),
        (("-p", "name", "a=b"), ("name", "a=b")),
        (("-p", "name=a=b"), ("name", "a=b")),
        (("-p", "name="), ("name", "")),
    ],
)
def test_a_parameter_is_two_words_or_one_and_may_be_negative(words, pair):
    assert parse("run", "small.ipynb", *words)["given"] == (pair,)
    assert parse("run", *words, "small.ipynb")["notebooks"] == ("small.ipynb",)


@pytest.mark.parametrize(
    "words, said",
    [
        (("rnu",), "run"),
        (("run", "--sedes", "1"), "--seeds"),
        (("run", "-p", "epochs"), "-p"),
        (("run", "--timeout", "0"), "--timeout"),
        (("run", "--memory", "-1"), "--memory"),
        (("run", "--seeds", "1", "--seed", "2"), "--seeds"),
        (("bench", "--show", "nothing.json"), "nothing.json"),
        (("bench", "lop"), "loop"),
        (("export", "no/such/folder", "--format", "torch"), "no/such/folder"),
        (("list", "every_sed"), "every_seed"),
    ],
)
def test_bad_words_are_refused_with_what_was_meant(capsys, monkeypatch, words, said):
    monkeypatch.chdir(ROOT)
    message = refused(capsys, *words)
    assert said in message and "Traceback" not in message and "Errno" not in message


@pytest.mark.parametrize("command", ["", *cli.commands])
def test_help_needs_neither_torch_nor_the_rooms(command):
    words = f"""import sys
from mnist_utils.__main__ import main
code = main({[command, "--help"] if command else ["--help"]!r})
heavy = {{"torch", "numpy", "distributed", "papermill", "nbconvert", "matplotlib"}} & set(sys.modules)
assert code == 0 and not heavy, heavy"""
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: mnist-utils" in done.stdout, done.stderr
    assert not command or f"Examples:\n    mnist-utils {command}" in done.stdout


def test_the_help_of_run_is_in_groups_and_has_examples(capsys):
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    headings = [
        line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")
    ]
    assert headings == [
        "What to run:", "Where things lie:", "How many at a time:", "Limits:", "Options:",
    ]  # fmt: skip
    assert "mnist-utils run every_seed --seeds 0-29" in shown


def test_list_gives_a_line_a_notebook_and_its_parameters_when_asked(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert sum(line.split()[0] == path.stem for line in lines) == 1
    assert main(["list", "every_seed"]) == 0
    assert any(
        line.split()[:3] == ["epochs", "int", "19"] for line in capsys.readouterr().out.splitlines()
    )


def test_the_console_script_is_this_command_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"mnist-utils": "mnist_utils.__main__:main"}


@pytest.mark.parametrize("module", ["jinja2", "zipfile", "bs4", "click", "json", "csv", "signal"])
def test_no_file_of_the_current_folder_is_imported(tmp_path, module):
    (tmp_path / f"{module}.py").write_text(
        f"open({str(tmp_path / 'executed')!r}, 'w')\nraise SystemExit(0)"
    )
    (tmp_path / "log.txt").write_text(
        "Test set: Average loss: 0.0202, Accuracy: 9942/10000 (99.42%)\n"
    )
    command = [sys.executable, "-m", "mnist_utils", "grade", "log.txt", "--html", "grades.html"]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "grades.html").exists() and not (tmp_path / "executed").exists()


def test_the_script_does_not_import_a_package_of_this_name_from_the_current_folder(tmp_path):
    (tmp_path / "mnist_utils").mkdir()
    for name in ("__init__", "__main__"):
        (tmp_path / f"mnist_utils/{name}.py").write_text(
            f"open({str(tmp_path / 'executed')!r}, 'w')"
        )
    (tmp_path / "log.txt").write_text(
        "Test set: Average loss: 0.0202, Accuracy: 9942/10000 (99.42%)\n"
    )
    # What an installed console script does: its own folder, not the current one, is on the path.
    script = tmp_path / "bin/mnist-utils"
    script.parent.mkdir()
    script.write_text("import sys\nfrom mnist_utils.__main__ import main\nsys.exit(main())\n")
    command = [sys.executable, str(script), "grade", "log.txt", "--csv", "grades.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "grades.csv").exists() and not (tmp_path / "executed").exists(), done.stderr


def test_a_name_that_the_terminal_cannot_show_costs_no_file(tmp_path):
    (tmp_path / "Grüße-班.txt").write_text(
        "Test set: Average loss: 0.0202, Accuracy: 9942/10000 (99.42%)\n"
    )
    command = [sys.executable, "-m", "mnist_utils", "grade", "Grüße-班.txt", "--csv", "grades.csv"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""}
    )
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert "Grüße-班.txt" in (tmp_path / "grades.csv").read_text(encoding="utf-8")


def test_without_a_notebook_it_is_said_which_one_runs(monkeypatch, capsys, tmp_path):
    ended = RunRecord("quickest", {}, status="completed")
    monkeypatch.setattr(program, "run_one", lambda *_: ended)
    assert main(["run", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("quickest is the submission; 01_seed_model") and "on purpose" in said
    assert main(["run", "01_seed_model", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
