"""The grader's tool on submissions of every form, on what is wrong with them, and on this project's own reports."""

import csv
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import submissions as made
from conftest import ROOT
from submissions import code, course_log, keras_log, markdown, notebook, torchsummary

from mnist_utils.__main__ import main
from mnist_utils.assignment import FAIL, PASS
from mnist_utils.errors import UsageError
from mnist_utils.grading import NOT_SHOWN, grade, output
from mnist_utils.grading.archive import Submission
from mnist_utils.grading.iterations import find_iterations
from mnist_utils.grading.notebook import read_document, text_of
from mnist_utils.grading.rules import FIFTH, FOURTH, judge, load_rules
from mnist_utils.grading.source import parse

STRICT = replace(FOURTH, whole_map="fully connected")
REPORTS = sorted(path.parent for path in ROOT.glob("reports/*/seed-0/run.json"))


def iterations(data: bytes | str, name: str = "a.ipynb") -> list:
    data = data.encode() if isinstance(data, str) else data
    return find_iterations(Submission("a", [read_document(name, data)]))


def only(data: bytes | str, name: str = "a.ipynb"):
    (iteration,) = iterations(data, name)
    return iteration


def logged(text: str, source: str = "train()"):
    """The one training in what a cell printed."""
    return only(notebook(code(source, text))).training


def percents(training) -> list[float]:
    return [round(accuracy.percent, 4) for accuracy in training.accuracies]


def outcomes(iteration, rules=FOURTH) -> list[str]:
    return [verdict.outcome for verdict in judge(iteration, rules)]


def graded(tmp_path, data: bytes | str, name: str = "a.ipynb", rules=FOURTH):
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return grade([tmp_path / name], rules)[0]


# What a whole submission shows


def test_the_usual_notebook_with_every_field():
    iteration = only(made.submission((9901, 9935, 9942)))
    training = iteration.training
    assert (str(iteration.parameters), iteration.parameters_from, iteration.model) == (
        "1,434",
        "table",
        "Net",
    )
    assert (
        percents(training) == [99.01, 99.35, 99.42]
        and training.epochs == 3
        and training.best_epoch == 3
    )
    assert (iteration.iterations, iteration.batch_size) == (469, 128)
    assert [a.percent for a in training.train] == [98.76] * 3
    assert not iteration.fully_connected and iteration.convolutions == 3
    assert set(iteration.layers) == {"batch normalization", "dropout", "global average pooling"}
    assert iteration.flags == [] and outcomes(iteration) == [PASS] * 4
    line = training.last.line
    assert (
        line.where == "a.ipynb, cell 5 [4], output line 14" and "9942/10000 (99.42%)" in line.text
    )


@pytest.mark.parametrize("version", [3, 4])
def test_notebooks_of_both_formats(version):
    iteration = only(
        notebook(
            code("summary()", torchsummary()), code("train()", course_log([9950])), nbformat=version
        )
    )
    assert str(iteration.parameters) == "1,434" and percents(iteration.training) == [99.5]


@pytest.mark.parametrize("template", ["classic", "lab", "basic", "report"])
def test_html_of_every_template_reads_as_the_notebook_does(template):
    from nbconvert import HTMLExporter

    from mnist_utils.templating import TEMPLATES

    where = {"extra_template_basedirs": [str(TEMPLATES)]} if template == "report" else {}
    source = nbformat.reads(made.submission((9938, 9941)), as_version=4)
    html, _ = HTMLExporter(template_name=template, **where).from_notebook_node(source)
    iteration = only(html, "a.html")
    assert percents(iteration.training) == [99.38, 99.41] and str(iteration.parameters) == "1,434"
    assert iteration.model == "Net" and iteration.flags == [] and outcomes(iteration) == [PASS] * 4
    assert iteration.training.last.line.where.startswith("a.html, cell 5 [4], output line")


def test_html_of_nbconvert_5_is_read_too():
    log = course_log([9941]).replace("<", "&lt;").replace("\r", "\n")
    html = f"""<!DOCTYPE html><html><head><title>a</title><script>var a = "<div class='cell'>";</script></head><body>
    <div tabindex="-1" id="notebook" class="border-box-sizing"><div class="container" id="notebook-container">
    <div class="cell border-box-sizing text_cell rendered"><div class="prompt input_prompt"></div>
    <div class="inner_cell"><div class="text_cell_render border-box-sizing rendered_html"><h1>S4</h1></div></div></div>
    <div class="cell border-box-sizing code_cell rendered"><div class="input">
    <div class="prompt input_prompt">In&nbsp;[7]:</div><div class="inner_cell"><div class="input_area">
    <div class=" highlight hl-ipython3"><pre><span class="n">train</span><span class="p">()</span></pre></div>
    </div></div></div><div class="output_wrapper"><div class="output"><div class="output_area">
    <div class="prompt"></div><div class="output_subarea output_stream output_stdout output_text">
    <pre>{torchsummary()}{log}</pre></div></div></div></div></div></div></div></body></html>"""
    (document,) = [read_document("a.html", html.encode())]
    assert [(cell.kind, cell.count) for cell in document.cells] == [("markdown", None), ("code", 7)]
    assert document.cells[1].source == "train()" and document.cells[0].source == "S4"
    iteration = only(html, "a.html")
    assert percents(iteration.training) == [99.41] and str(iteration.parameters) == "1,434"


def test_a_readme_that_says_its_parameters_and_has_a_log():
    text = f"# MNIST\n\nThe model has 9,954 parameters.\n\n```\n{course_log([9930, 9942])}```\n"
    iteration = only(text, "README.md")
    assert (str(iteration.parameters), iteration.parameters_from) == ("9,954", "text")
    assert percents(iteration.training) == [99.3, 99.42]
    parameters = judge(iteration)[1]
    assert parameters.outcome == NOT_SHOWN and "only said (README.md, line 3" in parameters.evidence


def test_what_an_author_says_against_himself_counts():
    iteration = only(f"The model has 25,000 parameters\n{course_log([9950, 9950])}", "a.md")
    assert judge(iteration)[1].outcome == FAIL


def test_a_text_without_a_log_shows_what_its_author_says_and_no_more():
    iteration = only("# S5\nBest Test Accuracy - 99.46% @ 13th Epoch\nParams: 7,936\n", "README.md")
    assert str(iteration.parameters) == "7,936" and outcomes(iteration, FIFTH) == [NOT_SHOWN] * 4
    assert "said: 99.46% (README.md, line 2)" in judge(iteration)[0].evidence


def test_a_notebook_without_outputs_shows_nothing_but_its_code():
    iteration = only(
        notebook(code(made.NET, execution_count=None), code(made.LOOP, execution_count=None))
    )
    assert (
        outcomes(iteration) == [NOT_SHOWN, NOT_SHOWN, NOT_SHOWN, PASS] and iteration.model == "Net"
    )


# Parameters


@pytest.mark.parametrize(
    "table, total",
    [
        (torchsummary(), 1434),
        (made.torchinfo(), 1434),
        (made.keras_summary(), 1426),
        (made.keras_summary(boxes=True), 1426),
    ],
)
def test_summary_tables(table, total):
    iteration = only(notebook(code("summary", table)))
    assert iteration.parameters.low == total == iteration.table.sum
    assert {"batch normalization", "dropout", "global average pooling"} == set(iteration.layers)
    assert (
        not iteration.fully_connected
        and outcomes(iteration)[1::2] == [PASS, PASS]
        and not iteration.flags
    )


