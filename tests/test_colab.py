"""Colab without Colab: an environment that has what Colab has but this package, a notebook alone.

The bootstrap cell is run as it stands: git is told to take this checkout where the cell names the
repository. IPython is Colab's, years older than the newest. What a stand-in lacks is Colab's
machine, its GPU and its versions of the rest.
"""

import os
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, filled_in

from mnist_utils.records import RunRecord
from mnist_utils.reports.repository import current

ABSENT = (
    "mnist_utils",
    "__editable__",
    "papermill",
)  # all else that the package needs is there on Colab
COLAB = (
    "ipython==7.34.0",
    "ipykernel==6.17.1",
    "jupyter_client==7.4.9",
)  # what it had in June 2026
RESULTS = "reports/local/01_seed_model/seed-0"
OWN = ("pip", "__pycache__")  # what each environment has itself


def run(*words, **options) -> None:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def index():
    """Skips where there is no git, or no package index that a bootstrap could install from."""
    if not shutil.which("git"):
        pytest.skip("no git")
    asked = [
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "papermill",
        "setuptools",
    ]
    if subprocess.run([sys.executable, "-m", "pip", *asked], capture_output=True).returncode:
        pytest.skip("no package index to install from")


@pytest.fixture(scope="module")
def preinstalled(tmp_path_factory) -> Path:
    """What this environment shares with Colab, as a folder of links."""
    folder = tmp_path_factory.mktemp("preinstalled")
    for site in (Path(place) for place in sys.path if place.endswith("-packages")):
        for path in site.iterdir():
            if not path.name.startswith(ABSENT + OWN) and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path.resolve())
    return folder


@pytest.fixture(scope="module")
def home(index, preinstalled, tmp_path_factory) -> Path:
    """A new environment that sees those packages, and Colab's versions of some."""
    home = tmp_path_factory.mktemp("colab") / "env"
    venv.create(home, with_pip=True)
    run(
        home / "bin/python", "-m", "pip", "uninstall", "--yes", "setuptools"
    )  # comes with Python 3.11's pip
    (site_packages(home) / "preinstalled.pth").write_text(f"{preinstalled}\n")
    run(home / "bin/python", "-m", "pip", "install", "--quiet", *COLAB)
    return home


def site_packages(home: Path) -> Path:
    (site,) = home.glob("lib/python*/site-packages")
    return site


def versions(*sites: Path) -> dict[str, str]:
    """Each distribution's version; the first folder that has one counts, as on `sys.path`."""
    found = [found for site in sites for found in metadata.distributions(path=[str(site)])]
    return {
        distribution.metadata["Name"].lower(): distribution.version
        for distribution in reversed(found)
    }


@pytest.fixture(scope="module")
def environment(index, tmp_path_factory) -> dict[str, str]:
    """Variables under which this checkout lies at the repository's address and nowhere else."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("mnist_utils", "pyproject.toml", "requirements.txt", "README.md"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(
            ROOT / name, checkout / name
        )
    git = [
        "git",
        "-C",
        checkout,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@localhost",
        "-c",
        "commit.gpgsign=false",
    ]
    for words in (["init"], ["add", "--all"], ["commit", "--message", "as it is"]):
        run(*git, *words)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return kept | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{checkout.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://github.com/{current(ROOT)}",
    }


@pytest.fixture(scope="module")
def before(home, preinstalled) -> dict[str, str]:
    return versions(site_packages(home), preinstalled)


@pytest.fixture(scope="module")
def content(home, before, environment, tmp_path_factory) -> Path:
    """The folder in which the notebook lay alone and was run from top to bottom."""
    folder, python = tmp_path_factory.mktemp("content"), home / "bin/python"
    absent = subprocess.run(
        [python, "-c", "import mnist_utils"], cwd=folder, env=environment, capture_output=True
    )
    assert b"ModuleNotFoundError" in absent.stderr
    source = filled_in(
        ROOT / "notebooks/01_seed_model.ipynb", epochs=1, dataset="digits", threads=1
    )
    nbformat.write(source, folder / "01_seed_model.ipynb")
    words = [
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "01_seed_model.ipynb",
        "--output",
        "executed",
    ]
    run(python, "-m", *words, cwd=folder, env=environment)
    return folder


def test_the_notebook_runs_from_top_to_bottom_and_its_results_lie_beside_it(content):
    cells = [
        cell
        for cell in nbformat.read(content / "executed.ipynb", 4).cells
        if cell.cell_type == "code"
    ]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"] and any(
        "Epoch 1" in o.get("text", "") for o in outputs
    )
    assert all("alt" in o.metadata["image/png"] for o in outputs if o.output_type == "display_data")
    record = RunRecord.load(content / RESULTS)
    assert record.status == "completed" and len(record.epochs) == 1
    results = {path.name for path in (content / RESULTS).iterdir()}
    assert results >= {"run.json", "metrics.csv", "accuracy.png", "loss.png", "model.safetensors"}


def test_the_bootstrap_installs_the_package_from_its_address_and_changes_nothing_else(
    content, home, preinstalled, before
):
    after = versions(site_packages(home), preinstalled)
    assert {
        "torch",
        "torchvision",
        "numpy",
        "ipython",
    } <= before.keys() and before.items() <= after.items()
    assert {"mnist-utils", "papermill"} <= after.keys() - before.keys()
    (source,) = site_packages(home).glob("mnist_utils-*.dist-info/direct_url.json")
    assert f"https://github.com/{current(ROOT)}" in source.read_text()
    assert RunRecord.load(content / RESULTS).versions["torch"] == before["torch"]
