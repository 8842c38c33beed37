"""A page on which the reader draws a digit and a trained model answers, in the browser alone.

    page(Path("reports/every_seed/seed-0"), Path("reports"))     # HTML with the weights in it

The model is taken apart into its operations by torch.export, so any network of convolutions, batch norms, activations,
poolings, sums and means will do; `templates/network.js` carries them out. The tests compare it with torch.
"""

import base64
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data import MEAN, STD
from ..errors import RecordError
from ..templating import STYLE, TEMPLATES, fill
from .export import load_run, trace


def page(folder: Path, root: Path) -> str:
    """The page for the run in `folder`; it will lie in `root`, above it. Raises RecordError."""
    record, model = load_run(folder)
    try:
        network = {"mean": MEAN, "std": STD, "steps": program(model)}
        network["deskew"] = record.parameters.get("deskew", False)
    except ValueError as error:
        raise RecordError(f"{folder}: no page to draw on ({error})") from error
    return fill(
        "pad.html.j2",
        record=record,
        report=(folder / f"{record.notebook}.html").relative_to(root).as_posix(),
        network=json.dumps(network),
        style=STYLE.read_text(encoding="utf-8"),
        scripts=[(TEMPLATES / name).read_text(encoding="utf-8") for name in ("network.js", "pad.js")],
    )


def program(model: nn.Module) -> list[dict]:
    """The model's operations in order: name, the numbers of the maps they take, settings and weights.

    Map 0 is the image, map k what the k-th operation gives. Weights are base64 of little-endian float32; a batch norm
    is a factor and a term for each channel. Raises ValueError for an operation or setting that network.js lacks.
    """
    exported, steps = trace(model), []
    signature = exported.graph_signature
    held = signature.inputs_to_parameters | signature.inputs_to_buffers
    known: dict = {name: exported.state_dict[held[name]] for name in held if held[name] in exported.state_dict}
    known |= {name: 0 for name in signature.user_inputs}
    for node in (node for node in exported.graph.nodes if node.op == "call_function"):
        name, given = _call(node, known)
        taken = next(iter(given.values()))
        if name == "dropout":
            known[node.name] = taken
        else:
            steps.append({"op": name, "inputs": [taken]} | _step(name, given))
            known[node.name] = len(steps)
    return steps


def _call(node, known: dict) -> tuple[str, dict]:
    """The name of an ATen operation and its arguments by name, defaults included; maps are numbers, weights tensors."""
    declared = node.target._schema.arguments
    given = {a.name: a.default_value for a in declared} | dict(zip((a.name for a in declared), node.args)) | node.kwargs
    known_or_same = {name: known[value.name] if hasattr(value, "name") else value for name, value in given.items()}
    return node.target._schema.name.removeprefix("aten::"), known_or_same


def _step(name: str, a: dict) -> dict:
    if name == "conv2d" and set(a["dilation"]) == {1}:
        weights = {"weight": _packed(a["weight"]), "bias": None if a["bias"] is None else _packed(a["bias"])}
        settings = {"stride": a["stride"][0], "padding": a["padding"][0], "groups": a["groups"]}
        return {"shape": list(a["weight"].shape), **settings, **weights}
    if name == "batch_norm" and not a["training"]:
        variance, mean, weight, bias = (a[k].double() for k in ("running_var", "running_mean", "weight", "bias"))
        factor = weight / torch.sqrt(variance + a["eps"])
        return {"factor": _packed(factor), "term": _packed(bias - mean * factor)}
    if name == "max_pool2d" and a["stride"] == a["kernel_size"] and not any(a["padding"]) and not a["ceil_mode"]:
        return {"size": a["kernel_size"][0]}
    if name in ("relu", "silu", "sigmoid"):
        return {}
    if name == "add" and all(isinstance(a[side], int) for side in ("self", "other")):
        return {"inputs": [a["self"], a["other"]]}
    if name == "mean" and sorted(d % 4 for d in a["dim"]) == [2, 3] and not a["keepdim"]:
        return {}
    raise ValueError(f"templates/network.js has no {name} with these settings")


def _packed(weights: Tensor) -> str:
    return base64.b64encode(weights.detach().numpy().astype(np.dtype("<f4")).tobytes()).decode()
