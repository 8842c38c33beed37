"""The networks, and how many parameters they have.

    model = build_model("seed")
    count_parameters(model)          # 9954

Every network takes normalised images, float32 of shape (N, 1, 28, 28), and returns logits, float32
of shape (N, 10). None has a fully connected layer.
"""

import inspect
import re
from functools import partial

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout`, whose mask on the CPU is cut from 64-bit draws, four values a draw.

    torch draws one by one and on one thread, which takes a tenth of the seed model's step. The rate
    is exact to 1 / 65536.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training or self.p in (0, 1) or maps.device.type != "cpu":
            return super().forward(maps)
        draws = torch.empty(-(-maps.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        # Even from -32768 to 32767, and laid out as the maps, or densely where these are not.
        strides = torch.empty_like(maps, device="meta").stride()
        ranks = draws.view(torch.int16).as_strided(maps.shape, strides)
        return maps * ((ranks >= round(65536 * self.p) - 32768) / (1 - self.p))


class SeedModel(nn.Module):
    """The student's model this project grew from: 9,954 parameters, logits by averaging a 2x2 map.

    Layers, order and counts are the original's. It did not publish its dropout rate; 0.1 is ours.
    `width` scales the channels, for measuring how cost grows.
    """

    def __init__(self, dropout: float = 0.1, width: float = 1.0):
        super().__init__()
        narrow, wide, widest = (round(width * channels) for channels in (8, 16, 32))
        # The comments are the sizes of the maps at width 1.
        self.block1 = nn.Sequential(
            nn.Conv2d(1, narrow, 3),  # 1 x 28 x 28 to 8 x 26 x 26
            nn.ReLU(),
            nn.BatchNorm2d(narrow),
            nn.Conv2d(narrow, wide, 3),  # to 16 x 24 x 24
            nn.ReLU(),
            nn.BatchNorm2d(wide),
        )
        self.transition = nn.Sequential(
            nn.Conv2d(wide, narrow, 1),  # to 8 x 24 x 24
            nn.MaxPool2d(2),  # to 8 x 12 x 12
            Dropout(dropout),
        )
        self.block2 = nn.Sequential(
            nn.Conv2d(narrow, wide, 3),  # to 16 x 10 x 10
            nn.ReLU(),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, wide, 3),  # to 16 x 8 x 8
            nn.ReLU(),
            nn.BatchNorm2d(wide),
            nn.MaxPool2d(2),  # to 16 x 4 x 4
            Dropout(dropout),
        )
        self.head = nn.Sequential(
            nn.Conv2d(wide, widest, 3),  # to 32 x 2 x 2
            nn.Conv2d(widest, 10, 1),  # to 10 x 2 x 2
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.head(self.block2(self.transition(self.block1(images))))
        return maps.mean(dim=(2, 3))


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, a 1x1 that mixes them, batch norm, activation.

    As in MobileNet (Howard et al., 2017), but with one batch norm. With `times`, the same weights
    are used that often, one after the other, each time with a batch norm of their own. `skip` adds
    what came in. `border` is how many rows and columns of zeros surround the map; with 0 it comes
    out 2 narrower.
    """

    def __init__(
        self,
        inward: int,
        outward: int,
        activation: type[nn.Module],
        times: int = 1,
        skip: bool = False,
        border: int = 1,
    ):
        super().__init__()
        self.depthwise = nn.Conv2d(inward, inward, 3, padding=border, groups=inward, bias=False)
        self.pointwise = nn.Conv2d(inward, outward, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outward) for _ in range(times))
        self.activation, self.skip = activation(), skip

    def forward(self, maps: Tensor) -> Tensor:
        for norm in self.norms:
            new = self.activation(norm(self.pointwise(self.depthwise(maps))))
            maps = maps + new if self.skip and maps.shape == new.shape else new
        return maps


class ConvNet(nn.Module):
    """A chain of blocks written as words, and a 1x1 convolution to ten maps, averaged to logits.

    "c16" is a 3x3 convolution to 16 channels, batch norm, activation ("C16" a 5x5); "d16" a
    `Separable`, "d16*3" one used three times over, "r16" one with a skip; "v16" and "s16" are "c16"
    and "d16" without a border of zeros, after which the map is 2 narrower; "M" halves the map by
    its maxima. Raises ValueError for other words.
    """

    def __init__(self, blocks: str, activation: str = "ReLU"):
        super().__init__()
        self.body, channels = nn.Sequential(), 1
        for word in blocks.split():
            found = re.fullmatch(r"M|([cCvdrs])(\d+)(?:\*(\d+))?", word)
            if not found:
                known = "c16, C16, v16, d16, d16*2, r16, s16 and M"
                raise ValueError(f"unknown block {word!r} in {blocks!r}; there are {known}")
            kind, width, times = found[1], int(found[2] or channels), int(found[3] or 1)
            self.body.extend(block(kind, channels, width, times, getattr(nn, activation)))
            channels = width
        self.head = nn.Conv2d(channels, 10, 1)
        # The largest maps of a step do not fit the processor's cache twice.
        for layer in self.body.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = True

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images)).mean(dim=(2, 3))


def block(
    kind: str | None, inward: int, outward: int, times: int, activation: type[nn.Module]
) -> list[nn.Module]:
    """The layers of one of `ConvNet`'s words."""
    if kind is None:
        return [nn.MaxPool2d(2)]
    if kind in "drs":
        border = 0 if kind == "s" else 1
        return [Separable(inward, outward, activation, times, skip=kind == "r", border=border)]
    side = 5 if kind == "C" else 3
    border = 0 if kind == "v" else side // 2
    convolution = nn.Conv2d(inward, outward, side, padding=border, bias=False)
    return [convolution, nn.BatchNorm2d(outward), activation()]


MODELS = {
    "seed": SeedModel,
    "smallest": partial(ConvNet, "v12 s20 M s16 s20 M s20", "SiLU"),
    "most_accurate": partial(ConvNet, "v16 s40 M d48 r48 r48 M d72 r72"),
    "fewest_epochs": partial(ConvNet, "v16 v16 M v24 v24 M v32"),
    "quickest": partial(ConvNet, "v12 v16 M v24 v24 M v32"),
}


def build_model(name: str, **options) -> nn.Module:
    """A new network, which carries its `name`; torch's global generator draws its weights.

    Raises ValueError for a name that is not in `MODELS`.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(sorted(MODELS))}")
    model = MODELS[name](**options)
    model.name = name
    return model


def count_parameters(model: nn.Module) -> int:
    """How many numbers training adjusts, each shared one counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def show_source(*networks: type[nn.Module]) -> None:
    """Print the source of these classes as it stands in the package."""
    print("\n\n".join(inspect.getsource(network) for network in networks))
