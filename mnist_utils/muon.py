"""An optimizer for few epochs: convolution weights take steps whose directions all weigh the same.

    optimizer = Muon(split_parameters(model), lr=0.05, momentum=0.9)

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. torch.optim's
takes matrices only; here a convolution's weight is a matrix with a row for each output channel.
"""

import torch
from torch import Tensor, nn


def split_parameters(model: nn.Module, lr: float = 0.1, weight_decay: float = 5e-4) -> list[dict]:
    """Two groups for `Muon`: convolutions that mix channels, all but the last; and the rest.

    The rest takes steps of plain SGD with Nesterov momentum at `lr`, with `weight_decay`.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    mixing = [layer.weight for layer in convolutions if layer.weight.shape[1] > 1][:-1]
    chosen = {id(weight) for weight in mixing}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        {"params": mixing, "orthogonal": True},
        {"params": others, "orthogonal": False, "lr": lr, "weight_decay": weight_decay},
    ]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum; each step of a group marked `orthogonal` is made orthogonal first.

    `lr` is then the size of the step along every direction, whatever the gradient's; `weight_decay`
    acts on the gradient in the other groups, as in `torch.optim.SGD`, and on the weights themselves
    in the orthogonal ones.
    """

    def __init__(self, params, lr: float = 0.05, momentum: float = 0.9, weight_decay: float = 0.0):
        rule = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, rule | {"orthogonal": True})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: dict) -> None:
        lr, momentum, orthogonal = group["lr"], group["momentum"], group["orthogonal"]
        gradient = weight.grad
        if not orthogonal:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"]
        mean.mul_(momentum).add_(gradient)
        step = gradient.add(mean, alpha=momentum)
        if orthogonal:
            weight.mul_(1 - lr * group["weight_decay"])
            step = orthogonalize(step.flatten(1)).view_as(weight)
            step = step * max(1.0, step.shape[0] / step[0].numel()) ** 0.5
        weight.add_(step, alpha=-lr)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix, float32 (M, N), whose singular values are all 1: 0.7 to 1.2 here.

    A Newton-Schulz iteration with Muon's coefficients: steep at zero, not exact at one.
    """
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if wide is not matrix else x
