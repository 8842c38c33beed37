import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_utils.layers import trace_layers
from mnist_utils.models import build_model


def test_receptive_field_by_hand():
    # r grows by (kernel - 1) * jump, jump by the stride: 3, 5, 6 (2), 10, 14, 16 (4), 24, 28 (8).
    layers = trace_layers(build_model("seed"))
    assert [layer.receptive_field[0] for layer in layers] == [3, 5, 5, 6, 10, 14, 16, 24, 24, 28]
    assert [layer.jump[0] for layer in layers] == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8]
    assert [layer.output_size[0] for layer in layers] == [26, 24, 24, 12, 10, 8, 4, 2, 2, 1]
    assert [layer.name for layer in layers][-2:] == ["head.1", "(model)"]


def seen_pixels(model: nn.Module) -> int:
    """An oracle: how many pixels a side have a gradient from the middle of the model's output."""
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
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 2, 1)
        ),
        nn.Sequential(
            nn.Conv2d(1, 4, 5, stride=2, padding=2), nn.Conv2d(4, 4, 3, padding="same", groups=4)
        ),
        nn.Sequential(
            nn.Conv2d(1, 4, (3, 3)), nn.AvgPool2d(3, stride=2, padding=1), nn.AvgPool2d(2)
        ),
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
