"""The README against what it describes: its commands, its file tree, its numbers."""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from mnist_utils.__main__ import cli
from mnist_utils.batch.plan import parse_seeds, plan, read_batch
from mnist_utils.parameters import find_notebook

README = (ROOT / "README.md").read_text()
DOCS = {path: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {ROOT / "README.md": README, **DOCS}
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", "\n".join(PAGES.values()), re.S)
    for line in block.splitlines()
    if line.strip()
]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_works(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        dry = subprocess.run(["make", "-n", *words[1:]], capture_output=True, text=True)
        assert dry.returncode == 0 and targets, dry.stderr
    elif "--help" in words:
        assert words[3] in cli.commands
    elif words[1:3] == ["-m", "mnist_utils"]:
        options = cli.commands[words[3]].make_context(words[3], words[4:]).params
        if "notebooks" in options:
            paths = [find_notebook(name) for name in options["notebooks"]]
            seeds = parse_seeds(options["seeds"]) if options["seeds"] else None
            assert plan(paths, dict(options["given"]), seeds, options["out"]) or not paths
    elif words[1:3] == ["-m", "pip"]:
        known = (".[test]", ".[export]", f"git+{repository()}")
        assert words[3:-1] in (["install", "-e"], ["install"]) and words[-1] in known
    elif words[0] == "dask":
        from distributed.cli.dask_scheduler import main as scheduler
        from distributed.cli.dask_worker import main as worker

        options = {
            name
            for parameter in {"scheduler": scheduler, "worker": worker}[words[1]].params
            for name in parameter.opts
        }
        assert {word for word in words if word.startswith("--")} <= options
    elif words[1:3] == ["-m", "pytest"]:
        collected = subprocess.run(
            [sys.executable, *words[1:], "--collect-only", "-q"], capture_output=True, text=True
        )
        assert collected.returncode == 0
    else:
        pytest.fail(f"no test knows this command: {command}")


def repository() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def test_the_python_lines_run():
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, {})


def test_the_batch_file_is_one_that_works(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"```toml\n(.*?)```", DOCS[ROOT / "docs/batches.md"], re.S)
    (tmp_path / "batch.toml").write_text(block)
    names, values, seeds = read_batch(tmp_path / "batch.toml")
    assert (
        len(plan([find_notebook(name) for name in names], values, parse_seeds(seeds), tmp_path))
        == 12
    )


def test_the_commands_cover_the_two_that_matter():
    assert "make run" in COMMANDS and "make test" in COMMANDS


def test_the_file_tree_is_the_repositorys():
    tree = re.search(r"```text\n(.*?)```", README, re.S)[1]
    named, folder = set(), ""
    for line in tree.splitlines():
        entry = line.split()[0]
        folder = folder if line.startswith(" ") else ""
        named.add(folder + entry)
        folder = entry if entry.endswith("/") and not line.startswith(" ") else folder
    folders = tuple(name for name in named if name.endswith("/"))
    missing = [path for path in tracked() if path not in named and not path.startswith(folders)]
    assert not missing, f"not in the README's tree: {missing}"
    assert all((ROOT / name).exists() for name in named), [
        n for n in named if not (ROOT / n).exists()
    ]
    package = [
        path
        for path in tracked()
        if re.fullmatch(r"(mnist_utils|notebooks)/[^/]+\.(py|ipynb)", path)
    ]
    assert set(package) <= named | {"mnist_utils/__init__.py", "tests/conftest.py"}, (
        "each file has its own line"
    )


def test_links_into_the_repository_are_alive():
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in link or (page.parent / link).exists(), link
