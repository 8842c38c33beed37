"""Submissions that nobody would hand in: whatever they hold, each gets its row, in time, and passes by nothing else.

python -m pytest tests/test_grading_fuzz.py         # a short profile
python tests/test_grading_fuzz.py 30                # minutes; says how many examples, ends at the first failure
"""

import io
import json
import random
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import submissions as made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist_utils.assignment import FAIL, PASS
from mnist_utils.errors import UsageError
from mnist_utils.grading import NOT_SHOWN, grade_one, output
from mnist_utils.grading.archive import Source
from mnist_utils.grading.rules import FIFTH, FOURTH, load_rules

LIMIT = 5.0  # seconds of this process for an example of some kilobytes
LONG = __name__ == "__main__"
FUZZ = settings(
    max_examples=150 if LONG else 30, derandomize=not LONG, deadline=None, database=None, print_blob=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
EXAMPLES = {"total": 0}

numbers = st.one_of(
    st.integers(-5, 70_000),
    st.floats(allow_nan=True),
    st.sampled_from([9942, 10_000, 60_000, 469, 79]),
)
words = st.sampled_from(
    "epoch Epoch: EPOCH accuracy Accuracy: acc= val_acc: test Test set: train Train: loss= best Best final % / ( ) "
    "[ ] | : - = , 100%| 99.42% 9942/10000 (99.42%) 469/469 Linear-12 Dense Conv2d-1 BatchNorm2d-2 Dropout params "
    "parameters Total Param # Layer (type) Output Shape [-1, 10, 1, 1] (None, 26, 26, 8) 9,954 -- 1.2 k ├─ │ └ ┃ "
    "Trainable \r \x08 \x1b[31m \x1b]0;x\x07 <script>alert(1)</script> &amp; =cmd() \u202e \x00 ``` # ## ** "
    "HBox(children= FloatProgress(value=0.0, max=469.0) it/s] [00:15<00:00, Traceback (most recent call last)".split(
        " "
    )
)
lines = st.lists(st.one_of(words, numbers.map(str), st.text(max_size=6)), max_size=25).map(" ".join)
texts = st.one_of(
    st.lists(lines, max_size=25).map("\n".join),
    st.text(max_size=300),
    st.builds(
        made.course_log,
        st.lists(st.integers(0, 10_000), max_size=8),
        st.sampled_from([469, 938, 79]),
    ),
    st.builds(made.keras_log, st.lists(st.floats(0, 1), max_size=8)),
    st.sampled_from(
        [
            made.torchsummary(),
            made.torchinfo(),
            made.keras_summary(dense=True),
            made.keras_summary(boxes=True),
        ]
    ),
)
statements = st.sampled_from(
    [
        made.NET,
        made.LOOP,
        "class A(nn.Module):",
        "  def __init__(self):",
        "    self.a = nn.Linear(3, 10)",
        "model = A()",
    ]
    + [
        "summary(model, (1, 28, 28))",
        "%%time",
        "!ls",
        "x = !ls",
        "print?",
        "batch_size = 10 ** 99",
        "a = a",
        "\t",
    ]
    + [
        "nn.Conv2d(*a, **b)",
        "self.x.y.z = (((",
        "A.B.C()()()",
        "lambda: 0",
        "'''",
        "class A(A): x = A()",
    ]
    + [
        "nn.Conv2d(1, 0, (3, None), groups=0)",
        "random_split(d, [50000, 10000])",
        "datasets.MNIST('.', False)",
    ]
    + ["for epoch in range(-3):", "class B(A): pass"]
)
sources = st.lists(st.one_of(statements, st.text(max_size=40)), max_size=12).map("\n".join)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=10), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    "cell_type source input outputs output_type name text data ename evalue execution_count".split()
)
odd = st.one_of(anything, st.dictionaries(keys, anything, max_size=6))
outputs = st.one_of(
    st.builds(made.stream, texts),
    st.builds(
        made.result, texts, texts.map(lambda text: f"<table><tr><td>{text}</td></tr></table>")
    ),
    st.builds(made.error, st.text(max_size=9), texts),
    odd,
)
cells = st.one_of(
    st.builds(
        lambda source, given: made.code(source, *given), sources, st.lists(outputs, max_size=4)
    ),
    st.builds(made.markdown, texts),
    odd,
)
tags = st.sampled_from(
    [
        "<div class='cell code_cell'>",
        '<div class="jp-Cell jp-CodeCell">',
        '<div class="input_area">',
        "<pre>",
        "</pre>",
    ]
    + [
        "</div>",
        '<div class="prompt input_prompt">In [3]:',
        '<div class="output_subarea output_text">',
        "<td>",
        "<",
    ]
    + [
        "<!--",
        "-->",
        "<script>",
        "</script>",
        '<a href="',
        "'",
        ">",
        "<style",
        "&lt;",
        "&#0;",
        "&#xD800;",
        "<svg>",
    ]
)
pages = st.lists(st.one_of(tags, texts), max_size=40).map("".join)


