"""Submissions written for the tests: notebooks, logs and tables in the forms that people hand in."""

import json

SEED_LAYERS = [
    ("Conv2d", (8, 26, 26), 80),
    ("ReLU", (8, 26, 26), 0),
    ("BatchNorm2d", (8, 26, 26), 16),
    ("Conv2d", (16, 24, 24), 1168),
    ("MaxPool2d", (16, 12, 12), 0),
    ("Dropout", (16, 12, 12), 0),
    ("Conv2d", (10, 12, 12), 170),
    ("AdaptiveAvgPool2d", (10, 1, 1), 0),
]  # 1,434 parameters
NET = """\
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.drop = nn.Dropout(0.1)
        self.conv3 = nn.Conv2d(16, 10, 1)
        self.gap = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.bn1(F.relu(self.conv1(x)))
        x = self.drop(F.max_pool2d(self.conv2(x), 2))
        x = self.gap(self.conv3(x))
        return F.log_softmax(x.view(-1, 10), dim=1)
"""
SUMMARY = "!pip install torchsummary\nfrom torchsummary import summary\nsummary(Net().to(device), (1, 28, 28))"
LOOP = """\
model = Net().to(device)
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
for epoch in range(1, {epochs} + 1):
    train(model, device, train_loader, optimizer, epoch)
    test(model, device, test_loader)
"""


def notebook(*cells: dict, nbformat: int = 4) -> bytes:
    """The cells as an .ipynb, numbered in the order of their execution."""
    for count, cell in enumerate([cell for cell in cells if cell["cell_type"] == "code"], 1):
        cell.setdefault("execution_count", count)
    if nbformat == 3:
        old = [_as_version_3(cell) for cell in cells]
        return json.dumps(
            {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": old}]}
        ).encode()
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": list(cells)}
    ).encode()


def _as_version_3(cell: dict) -> dict:
    cell = dict(cell)
    if cell["cell_type"] == "code":
        cell |= {
            "input": cell.pop("source"),
            "prompt_number": cell.pop("execution_count"),
            "language": "python",
        }
        cell["outputs"] = [
            {("stream" if k == "name" else k): v for k, v in output.items()}
            for output in cell["outputs"]
        ]
    return cell


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def code(source: str, *outputs, **facts) -> dict:
    """A code cell; an output that is a text is what the cell printed."""
    shown = [stream(output) if isinstance(output, str) else output for output in outputs]
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": shown} | facts


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text.splitlines(keepends=True)}


