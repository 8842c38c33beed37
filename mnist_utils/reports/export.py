"""A trained model for other runtimes: ONNX, a torch.export program (.pt2), or the steps of the pad.

    export(Path("reports/every_seed/seed-0"), Path("model.onnx"), "onnx")

A file takes images as the network does, float32 (N, 1, 28, 28) with MNIST's mean at 0 and standard
deviation 1, any N, and gives logits, float32 (N, 10). A model trained with `deskew` takes images
that `augment.straighten` has straightened before.
"""

import base64
import importlib.util
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..data import MEAN, STD, load_digits, normalize
from ..errors import ExportError, RecordError
from ..models import build_model
from ..records import RunRecord, atomic_write

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4  # of a logit
EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export(folder: Path, to: Path | None = None, form: str = "onnx") -> tuple[Path, float]:
    """Write the model of the run in `folder` to `to`, or to model.onnx or model.pt2 beside its weights.

    Returns the path and the largest difference of a logit between file and model, over 360 images of
    digits. Raises RecordError where the folder holds no run with weights, ExportError where packages
    of the extra `[export]` are missing or the difference exceeds `TOLERANCE`; nothing is written then.
    """
    missing = [name for name in EXTRA if form == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        needed = f"ONNX needs {', '.join(missing)}"
        raise ExportError(f"{needed}: pip install -e .[export] (--format torch does without)")
    _, model = load_run(folder)
    images = normalize(load_digits("to compare with").validation_images).unsqueeze(1)
    to = to or folder / f"model{SUFFIXES[form]}"
    write = _write_onnx if form == "onnx" else _write_program
    with atomic_write(to) as part, torch.no_grad():
        answer = write(model, part)
        difference = float((answer(images) - model(images)).abs().max())
        if not difference <= TOLERANCE:
            differs = f"the exported model differs from torch by {difference:.1e} in a logit"
            raise ExportError(f"{differs}; nothing written")
    return to, difference


def load_run(folder: Path) -> tuple[RunRecord, nn.Module]:
    """The record in `folder` and its model in evaluation mode. Raises RecordError."""
    record, path = RunRecord.load(folder), folder / "model.safetensors"
    try:
        model = build_model(record.model.get("name"))
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise RecordError(f"{path}: no weights; take a run that kept them") from None
    except (SafetensorError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"{path}: not the weights of this run ({reason})") from error
    return record, model.eval()


def _trace(model: nn.Module) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1)}
    return torch.export.export(model.eval(), (torch.zeros(2, 1, 28, 28),), dynamic_shapes=(batch,))


def _write_program(model: nn.Module, path: Path):
    torch.export.save(_trace(model), path)
    return torch.export.load(path).module()


def _write_onnx(model: nn.Module, path: Path):
    import onnxruntime

    with warnings.catch_warnings():
        # The exporter warns about itself.
        warnings.simplefilter("ignore")
        names = dict(input_names=["images"], output_names=["logits"])
        how = dict(dynamo=True, external_data=False, verbose=False)
        torch.onnx.export(_trace(model), f=path, **names, **how)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def pad_model(folder: Path) -> dict:
    """The run in `folder` as the pad's scripts take it. Raises RecordError, and as `program` does."""
    record, model = load_run(folder)
    notebook = folder.parent.name
    return {
        "name": f"{notebook}, seed {record.seed}",
        "report": f"{notebook}/{folder.name}/{notebook}.html",
        "parameters": record.model["parameters"],
        "accuracy": record.last.validation_accuracy,
        "deskew": record.parameters.get("deskew") is True,
        "mean": MEAN,
        "std": STD,
        "steps": program(model),
    }


def program(model: nn.Module) -> list[dict]:
    """The model's operations for `templates/network.js`: name, maps that they take, settings, weights.

    Map 0 is the image, map k what the k-th operation gives. Weights are base64 of little-endian
    float32; a batch norm is a factor and a term for each channel. Raises ValueError for an operation
    or setting that network.js lacks.
    """
    exported, steps = _trace(model), []
    signature, state = exported.graph_signature, exported.state_dict
    held = signature.inputs_to_parameters | signature.inputs_to_buffers
    # What each node of the graph stands for: the number of a map, or a weight.
    known = {name: state[held[name]] for name in held if held[name] in state}
    known |= {name: 0 for name in signature.user_inputs}
    for node in (node for node in exported.graph.nodes if node.op == "call_function"):
        called = node.target.name().removeprefix("aten::").partition(".")[0]
        name = called.removesuffix("_")
        given = node.normalized_arguments(exported.graph_module, normalize_to_only_use_kwargs=True)
        values = {k: known[v.name] if hasattr(v, "name") else v for k, v in given.kwargs.items()}
        if name == "dropout":
            known[node.name] = values["input"]
        else:
            steps.append({"op": name, "inputs": [values["input"]]} | _step(name, values))
            known[node.name] = len(steps)
            if called.endswith("_"):  # in place: what it was given is changed as well
                known[given.kwargs["input"].name] = len(steps)
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
    return base64.b64encode(weights.detach().numpy().astype("<f4").tobytes()).decode()
