"""A page on which the reader draws a digit and trained models answer, in the browser alone.

torch.export takes a model apart into its operations; `templates/network.js` carries them out. So
any network of convolutions, batch norms, activations, poolings, sums and means will do.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data import MEAN, STD
from ..errors import RecordError
from ..templating import fill
from .export import load_run, trace
from .html import whole_page
from .results import Result, run_folders

SCRIPTS = ("network.js", "image.js", "pad.js")


def page(results: list[Result], root: Path) -> str:
    """The page for the first seeds of `results`; it lies in `root`, and opens with the first result.

    A network that the page cannot run is left out, and standard error says so. With the test images
    that `hardest/to_try.json` holds, where it is there.
    """
    models = []
    for result in results:
        try:
            models.append(_model(result, root))
        except (RecordError, ValueError) as error:
            print(f"not on the pad: {result.name} ({error})", file=sys.stderr)
    file = root / "hardest/to_try.json"
    images = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    # In a script, "</" would end it.
    data = json.dumps({"models": models, "images": images}).replace("<", "\\u003c")
    body = fill("pad.html.j2", models=models, images=images, data=data)
    return whole_page(root / "pad.html", root, "Draw a digit", body, SCRIPTS)


def _model(result: Result, root: Path) -> dict:
    folder = run_folders(root, [result])[0]
    record, model = load_run(folder)
    return {
        "name": f"{result.name}, seed {record.seed}",
        "report": (folder / f"{result.name}.html").relative_to(root).as_posix(),
        "parameters": record.model["parameters"],
        "accuracy": record.last.validation_accuracy,
        "deskew": record.parameters.get("deskew") is True,
        "mean": MEAN,
        "std": STD,
        "steps": program(model),
    }


def program(model: nn.Module) -> list[dict]:
    """The model's operations in order: name, numbers of the maps they take, settings and weights.

    Map 0 is the image, map k what the k-th operation gives. Weights are base64 of little-endian
    float32; a batch norm is a factor and a term for each channel. Raises ValueError for an operation
    or setting that network.js lacks.
    """
    exported, steps = trace(model), []
    signature, state = exported.graph_signature, exported.state_dict
    held = signature.inputs_to_parameters | signature.inputs_to_buffers
    # What each node of the graph stands for: the number of a map, or a weight.
    known = {name: state[held[name]] for name in held if held[name] in state}
    known |= {name: 0 for name in signature.user_inputs}
    for node in (node for node in exported.graph.nodes if node.op == "call_function"):
        name = node.target.name().removeprefix("aten::").partition(".")[0]
        given = node.normalized_arguments(exported.graph_module, normalize_to_only_use_kwargs=True)
        values = {k: known[v.name] if hasattr(v, "name") else v for k, v in given.kwargs.items()}
        if name == "dropout":
            known[node.name] = values["input"]
        else:
            steps.append({"op": name, "inputs": [values["input"]]} | _step(name, values))
            known[node.name] = len(steps)
    return steps


def _step(name: str, a: dict) -> dict:
    if name == "conv2d" and set(a["dilation"]) == {1}:
        bias = None if a["bias"] is None else _packed(a["bias"])
        weights = {"shape": list(a["weight"].shape), "weight": _packed(a["weight"]), "bias": bias}
        return weights | {k: a[k][0] for k in ("stride", "padding")} | {"groups": a["groups"]}
    if name == "batch_norm" and not a["training"]:
        factor = a["weight"].double() / torch.sqrt(a["running_var"].double() + a["eps"])
        term = a["bias"].double() - a["running_mean"].double() * factor
        return {"factor": _packed(factor), "term": _packed(term)}
    whole = name == "max_pool2d" and not any(a["padding"]) and not a["ceil_mode"]
    if whole and a["stride"] == a["kernel_size"]:
        return {"size": a["kernel_size"][0]}
    if name in ("relu", "silu", "sigmoid"):
        return {}
    if name == "add" and all(isinstance(a[side], int) for side in ("input", "other")):
        return {"inputs": [a["input"], a["other"]]}
    if name == "mean" and sorted(d % 4 for d in a["dim"]) == [2, 3] and not a["keepdim"]:
        return {}
    raise ValueError(f"templates/network.js has no {name} with these settings")


def _packed(weights: Tensor) -> str:
    return base64.b64encode(weights.detach().numpy().astype(np.dtype("<f4")).tobytes()).decode()
