"""Every notebook in JupyterLab, in a browser without a window: opened, run to the end, saved.

    python -m pip install -e .[lab]
    python -m pytest tests/test_jupyterlab.py --screenshots shots     # a picture of each

Says that it is skipped where JupyterLab, Playwright or a Chromium is missing.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, filled_in

BROWSER = next(
    filter(None, map(shutil.which, ("google-chrome", "chromium", "chromium-browser"))), None
)
RUN_AND_SAVE = """() => jupyterapp.commands.execute('notebook:run-all-cells')
    .then(() => jupyterapp.commands.execute('docmanager:save'))
    .then(() => document.body.classList.add('saved'))"""


@pytest.fixture(scope="module")
def page():
    """A browser's page as wide as a small laptop's, and high enough for a whole notebook."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright (pip install -e .[lab])"
    )
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome")
    with playwright.sync_playwright() as opened:
        browser = opened.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 8000})
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab, with nobody's settings, on an empty folder: its address and that folder."""
    pytest.importorskip("jupyterlab", reason="no JupyterLab (pip install -e .[lab])")
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=x",
    ]
    words += [
        "--expose-app-in-browser",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    own = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own["PYTHONPATH"] = str(ROOT)
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words],
            env=os.environ | own,
            stdout=log,
            stderr=log,
        )
        try:
            yield wait_for(f"http://127.0.0.1:{port}", server, home / "log"), folder
        finally:
            server.terminate()
            server.wait(20)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> str:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api?token=x", timeout=1)
            return address
        except OSError:
            time.sleep(0.25)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize(
    "source", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem
)
def test_run_all_finishes_without_an_error(source, lab, page, tmp_path, request):
    address, folder = lab
    nbformat.write(filled_in(source, epochs=1, dataset="digits", threads=1), folder / source.name)
    page.goto(f"{address}/lab/tree/{source.name}?token=x&reset")
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    page.evaluate(f"() => {{ ({RUN_AND_SAVE})() }}")
    page.wait_for_selector("body.saved", state="attached", timeout=120_000)
    page.screenshot(
        path=(request.config.getoption("--screenshots") or tmp_path) / f"{source.stem}.png"
    )
    cells = [
        cell for cell in nbformat.read(folder / source.name, 4).cells if cell.cell_type == "code"
    ]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert (folder / f"reports/local/{source.stem}/seed-0/run.json").exists() and not page.locator(
        ".jp-Dialog"
    ).count()