def test_torchinfo_with_more_columns():
    rows = [
        "Layer (type:depth-idx)   Input Shape   Output Shape   Param #   Kernel Shape   Mult-Adds",
        "=" * 60,
    ]
    rows += ["Net                      [1, 1, 28, 28]    [1, 10]           --        --      --"]
    rows += [
        "├─Conv2d: 1-1            [1, 1, 28, 28]    [1, 8, 26, 26]    80        [3, 3]  54,080"
    ]
    rows += ["├─BatchNorm2d: 1-2       [1, 8, 26, 26]    [1, 8, 26, 26]    16        --      16"]
    rows += [
        "├─Conv2d: 1-3            [1, 8, 26, 26]    [1, 10, 1, 1]     54,090    [26, 26]  54,090"
    ]
    table = "\n".join([*rows, "=" * 60, "Total params: 54,186", ""])
    iteration = only(notebook(code("summary", table)))
    assert [row.shape for row in iteration.table.rows[-3:]] == [
        (8, 26, 26),
        (8, 26, 26),
        (10, 1, 1),
    ]
    assert iteration.table.sum == iteration.parameters.low == 54_186
    assert [found.what for found in iteration.whole_map] == [
        "Conv2d: 1-3, a convolution over its whole 26x26 map"
    ]


def test_torchsummary_x_and_lightning_tables():
    lightning = "  | Name  | Type   | Params\n-----\n0 | conv1 | Conv2d | 80\n1 | fc | Linear | 9.8 K\n-----\n"
    lightning += (
        "9.9 K     Trainable params\n0         Non-trainable params\n9.9 K     Total params\n"
    )
    iteration = only(notebook(code("trainer.fit(model)", lightning)))
    assert str(iteration.parameters) == "about 9,900" and iteration.parameters.high == 9_950
    assert [found.what for found in iteration.fully_connected] == ["fc (Linear), 9,800 parameters"]
    assert outcomes(iteration)[1] == PASS and outcomes(iteration, FIFTH)[1] == PASS
    rounded = lightning.replace("9.9 K", "10.0 K")
    assert outcomes(only(notebook(code("", rounded))), FIFTH)[1] == NOT_SHOWN
    extended = "=" * 60 + "\n     Kernel Shape   Output Shape  Params Mult-Adds\nLayer\n"
    extended += "0_conv1.Conv2d_0  [1, 8, 3, 3]  [1, 8, 26, 26]  80.0  48k\n1_fc.Linear_1  [8, 10]  [1, 10]  90.0  80\n"
    extended += "-" * 30 + "\n                 Totals\nTotal params      170.0\n"
    iteration = only(notebook(code("summary", extended)))
    assert iteration.parameters.low == 170 and iteration.fully_connected[0].what.startswith(
        "1_fc.Linear_1"
    )


@pytest.mark.parametrize(
    "said, number",
    [
        ("Total params: 9,954", 9954),
        ("Number of parameters: 9954", 9954),
        ("Total Trainable Parameters: 9,954", 9954),
        ("The model has 9,954 trainable parameters", 9954),
        ("Parameters = 7_936", 7936),
        ("params: 7.9k", 7900),
        ("Total number of parameters: **18,310**", 18310),
        ("parameters used 13,402", 13402),
        ("9954", 9954),
        ("Target: 8000 parameters", None),
        ("fewer than 20,000 parameters", None),
        ("Params size (MB): 4000", None),
        ("learning parameters: 0.01", None),
    ],
)
def test_printed_sums(said, number):
    iteration = only(
        notebook(
            code(
                "print(sum(p.numel() for p in model.parameters()))", f"{said}\n{course_log([9950])}"
            )
        )
    )
    shown = iteration.parameters
    assert (round((shown.low + shown.high) / 2) if shown else None) == number
    assert iteration.parameters_from == ("print" if number else "")


# Fully connected layers


def with_last(*layers) -> bytes:
    return notebook(
        code("summary", torchsummary([*made.SEED_LAYERS[:5], *layers])),
        code("t()", course_log([9950])),
    )


@pytest.mark.parametrize(
    "layers, what",
    [
        ([("Linear", (10,), 23050)], "Linear-6, 23,050 parameters"),
        (
            [("AdaptiveAvgPool2d", (16, 1, 1), 0), ("Linear", (10,), 170)],
            "Linear-7, 170 parameters",
        ),
        ([("Conv2d", (10, 1, 1), 23050)], "Conv2d-6, a convolution over its whole 12x12 map"),
        ([("Conv2d", (10, 1, 1), 23040)], "Conv2d-6, a convolution over its whole 12x12 map"),
        ([("Conv2d", (10, 12, 12), 170), ("AvgPool2d", (10, 1, 1), 0)], None),
        ([("AvgPool2d", (16, 1, 1), 0), ("Conv2d", (10, 1, 1), 170)], None),
    ],
)
def test_fully_connected_layers_in_the_table(layers, what):
    iteration = only(with_last(*layers))
    found = iteration.fully_connected + iteration.whole_map
    assert [layer.what for layer in found] == ([what] if what else [])
    assert outcomes(iteration, STRICT)[3] == (FAIL if what else PASS)


@pytest.mark.parametrize(
    "whole_map, outcome", [("allowed", PASS), ("marked", PASS), ("fully connected", FAIL)]
)
def test_a_convolution_over_its_whole_map_is_what_the_rule_says(tmp_path, whole_map, outcome):
    path = tmp_path / "mine.toml"
    path.write_text(f'whole_map = "{whole_map}"\n')
    data = with_last(("Conv2d", (10, 1, 1), 23050))
    result = graded(tmp_path, data, rules=load_rules(str(path)))
    verdict = result.best.verdicts[3]
    assert (
        verdict.outcome == outcome and "a convolution over its whole 12x12 map" in verdict.evidence
    )
    flagged = any("a convolution over a whole map" in flag for flag in result.best.iteration.flags)
    assert flagged == (whole_map == "marked") and load_rules("4").whole_map == "marked"


def test_keras_dense_layers():
    iteration = only(notebook(code("model.summary()", made.keras_summary(dense=True))))
    assert [found.what for found in iteration.fully_connected] == [
        "dense_1 (Dense), 190 parameters"
    ]


@pytest.mark.parametrize(
    "change, outcome",
    [
        (("x = self.gap(self.conv3(x))", "x = self.fc(self.gap(self.conv3(x)).flatten(1))"), FAIL),
        (("x = self.gap(self.conv3(x))", "x = F.linear(self.gap(x).flatten(1), self.w)"), FAIL),
        (("x = self.gap(self.conv3(x))", "x = self.gap(self.conv3(x))  # self.fc"), PASS),
        (("nn.Conv2d(16, 10, 1)", "nn.Conv2d(16, 10, 12)"), NOT_SHOWN),
    ],
)
def test_code_alone_shows_a_layer_only_where_it_is_used(change, outcome):
    net = made.NET.replace(
        "        self.gap =", "        self.fc = nn.Linear(10, 10)\n        self.gap ="
    )
    assert change[0] in net
    iteration = only(notebook(code(net.replace(*change)), code(made.LOOP, course_log([9950]))))
    assert outcomes(iteration, STRICT)[3] == outcome, judge(iteration, STRICT)[3]


