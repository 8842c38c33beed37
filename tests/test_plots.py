import numpy as np
import pytest
import torch
from conftest import make_record
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
    assert "ends at 99.26% in epoch 3" in figure.alt_text and "best is 99.42% in epoch 2" in figure.alt_text


@pytest.mark.parametrize("correct", [(300, 5000), (9900,), (9980, 10_000), (1135, 9700, 9940)])
def test_the_later_two_thirds_of_the_accuracies_lie_inside_the_axes(correct):
    axes = plots.accuracy_curve(make_record(correct)).axes[0]
    low, high = axes.get_ylim()
    assert all(low <= count / 10_000 <= high for count in correct[len(correct) // 3 :])
    assert low > 0.9 or min(correct[len(correct) // 3 :]) < 9000  # a poor start does not flatten the rest


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
        assert image.info["Description"] == figure.alt_text == "5 digits with their labels: 1 2 3 4 5."


def test_receptive_fields_are_squares_of_their_size_where_they_grow():
    layers = trace_layers(build_model("seed"))
    figure = plots.receptive_fields(np.zeros((28, 28), np.uint8), layers)
    squares = [patch for axes in figure.axes for patch in axes.patches]
    assert [square.get_width() for square in squares] == [3, 5, 6, 10, 14, 16, 24, 28]
    assert all(square.get_center() == pytest.approx((13.5, 13.5)) for square in squares)
    assert "block1.0 3" in figure.alt_text


def test_kernels_show_every_weight_on_a_scale_even_around_zero():
    weight = torch.arange(27.0).view(3, 1, 3, 3) - 20
    figure = plots.kernels(weight)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert [np.array_equal(image.get_array(), w[0]) for image, w in zip(images, weight)] == [True] * 3
    assert [image.get_clim() for image in images] == [(-20, 20), (-11, 11), (-6, 6)]
    assert "3 kernels of 3 x 3" in figure.alt_text
