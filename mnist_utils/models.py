"""The networks, and how many parameters they have.

    model = build_model("seed")
    count_parameters(model)          # 9954

Every network takes normalised images, float32 of shape (N, 1, 28, 28), and returns logits, float32 of
shape (N, 10). None has a fully connected layer.
"""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout`, whose mask on the CPU is cut from 64-bit draws, four values a draw.

    torch draws one by one and on one thread: a tenth of the seed model's step. The rate is exact to 1 / 65536.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1) or maps.device.type != "cpu":
            return super().forward(maps)
        draws = torch.empty(-(-maps.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        ranks = draws.view(torch.int16).as_strided(maps.shape, maps.stride())  # -32768..32767, evenly
        return maps * ((ranks >= round(65536 * self.p) - 32768) / (1 - self.p))


class SeedModel(nn.Module):
    """The student's model this project grew from: 9,954 parameters, logits by averaging a 2x2 map.

    Layers, order and counts are the original's. It did not publish its dropout rate; 0.1 is ours. `width` scales the
    channels, for measuring how cost grows.
    """

    def __init__(self, dropout: float = 0.1, width: float = 1.0):
        super().__init__()
        narrow, wide, widest = (round(width * channels) for channels in (8, 16, 32))
        self.block1 = nn.Sequential(  #                                         1 x 28 x 28
            nn.Conv2d(1, narrow, 3), nn.ReLU(), nn.BatchNorm2d(narrow),  #      8 x 26 x 26
            nn.Conv2d(narrow, wide, 3), nn.ReLU(), nn.BatchNorm2d(wide),  #    16 x 24 x 24
        )  # fmt: skip
        self.transition = nn.Sequential(
            nn.Conv2d(wide, narrow, 1), nn.MaxPool2d(2), Dropout(dropout),  # 8 x 12 x 12
        )  # fmt: skip
        self.block2 = nn.Sequential(
            nn.Conv2d(narrow, wide, 3), nn.ReLU(), nn.BatchNorm2d(wide),  #    16 x 10 x 10
            nn.Conv2d(wide, wide, 3), nn.ReLU(), nn.BatchNorm2d(wide),  #      16 x 8 x 8
            nn.MaxPool2d(2), Dropout(dropout),  #                           16 x 4 x 4
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Conv2d(wide, widest, 3), nn.Conv2d(widest, 10, 1),  #           10 x 2 x 2
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        maps = self.head(self.block2(self.transition(self.block1(images))))
        return maps.mean(dim=(2, 3))


MODELS = {"seed": SeedModel}


def build_model(name: str, **options) -> nn.Module:
    """A new network by name, its weights drawn from torch's global generator.

    Raises ValueError for a name that is not in `MODELS`.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(sorted(MODELS))}")
    return MODELS[name](**options)


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts, each shared one counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