def result(plain: str = "", html: str = "") -> dict:
    data = {"text/plain": plain} | ({"text/html": html} if html else {})
    return {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": data}


def error(name: str, said: str) -> dict:
    return {
        "output_type": "error",
        "ename": name,
        "evalue": said,
        "traceback": [f"\x1b[0;31m{name}\x1b[0m: {said}"],
    }


def torchsummary(layers=SEED_LAYERS, total: int | None = None) -> str:
    """The table that torchsummary prints."""
    rule, double = "-" * 64, "=" * 64
    lines = [rule, f"{'Layer (type)':>20}  {'Output Shape':>25} {'Param #':>15}", double]
    for number, (name, shape, count) in enumerate(layers, 1):
        lines.append(f"{name + '-' + str(number):>20}  {str([-1, *shape]):>25} {count:>15,}")
    total = sum(count for _, _, count in layers) if total is None else total
    lines += [
        double,
        f"Total params: {total:,}",
        f"Trainable params: {total:,}",
        "Non-trainable params: 0",
        rule,
    ]
    return "\n".join([*lines, "Input size (MB): 0.00", "Params size (MB): 0.04", rule]) + "\n"


def torchinfo(layers=SEED_LAYERS) -> str:
    """The table that torchinfo prints, with the model and a container above its layers."""
    double, total = "=" * 90, sum(count for _, _, count in layers)
    lines = [double, f"{'Layer (type:depth-idx)':<41}{'Output Shape':<26}Param #", double]
    lines += [f"{'Net':<41}{'[1, 10]':<26}--", f"{'├─Sequential: 1-1':<41}{'[1, 10, 1, 1]':<26}--"]
    for number, (name, shape, count) in enumerate(layers, 1):
        told = f"{count:,}" if count else "--"
        lines.append(f"{f'│    └─{name}: 2-{number}':<41}{str([1, *shape]):<26}{told}")
    return (
        "\n".join(
            [*lines, double, f"Total params: {total:,}", f"Trainable params: {total:,}", double]
        )
        + "\n"
    )


def keras_summary(dense: bool = False, boxes: bool = False) -> str:
    """The table that Keras prints: plain, or with boxes as version 3 does; 1,426 parameters, 1,616 with a Dense."""
    rows = [
        ("conv2d_1 (Conv2D)", "(None, 26, 26, 8)", 80),
        ("batch_normalization_1 (BatchNormalization)", "(None, 26, 26, 8)", 32),
        ("max_pooling2d_1 (MaxPooling2D)", "(None, 13, 13, 8)", 0),
        ("dropout_1 (Dropout)", "(None, 13, 13, 8)", 0),
        ("conv2d_2 (Conv2D)", "(None, 11, 11, 18)", 1314),
        ("global_average_pooling2d_1 (GlobalAveragePooling2D)", "(None, 18)", 0),
    ]
    rows += [("dense_1 (Dense)", "(None, 10)", 190)] if dense else []
    total = sum(count for _, _, count in rows)
    if boxes:
        lines = [
            "┏" + "━" * 60 + "┓",
            "┃ Layer (type)        ┃ Output Shape      ┃    Param # ┃",
            "┡" + "━" * 60 + "┩",
        ]
        lines += [f"│ {name} │ {shape} │ {count:,} │" for name, shape, count in rows]
        return "\n".join([*lines, "└" + "─" * 60 + "┘", f" Total params: {total:,} (5.60 KB)", ""])
    lines = ["_" * 65, f"{'Layer (type)':<52} {'Output Shape':<20} Param #   ", "=" * 65]
    lines += [f"{name:<52} {shape:<20} {count:<10}" for name, shape, count in rows]
    return "\n".join(
        [
            *lines,
            "=" * 65,
            f"Total params: {total:,}",
            f"Trainable params: {total - 16:,}",
            "_" * 65,
            "",
        ]
    )


def bar(
    epoch: int, done: int = 469, total: int = 469, said: str = "", train: float | None = None
) -> str:
    """One state of a tqdm bar as the course's notebooks draw it."""
    percent, filled = done * 100 // total, done * 10 // total
    accuracy = f" Accuracy={train:.2f}" if train is not None else ""
    lead = said or f"Loss=0.0{epoch:02d}12 Batch_id={max(done - 1, 0)}{accuracy}"
    return f"{lead}: {percent}%|{'█' * filled}{' ' * (10 - filled)}| {done}/{total} [00:15<00:00, 30.12it/s]"


def course_log(
    correct, iterations: int = 469, heading: str = "EPOCH: {}", first: int = 1, train: bool = True
) -> str:
    """An epoch for each count of right answers: heading, a bar drawn over itself, the test line."""
    text = ""
    for epoch, right in enumerate(correct, first):
        text += heading.format(epoch) + "\n" if heading else ""
        drawn = [
            bar(epoch, n, iterations, train=97.5 + 0.01 * epoch if train else None)
            for n in (0, iterations // 2)
        ]
        text += (
            "\r".join([*drawn, bar(epoch, iterations, iterations, train=98.76 if train else None)])
            + "\n"
        )
        text += f"\nTest set: Average loss: 0.0{300 - epoch}, Accuracy: {right}/10000 ({right / 100:.2f}%)\n\n"
    return text


def keras_log(accuracies, name: str = "acc", total: str = "60000/60000") -> str:
    text = ""
    for epoch, accuracy in enumerate(accuracies, 1):
        text += f"Epoch {epoch}/{len(accuracies)}\n{total} [{'=' * 30}] - 12s 200us/step - loss: 0.0312 - {name}: 0.9812"
        text += f" - val_loss: 0.0291 - val_{name}: {accuracy:.4f}\n"
    return text


def submission(correct=(9901, 9935, 9942), **facts) -> bytes:
    """A whole notebook in the course's usual form."""
    epochs = len(correct)
    return notebook(
        markdown("# Session 4\n"),
        code(NET, **facts),
        code(
            "!pip install torchsummary\nfrom torchsummary import summary\nsummary(Net().to(device), (1, 28, 28))",
            torchsummary(),
        ),
        code(
            "batch_size = 128\ntrain_loader = DataLoader(datasets.MNIST('.', train=True), batch_size=batch_size)"
        ),
        code(LOOP.format(epochs=epochs), course_log(correct)),
    )
