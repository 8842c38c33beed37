"""The repository as a whole: its name in one place, links that lead somewhere, what GitHub runs."""

import re
import shutil
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from conftest import ROOT
from test_readme import tracked

from mnist_utils.__main__ import main
from mnist_utils.reports.repository import current, site

PAGES = [
    ROOT / "README.md",
    *ROOT.glob("notebooks/*.ipynb"),
    *ROOT.glob("reports/*.md"),
    *ROOT.glob("reports/*/*.md"),
]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The committed files in a folder of their own, which is the working directory."""
    for name in tracked():
        if not name.endswith((".png", ".safetensors", ".csv")) and (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_one_command_renames_the_repository_everywhere_and_nothing_else(clone, capsys):
    before, old = contents(clone), current()
    assert main(["repository", "ada-l/mnist.small"]) == 0
    after = contents(clone)
    assert current() == "ada-l/mnist.small" and not [
        name for name, text in after.items() if old in text
    ]
    changed = {name for name in before if before[name] != after[name]}
    assert (
        changed == set(capsys.readouterr().out.split())
        and {"README.md", "pyproject.toml"} < changed
    )
    assert (
        set(before) == set(after)
        and {p.relative_to(clone).as_posix() for p in clone.glob("notebooks/*")} < changed
    )
    for name in changed:
        back = after[name].replace(site("ada-l/mnist.small"), site(old))
        assert back.replace("ada-l/mnist.small", old) == before[name], name
    assert main(["repository", old]) == 0 and contents(clone) == before


def test_it_names_the_repository_and_changes_nothing_when_asked_nothing(clone, capsys):
    before = contents(clone)
    assert main(["repository"]) == 0 and capsys.readouterr().out == current() + "\n"
    assert contents(clone) == before


def test_links_to_other_repositories_stay(clone):
    near = f"https://github.com/{current()}-2 https://github.com/{current()}.js https://github.com/x/{current()}\n"
    (clone / "README.md").write_text(near)
    assert main(["repository", "ada/mnist"]) == 0 and (clone / "README.md").read_text() == near


@pytest.mark.parametrize(
    "name", ["ada", "ada/", "/mnist", "-ada/mnist", "ada/mn ist", "https://a/b", "a/b.git"]
)
def test_what_is_no_name_is_refused_and_nothing_changes(clone, capsys, name):
    before = contents(clone)
    assert main(["repository", "--", name]) == 2
    assert (
        capsys.readouterr().err
        == f"error: the repository must be given as owner/name, got {name!r}\n"
    )
    assert contents(clone) == before


def test_outside_a_clone_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["repository", "ada/mnist"]) == 2 and "run this in a clone" in capsys.readouterr().err
    )


def test_every_file_names_the_same_repository():
    for name in tracked():
        if name.endswith((".md", ".ipynb", ".html", ".toml", ".yml")) and (ROOT / name).exists():
            text = (ROOT / name).read_text()
            links = re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob", text)
            links += re.findall(r"git\+https://github\.com/([\w.-]+/[\w.-]+)", text)
            assert set(links) <= {current(ROOT)}, name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_inside_the_repository_leads_to_a_file(page):
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for link in re.findall(r"\]\(\s*<?([^)>\s]+)", text):
        place = unquote(link.partition("#")[0])
        if "://" not in link and place:
            assert (page.parent / place).exists(), f"{page.name} leads to {place}"


def steps(name: str) -> list[dict]:
    (job,) = yaml.safe_load((ROOT / ".github/workflows" / name).read_text())["jobs"].values()
    return job["steps"]


def test_the_workflow_runs_the_readmes_test_command_on_python_of_the_project():
    assert "make test" in [step.get("run") for step in steps("test.yml")]
    (python,) = [
        step["with"]["python-version"]
        for step in steps("test.yml")
        if "setup-python" in step.get("uses", "")
    ]
    assert f'requires-python = ">={python}"' in (ROOT / "pyproject.toml").read_text()


def test_the_site_is_the_reports():
    (path,) = [
        step["with"]["path"]
        for step in steps("pages.yml")
        if "upload-pages" in step.get("uses", "")
    ]
    assert path == "reports" and (ROOT / path).is_dir()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_pin_what_they_use_and_may_only_read(workflow):
    content = yaml.safe_load(workflow.read_text())
    (job,) = content["jobs"].values()
    assert content["permissions"] == {"contents": "read"} and content["concurrency"]["group"]
    assert job["timeout-minutes"] and all(
        re.search(r"@v\d+$", step["uses"]) for step in job["steps"] if "uses" in step
    )
