import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchsummary import summary

from mnist_utils.models import Dropout, build_model, count_parameters, format_layers, trace_layers

TABLE = """
Conv2d-1 [-1, 8, 26, 26] 80 | ReLU-2 [-1, 8, 26, 26] 0 | BatchNorm2d-3 [-1, 8, 26, 26] 16
Conv2d-4 [-1, 16, 24, 24] 1,168 | ReLU-5 [-1, 16, 24, 24] 0 | BatchNorm2d-6 [-1, 16, 24, 24] 32
Conv2d-7 [-1, 8, 24, 24] 136 | MaxPool2d-8 [-1, 8, 12, 12] 0 | Dropout-9 [-1, 8, 12, 12] 0
Conv2d-10 [-1, 16, 10, 10] 1,168 | ReLU-11 [-1, 16, 10, 10] 0 | BatchNorm2d-12 [-1, 16, 10, 10] 32
Conv2d-13 [-1, 16, 8, 8] 2,320 | ReLU-14 [-1, 16, 8, 8] 0 | BatchNorm2d-15 [-1, 16, 8, 8] 32
MaxPool2d-16 [-1, 16, 4, 4] 0 | Dropout-17 [-1, 16, 4, 4] 0
Conv2d-18 [-1, 32, 2, 2] 4,640 | Conv2d-19 [-1, 10, 2, 2] 330
"""


def test_seed_model_has_the_originals_table(capsys):
    summary(build_model("seed"), (1, 28, 28), device="cpu")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    expected = [row.strip() for row in TABLE.strip().replace("\n", "|").split("|")]
    assert [line for line in lines if "[-1" in line] == expected
    assert "Total params: 9,954" in lines


def test_seed_model_averages_the_last_map_to_ten_logits():
    model = build_model("seed").eval()
    maps = []
    model.head.register_forward_hook(lambda module, inputs, output: maps.append(output))
    logits = model(torch.randn(3, 1, 28, 28))
    assert maps[0].shape == (3, 10, 2, 2)
    torch.testing.assert_close(logits, F.avg_pool2d(maps[0], 2).flatten(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_at_its_rate_scales_the_rest_and_passes_the_same_gradient(layout):
    torch.manual_seed(0)
    maps = torch.ones(64, 8, 13, 13).to(memory_format=layout).requires_grad_()
    dropped = Dropout(0.3)(maps)
    kept = dropped != 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.005)
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / 0.7))
    dropped.sum().backward()
    torch.testing.assert_close(maps.grad, dropped.detach())
    lanes = kept.permute(0, 2, 3, 1).reshape(-1, 8) if layout == torch.channels_last else kept.reshape(-1, 4)
    assert lanes.float().mean(dim=0).sub(0.7).abs().max() < 0.02  # each part of a draw alike
    assert not torch.equal(Dropout(0.3)(maps), dropped)


def test_dropout_does_nothing_in_evaluation_or_at_rate_zero():
    maps = torch.randn(2, 3, 5, 5)
    assert Dropout(0.5).eval()(maps) is maps and torch.equal(Dropout(0.0).train()(maps), maps)


def test_count_parameters_counts_shared_ones_once_and_frozen_ones_not():
    shared = nn.Linear(4, 4)
    assert count_parameters(nn.Sequential(shared, shared)) == 20
    shared.bias.requires_grad_(False)
    assert count_parameters(shared) == 16


def test_unknown_model_names_the_known():
    with pytest.raises(ValueError, match="unknown model 'resnet'; choose one of seed"):
        build_model("resnet")


def test_receptive_field_by_hand():
    # By hand: r grows by (kernel - 1) * jump, jump by the stride. 3, 5, 5, 6 (jump 2), 10, 14, 16 (4), 24, 24, 28 (8).
    layers = trace_layers(build_model("seed"))
    assert [layer.receptive_field[0] for layer in layers] == [3, 5, 5, 6, 10, 14, 16, 24, 24, 28]
    assert [layer.jump[0] for layer in layers] == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8]
    assert [layer.output_size[0] for layer in layers] == [26, 24, 24, 12, 10, 8, 4, 2, 2, 1]
    assert [layer.name for layer in layers][-2:] == ["head.1", "(model)"]


def seen_pixels(model: nn.Module) -> int:
    """An oracle: how many pixels along a side have a gradient from the middle of the model's output."""
    image = torch.zeros(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    output = model.double()(image)
    output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum().backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero()
    return int(rows.max() - rows.min() + 1)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2)
        self.wide = nn.Conv2d(4, 4, 5, padding=4, dilation=2)

    def forward(self, images):
        maps = self.stem(images)
        return F.avg_pool2d(torch.cat([maps + self.wide(maps), maps], dim=1), 3, 1)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 2, 1)),
        nn.Sequential(nn.Conv2d(1, 4, 5, stride=2, padding=2), nn.Conv2d(4, 4, 3, padding="same", groups=4)),
        nn.Sequential(nn.Conv2d(1, 4, (3, 3)), nn.AvgPool2d(3, stride=2, padding=1), nn.AvgPool2d(2)),
        Branching(),
    ],
)
def test_receptive_field_is_where_the_gradient_reaches(model):
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1.0)  # all positive: no gradient cancels
    assert trace_layers(model, (1, 64, 64))[-1].receptive_field[0] == seen_pixels(model)


def test_tracing_leaves_the_model_as_it_was():
    model = build_model("seed").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_layers(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_table_of_layers_is_aligned():
    lines = format_layers(trace_layers(build_model("seed"))).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 12
