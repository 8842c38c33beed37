import pytest
import torch

from mnist_utils.models import ConvNet
from mnist_utils.muon import Muon, orthogonalize, split_parameters


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (32, 9)])
def test_orthogonalize_keeps_directions_and_evens_out_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix)
    sizes = torch.linalg.svdvals(found)
    assert found.shape == matrix.shape and sizes.min() > 0.5 and sizes.max() < 1.3
    assert torch.allclose(u.T @ found @ v.T, torch.diag(torch.diag(u.T @ found @ v.T)), atol=1e-4)
    assert torch.allclose(
        orthogonalize(1000 * matrix), found, atol=1e-4
    )  # the gradient's size plays no part


def test_every_parameter_is_in_one_group_and_only_mixing_convolutions_are_orthogonal():
    model = ConvNet("c8 d12 M c16")
    mixing, others = split_parameters(model)
    assert [tuple(p.shape) for p in mixing["params"]] == [(12, 8, 1, 1), (16, 12, 3, 3)]
    both = mixing["params"] + others["params"]
    assert {id(p) for p in both} == {id(p) for p in model.parameters()} and len(both) == len(
        list(model.parameters())
    )


def test_the_other_group_moves_as_torchs_sgd_does():
    mine, theirs = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    ours = Muon(
        [{"params": [mine], "orthogonal": False, "lr": 0.1, "weight_decay": 0.01}], momentum=0.9
    )
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        mine.grad = theirs.grad = torch.randn(4, 3, generator=generator)
        ours.step()
        sgd.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_an_orthogonal_step_has_the_size_of_the_rate_whatever_the_gradient():
    for size in (1e-3, 1e3):
        weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
        weight.grad = size * torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(2))
        Muon([weight], lr=0.05).step()
        assert torch.linalg.svdvals(weight.detach().flatten(1)).mean() == pytest.approx(
            0.05, rel=0.2
        )


def test_saved_state_goes_on_to_the_same_bits():
    def run(resume: bool) -> torch.Tensor:
        weight, generator = torch.nn.Parameter(torch.zeros(4, 6)), torch.Generator().manual_seed(3)
        optimizer = Muon([weight], lr=0.05)
        for step in range(6):
            if resume and step == 3:
                state = optimizer.state_dict()
                optimizer = Muon([weight], lr=0.05)
                optimizer.load_state_dict(state)
            weight.grad = torch.randn(4, 6, generator=generator)
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(False), run(True))
