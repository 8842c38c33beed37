from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from conftest import make_record
from torch import nn

from mnist_utils.assignment import FAIL, NOT_JUDGED, PASS, judge, overall, summary
from mnist_utils.layers import trace_layers
from mnist_utils.models import build_model


def outcomes(record) -> list[str]:
    return [verdict.outcome for verdict in judge(record)]


def test_the_last_epoch_counts_and_the_best_is_only_mentioned():
    verdict = judge(make_record((9800, 9942, 9926)))[0]
    assert verdict.outcome == FAIL
    assert "9,926 of 10,000 (99.26%) at epoch 3; best 99.42% at epoch 2" in verdict.evidence


@pytest.mark.parametrize("correct, outcome", [(9939, FAIL), (9940, PASS), (10_000, PASS)])
def test_the_target_is_met_exactly_at_994_in_1000(correct, outcome):
    assert outcomes(make_record((correct,)))[0] == outcome


def test_a_run_that_satisfies_every_rule_passes():
    record = make_record((9900, 9941))
    assert outcomes(record) == [PASS] * 4
    assert summary(record) == "pass (99.41% at epoch 2, 9,954 parameters, 2 epochs)"


@pytest.mark.parametrize("count, outcome", [(19_999, PASS), (20_000, FAIL)])
def test_parameters_must_be_fewer(count, outcome):
    record = make_record((9950,))
    record.model["parameters"] = count
    assert outcomes(record)[1] == outcome


@pytest.mark.parametrize("count, outcome", [(19, PASS), (20, FAIL)])
def test_epochs_must_be_fewer(count, outcome):
    assert outcomes(make_record([9950] * count))[2] == outcome


@pytest.mark.parametrize(
    "facts, reason",
    [
        (dict(dataset={"name": "digits", "split": "assignment"}), "not MNIST"),
        (dict(dataset={"name": "mnist", "split": "holdout"}), "not the 10,000 test images"),
        (dict(status="failed"), "the run is failed"),
        (dict(status="interrupted"), "the run is interrupted"),
    ],
)
def test_what_the_record_does_not_show_is_not_judged(facts, reason):
    record = make_record((9990,), **facts)
    verdict = judge(record)[0]
    assert verdict.outcome == NOT_JUDGED and verdict.evidence.startswith(reason)
    assert overall(judge(record)) == NOT_JUDGED and summary(record).startswith(
        f"not judged: {reason}"
    )


def test_fewer_test_images_are_not_the_test_images():
    assert outcomes(make_record((999,), total=1000))[0] == NOT_JUDGED


def test_an_empty_record_is_not_judged():
    record = make_record((), status="failed", model={}, dataset={})
    assert outcomes(record) == [NOT_JUDGED] * 4
    assert "no epoch" in summary(make_record(()))


class Disguised(nn.Module):
    """A convolution to a 7x7 map, then one of many ways to end."""

    def __init__(self, end):
        super().__init__()
        self.stem, self.end = nn.Conv2d(1, 4, 4, stride=4), end
        self.weight = nn.Parameter(torch.zeros(10, 196))

    def forward(self, images):
        return self.end(self, self.stem(images))


DISGUISES = {
    "linear": nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.Flatten(), nn.Linear(196, 10)),
    "linear after the mean": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10)),
    "functional linear": Disguised(lambda self, maps: F.linear(maps.flatten(1), self.weight)),
    "matmul": Disguised(lambda self, maps: maps.flatten(1) @ self.weight.T),
    "einsum": Disguised(
        lambda self, maps: torch.einsum("nchw,kchw->nk", maps, self.weight.view(10, 4, 7, 7))
    ),
    "whole map": nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.Conv2d(4, 10, 7), nn.Flatten()),
    "functional whole map": Disguised(
        lambda self, maps: F.conv2d(maps, self.weight.view(10, 4, 7, 7)).flatten(1)
    ),
    "dilated whole map": nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=4), nn.Conv2d(4, 10, 4, dilation=2), nn.Flatten()
    ),
    "depthwise whole map": nn.Sequential(
        nn.Conv2d(1, 20, 4, stride=4),
        nn.Conv2d(20, 20, 7, groups=20),
        nn.Conv2d(20, 10, 1),
        nn.Flatten(),
    ),
    "flattened 1x1": Disguised(
        lambda self, maps: F.conv2d(
            maps.reshape(-1, 196, 1, 1), self.weight.view(10, 196, 1, 1)
        ).flatten(1)
    ),
    "flattened conv1d": Disguised(
        lambda self, maps: F.conv1d(maps.flatten(2), self.weight.view(10, 4, 49)).flatten(1)
    ),
    "bilinear": Disguised(
        lambda self, maps: F.bilinear(
            maps.mean((2, 3)), maps.mean((2, 3)), self.weight[:, :16].reshape(10, 4, 4)
        )
    ),
}
HONEST = {
    "seed": build_model("seed"),
    "1x1 after the mean": nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 10, 1), nn.Flatten()
    ),
    "same 7x7 on 7x7": nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=4),
        nn.Conv2d(4, 10, 7, padding=3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
    "attention of activations": Disguised(
        lambda self, maps: (maps.flatten(2) @ maps.flatten(2).transpose(1, 2)).mean(dim=2)
    ),
}


def rule_on_layers(model) -> tuple[str, str]:
    record = make_record((9950,))
    record.model["layers"] = [asdict(layer) for layer in trace_layers(model)]
    verdict = judge(record)[3]
    return verdict.outcome, verdict.evidence


@pytest.mark.parametrize("name", DISGUISES)
def test_fully_connected_layers_are_seen_through_their_disguise(name):
    assert rule_on_layers(DISGUISES[name])[0] == FAIL


@pytest.mark.parametrize("name", HONEST)
def test_honest_networks_pass(name):
    outcome, evidence = rule_on_layers(HONEST[name])
    assert outcome == PASS, evidence


def test_the_evidence_names_the_layer():
    assert "1: a convolution over its whole 7x7 map" in rule_on_layers(DISGUISES["whole map"])[1]
