"""The networks, how many parameters they have, and what each of their layers sees.

    model = build_model("seed")
    count_parameters(model)          # 9954
    print(format_layers(trace_layers(model)))

Every network takes normalised images, float32 of shape (N, 1, 28, 28), and returns logits, float32 of
shape (N, 10). None has a fully connected layer.
"""

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Dropout(nn.Dropout):
    """`nn.Dropout`, whose mask on the CPU is cut from 64-bit draws, four values a draw.

    torch draws one by one and on one thread: a tenth of the seed model's step. The rate is exact to 1 / 65536.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training or self.p == 0 or maps.device.type != "cpu":
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


@dataclass(frozen=True)
class Layer:
    """One operation that mixes pixels: a convolution, a pooling, a mean or a matrix product with fixed weights.

    Sizes are (height, width) in pixels. `receptive_field` is how many input pixels one output pixel can see along
    each side, `jump` how many input pixels lie between two neighbouring output pixels.
    """

    name: str
    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    channels: tuple[int, int]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    receptive_field: tuple[int, ...]
    jump: tuple[int, ...]

    def as_dict(self) -> dict:
        """For the run record."""
        return asdict(self)


def trace_layers(model: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> list[Layer]:
    """The layers that one image of `input_shape` (channels, height, width) passes through, in order.

    The tensor operations are watched, not the modules, so a functional call or a product with a bare parameter
    shows like any other. Receptive fields follow Araujo, Norris and Sim, "Computing Receptive Fields of
    Convolutional Neural Networks" (Distill, 2019); where branches meet, the larger field counts. The model is
    left as it was.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype)
    was_training, watcher = model.training, _Watcher(image)
    hooks = [hook for name, module in model.named_modules() for hook in watcher.follow(name, module)]
    try:
        with torch.no_grad(), watcher:
            model.eval()(image)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return watcher.layers


def format_layers(layers: list[Layer]) -> str:
    """The receptive-field table as text, one line a layer."""
    columns = "kernel stride padding input_size output_size receptive_field jump".split()
    line = ("{:<14}{:<17}" + "{:>9}" * 5 + "{:>17}{:>8}").format
    head = line("layer", "operation", *(column.replace("_size", "").replace("_", " ") for column in columns))
    cells = [["x".join(map(str, getattr(layer, column))) or "-" for column in columns] for layer in layers]
    rows = [line(layer.name, layer.kind, *row) for layer, row in zip(layers, cells)]
    return "\n".join([head, "-" * len(head), *rows])


@dataclass(frozen=True)
class _Sight:
    """What is known of one tensor on its way; holding the tensor keeps its identity its own."""

    tensor: Tensor
    receptive_field: tuple[int, ...] = (1, 1)
    jump: tuple[int, ...] = (1, 1)
    flattened: bool = False  # its channels hold what were pixels of a map


_POOLINGS = {"aten::max_pool2d_with_indices": "max pooling", "aten::avg_pool2d": "average pooling"}
_ADAPTIVE = {"aten::adaptive_max_pool2d": "max pooling", "aten::_adaptive_avg_pool2d": "average pooling"}
_REDUCTIONS = {"aten::mean": "mean", "aten::amax": "maximum", "aten::sum": "sum"}
_PRODUCTS = {f"aten::{name}" for name in "mm addmm bmm baddbmm mv addmv dot linear matmul _trilinear".split()}


class _Watcher(TorchDispatchMode):
    """Follows an image through every tensor operation and notes the layers on its way."""

    def __init__(self, image: Tensor):
        super().__init__()
        self.layers: list[Layer] = []
        self.sights = {id(image): _Sight(image)}
        self.inside: list[str] = []

    def follow(self, name: str, module: nn.Module):
        """Hooks that keep `inside[-1]` the name of the module at work."""
        yield module.register_forward_pre_hook(lambda *_: self.inside.append(name or "(model)"))
        yield module.register_forward_hook(lambda *_: self.inside.pop() and None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        operands = [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg])]
        operands = [x for x in operands if isinstance(x, Tensor)]
        sources = [self.sights[id(x)] for x in operands if id(x) in self.sights]
        results = [x for x in (out if isinstance(out, (list, tuple)) else [out]) if isinstance(x, Tensor)]
        if sources and results:
            source = max(sources, key=lambda sight: sight.receptive_field)
            sight = self._pass(func._schema.name, args, source, results[0], len(sources) < len(operands))
            self.sights |= {id(result): replace(sight, tensor=result) for result in results}
        return out

    def _pass(self, op: str, args: tuple, source: _Sight, result: Tensor, has_weights: bool) -> _Sight:
        """What is known of `result`, after noting the layer that made it if it mixes pixels."""
        before, after = tuple(source.tensor.shape[2:]), tuple(result.shape[2:])
        padding, dilation = (0,) * len(before), (1,) * len(before)
        if op == "aten::convolution":
            kind = "flat convolution" if source.flattened else "convolution"
            kernel, (stride, padding, dilation) = tuple(args[1].shape[2:]), map(tuple, args[3:6])
        elif op in _POOLINGS:
            kind, kernel, stride = _POOLINGS[op], tuple(args[1]), tuple(args[2:3] and args[2] or args[1])
            padding = tuple(args[3]) if len(args) > 3 else padding
        elif op in _ADAPTIVE or (op in _REDUCTIONS and before and result.numel() == source.tensor[..., 0, 0].numel()):
            kind, after = _ADAPTIVE.get(op) or _REDUCTIONS[op], after or (1,) * len(before)
            kernel = stride = tuple(b // a for b, a in zip(before, after))
        elif op in _PRODUCTS and has_weights:
            kind, kernel, stride = "matrix product", before, before
        else:
            flattens = math.prod(before) > 1 == math.prod(after) and result.numel() == source.tensor.numel()
            return replace(source, flattened=source.flattened or flattens)
        field, jump = source.receptive_field, source.jump
        if before:
            field = tuple(r + d * (k - 1) * j for r, d, k, j in zip(field, dilation, kernel, jump))
            jump = tuple(j * s for j, s in zip(jump, stride))
        channels = (source.tensor.shape[1], result.shape[1]) if result.ndim > 1 else (source.tensor.shape[-1], 1)
        name = self.inside[-1] if self.inside else "(model)"
        self.layers.append(Layer(name, kind, kernel, stride, padding, dilation, channels, before, after, field, jump))
        return _Sight(result, field, jump, flattened=False)
