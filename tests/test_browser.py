"""The reports in a real browser, from disk and offline: what they ask for, how they fit, who can read them, the pad.

Skipped where no Chromium is on PATH; `pytest -rs` then says so. The variable REPORTS names another folder of reports
than the committed one.
"""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import ROOT, make_record
from PIL import Image

from mnist_utils.augment import straighten
from mnist_utils.data import load_data, load_digits, normalize
from mnist_utils.models import build_model
from mnist_utils.reports import pages
from mnist_utils.reports.export import load_run, program
from mnist_utils.reports.html import OTHERS
from mnist_utils.reports.results import collect, order, with_weights
from mnist_utils.training import save_weights

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
REPORTS = Path(os.environ.get("REPORTS", ROOT / "reports")).resolve()
PLACES = ("*.html", "*/*.html", "*/seed-*/*.html")
PAGES = sorted(str(path.relative_to(REPORTS)) for place in PLACES for path in REPORTS.glob(place))
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on PATH (apt install chromium)")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser):
    """A page without a network that keeps what it asked for and what went wrong."""
    context = browser.new_context(viewport=WIDE, offline=True)
    tab = context.new_page()
    tab.asked, tab.errors = [], []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on(
        "console",
        lambda message: tab.errors.append(message.text) if message.type == "error" else None,
    )
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
    pictures = tab.evaluate(
        "[...document.images].map((i) => [i.alt, i.complete && i.naturalWidth > 0])"
    )
    assert all(len(alt) > 20 and loaded for alt, loaded in pictures), pictures
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    for size in (WIDE, NARROW):
        tab.set_viewport_size(size)
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        tab.emulate_media(color_scheme=scheme)
        found = Axe().run(tab, options=rules).response["violations"]
        grave = [
            (v["id"], v["nodes"][0]["html"][:200])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert not grave, (scheme, grave)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(tab, name):
    open_page(tab, REPORTS / name)
    links = tab.evaluate("[...document.links].map((a) => a.href)")
    for link in map(urlsplit, links):
        assert link.scheme in ("file", "https") and (
            link.scheme == "https" or Path(unquote(link.path)).exists()
        ), link
    dead = tab.evaluate(
        "[...document.links].filter((a) => a.hash && a.pathname === location.pathname && !document.getElementById("
        "a.hash.slice(1)) && !document.getElementById(decodeURIComponent(a.hash.slice(1)))).map((a) => a.href)"
    )
    assert not dead


def test_a_notebook_shows_its_verdict_and_folds_its_code(tab):
    result = collect(REPORTS)[0]
    open_page(tab, REPORTS / result.name / f"seed-{result.first.seed}/{result.name}.html")
    rows = tab.evaluate(
        "[...document.querySelectorAll('.verdict tbody tr')].map((r) => r.cells[1].textContent)"
    )
    assert rows == [rule["outcome"] for rule in result.first.verdict]
    assert tab.locator(".verdict").bounding_box()["y"] < 300
    folded = tab.locator("details.code:not([open])")
    assert folded.count() >= 8 and not folded.first.locator("pre").is_visible()
    tab.emulate_media(media="print")
    assert not tab.locator("nav:visible").count() and tab.locator(".verdict").is_visible()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reaches_home_and_its_neighbours_in_one_step(tab, name):
    open_page(tab, REPORTS / name)
    names = sorted((p.name for p in REPORTS.iterdir() if any(p.glob("seed-*/run.json"))), key=order)
    others = [place for place in OTHERS if (REPORTS / place).exists()]
    pages = ["index.html", *(f"{notebook}/index.html" for notebook in names), *others]
    own = name if name in pages else f"{name.partition('/')[0]}/index.html"
    at = pages.index(own)
    expected = {REPORTS / page for page in [pages[0], *pages[max(0, at - 1) : at + 2], *others]}
    links = "[...document.querySelectorAll('header a')].filter((a) => a.checkVisibility()).map((a) => a.pathname)"
    reached = {Path(unquote(path)) for path in tab.evaluate(links)}
    assert expected - {REPORTS / name} <= reached
    text = tab.locator("header").inner_text()
    assert "mnist-utils" in text and "fewer than 20,000 parameters and 20 epochs" in text
    assert tab.locator("header [aria-current=page]").count() == 1


def background(tab) -> tuple[int, ...]:
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(map(int, re.findall(r"\d+", colour)[:3]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_the_ground_of_every_figure_is_the_pages(tab, name, scheme):
    open_page(tab, REPORTS / name)
    tab.emulate_media(color_scheme=scheme)
    for figure in tab.locator("img, canvas").all():
        if not figure.is_visible():
            continue
        picture = Image.open(io.BytesIO(figure.screenshot())).convert("RGB")
        # Inside of frames and rounded corners.
        corner = picture.getpixel((5, 5))
        assert max(abs(a - b) for a, b in zip(corner, background(tab))) <= 1, figure.get_attribute(
            "alt"
        )


@pytest.mark.parametrize("name", [name for name in PAGES if name != "pad.html"])
def test_accuracies_are_seen_on_a_phone_without_scrolling_sideways(tab, name):
    open_page(tab, REPORTS / name)
    tab.set_viewport_size(NARROW)
    edges = """[...document.querySelectorAll('table')].filter((table) => table.checkVisibility()).map((table) => {
        const row = [...table.tBodies[0].rows].find((row) => /\\d\\d\\.\\d+%/.test(row.textContent));
        return row && [...row.cells].find((cell) => /\\d\\d\\.\\d+%/.test(cell.textContent));
    }).filter(Boolean).map((cell) => { const range = document.createRange(); range.selectNodeContents(cell);
        return range.getBoundingClientRect().right; })"""
    lines = [box for box in tab.evaluate(BOXES, ["pre", "Accuracy: .*%\\)"]) if box]
    assert all(edge <= NARROW["width"] for edge in tab.evaluate(edges))
    assert all(right <= NARROW["width"] for right, _ in lines)
    assert lines or "/seed-" not in name


# The right edge and the number of lines of what a pattern finds in the text inside a selector.
BOXES = """([selector, pattern]) => [...document.querySelectorAll(selector)].flatMap((part) => {
    const walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
        for (const match of walker.currentNode.textContent.matchAll(new RegExp(pattern, "g"))) {
            const range = document.createRange();
            range.setStart(walker.currentNode, match.index);
            range.setEnd(walker.currentNode, match.index + match[0].length);
            const tops = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
            if (tops.size) found.push([range.getBoundingClientRect().right, tops.size]);
        }
    }
    return found;
})"""


@pytest.mark.parametrize("name", [name for name in PAGES if name != "pad.html"])
def test_no_line_is_broken_inside_the_name_of_an_option(tab, name):
    open_page(tab, REPORTS / name)
    commands = ":not(pre) > code, .command, p + .highlight pre"
    for width in (320, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        assert all(lines == 1 for _, lines in tab.evaluate(BOXES, [commands, "--?[a-z][a-z-]*"]))


def test_the_index_is_two_screens(tab):
    open_page(tab, REPORTS / "index.html")
    assert tab.evaluate("document.documentElement.scrollHeight") <= 2 * WIDE["height"]
    rows = tab.locator("table").first.locator("tbody tr")
    for row in range(rows.count()):
        cells = rows.nth(row).locator("td")
        assert re.fullmatch(r"\d\d\.\d{3}%", cells.nth(1).inner_text())
        assert re.fullmatch("[PSF]( ?[PSF]){3}", cells.nth(6).inner_text())
    colours = "[...document.querySelectorAll('.mark')].map((m) => m.textContent + getComputedStyle(m).backgroundColor)"
    marks = set(tab.evaluate(colours))
    assert len({mark[0] for mark in marks}) == len(marks)


def test_curves_lie_on_one_axis():
    axes = set()
    for result in collect(REPORTS):
        text = (REPORTS / result.name / "seeds.svg").read_text()
        axes.add(tuple(re.findall(r">([\d.]+%)</text>", text)))
    assert len(axes) == 1 and axes.pop()


MARKDOWN = [*REPORTS.glob("README.md"), *REPORTS.glob("*/README.md")]


@pytest.mark.parametrize("source", MARKDOWN, ids=lambda path: path.parent.name)
def test_no_sign_is_taken_for_markup_that_is_none(source):
    text = source.read_text()
    page = BeautifulSoup(source.with_name("index.html").read_text(), "html.parser").main
    # The pages emphasise with ** alone, so whatever became italic was eaten.
    assert not page(["em", "i", "del", "sub", "sup"]), page(["em", "i", "del"])[:3]
    shown = page.get_text() + "".join(image.get("alt", "") for image in page("img"))
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.S)
    rest = re.sub(r"```.*?```|`[^`\n]+`|\*\*|<[^>]+>|\]\([^)]*\)", "", text, flags=re.S)
    for sign in "*_":
        expected = rest.count(sign) + sum(part.count(sign) for part in code)
        kept = shown.count(sign)
        assert kept >= expected - text.count("<!--"), f"{sign}: {expected} written, {kept} shown"


def test_a_table_of_many_rows_is_sorted_by_a_press(tab):
    open_page(tab, REPORTS / "search/index.html")
    table = tab.locator("table").first
    for name, turn in (("holdout", -1), ("holdout", 1), ("parameters", -1)):
        table.locator("th", has_text=name).get_by_role("button").click()
        column = (
            table.locator("th").all_inner_texts().index(table.locator("th[aria-sort]").inner_text())
        )
        texts = table.locator(f"tbody tr td:nth-child({column + 1})").all_inner_texts()
        values = [turn * float(re.sub("[,%]", "", text)) for text in texts]
        assert values == sorted(values) and len(values) > 3
    assert not tab.errors


def test_a_script_that_is_not_the_pages_own_does_not_run(tab, tmp_path):
    text = (REPORTS / "search/index.html").read_text()
    (tmp_path / "index.html").write_text(
        text.replace("</main>", "<script>window.foreign = 1</script></main>")
    )
    open_page(tab, tmp_path / "index.html")
    assert tab.evaluate("window.foreign") is None and tab.errors
    tab.goto("about:blank")


@pytest.fixture(scope="module")
def run():
    """The run whose model the pad opens with."""
    return with_weights(REPORTS, collect(REPORTS))[0]


@pytest.fixture(scope="module")
def images():
    """1,000 images, uint8 (1000, 28, 28): MNIST's first test images, or scikit-learn's digits where there are none."""
    cached = ROOT / "data/MNIST/raw/t10k-images-idx3-ubyte"
    data = load_data("mnist", ROOT / "data") if cached.exists() else load_digits("no MNIST")
    return torch.cat([data.validation_images, data.train_images])[:1000]


def in_browser(tab, images, network: str = "chosen().network") -> torch.Tensor:
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
        model(
            3 * normalize(images[:100]).unsqueeze(1)
        )  # running means and variances other than 0 and 1
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


def settled(tab) -> None:
    """Wait until the model has answered: it does so in the next frame."""
    tab.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    assert not tab.evaluate("waiting")


def draw(tab, points) -> None:
    """A stroke through points given as shares of the paper's side."""
    box = tab.locator("#paper").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place, steps=2)
    tab.mouse.up()
    settled(tab)


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
    shares = tab.evaluate("softmax(chosen().network(pixels))")
    assert np.abs(np.array(shares) - expected.numpy()).max() < 1e-4
    texts = ["99.9% or more" if share >= 0.999 else f"{100 * share:.1f}%" for share in shares]
    assert tab.locator("#shares .share").all_text_contents() == texts and expected.argmax() == digit
    second = int(expected.argsort(descending=True)[1])
    sure = f"Read as {digit}, {texts[digit]} sure; second best {second}, {texts[second]}."
    assert tab.locator("#answer").text_content() == sure


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
    for _ in range(25):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "clear":
            break
    tab.keyboard.press("Enter")
    settled(tab)
    assert tab.evaluate("pixels.every((value) => value === 0)")
    assert tab.locator("#answer").text_content() == "Nothing is drawn yet."


def ink(tab) -> int:
    """How many pixels of the paper are drawn on."""
    return tab.evaluate(
        "pen.getImageData(0, 0, paper.width, paper.height).data.filter((v, i) => i % 4 === 3 && v).length"
    )


def test_a_click_is_a_dot_as_wide_as_the_pen(tab):
    open_page(tab, REPORTS / "pad.html")
    for width in (12, 40):
        tab.locator("#width").fill(str(width))
        tab.locator("#clear").click()
        tab.locator("#paper").click()
        settled(tab)
        assert ink(tab) == pytest.approx(np.pi * (width / 2) ** 2, rel=0.2)
        assert tab.evaluate("pixels.some((value) => value > 0)")


def test_the_pen_is_moved_by_the_keyboard(tab):
    open_page(tab, REPORTS / "pad.html")
    tab.locator("#paper").focus()
    for key in ["ArrowUp"] * 10 + [" "] + ["ArrowDown"] * 20:
        tab.keyboard.press(key)
    settled(tab)
    assert tab.locator("#answer").text_content().startswith("Read as 1,")
    drawn = ink(tab)
    for key in (" ", "ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    assert ink(tab) == drawn
    tab.keyboard.press("Escape")
    settled(tab)
    assert ink(tab) == 0


def test_a_finger_draws(browser):
    context = browser.new_context(viewport=NARROW, has_touch=True, offline=True)
    page = context.new_page()
    page.goto((REPORTS / "pad.html").as_uri())
    page.locator("#paper").tap()
    settled(page)
    assert ink(page) > 100 and page.locator("#answer").text_content().startswith("Read as")
    context.close()


def test_the_models_answer_once_a_frame(tab):
    open_page(tab, REPORTS / "pad.html")
    settled(tab)
    before = tab.evaluate("answers")
    tab.evaluate("for (let i = 0; i < 100; i++) drawTo([50 + i, 100])")
    settled(tab)
    assert tab.evaluate("answers") == before + 1


def test_test_images_and_models_can_be_chosen(tab):
    open_page(tab, REPORTS / "pad.html")
    held = json.loads(tab.locator("#data").text_content())
    assert [option.get_attribute("value") for option in tab.locator("#model option").all()] == [
        str(number) for number in range(len(held["models"]))
    ]
    buttons = tab.locator("#tries button")
    assert buttons.count() == len(held["images"]) > 9
    for number, model in enumerate(held["models"]):
        tab.locator("#model").select_option(str(number))
        assert tab.locator("#report").get_attribute("href") == model["report"]
        folder = REPORTS / Path(model["report"]).parent
        for place in (0, len(held["images"]) - 1):
            buttons.nth(place).click()
            settled(tab)
            raw = torch.tensor(
                list(base64.b64decode(held["images"][place]["pixels"])), dtype=torch.uint8
            )
            image = raw.reshape(1, 28, 28)
            if model["deskew"]:
                image = torch.from_numpy(upright(image[0].numpy()))[None]
            with torch.no_grad():
                logits = load_run(folder)[1](normalize(image).unsqueeze(1))[0]
            assert (
                tab.locator("#answer").text_content().startswith(f"Read as {int(logits.argmax())},")
            )


def upright(image: np.ndarray) -> np.ndarray:
    """The reference of `straighten`: uint8 (28, 28), sampled pixel by pixel where the formula says."""
    x, place = image.astype(float), np.arange(28.0)
    mass = x.sum()
    row, column = (x.sum(1) @ place) / mass, (x.sum(0) @ place) / mass
    down, across = place - row, place - column
    slant = (down @ x @ across) / (x.sum(1) @ down**2)
    result = np.zeros_like(x)
    padded = np.pad(x, 40)
    for r in range(28):
        for c in range(28):
            y, z = row + r - 13.5 + 40, column + c - 13.5 + slant * (r - 13.5) + 40
            top, left = int(np.floor(y)), int(np.floor(z))
            for dy, dz in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (1 - abs(y - top - dy)) * (1 - abs(z - left - dz))
                result[r, c] += share * padded[top + dy, left + dz]
    return np.round(result).astype(np.uint8)


def test_a_straightened_digit_is_the_references(tab, images):
    open_page(tab, REPORTS / "pad.html")
    for image in images[:20].numpy():
        straight = np.array(
            tab.evaluate("(pixels) => Array.from(straighten(pixels))", image.flatten().tolist())
        )
        assert np.abs(straight.reshape(28, 28) - upright(image).astype(int)).max() <= 1
    empty = tab.evaluate("Array.from(straighten(new Uint8Array(784)))")
    assert not any(empty)


def test_a_model_that_was_trained_on_straightened_digits_gets_them(tab, tmp_path):
    root = tmp_path / "reports"
    for name, deskew in (("plain", False), ("upright", True)):
        record = make_record(
            model={"name": "smallest", "parameters": 1, "layers": make_record().model["layers"]}
        )
        record.notebook, record.parameters = name, {"deskew": deskew}
        record.save(root / name / "seed-0")
        torch.manual_seed(0)
        save_weights(build_model("smallest"), root / name / "seed-0/model.safetensors")
    (tmp_path / "README.md").write_text(f"{pages.BEGIN}{pages.END}")
    pages.rebuild(root, tmp_path / "README.md", data_dir=tmp_path)
    open_page(tab, root / "pad.html")
    draw(tab, [(0.7, 0.15), (0.3, 0.85)])  # a slanted line
    widths = []
    for name in ("plain", "upright"):
        tab.locator("#model").select_option(
            label=tab.locator("#model option", has_text=name).inner_text()
        )
        settled(tab)
        image = np.array(tab.evaluate("Array.from(pixels)")).reshape(28, 28)
        widths.append(int(np.ptp(np.flatnonzero(image.sum(0) > 200))))
    assert widths[0] > 10 and widths[1] < 6, widths
