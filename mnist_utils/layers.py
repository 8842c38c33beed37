"""What each layer of a network sees of the image: the receptive fields of any model.

    layers = trace_layers(build_model("seed"))
    layers[-1].receptive_field          # (28, 28)

The verdict on fully connected layers follows from these too, so tensor operations are watched,
behind which no layer can hide, and not modules.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker


@dataclass(frozen=True)
class Layer:
    """One operation that mixes pixels: a convolution, a pooling, a mean or a product with weights.

    Sizes are (height, width) in pixels. `receptive_field` is how many input pixels one output value
    depends on along each side, `jump` how many lie between two neighbouring output values.
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


def trace_layers(model: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> list[Layer]:
    """The layers that one image of `input_shape` (channels, height, width) passes, in order.

    Receptive fields follow Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional
    Neural Networks" (Distill, 2019); where branches meet, the larger counts. The model is left as
    it was.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype)
    was_training = model.training
    modules = ModuleTracker()
    watcher = _Watcher(image, modules)
    try:
        with torch.no_grad(), modules, watcher:
            model.eval()(image)
    finally:
        model.train(was_training)
    return watcher.layers


@dataclass(frozen=True)
class _Sight:
    """What is known of one tensor on its way; holding the tensor keeps its identity its own."""

    tensor: Tensor
    receptive_field: tuple[int, ...] = (1, 1)
    jump: tuple[int, ...] = (1, 1)
    flattened: bool = False  # its channels hold what were pixels of a map


_POOLINGS = {"max_pool2d_with_indices": "max pooling", "avg_pool2d": "average pooling"}
_ADAPTIVE = {"adaptive_max_pool2d": "max pooling", "_adaptive_avg_pool2d": "average pooling"}
_REDUCTIONS = {"mean": "mean", "amax": "maximum", "sum": "sum"}
_PRODUCTS = "mm addmm bmm baddbmm mv addmv dot linear matmul _trilinear".split()


class _Watcher(TorchDispatchMode):
    """Follows an image through every tensor operation and notes the layers on its way."""

    def __init__(self, image: Tensor, modules: ModuleTracker):
        super().__init__()
        self.modules = modules
        self.layers: list[Layer] = []
        self.sights = {id(image): _Sight(image)}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        operands = _tensors(args)
        results = _tensors([out])
        sources = [self.sights[id(x)] for x in operands if id(x) in self.sights]
        if sources and results:
            source = max(sources, key=lambda sight: sight.receptive_field)
            # "aten::mean.dim" is a form of "mean".
            name = func.name().removeprefix("aten::").partition(".")[0]
            sight = self._pass(name, args, source, results[0], len(sources) < len(operands))
            self.sights |= {id(result): replace(sight, tensor=result) for result in results}
        return out

    def _pass(self, op: str, args, source: _Sight, result: Tensor, has_weights: bool) -> _Sight:
        """What is known of `result`, after noting the layer that made it if it mixes pixels."""
        tensor = source.tensor
        before, after = tuple(tensor.shape[2:]), tuple(result.shape[2:])
        padding, dilation = (0,) * len(before), (1,) * len(before)
        reduces = op in _REDUCTIONS and before and result.numel() == tensor[..., 0, 0].numel()
        if op == "convolution":
            kind = "flat convolution" if source.flattened else "convolution"
            kernel, (stride, padding, dilation) = tuple(args[1].shape[2:]), map(tuple, args[3:6])
        elif op in _POOLINGS:
            kind, kernel = _POOLINGS[op], tuple(args[1])
            # Without a stride, the windows lie side by side.
            stride = tuple(args[2:3] and args[2] or kernel)
            padding = tuple(args[3]) if len(args) > 3 else padding
        elif op in _ADAPTIVE or reduces:
            kind, after = _ADAPTIVE.get(op) or _REDUCTIONS[op], after or (1,) * len(before)
            kernel = stride = tuple(b // a for b, a in zip(before, after))
        elif op in _PRODUCTS and has_weights:
            kind, kernel, stride = "matrix product", before, before
        else:
            flat = math.prod(before) > 1 == math.prod(after) and result.numel() == tensor.numel()
            return replace(source, flattened=source.flattened or flat)
        field = source.receptive_field
        jump = source.jump
        if before:
            field = tuple(r + d * (k - 1) * j for r, d, k, j in zip(field, dilation, kernel, jump))
            jump = tuple(j * s for j, s in zip(jump, stride))
        channels = (tensor.shape[-1], 1)
        if result.ndim > 1:
            channels = (tensor.shape[1], result.shape[1])
        # The innermost module has the longest name, which begins with the class of the whole model.
        name = max(self.modules.parents - {"Global"}, key=len).partition(".")[2] or "(model)"
        sizes = (channels, before, after, field, jump)
        self.layers.append(Layer(name, kind, kernel, stride, padding, dilation, *sizes))
        return _Sight(result, field, jump)


def _tensors(values) -> list[Tensor]:
    """The tensors among values, and in the lists and tuples among them."""
    nested = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    return [value for part in nested for value in part if isinstance(value, Tensor)]
