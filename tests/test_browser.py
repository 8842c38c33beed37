"""The reports in a real browser, from disk and offline: what they ask for, how they fit, who can read them, the pad.

Skipped where no Chromium is on PATH; `pytest -rs` then says so.
"""

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from conftest import ROOT

from mnist_utils.augment import straighten
from mnist_utils.data import load_data, load_digits, normalize
from mnist_utils.models import build_model
from mnist_utils.reports.export import load_run
from mnist_utils.reports.pad import program
from mnist_utils.reports.pages import best_with_weights, collect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
REPORTS = ROOT / "reports"
PLACES = ("*.html", "*/*.html", "*/seed-0/*.html")
PAGES = sorted(str(path.relative_to(REPORTS)) for place in PLACES for path in REPORTS.glob(place))
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on PATH (apt install chromium)")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser):
    """A page without a network that keeps what it asked for and what went wrong."""
    context = browser.new_context(viewport=WIDE, offline=True)
    tab = context.new_page()
    tab.asked, tab.errors = [], []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    yield tab
    context.close()


def open_page(tab, path: Path):
    tab.asked.clear(), tab.errors.clear()
    tab.set_viewport_size(WIDE)
    tab.emulate_media(color_scheme="light", media="screen")
    tab.goto(path.as_uri())
    return tab


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stands_alone_fits_and_can_be_read_by_all(tab, name):
    from axe_playwright_python.sync_playwright import Axe

    open_page(tab, REPORTS / name)
    assert all(urlsplit(url).scheme in ("file", "data") for url in tab.asked), tab.asked
    assert not tab.errors
    pictures = tab.evaluate("[...document.images].map((i) => [i.alt, i.complete && i.naturalWidth > 0])")
    assert all(len(alt) > 20 and loaded for alt, loaded in pictures), pictures
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    for size in (WIDE, NARROW):
        tab.set_viewport_size(size)
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        tab.emulate_media(color_scheme=scheme)
        found = Axe().run(tab, options=rules).response["violations"]
        grave = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
        assert not grave, (scheme, grave)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(tab, name):
    open_page(tab, REPORTS / name)
    links = tab.evaluate("[...document.links].map((a) => a.href)")
    for link in map(urlsplit, links):
        assert link.scheme in ("file", "https") and (link.scheme == "https" or Path(unquote(link.path)).exists()), link
    dead = tab.evaluate(
        "[...document.links].filter((a) => a.hash && a.pathname === location.pathname && !document.getElementById("
        "a.hash.slice(1)) && !document.getElementById(decodeURIComponent(a.hash.slice(1)))).map((a) => a.href)"
    )
    assert not dead


def test_a_notebook_shows_its_verdict_and_folds_its_code(tab):
    result = collect(REPORTS)[0]
    open_page(tab, REPORTS / result.name / f"seed-{result.first.seed}/{result.name}.html")
    rows = tab.evaluate("[...document.querySelectorAll('.verdict tbody tr')].map((r) => r.cells[1].textContent)")
    assert rows == [rule["outcome"] for rule in result.first.verdict]
    assert tab.locator(".verdict").bounding_box()["y"] < 300
    folded = tab.locator("details.code:not([open])")
    assert folded.count() >= 8 and not folded.first.locator("pre").is_visible()
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible() and tab.locator(".verdict").is_visible()


@pytest.fixture(scope="module")
def run():
    """The run whose weights the committed pad holds."""
    result = best_with_weights(REPORTS, collect(REPORTS))
    return REPORTS / result.name / f"seed-{result.first.seed}"


@pytest.fixture(scope="module")
def images():
    """1,000 images, uint8 (1000, 28, 28): MNIST's first test images, or scikit-learn's digits where there are none."""
    cached = ROOT / "data/MNIST/raw/t10k-images-idx3-ubyte"
    data = load_data("mnist", ROOT / "data") if cached.exists() else load_digits("no MNIST")
    return torch.cat([data.validation_images, data.train_images])[:1000]


