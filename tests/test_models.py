import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchsummary import summary

from mnist_utils.models import ConvNet, Dropout, Separable, build_model, count_parameters

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


def test_dropout_does_nothing_in_evaluation_or_at_rate_zero_and_all_at_one():
    maps = torch.randn(2, 3, 5, 5)
    assert Dropout(0.5).eval()(maps) is maps and torch.equal(Dropout(0.0).train()(maps), maps)
    assert not Dropout(1.0).train()(maps).any()


def test_count_parameters_counts_shared_ones_once_and_frozen_ones_not():
    shared = nn.Linear(4, 4)
    assert count_parameters(nn.Sequential(shared, shared)) == 20
    shared.bias.requires_grad_(False)
    assert count_parameters(shared) == 16


def test_unknown_model_names_the_known():
    with pytest.raises(ValueError, match="unknown model 'resnet'; choose one of .*most_accurate, quickest, seed"):
        build_model("resnet")


@pytest.mark.parametrize(
    ("blocks", "parameters"),
    [
        ("c8", 72 + 16 + 90),
        ("C8 M", 200 + 16 + 90),
        ("c8 d12", 72 + 16 + (72 + 96 + 24) + 130),
        ("c8 r8*3", 72 + 16 + (72 + 64 + 3 * 16) + 90),
        ("v8 M v12", 72 + 16 + (864 + 24) + 130),
        ("v8 s12", 72 + 16 + (72 + 96 + 24) + 130),
    ],
)
def test_blocks_have_the_parameters_one_counts_by_hand(blocks, parameters):
    model = ConvNet(blocks)
    assert count_parameters(model) == parameters
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(("blocks", "side"), [("c8 d8 r8", 28), ("v8", 26), ("v8 s8", 24), ("v8 s8 M s8", 10)])
def test_blocks_without_a_border_narrow_the_map(blocks, side):
    assert ConvNet(blocks).body(torch.zeros(1, 1, 28, 28)).shape == (1, 8, side, side)


def test_a_repeated_block_is_its_weights_over_and_over():
    block = Separable(4, 4, torch.nn.ReLU, times=2).eval()
    maps = torch.randn(2, 4, 6, 6)
    once = block.norms[0](block.pointwise(block.depthwise(maps))).relu()
    assert torch.equal(block(maps), block.norms[1](block.pointwise(block.depthwise(once))).relu())


def test_a_skip_adds_what_came_in():
    torch.manual_seed(0)
    plain, skip = Separable(4, 4, torch.nn.SiLU).eval(), Separable(4, 4, torch.nn.SiLU, skip=True).eval()
    skip.load_state_dict(plain.state_dict())
    maps = torch.randn(2, 4, 6, 6)
    assert torch.equal(skip(maps), maps + plain(maps))


@pytest.mark.parametrize("blocks", ["x8", "c", "c8 d", "d8*", "M2"])
def test_words_that_are_no_block_are_refused(blocks):
    with pytest.raises(ValueError, match="unknown block"):
        ConvNet(blocks)
