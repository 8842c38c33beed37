"""The number of threads changes how long a training takes, never what it gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_utils import threads
from mnist_utils.data import load_digits, make_loaders
from mnist_utils.models import build_model
from mnist_utils.threads import Pace, Sharing, settle
from mnist_utils.training import choose_device, set_seed, train
from mnist_utils.training import test as validate


@pytest.fixture(autouse=True)
def as_before():
    count, shared = torch.get_num_threads(), threads._shared
    yield
    torch.set_num_threads(count)
    threads._shared = shared


@pytest.fixture
def always(monkeypatch):
    """Every convolution is shared out among so many threads, and counted."""
    calls = []

    def share_among(count: int) -> list:
        def step(self, now):
            return count

        def apply(*arguments):
            calls.append(arguments[0])
            return original(*arguments)

        monkeypatch.setattr(Pace, "step", step)
        monkeypatch.setattr(threads._Convolution, "apply", apply)
        return calls

    original = threads._Convolution.apply
    return share_among


def trained(name: str) -> tuple:
    set_seed(3)
    data, device = load_digits("a test"), torch.device("cpu")
    model = build_model(name).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    loader, validation = make_loaders(data, 64, 3, device)
    train(model, device, loader, optimizer, progress=False)
    return model.state_dict(), validate(model, device, validation, progress=False).loss


@pytest.mark.parametrize("name", ["seed", "most_accurate", "smallest"])
def test_a_training_gives_the_same_bits_with_and_without_help(name, always):
    settle(1)
    alone, loss = trained(name)
    for count in (2, 3):
        calls = always(count)
        weights, shared_loss = trained(name)
        assert calls and set(calls) == {count}
        calls.clear()
        assert shared_loss == loss and all(torch.equal(alone[key], weights[key]) for key in alone)
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1, "stride": 2},
        {"padding": (0, 2), "dilation": 2, "bias": None},
        {"padding": "same"},
        {"groups": 2},
    ],
)
def test_every_form_of_a_convolution_has_torchs_gradients(options, always):
    always(2)
    settle(1)
    torch.manual_seed(0)
    groups = options.get("groups", 1)
    given = [torch.randn(5, 4, 9, 9), torch.randn(6, 4 // groups, 3, 3), torch.randn(6)]
    gradients = []
    for sharing in (torch.enable_grad(), Sharing()):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        with sharing:
            # The weight is used twice, once through another operation, as in a network that shares or scales its own.
            words = {"bias": leaves[2], **options}
            maps = F.conv2d(leaves[0], leaves[1], **words) + F.conv2d(
                leaves[0], 2 * leaves[1], **words
            )
        maps.sin().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for torchs, ours in zip(*gradients):
        assert (torchs is None) == (ours is None) and (torchs is None or torch.equal(torchs, ours))


def test_frozen_weights_and_images_get_no_gradient(always):
    always(2)
    layer = nn.Conv2d(1, 4, 3).requires_grad_(False)
    images = torch.randn(2, 1, 5, 5, requires_grad=True)
    with Sharing():
        layer(images).sum().backward()
    assert images.grad is not None and layer.weight.grad is None and layer.bias.grad is None


def test_a_given_number_of_threads_is_kept():
    for count in (1, 2):
        choose_device("cpu", threads=count)
        assert torch.get_num_threads() == count
        assert {Sharing().pace.step(now / 10) for now in range(100)} == {1}
        assert torch.get_num_threads() == count


def test_without_one_a_single_thread_has_the_help_of_all(monkeypatch):
    monkeypatch.setattr(threads, "_own_choice", 4)
    choose_device("cpu")
    assert torch.get_num_threads() == 1 and Sharing().pace.most == 4


# Milliseconds a step with one thread and with two, on two cores: quiet, one core busy, both busy, and crowded.
QUIET, ONE_BUSY, BOTH_BUSY, CROWDED = (25, 18), (26, 55), (58, 170), (52, 1767)


def simulate(*loads: tuple[int, int], seconds: float = 60.0) -> tuple[float, float]:
    """Steps a second of `Pace`, as a share of the best fixed choice, while the loads follow one another."""
    pace, now, best = Pace(2), 0.0, 0.0
    steps = 0
    for turn, load in enumerate(loads, 1):
        best += 1000 * seconds / min(load)
        while now < turn * seconds:
            now += load[pace.step(now) - 1] / 1000
            steps += 1
    return best / steps


@pytest.mark.parametrize("load", [QUIET, ONE_BUSY, BOTH_BUSY])
def test_no_load_makes_the_choice_much_slower_than_the_best_fixed_one(load):
    assert simulate(load) < 1.1
    assert simulate(load, seconds=5) < 1.25  # from the start on


def test_on_a_crowded_machine_one_slow_step_is_all_that_a_trial_costs():
    assert simulate(CROWDED) < 1.1


@pytest.mark.parametrize("before", [QUIET, ONE_BUSY, BOTH_BUSY])
@pytest.mark.parametrize("after", [QUIET, ONE_BUSY, BOTH_BUSY])
def test_a_change_of_load_is_noticed(before, after):
    assert simulate(before, after) < 1.15
    assert simulate(before, after, before, seconds=20) < 1.2