def test_a_class_that_was_not_read_decides_nothing(tmp_path):
    net = made.NET.replace("nn.Conv2d(8, 16, 3)", "ConvBlock(8, 16)")
    cells = notebook(code(net), code(made.LOOP, course_log([9950])))
    assert outcomes(only(cells))[1::2] == [NOT_SHOWN, NOT_SHOWN]
    stage = "class ConvBlock(nn.Module):\n    def __init__(self, a, b):\n        self.a = {}\n"
    stage += "    def forward(self, x): return self.a(x)\n"
    training = code(made.LOOP, course_log([9950]))
    for layer, outcome in (("nn.Linear(a, b)", FAIL), ("nn.Conv2d(a, b, 3)", PASS)):
        block = stage.format(layer)
        assert outcomes(only(notebook(code(block), code(net), training)))[3] == outcome
        (tmp_path / "net.py").write_text(f"{block}\n{net}")
        (tmp_path / "a.ipynb").write_bytes(notebook(code("from net import Net"), training))
        assert grade([tmp_path])[0].judged[0].verdicts[3].outcome == outcome


def test_comments_texts_and_breaks_of_lines_are_read_as_python_does():
    said = '''        """self.fc = nn.Linear(1, 10)"""\n        self.gap ='''
    net = made.NET.replace("        self.gap =", said)
    net = net.replace(
        "nn.Conv2d(8, 16, 3)", "nn.Conv2d(\n            8,\n            16,\n            3)"
    )
    iteration = only(notebook(code(net), code(made.LOOP, course_log([9950]))))
    assert outcomes(iteration)[3] == PASS and iteration.convolutions == 3
    assert not iteration.fully_connected and not iteration.whole_map


def test_models_in_models_in_models_take_no_time(tmp_path):
    """Each class holds the one before twice, so that there are 2 ** 40 layers in all."""
    source = "class A0(nn.Module):\n    def __init__(self):\n        self.a = nn.Conv2d(1, 1, 3)\n"
    for n in range(40):
        source += f"class A{n + 1}(A{n}):\n    def __init__(self):\n        self.a = A{n}(A{n}(), A{n}())\n"
    result = graded(tmp_path, notebook(code(source), code("m = A40()\nt(m)", course_log([9950]))))
    assert not result.problems and result.best.iteration.convolutions <= 1_000


def test_a_class_that_is_defined_again_is_the_last_one(tmp_path):
    other = made.NET.replace("class Net", "class Other")
    again = made.NET.replace("self.gap(self.conv3(x))", "self.fc(x)").replace(
        "self.gap =", "self.fc = nn.Linear(1, 10) #"
    )
    training = code("main()", course_log([9950]))
    iteration = only(notebook(code(made.NET), code(other), code(again), training))
    assert iteration.model == "Net" and outcomes(iteration)[3] == FAIL


def test_code_that_does_not_parse_is_searched_and_decides_nothing():
    broken = made.NET.replace("super().__init__()", "super().__init__(\n").replace(
        "nn.AdaptiveAvgPool2d(1)", "nn.Linear(3, 10)"
    )
    assert not parse(broken)
    iteration = only(notebook(code(broken), code("t()", course_log([9950]))))
    assert outcomes(iteration)[3] == NOT_SHOWN and not iteration.fully_connected[0].shown
    assert "cell 1 [1], source line" in iteration.fully_connected[0].line.where


def test_a_layer_that_the_code_has_and_the_table_lacks_is_for_a_person_to_look_at():
    net = made.NET.replace("self.gap(self.conv3(x))", "self.fc(x)").replace(
        "self.gap =", "self.fc = nn.Linear(1, 10) #"
    )
    cells = code(net), code(made.SUMMARY, torchsummary()), code(made.LOOP, course_log([9950]))
    verdict = judge(only(notebook(*cells)))[3]
    assert (
        verdict.outcome == NOT_SHOWN and "in the code of Net, not in the table" in verdict.evidence
    )


def test_ipython_lines_are_passed_over():
    assert parse(
        "%%time\n%matplotlib inline\n!ls\nfiles = !ls\nif True:\n    %pip install x\nmodel?\nx = 1\n"
    )
    assert not parse("%%bash\nls")


# Accuracies and epochs, as people print them