def in_browser(tab, images, network: str = "network") -> torch.Tensor:
    """The logits that the page's own code gives, float64 (N, 10)."""
    script = f"""(text) => {{
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const image = (i) => bytes.subarray(784 * i, 784 * (i + 1));
        const logits = (_, i) => Array.from(({network})(image(i))).join(" ");
        return Array.from({{ length: bytes.length / 784 }}, logits).join(";");
    }}"""
    rows = tab.evaluate(script, base64.b64encode(images.numpy().tobytes()).decode()).split(";")
    return torch.tensor([[float(x) for x in row.split()] for row in rows], dtype=torch.float64)


def test_the_browser_agrees_with_torch_on_a_thousand_images(tab, run, images):
    open_page(tab, REPORTS / "pad.html")
    with torch.no_grad():
        logits = load_run(run)[1](normalize(images).unsqueeze(1))
    assert len(images) == 1000
    assert (in_browser(tab, images) - logits).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["seed", "smallest", "most_accurate"])
def test_any_of_the_networks_runs_in_the_browser(tab, images, name):
    torch.manual_seed(0)
    model = build_model(name).train()
    with torch.no_grad():
        model(3 * normalize(images[:100]).unsqueeze(1))  # running means and variances other than 0 and 1
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        logits = model.eval()(normalize(images[:50]).unsqueeze(1))
    open_page(tab, REPORTS / "pad.html")
    steps = json.dumps({"mean": 0.1307, "std": 0.3081, "steps": program(model)})
    tab.evaluate(f"window.other = buildNetwork({steps}); null")
    assert (in_browser(tab, images[:50], "window.other") - logits).abs().max() < 1e-4


def test_the_browser_straightens_as_torch_does(tab, images):
    open_page(tab, REPORTS / "pad.html")
    seen = in_browser(tab, images, "straighten").reshape(-1, 28, 28)
    differences = (seen - straighten(images)).abs()
    assert differences.max() <= 1  # of 255: a half may be rounded either way
    assert (differences > 0).double().mean() < 1e-3


def draw(tab, points) -> None:
    """A stroke through points given as shares of the paper's side."""
    box = tab.locator("#paper").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place, steps=2)
    tab.mouse.up()
    tab.wait_for_function("!waiting")


LINE = [(0.5, 0.15), (0.5, 0.85)]
RING = [(0.5 + 0.25 * np.sin(a), 0.5 - 0.35 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 40)]


@pytest.mark.parametrize("digit, points", [(1, LINE), (0, RING)])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_a_drawn_digit_gets_the_models_own_answer(tab, run, digit, points, size):
    open_page(tab, REPORTS / "pad.html").set_viewport_size(size)
    draw(tab, points)
    pixels = torch.tensor(tab.evaluate("Array.from(pixels)"), dtype=torch.uint8).reshape(1, 28, 28)
    with torch.no_grad():
        expected = load_run(run)[1](normalize(pixels).unsqueeze(1)).softmax(1)[0]
    shares = tab.evaluate("softmax(network(pixels))")
    assert np.abs(np.array(shares) - expected.numpy()).max() < 1e-4
    shown = tab.locator("#shares .share").all_text_contents()
    assert shown == [f"{100 * share:.1f}%" for share in shares] and expected.argmax() == digit
    assert tab.locator("#answer").text_content().startswith(f"Read as {digit},")


def test_a_drawing_is_scaled_and_centred_as_mnist_was(tab):
    open_page(tab, REPORTS / "pad.html")
    draw(tab, [(0.1, 0.1), (0.3, 0.1), (0.3, 0.6)])  # off the middle, and lopsided
    image = np.array(tab.evaluate("Array.from(pixels)"), dtype=float).reshape(28, 28)
    height, width = (int(np.ptp(np.flatnonzero(image.any(axis)))) + 1 for axis in (1, 0))
    assert height == 20 and width < 20
    centre = [(np.arange(28) * image.sum(axis)).sum() / image.sum() for axis in (0, 1)]
    assert np.abs(np.array(centre) - 14).max() <= 0.5
    assert len(np.unique(image)) > 4  # shades of grey


def test_the_drawing_is_cleared_from_the_keyboard(tab):
    open_page(tab, REPORTS / "pad.html")
    draw(tab, LINE)
    for _ in range(5):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "clear":
            break
    tab.keyboard.press("Enter")
    assert tab.evaluate("pixels.every((value) => value === 0)")
    assert tab.locator("#answer").text_content() == "Nothing is drawn yet."