def notebook_of(given: list) -> bytes:
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": given}).encode()


def mangled(data: bytes, draw: random.Random) -> bytes:
    """The bytes with some cut out, doubled or overwritten."""
    for _ in range(draw.randrange(1, 12)):
        a, b = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
        b = min(b, a + draw.choice([1, 3, 40, 2000]))
        piece = draw.choice(
            [b"", data[a:b] * 2, bytes(draw.randrange(256) for _ in range(min(b - a, 8)))]
        )
        data = data[:a] + piece + data[b:]
    return data


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def hold(name: str, data: bytes) -> None:
    """What must be true of every submission, whatever its bytes."""
    EXAMPLES["total"] += 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        began = time.process_time()
        grades = [grade_one(Source(name, str(path)), rules) for rules in (FOURTH, FIFTH)]
        for grade, rules in zip(grades, (FOURTH, FIFTH)):
            assert not [
                problem for problem in grade.problems if "could not be graded" in problem
            ], grade.problems
            assert grade.outcome in (PASS, FAIL, NOT_SHOWN) and (grade.judged or grade.problems)
            shown = output.terminal_table([grade]) + output.evidence(grade)
            assert (
                not any(ord(letter) < 32 and letter != "\n" for letter in shown)
                and "\x1b" not in shown
            )
            shown.encode(), output.to_csv([grade], rules).encode()
            json.loads(output.to_json([grade], rules))
            page = output.to_html([grade], rules)
            assert page.lower().count("<script") == 1 and page.encode()
            if grade.outcome == PASS:
                best = grade.best.iteration
                assert (
                    best.parameters.high < rules.parameters
                    and best.training.last
                    or best.training.after
                )
        spent = time.process_time() - began
        assert spent < LIMIT, f"{spent:.1f} seconds for {len(data)} bytes"


@FUZZ
@given(
    st.sampled_from(["a.ipynb", "a.md", "a.txt", "a.html", "a.zip", "a.py"]),
    st.binary(max_size=400),
)
def test_any_bytes(name, data):
    hold(name, data)


@FUZZ
@given(st.sampled_from(["a.md", "a.txt"]), st.lists(texts, max_size=6).map("\n".join))
def test_any_text(name, text):
    hold(name, text.encode("utf-8", "replace"))


@FUZZ
@given(st.lists(cells, max_size=8))
def test_any_notebook(given):
    hold("a.ipynb", notebook_of(given))


@FUZZ
@given(odd)
def test_any_json(value):
    hold("a.ipynb", json.dumps({"cells": value, "worksheets": value}).encode())


@FUZZ
@given(pages)
def test_any_page(page):
    hold("a.html", page.encode("utf-8", "replace"))


@FUZZ
@given(st.randoms(use_true_random=False), st.sampled_from(["a.ipynb", "a.zip"]))
def test_mangled_submissions(draw, name):
    data = made.submission((9901, 9942))
    hold(
        name,
        mangled(
            zipped({"x/a.ipynb": data, "README.md": b"# 9,954 parameters"})
            if name == "a.zip"
            else data,
            draw,
        ),
    )


@FUZZ
@given(
    st.dictionaries(
        st.one_of(st.text(max_size=12), st.sampled_from(["../a.md", "/a.md", "b.zip", "c.txt"])),
        texts,
        max_size=5,
    )
)
def test_any_archive(members):
    hold(
        "a.zip",
        zipped(
            {
                name: text.encode("utf-8", "replace")
                for name, text in members.items()
                if name and "\0" not in name
            }
        ),
    )


@FUZZ
@given(sources)
def test_any_source(source):
    hold("a.py", source.encode("utf-8", "replace"))
    hold("a.ipynb", notebook_of([made.code(source, made.course_log([9942]))]))


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(["target", "epochs", "parameters", "counts", "required", "x"]),
        anything,
        max_size=4,
    )
)
def test_any_rules(facts):
    EXAMPLES["total"] += 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.toml")
        path.write_text(
            "\n".join(f"{key} = {json.dumps(value)}" for key, value in facts.items()),
            "utf-8",
            "replace",
        )
        try:
            assert load_rules(str(path)).parameters >= 0
        except UsageError as refused:
            assert str(refused) and "\n" not in str(refused)


def main(minutes: float) -> None:
    """All properties in turn, each time with other examples, until the minutes are over."""
    began, rounds = time.monotonic(), 0
    properties = [value for name, value in globals().items() if name.startswith("test_")]
    while time.monotonic() - began < 60 * minutes:
        rounds += 1
        for one in properties:
            try:
                one()
            except BaseException:
                print(f"{one.__name__} failed after {EXAMPLES['total']:,} examples", flush=True)
                raise
        spent = (time.monotonic() - began) / 60
        print(
            f"{spent:.1f} minutes, {rounds} rounds, {EXAMPLES['total']:,} examples, no failure",
            flush=True,
        )


if __name__ == "__main__":
    main(float(sys.argv[1]))