FORMS = {
    "counts and percent": (
        "Test set: Average loss: 0.0202, Accuracy: 9942/10000 (99.42%)",
        99.42,
        "test",
    ),
    "counts, rounded percent": (
        "Test set: Average loss: 0.0202, Accuracy: 9942/10000 (99%)",
        99.42,
        "test",
    ),
    "counts alone say which images": ("loss 0.02, Accuracy: 9942/10000 (99.42%)", 99.42, "test"),
    "percent": ("Test Accuracy: 99.42", 99.42, "test"),
    "percent sign": ("Validation accuracy = 99.42%", 99.42, "test"),
    "fraction": ("val_accuracy: 0.9942", 99.42, "test"),
    "short words": (
        "Epoch 1 | Train Acc: 98.90% | Val Acc: 99.42% | Best Val Acc: 99.46%",
        99.42,
        "test",
    ),
    "after training's": ("Epoch 1: train acc 98.9, test acc 99.42", 99.42, "test"),
    "said in brackets": ("Accuracy (test): 99.42%", 99.42, "test"),
    "said on the line above": ("Test Error: \n Accuracy: 99.42%, Avg loss: 0.021", 99.42, "test"),
    "the network's": ("Accuracy of the network on the 10000 test images: 99.42 %", 99.42, "test"),
    "brackets": ("Test Accuracy (%): [99.42]", 99.42, "test"),
    "a dictionary": ("{'test_loss': 0.02, 'test_acc': 0.9942}", 99.42, "test"),
    "percent, then counts": ("Accuracy: 99.4% (9942/10000)", 99.42, "test"),
    "validation beside test": ("val acc: 99.1%, test acc: 99.42%", 99.42, "test"),
    "no images": ("Accuracy: 99.42%", 99.42, "unnamed"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_accuracy(name):
    line, percent, images = FORMS[name]
    text = "".join(f"Epoch {n}\n{line.replace('Epoch 1', f'Epoch {n}')}\n" for n in (1, 2, 3))
    training = logged(text)
    assert (
        percents(training) == [percent] * 3 and training.images == images and training.epochs == 3
    )


def test_an_accuracy_of_unnamed_images_passes_nothing_unless_the_code_says_which():
    text = "".join(f"Epoch {n}\nAccuracy: 99.4{n}%\n" for n in (1, 2))
    assert outcomes(only(notebook(code("t()", text))))[0] == NOT_SHOWN
    function = (
        "def {}(model):\n    model.{}()\n    print(f'Accuracy: {{100 * right / total:.2f}}%')"
    )
    tested = only(notebook(code(function.format("check", "eval")), code("check(model)", text)))
    assert tested.training.images == "test" and outcomes(tested)[0] == PASS
    trained = only(notebook(code(function.format("train", "train")), code("train(model)", text)))
    assert percents(trained.training) == [] and outcomes(trained)[0] == NOT_SHOWN


@pytest.mark.parametrize("name", ["acc", "accuracy"])
def test_keras_logs(name):
    training = logged(keras_log([0.9912, 0.9942], name))
    assert percents(training) == [99.12, 99.42] and training.epochs == training.announced == 2
    assert percents_of(training.train) == [98.12, 98.12] and training.iterations == {60_000: 2}


def percents_of(accuracies) -> list[float]:
    return [round(accuracy.percent, 2) for accuracy in accuracies]


def test_keras_of_today_counts_iterations():
    iteration = only(
        notebook(code("fit(batch_size=128)", keras_log([0.9912, 0.9942], "accuracy", "469/469")))
    )
    assert (iteration.iterations, iteration.batch_size) == (469, 128)


def test_keras_that_evaluates_only_at_the_end():
    log = "Epoch 1/2\n60000/60000 [====================] - 9s - loss: 0.1 - acc: 0.97\n"
    log += "Epoch 2/2\n60000/60000 [====================] - 9s - loss: 0.05 - acc: 0.98\n"
    cells = (
        code("model.fit(x, y)", log),
        code("score = model.evaluate(x, y, verbose=0)\nprint(score)", "[0.0281, 0.9941]\n"),
    )
    iteration = only(notebook(*cells))
    training = iteration.training
    assert (
        training.epochs == 2 and not training.accuracies and percents_of(training.after) == [99.41]
    )
    assert (
        outcomes(iteration)[0] == PASS and "measured after training" in judge(iteration)[0].evidence
    )
    one = only(notebook(code("model.fit(x, y)", log + "Test loss: 0.03\nTest accuracy: 0.9941\n")))
    assert (
        one.training.epochs == 2
        and percents_of(one.training.after) == [99.41]
        and outcomes(one)[0] == PASS
    )


@pytest.mark.parametrize(
    "heading",
    [
        "EPOCH: {}",
        "Epoch {}",
        "Epoch {}/19",
        "Current Epoch - {}",
        "epoch= {}",
        "Epoch [{}/19]",
        "",
    ],
)
def test_headings_of_epochs(heading):
    training = logged(course_log([9900 + n for n in range(19)], heading=heading))
    assert training.epochs == len(training.accuracies) == 19 and percents(training)[-1] == 99.18


def test_keras_that_validates_on_training_images_shows_nothing_of_the_test_images():
    log = "Train on 48000 samples, validate on 12000 samples\n" + keras_log(
        [0.9912, 0.9950], total="48000/48000"
    )
    iteration = only(notebook(code("model.fit(x, y, validation_split=0.2)", log)))
    assert percents(iteration.training) == [99.12, 99.5] and outcomes(iteration)[0] == NOT_SHOWN
    assert "not the 10,000 test images" in judge(iteration)[0].evidence


def test_bars_on_the_error_stream_and_lines_on_the_other():
    pieces = []
    for n in (1, 2):
        drawn = f"\r{made.bar(n, 0)}\r{made.bar(n, train=98.76)}\n"
        test_line = f"\nTest set: Average loss: 0.02, Accuracy: 994{n}/10000 (99.4{n}%)\n\n"
        pieces += [
            made.stream(f"EPOCH: {n}\n"),
            made.stream(drawn, "stderr"),
            made.stream(test_line),
        ]
    one = only(notebook(code("t()", *pieces))).training
    printed = "".join("".join(piece["text"]) for piece in pieces if piece["name"] == "stdout")
    bars = "".join("".join(piece["text"]) for piece in pieces if piece["name"] == "stderr")
    other = only(
        notebook(code("t()", made.stream(bars, "stderr"), printed))
    ).training  # all bars first
    for training in (one, other):
        assert (
            percents(training) == [99.41, 99.42]
            and training.epochs == 2
            and len(training.train) == 2
        )


def test_lightning_bars_and_its_table_of_results():
    text = "".join(
        f"Epoch {n}: 100%|██████████| 469/469 [00:10<00:00, 45.67it/s, v_num=0, val_acc=0.99{n}0, train_acc=0.981]\n"
        for n in range(3)
    )
    text += "┃        Test metric        ┃       DataLoader 0        ┃\n│         test_acc          │    0.9920     │\n"
    training = logged(text)
    assert (
        percents(training) == [99.0, 99.1, 99.2]
        and percents_of(training.after) == [99.2]
        and training.epochs == 3
    )


def test_epochs_numbered_from_zero():
    training = logged(course_log([9940, 9941], first=0))
    assert training.epochs == 2 and training.best_epoch == 2 and training.first_epoch == 1


def test_the_accuracy_of_a_training_bar_is_of_training_images():
    text = (
        "".join(
            f"\r{made.bar(1, n, said='Loss=0.02 Batch_id=9 Accuracy=99.90')}" for n in (0, 200, 469)
        )
        + "\n"
    )
    training = logged(f"EPOCH: 1\n{text}EPOCH: 2\n{text}")
    assert (
        percents(training) == []
        and percents_of(training.train) == [99.9, 99.9]
        and training.iterations == {469: 2}
    )


def test_bars_of_test_images_say_so_or_stand_between_longer_ones():
    def log(said):
        return "".join(
            f"{made.bar(n, said=f'Train Loss=0.1 Accuracy=98.0{n}')}\n{made.bar(n, 79, 79, said=said)}\n"
            for n in (1, 2, 3)
        )

    named = logged(log("Test: Loss=0.02 Accuracy=99.41"))
    assert (
        percents(named) == [99.41] * 3
        and named.test_iterations == {79: 3}
        and named.iterations == {469: 3}
    )
    silent = logged(log("eval"))
    assert silent.iterations == {469: 3} and silent.test_iterations == {79: 3}


def test_bars_without_their_bar():
    line = "Train loss=0.0085 batch_id=468 Accuracy=98.92: 100% 469/469 [00:12<00:00, 38.89it/s]\n"
    training = logged(
        "".join(f"Epoch {n}\n{line}Test set: Accuracy: 994{n}/10000 (99.4{n}%)\n\n" for n in (1, 2))
    )
    assert percents(training) == [99.41, 99.42] and training.iterations == {469: 2}
    assert percents_of(training.train) == [98.92, 98.92]


def test_a_bar_that_is_drawn_again_at_its_end_is_one_epoch():
    ends = "Epoch {}: 100%|██████████| 469/469 [00:10<00:00, 45it/s, loss=0.02, v_num=0, val_acc=0.99{}, train_acc=0.98]"
    text = "".join("\r".join([ends.format(n, 1), ends.format(n, n + 2)]) + "\n" for n in range(2))
    training = logged(text)
    assert percents(training) == [99.2, 99.3] and training.epochs == 2


def test_a_table_of_epochs():
    fastai = "<table><tr><th>epoch</th><th>train_loss</th><th>valid_loss</th><th>accuracy</th><th>time</th></tr>"
    fastai += "<tr><td>0</td><td>0.1</td><td>0.05</td><td>0.9931</td><td>00:15</td></tr>"
    fastai += "<tr><td>1</td><td>0.1</td><td>0.04</td><td>0.9942</td><td>00:15</td></tr></table>"
    assert percents(only(notebook(code("fit", made.result("<HTML object>", fastai)))).training) == [
        99.31,
        99.42,
    ]
    text = "| Epoch | Train Acc | Test Acc |\n|---|---|---|\n| 1 | 98.10 | 99.31 |\n| 2 | 98.92 | 99.42 |\n"
    training = only(f"# Log\n\n{text}", "a.md").training
    assert percents(training) == [99.31, 99.42] and percents_of(training.train) == [98.1, 98.92]
    counts = "| Epoch | Test Acc |\n|---|---|\n| 1 | 9931/10000 |\n| 2 | 9942/10000 |\n"
    training = only(f"# Log\n\n{counts}", "a.md").training
    assert [accuracy.correct for accuracy in training.accuracies] == [9931, 9942]
    columns = "epoch  train_acc  test_acc\n    1      98.10     99.31\n    2      98.92     99.42\n"
    assert percents(logged(columns)) == [99.31, 99.42]


def test_two_forms_of_the_same_epochs_are_not_counted_twice():
    text = "".join(
        f"{made.bar(n)}\n\nTest set: Average loss: 0.0{n}, Accuracy: 994{n}/10000 (99.4%)\n\n"
        f"Epoch {n}: Train Accuracy: 98.67%, Test Accuracy: 99.4{n}%\n"
        for n in (1, 2, 3)
    )
    training = logged(text)
    assert percents(training) == [99.41, 99.42, 99.43] and training.accuracies[0].total == 10_000


def test_accuracies_of_classes_are_no_epochs():
    classes = "".join(
        f"Accuracy of {n} : 9{n} %\nAccuracy for class: digit{n} is 98.{n} %\n" for n in range(10)
    )
    cells = (
        code("t()", course_log([9930, 9935])),
        code("by_class()", classes + "    accuracy        0.99     10000\n"),
    )
    training = only(notebook(*cells)).training
    assert percents(training) == [99.3, 99.35] and percents_of(training.after) == [99.0]


def test_the_number_of_epochs_is_no_heading():
    text = f"Epochs: 15, batch size: 128\n{course_log([9930, 9935, 9941])}Total epochs: 15\nBest epoch: 12\n"
    training = logged(text)
    assert training.epochs == 3 and training.first_epoch == 1 and training.announced == 0
    again = logged(f"Epoch 15\n{course_log([9930, 9935])}")  # a heading without an accuracy
    assert again.epochs == 2 and again.first_epoch == 1


def test_what_a_program_printed_counts_where_it_was_pasted():
    iteration = only(
        f"Total params: 9,954\nTrainable params: 9,954\n{course_log([9930, 9942])}", "log.txt"
    )
    assert (str(iteration.parameters), iteration.parameters_from) == ("9,954", "print")
    assert outcomes(iteration) == [PASS, PASS, PASS, NOT_SHOWN]


def test_blocks_and_names_that_only_sound_like_a_layer():
    layers = [
        ("DepthwiseConv", (8, 26, 26), 0),
        ("DenseBlock", (8, 26, 26), 0),
        ("UpsamplingBilinear2d", (8, 28, 28), 0),
    ]
    iteration = only(notebook(code("s", torchsummary([*made.SEED_LAYERS[:1], *layers]))))
    assert iteration.convolutions == 1 and not iteration.fully_connected


def test_train_lines_are_not_test_lines():
    text = "".join(
        f"Epoch: {n}/2..\nTrain set: Average loss: 0.1, Accuracy: 5990{n}/60000 (99.8%)\n"
        f"Test set: Average loss: 0.1, Accuracy: 990{n}/10000 (99.0%)\n"
        for n in (1, 2)
    )
    training = logged(text)
    assert percents(training) == [99.01, 99.02]


def test_rounding_is_not_passed_over():
    coarse = "".join(f"Epoch {n}\nTest Accuracy: 99%\n" for n in (1, 2))
    assert outcomes(only(notebook(code("t()", coarse))))[0] == NOT_SHOWN
    trailing_zero = "Epoch 1\nTest Accuracy: 99.37\nEpoch 2\nTest Accuracy: 99.4\n"
    assert outcomes(only(notebook(code("t()", trailing_zero))))[0] == PASS
    assert (
        outcomes(
            only(
                notebook(
                    code("t()", "Epoch 1\nTest Accuracy: 99.4%\nEpoch 2\nTest Accuracy: 99.4%\n")
                )
            )
        )[0]
        == NOT_SHOWN
    )


def test_a_log_that_someone_pasted_on_one_line():
    line = "Epoch {0}/3 469/469 [==============================] - 9s - loss: 0.01 - acc: 0.98 - val_acc: 0.994{0}"
    text = " ".join(line.format(n) for n in (1, 2, 3))
    training = only(text, "log.txt").training
    assert percents(training) == [99.41, 99.42, 99.43] and training.epochs == 3


# Several trainings


def test_models_and_trainings_of_one_notebook_are_told_apart():
    second = made.NET.replace("Net", "Model_2").replace("8, 16, 3", "8, 16, 3, bias=False")
    table = torchsummary(
        [*made.SEED_LAYERS[:3], ("Conv2d", (16, 24, 24), 1152), *made.SEED_LAYERS[4:]]
    )
    loop = made.LOOP.replace("Net", "Model_2")
    cells = [
        code(made.NET),
        code(made.SUMMARY, torchsummary()),
        code(made.LOOP, course_log([9930, 9935])),
    ]
    cells += [
        code(second),
        code(made.SUMMARY.replace("Net", "Model_2"), table),
        code(loop, course_log([9930, 9941])),
    ]
    one, two = iterations(notebook(*cells))
    assert (one.model, str(one.parameters), percents(one.training)) == (
        "Net",
        "1,434",
        [99.3, 99.35],
    )
    assert (two.model, str(two.parameters), percents(two.training)) == (
        "Model_2",
        "1,418",
        [99.3, 99.41],
    )
    top = [
        cells[0],
        cells[3],
        cells[1],
        cells[4],
        cells[2],
        cells[5],
    ]  # both tables above both trainings
    one, two = iterations(notebook(*top))
    assert [str(i.parameters) for i in (one, two)] == ["1,434", "1,418"]


def test_a_cell_that_was_run_twice_or_a_loop_over_models_is_several_trainings():
    first, second = iterations(
        notebook(code("t()", course_log([9930, 9935]) + course_log([9938, 9941, 9942])))
    )
    assert percents(first.training) == [99.3, 99.35] and percents(second.training) == [
        99.38,
        99.41,
        99.42,
    ]


def test_a_training_that_goes_on_in_the_next_cell_is_one():
    training = only(
        notebook(
            code("t()", course_log([9930, 9935])), code("t()", course_log([9938, 9941], first=3))
        )
    ).training
    assert percents(training) == [99.3, 99.35, 99.38, 99.41]


def test_testing_again_at_the_end_is_no_epoch():
    cells = (
        code("t()", course_log([9930, 9935])),
        code("test(best)", "Test set: Average loss: 0.02, Accuracy: 9941/10000 (99.41%)"),
    )
    iteration = only(notebook(*cells))
    assert iteration.training.epochs == 2 and percents(iteration.training) == [99.3, 99.35]
    assert percents_of(iteration.training.after) == [99.41]


def test_sections_of_a_readme_are_iterations():
    text = f"# Round 1\n- Parameters: 10,252\n```\n{course_log([9930, 9935])}```\n"
    text += f"# Round 2\n- Parameters: 7,936\n```\n{course_log([9938, 9942])}```\n"
    one, two = iterations(text, "README.md")
    assert [str(i.parameters) for i in (one, two)] == ["10,252", "7,936"] and percents(
        two.training
    )[-1] == 99.42


def test_the_best_iteration_that_satisfies_all_rules_is_named(tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "1.ipynb").write_bytes(made.submission((9930, 9938)))
    (folder / "2.ipynb").write_bytes(made.submission((9938, 9945)))
    (folder / "3.ipynb").write_bytes(made.submission((9938, 9941)))
    (folder / "README.md").write_text(f"1,434 parameters\n```\n{course_log((9938, 9945))}```\n")
    (result,) = grade([folder])
    assert (
        result.outcome == PASS
        and result.best.iteration.document == "2.ipynb"
        and len(result.judged) == 3
    )
    assert [judged.outcome for judged in result.judged] == [FAIL, PASS, PASS]
    assert any("the same log stands in README.md" in flag for flag in result.best.iteration.flags)


def test_a_model_from_a_file_beside_the_notebook(tmp_path):
    net = made.NET.replace("self.gap(self.conv3(x))", "self.fc(x)").replace(
        "self.gap =", "self.fc = nn.Linear(1, 10) #"
    )
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "model.py").write_text(net)
    (tmp_path / "s" / "a.ipynb").write_bytes(
        notebook(code("from model import Net"), code(made.LOOP, course_log([9950])))
    )
    (judged,) = grade([tmp_path / "s"])[0].judged
    assert (
        judged.iteration.model == "Net"
        and "s" not in judged.iteration.fully_connected[0].line.document
    )
    assert judged.verdicts[3].outcome == FAIL


# Flags


def trained(source: str = "t()", correct=(9942,), *outputs, **facts) -> dict:
    """A cell with a log of the course's form; `facts` are the log's and the cell's."""
    log = {name: facts.pop(name) for name in ("iterations", "heading", "first") if name in facts}
    return code(source, course_log(correct, **log), *outputs, **facts)


FLAGS = [
    (
        [trained("DataLoader(d, batch_size=128)", iterations=79)],
        "79 iterations at batch 128 are 10,000 images",
    ),
    (
        [trained("DataLoader(d, batch_size=64)", iterations=1094)],
        "training and test images together",
    ),
    (
        [code("t()", course_log([9942]).replace("9942/10000", "4971/5000"))],
        "tested on 5,000 images",
    ),
    ([code("a", execution_count=5), trained(execution_count=3)], "[3] stands after [5]"),
    (
        [trained("t()", (9942,), made.error("ValueError", "no"))],
        "cell 1 ended with an error: ValueError: no",
    ),
]


@pytest.mark.parametrize("cells, flag", FLAGS, ids=[flag for _, flag in FLAGS])
def test_flags_for_a_human_eye(cells, flag):
    (iteration,) = iterations(notebook(*cells))
    assert any(flag in said for said in iteration.flags), iteration.flags


def test_what_was_stopped_or_cut_off_is_not_passed():
    stopped = only(
        notebook(
            code("s", torchsummary()), code("t()", course_log([9942, 9943], heading="Epoch {}/20"))
        )
    )
    assert outcomes(stopped) == [NOT_SHOWN, PASS, NOT_SHOWN, PASS]
    cut = only(notebook(code("s", torchsummary()), code("t()", course_log([9942, 9943], first=18))))
    assert outcomes(cut) == [PASS, PASS, NOT_SHOWN, PASS]


def test_a_log_that_begins_later_keeps_its_own_numbers():
    cut = only(
        notebook(code("s", torchsummary()), code("t()", course_log([9945, 9942, 9943], first=18)))
    )
    verdicts = judge(cut, load_rules("4"))
    assert "at epoch 20; best 99.45% (9,945 of 10,000) at epoch 18" in verdicts[0].evidence
    assert verdicts[2].outcome == FAIL and "3 are logged, numbered up to 20" in verdicts[2].evidence


# Rules


def test_which_epoch_counts_is_data(tmp_path):
    iteration = only(made.submission((9930, 9945, 9938)))
    path = tmp_path / "rules.toml"
    for counts, outcome in (("last", FAIL), ("best", PASS), ("last_five", FAIL)):
        path.write_text(f'counts = "{counts}"\n')
        assert judge(iteration, load_rules(str(path)))[0].outcome == outcome
    evidence = judge(iteration, load_rules(str(path)))[0].evidence
    assert (
        "99.30% (9,930 of 10,000) at epoch 1" in evidence
        and "best 99.45%" in evidence
        and "last 99.38%" in evidence
    )


def test_the_fifth_assignment():
    assert outcomes(only(made.submission([9930] * 10 + [9941] * 5)), FIFTH) == [PASS] * 4
    assert outcomes(only(made.submission([9930] * 11 + [9941] * 4)), FIFTH)[0] == FAIL
    sixteen = only(made.submission([9941] * 16))
    assert outcomes(sixteen, FIFTH)[2] == FAIL and outcomes(sixteen)[2] == PASS
    assert "under the 8,000 to be marked" in judge(sixteen, FIFTH)[1].evidence
    assert outcomes(only(with_last(("Conv2d", (60, 12, 12), 8700))), FIFTH)[1] == PASS
    assert "marked" not in judge(only(with_last(("Conv2d", (60, 12, 12), 8700))), FIFTH)[1].evidence


def test_a_teachers_own_rules(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'target = 99\nparameters = 1434\nepochs = 4\nfully_connected = true\nrequired = ["dropout"]\n'
    )
    rules = load_rules(str(path))
    verdicts = judge(only(made.submission((9890, 9900))), rules)
    assert [v.outcome for v in verdicts] == [PASS, FAIL, PASS, PASS] and rules.name == "mine"
    assert [v.rule for v in verdicts][::3] == ["at least 99% at the last epoch", "dropout"]


@pytest.mark.parametrize(
    "text",
    ["target = 0.994", "counts = 'first'", "epoch = 3", "epochs = '3'", "required = ['x']", "= ="],
)
def test_rules_that_are_none_are_refused(tmp_path, text, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert main(["grade", str(path), "--rules", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(UsageError):
        load_rules("6")


# Files that strangers made


def zipped(members: dict, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_zip_file_is_one_submission_or_one_for_each_entry(tmp_path):
    inner = zipped({"deep/a.ipynb": made.submission()}, tmp_path / "inner.zip").read_bytes()
    members = {
        "ann/a.ipynb": made.submission(),
        "ann/b.ipynb": made.submission((9900,)),
        "bob.zip": inner,
    }
    path = zipped(
        members | {"cid.md": course_log([9950]), "__MACOSX/x.ipynb": b"", "model.py": ""},
        tmp_path / "all.zip",
    )
    (whole,) = grade([path])
    assert len(whole.judged) == 3 and whole.name == "all.zip" and whole.problems == []
    each = grade([path], each=True)
    assert [(one.name, one.outcome) for one in each] == [
        ("ann", PASS),
        ("bob.zip", PASS),
        ("cid.md", NOT_SHOWN),
    ]


def test_a_folder_is_one_submission_or_one_for_each_entry(tmp_path):
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.ipynb").write_bytes(made.submission())
    (tmp_path / "bob" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "bob" / ".ipynb_checkpoints" / "a.ipynb").write_bytes(made.submission((9000,)))
    assert len(grade([tmp_path])) == 1
    assert [(one.name, len(one.judged)) for one in grade([tmp_path], each=True)] == [
        ("ann", 1),
        ("bob", 1),
    ]


def test_zip_bombs_and_paths_that_lead_elsewhere_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.ipynb")
    link.external_attr = 0o120777 << 16
    nested = zipped({"a.ipynb": made.submission()}, tmp_path / "n.zip").read_bytes()
    for _ in range(3):
        nested = zipped({"n.zip": nested}, tmp_path / "n.zip").read_bytes()
    members = {
        "a.ipynb": made.submission(),
        "../b.ipynb": b"{}",
        "/c.ipynb": b"{}",
        "C:/d.ipynb": b"{}",
        link: b"/etc/passwd",
    }
    members |= {"bomb.txt": b"0" * (30 << 20), "huge.txt": b"0" * (41 << 20), "nested.zip": nested}
    (result,) = grade([zipped(members, tmp_path / "a.zip")])
    said = "\n".join(result.problems)
    assert len(result.judged) == 1 and result.outcome == PASS and len(result.problems) == 7
    assert said.count("leads out of the archive") == 3 and "a link; links are not followed" in said
    assert (
        "bomb.txt: unpacks to more than 300 times" in said
        and "huge.txt: larger than 40 MiB" in said
    )
    assert "more than 2 deep" in said
    many = zipped({f"{n}.txt": b"" for n in range(20_001)}, tmp_path / "many.zip")
    assert grade([many])[0].problems == ["more than 20,000 entries"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as on Unix")
def test_links_and_pipes_in_a_folder_are_refused(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.ipynb").write_bytes(made.submission())
    (tmp_path / "s" / "b.ipynb").symlink_to(tmp_path / "s" / "a.ipynb")
    (tmp_path / "s" / "c").symlink_to("/")
    os.mkfifo(tmp_path / "s" / "d.md")
    (result,) = grade([tmp_path / "s"])
    assert len(result.judged) == 1
    assert result.problems == ["b.ipynb: a link; links are not followed", "d.md: not a plain file"]
    assert grade([tmp_path / "s" / "b.ipynb"])[0].outcome == PASS  # a link that a person names


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("a.ipynb", b"", "not JSON"),
        ("a.ipynb", b"[]", "not a notebook"),
        ("a.ipynb", b'{"cells": 3}', "it has no cells"),
        ("a.ipynb", b'{"cells":' * 100_000, "nested too deeply"),
        ("a.ipynb", b"[" * 4_000_000, "JSON of too many parts"),
        ("a.ipynb", b'{"cells": [' + b"1" * 5000 + b"]}", "not JSON"),
        ("a.ipynb", b'{"cells": [' + b"{}," * 2000 + b"{}]}", "more than 2,000 cells"),
        ("a.html", b'<div class="jp-Cell">' * 2001, "more than 2,000 cells"),
        ("a.html", b"<" * 400_000, "HTML of more than 300,000 tags"),
        ("a.txt", b"x " * 3_000_000, "more than 4 MiB of text"),
        ("a.zip", b"PK\x03\x04 nothing", "not a zip file"),
        ("a.pdf", b"%PDF", "not a notebook, HTML, Markdown or text"),
    ],
)
def test_a_broken_file_has_its_row_with_the_reason(tmp_path, name, data, reason):
    result = graded(tmp_path, data, name)
    assert result.outcome == NOT_SHOWN and reason in result.problems[0], result.problems
    assert result.name in output.terminal_table([result]) and reason in output.to_html(
        [result], FOURTH
    )


def test_a_missing_file_is_an_error_and_nothing_is_written(tmp_path, capsys):
    assert main(["grade", str(tmp_path / "none.ipynb"), "--csv", str(tmp_path / "a.csv")]) == 2
    assert "no such file or folder" in capsys.readouterr().err and not (tmp_path / "a.csv").exists()


HOSTILE = "<script>alert(1)</script>\x1b[31mred\x1b]0;title\x07\u202e=cmd()"


def test_nothing_a_stranger_wrote_gets_through(tmp_path):
    log = course_log([9950]).replace("Test set", f"{HOSTILE} Test set")
    name = "=<img src=x onerror=alert(1)>.ipynb"
    data = notebook(
        code(f"# {HOSTILE}\nt()", log, made.error("<b>E</b>", HOSTILE)),
        markdown(f"{HOSTILE} 99.99% accuracy"),
    )
    result = graded(tmp_path, data, name)
    page = output.to_html([result], FOURTH)
    assert (
        page.count("<script") == 1 and "alert(1)</script>" not in page and "&lt;script&gt;" in page
    )
    assert "<img" not in page and "<b>E" not in page
    shown = output.terminal_table([result]) + output.evidence(result)
    assert "\x1b" not in shown and "\u202e" not in shown and "\x07" not in shown
    (row,) = csv.DictReader(io.StringIO(output.to_csv([result], FOURTH)))
    assert row["submission"].startswith("'=") and "http" not in page.replace("http-equiv", "")


def test_no_line_and_no_name_moves_the_cursor(tmp_path):
    net = made.NET.replace("class Net(nn.Module):", "class Net(nn.Module):  #\x08\x08\r back")
    result = graded(
        tmp_path, notebook(code(net), code(made.LOOP, course_log([9950]))), "a\n\x08\tb.ipynb"
    )
    shown = output.terminal_table([result]) + output.evidence(result)
    assert (
        not any(ord(letter) < 32 and letter != "\n" for letter in shown)
        and result.name == "a b.ipynb"
    )


SLOW = {
    "bars": "0%|" * 100_000,
    "open brackets": "100%|" + "█[" * 100_000,
    "accuracy": "accuracy " * 40_000,
    "epochs": "epoch " * 50_000,
    "epochs with numbers": "epoch 1 acc 9 " * 20_000,
    "epochs that fall and rise": "epoch: 5\nepoch: 4\n" * 10_000,
    "digits": "accuracy: " + "9" * 500_000,
    "escapes": "\x1b]" * 100_000,
    "half escapes": "\x1b[0" * 100_000,
    "parameters": "param " * 50_000,
    "table": "Layer (type) Param #\n" + "Conv2d-1 [-1, 1, 1, 1] 1\n" * 8_000,
    "shapes": "Layer (type) Param #\n" + "aa [" + "[1, " * 100_000,
    "tables": "Layer (type) Param #\nConv2d-1 [-1, 1, 1, 1] 1\n" * 8_000,
    "trainings": "Total params: 9,954\nEpoch 2\nTest Accuracy: 9940/10000\nEpoch 1\nTest Accuracy: 9941/10000\n"
    * 3_000,
    "returns": "\r" * 500_000,
    "rules": "| epoch | acc |\n" + "|-" * 100_000,
    "lines": "accuracy: 9942/10000\n" * 8_000,
    "forms": "".join(
        f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)} test acc: 99.{n}\n"
        for n in range(8_000)
    ),
    "bars drawn again": "\r100%|█| 469/469 [00:15]" * 8_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_time_is_bounded_whatever_the_text(tmp_path, name):
    began = time.process_time()  # of this process alone: the machine may be busy
    graded(tmp_path, SLOW[name], "a.txt")
    graded(tmp_path, notebook(code("evaluate()", SLOW[name])))
    assert time.process_time() - began < 15


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<a ",
        "<a b='",
        '<a b="',
        "<!--",
        "<!",
        "<div>",
        "</div>",
        "&#",
        "<script>",
        f"<div class='cell'>{'x' * 82}",  # as many cells as are read
    ],
)
def test_tags_take_linear_time(piece):
    began = time.process_time()  # of this process alone: the machine may be busy
    text = piece * (200_000 // len(piece))
    text_of(text)
    only_text = read_document("a.html", text.encode())
    assert only_text.cells and time.process_time() - began < 20


BREAKERS = (
    "(",
    "-",
    "a.",
    "not ",
    "f(",
    "1+",
    "[",
    "lambda:",
    "if x:\n",
    "{",
    "'''",
    "x=",
    "\\\n",
    "@",
    "f'{",
    "*",
)


def test_source_that_is_meant_to_break_a_parser_does_not(tmp_path):
    """In a process of its own: a parser that runs out of stack takes its process with it."""
    cells = [code(piece * (90_000 // len(piece)) + "1") for piece in BREAKERS]
    path = tmp_path / "a.ipynb"
    path.write_bytes(notebook(*cells, code("t()", course_log([9950]))))
    words = [sys.executable, "-m", "mnist_utils", "grade", str(path)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert said.returncode == 1 and "99.50%" in said.stdout, said.stderr[-300:]


def test_nothing_is_executed_or_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torchsummary.py").write_text("open('imported', 'w')")
    net = "open('executed', 'w')\nclass Net(nn.Module):\n    x = open('executed', 'w')\n" + made.NET
    graded(tmp_path, notebook(code(net, course_log([9950])), code("import torchsummary")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "torchsummary.py"]


def test_grading_loads_no_torch():
    words = "import sys, mnist_utils.grading.output; print({'torch', 'nbconvert', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, cwd=ROOT)
    assert said.stdout == "set()\n", said.stderr


# Output and processes


def test_the_command_its_files_and_its_exit_codes(tmp_path, capsys):
    (tmp_path / "good.ipynb").write_bytes(made.submission())
    (tmp_path / "bad.ipynb").write_bytes(made.submission((9942, 9931)))
    good, bad = str(tmp_path / "good.ipynb"), str(tmp_path / "bad.ipynb")
    assert main(["grade", good]) == 0
    files = [
        word
        for name in ("csv", "json", "html")
        for word in (f"--{name}", str(tmp_path / f"o.{name}"))
    ]
    assert main(["grade", bad, good, *files]) == 1
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if line.startswith("bad.ipynb"))
    assert row[:10] == [
        "bad.ipynb",
        "fail",
        "99.31%",
        "99.42%",
        "(epoch",
        "1)",
        "1,434",
        "2",
        "none",
        "-",
    ]
    assert " ".join(row[10:]) == "accuracy 0.09 points too low"
    assert "1 pass, 1 fail, 0 not shown" in said
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [(r["submission"], r["outcome"], r["last"], r["best_epoch"]) for r in rows] == [
        ("bad.ipynb", "fail", "99.31%", "1"),
        ("good.ipynb", "pass", "99.42%", "3"),
    ]
    assert (
        rows[0]["parameters"] == "1,434"
        and rows[0]["at_target"] == "1"
        and rows[0]["last_five"] == "99.42% 99.31%"
    )
    facts = json.loads((tmp_path / "o.json").read_text())
    iteration = facts["submissions"][0]["iterations"][0]
    assert iteration["last"] == dict(
        percent=99.31, correct=9931, total=10000, where="bad.ipynb, cell 5 [4], output line 9",
        text="Test set: Average loss: 0.0298, Accuracy: 9931/10000 (99.31%)",
    )  # fmt: skip
    assert facts["rules"]["target"] == 0.994 and iteration["verdicts"][0]["outcome"] == "fail"
    page = (tmp_path / "o.html").read_text()
    assert page.count('<details class="submission"') == 2 and "9931/10000 (99.31%)" in page
    assert main(["grade", bad, "--evidence"]) == 1
    assert "FAIL        at least 99.4% at the last epoch" in capsys.readouterr().out


def test_any_mapping_gives_what_one_after_the_other_gives(tmp_path):
    for n in range(6):
        (tmp_path / f"{n}.ipynb").write_bytes(made.submission((9930 + n, 9938 + n)))
    alone = grade([tmp_path], each=True)
    assert [one.outcome for one in alone] == [FAIL] * 2 + [PASS] * 4
    with multiprocessing.Pool(2) as pool:
        side_by_side = grade([tmp_path], each=True, mapper=pool.imap)
    assert output.to_json(side_by_side, FOURTH) == output.to_json(alone, FOURTH)


def test_a_submission_that_was_lost_is_named_and_the_others_are_graded(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.ipynb").write_bytes(made.submission())

    def loses_one(function, sources):
        return [
            OSError("its worker ran out of memory") if s.name == "b.ipynb" else function(s)
            for s in sources
        ]

    grades = grade([tmp_path], each=True, mapper=loses_one)
    assert [(one.name, one.outcome) for one in grades] == [
        ("a.ipynb", PASS),
        ("b.ipynb", NOT_SHOWN),
        ("c.ipynb", PASS),
    ]
    assert grades[1].problems == ["could not be graded (OSError: its worker ran out of memory)"]


def test_a_submission_that_takes_too_long_is_named_and_the_others_are_graded(tmp_path):
    (tmp_path / "a.ipynb").write_bytes(made.submission())
    (tmp_path / "b.txt").write_text("best acc 99.1 / test acc 98.5%\n" * 100_000)
    grades = grade([tmp_path], each=True, time_limit=0.2)
    assert [one.outcome for one in grades] == [PASS, NOT_SHOWN]
    assert grades[1].problems == ["it took longer than 0.2 seconds and was given up"]


# This project's own reports


@pytest.mark.parametrize("folder", REPORTS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("form", ["ipynb", "html"])
def test_our_reports_grade_as_they_judge_themselves(folder, form):
    record = json.loads((folder / "run.json").read_text())
    (result,) = grade([folder / f"{folder.parent.name}.{form}"])
    (judged,) = result.judged
    assert [v.outcome for v in judged.verdicts] == [v["outcome"] for v in record["verdict"]]
    iteration = judged.iteration
    assert (
        iteration.parameters.low == record["model"]["parameters"]
        and iteration.parameters_from == "table"
    )
    correct = [row["validation_correct"] for row in record["epochs"]]
    assert [accuracy.correct for accuracy in iteration.training.accuracies] == correct
    assert (
        iteration.training.epochs == len(correct)
        and iteration.batch_size == record["parameters"]["batch_size"]
    )
    assert result.problems == []


def test_the_readme_shows_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    section = (ROOT / "docs/grading.md").read_text()
    (command,) = [
        line
        for line in section.splitlines()
        if line.startswith("python -m mnist_utils grade reports/")
    ]
    assert main(command.split()[3:]) == 1
    assert f"```\n{capsys.readouterr().out}```" in section


def test_there_are_reports_to_grade():
    assert len(REPORTS) >= 3
