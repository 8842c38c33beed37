import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, make_record
from PIL import Image
from sklearn.metrics import confusion_matrix

from mnist_utils import plots
from mnist_utils.layers import trace_layers
from mnist_utils.models import build_model


def shown_lines(figure) -> dict:
    return {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}


def test_accuracy_curve_shows_the_rows_and_says_so():
    figure = plots.accuracy_curve(make_record((9800, 9942, 9926)))
    lines = shown_lines(figure)
    assert lines["validation"] == [0.98, 0.9942, 0.9926] and lines["target 99.4%"] == [0.994, 0.994]
    assert (
        "ends at 99.26% in epoch 3" in figure.alt_text
        and "best is 99.42% in epoch 2" in figure.alt_text
    )


@pytest.mark.parametrize("correct", [(300, 5000), (9900,), (9980, 10_000), (1135, 9700, 9940)])
def test_the_later_two_thirds_of_the_accuracies_lie_inside_the_axes(correct):
    axes = plots.accuracy_curve(make_record(correct)).axes[0]
    low, high = axes.get_ylim()
    assert all(low <= count / 10_000 <= high for count in correct[len(correct) // 3 :])


def test_good_runs_share_one_accuracy_axis():
    runs = [(9000, 9920, 9930), (1135, 1135, 9870, 9990, 9967, 9966), (9872,)]
    limits = {plots.accuracy_curve(make_record(run)).axes[0].get_ylim() for run in runs}
    assert limits == {(0.985, 1.0005)}


def test_one_epoch_is_a_point_under_a_whole_number():
    axes = plots.accuracy_curve(make_record((9800,))).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    assert all(line.get_marker() not in ("", "None") for line in axes.lines[:2])


def test_loss_curve_shows_the_rows():
    assert shown_lines(plots.loss_curve(make_record((1, 2))))["validation"] == [0.2, 0.1]


def test_a_record_that_is_not_mnist_says_so_in_the_picture():
    figure = plots.accuracy_curve(make_record(dataset={"name": "digits"}))
    assert "NOT MNIST" in figure.axes[0].get_title()


def test_misclassified_are_the_wrong_ones_most_confident_first():
    labels = torch.tensor([1, 2, 3, 4])
    probabilities = torch.zeros(4, 10)
    probabilities[0, 1] = 1.0
    probabilities[1, 7], probabilities[2, 3], probabilities[3, 9] = 0.6, 0.9, 0.8
    figure = plots.misclassified(torch.zeros(4, 28, 28, dtype=torch.uint8), labels, probabilities)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["4 read 9\n80%", "2 read 7\n60%"]
    assert figure.alt_text.startswith("2 of 4 images are misclassified")


def test_nothing_misclassified_is_a_picture_too(tmp_path):
    figure = plots.misclassified(torch.zeros(1, 28, 28), torch.tensor([0]), torch.eye(10)[:1])
    assert "0 of 1" in figure.alt_text
    plots.save(figure, tmp_path / "none.png")


def test_confusion_counts_mistakes():
    figure = plots.confusion([0, 0, 1, 2], [0, 5, 5, 2])
    texts = {(text.get_position()): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "1", (5, 0): "1", (5, 1): "1", (2, 2): "1"}
    assert "2 mistakes of 4" in figure.alt_text


def test_confusion_is_scikit_learns():
    labels, guesses = np.random.default_rng(0).integers(0, 10, (2, 300))
    texts = plots.confusion(torch.from_numpy(labels), torch.from_numpy(guesses)).axes[0].texts
    shown = np.zeros((10, 10), int)
    for text in texts:
        shown[text.get_position()[::-1]] = int(text.get_text())
    assert np.array_equal(shown, confusion_matrix(labels, guesses))


def test_saved_pictures_carry_their_alternative_text(tmp_path):
    figure = plots.sample_grid(np.zeros((5, 28, 28), np.uint8), [1, 2, 3, 4, 5])
    plots.save(figure, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert (
            image.info["Description"] == figure.alt_text == "5 digits with their labels: 1 2 3 4 5."
        )


def test_the_networks_drawing_has_blocks_to_scale_and_a_frame_for_what_each_layer_sees():
    layers = trace_layers(build_model("seed"))
    figure = plots.network(np.zeros((28, 28), np.uint8), layers, columns=4)
    above = [axes.patches[0] for axes in figure.axes if axes.patches and not axes.images]
    below = [axes.patches[0] for axes in figure.axes if axes.images]
    assert [patch.get_height() for patch in above] == [26, 24, 24, 12, 10, 8, 4, 2, 2, 1]
    widths = [patch.get_width() * 32 / 28 for patch in above]
    assert widths == pytest.approx([8, 16, 8, 8, 16, 16, 16, 32, 10, 10])
    assert [frame.get_width() for frame in below] == [3, 5, 5, 6, 10, 14, 16, 24, 24, 28]
    assert all(frame.get_center() == pytest.approx((13.5, 13.5)) for frame in below)
    assert "convolution 3 x 3, 8 x 26 x 26, sees 3 x 3;" in figure.alt_text


def test_what_sees_more_than_the_image_is_framed_at_its_border_and_told():
    layers = trace_layers(build_model("most_accurate"))
    figure = plots.network(np.zeros((28, 28), np.uint8), layers)
    assert max(axes.patches[0].get_width() for axes in figure.axes if axes.images) == 28
    assert "sees 56 x 56" in figure.alt_text
    titles = [axes.get_title() for axes in figure.axes]
    assert "sees 56 x 56" in titles


def seeds(name, *ends):
    records = [make_record((9800, end)) for end in ends]
    for record in records:
        record.notebook = name
    return records


def test_seeds_are_a_mean_in_its_band_and_a_dot_each():
    figure = plots.seed_curves(seeds("new", 9940, 9960))
    curves, ends = figure.axes
    assert shown_lines(figure)["new, mean of 2"] == pytest.approx([0.98, 0.995])
    assert sorted(ends.collections[0].get_offsets()[:, 1]) == pytest.approx([0.994, 0.996])
    assert len(curves.collections) == 1 and "2 of 2 are at or above" in figure.alt_text


def test_a_notebook_is_drawn_over_the_one_that_it_changes():
    figure = plots.seed_curves(seeds("new", 9940, 9960), seeds("old", 9900, 9920, 9940))
    lines = shown_lines(figure)
    assert list(lines)[:2] == ["old, mean of 3", "new, mean of 2"]
    assert lines["old, mean of 3"] == pytest.approx([0.98, 0.992])
    old, new = figure.axes[1].collections
    assert old.get_offsets()[:, 0].max() < new.get_offsets()[:, 0].min()
    assert figure.alt_text.count("at the last epoch the mean is") == 2


@pytest.mark.parametrize(
    "line", ["text.usetex: True", "font.family: No Such Font", "axes.grid: True"]
)
def test_a_users_matplotlibrc_changes_nothing(line, tmp_path):
    (tmp_path / "draw.py").write_text(
        "import sys\n"
        "from conftest import make_record\n"
        "from mnist_utils import plots\n"
        "plots.save(plots.accuracy_curve(make_record()), sys.argv[1] + '-curve.png')\n"
        "plots.save(plots.confusion([1, 2, 2], [1, 2, 3]), sys.argv[1] + '-matrix.png')\n"
    )
    pictures = []
    for name, setting in (("plain", ""), ("own", line)):
        (tmp_path / "matplotlibrc").write_text(setting)
        own = {"MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        words = [sys.executable, tmp_path / "draw.py", tmp_path / name]
        done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        parts = sorted(tmp_path.glob(f"{name}-*.png"))
        pictures.append([np.asarray(Image.open(part)).tobytes() for part in parts])
    assert pictures[0] == pictures[1] and len(pictures[0]) == 2


def test_kernels_show_every_weight_on_a_scale_even_around_zero():
    weight = torch.arange(27.0).view(3, 1, 3, 3) - 20
    figure = plots.kernels(weight)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [np.array_equal(image.get_array(), w[0]) for image, w in zip(images, weight)] == [
        True
    ] * 3
    assert [image.get_clim() for image in images] == [(-20, 20), (-11, 11), (-6, 6)]
    assert "3 kernels of 3 x 3" in figure.alt_text
