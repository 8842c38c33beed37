"""A trained model in a format that other runtimes read: ONNX, or a torch.export program (.pt2).

    export(Path("reports/every_seed/seed-0"), Path("model.onnx"), "onnx")

Both are made by torch.export, which every torch from 2.6 on has; TorchScript is deprecated and not offered. The file
takes images as the network does, float32 (N, 1, 28, 28) with MNIST's mean at 0 and standard deviation 1, any N, and
gives logits, float32 (N, 10); a model trained with `deskew` takes images that `augment.straighten` has set upright
before. It replaces what stood there only if it answers as the model does.
"""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..data import load_digits, normalize
from ..errors import ExportError, RecordError
from ..models import build_model
from ..records import RunRecord, atomic_write

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4  # of a logit
EXTRA = ("onnx", "onnxscript", "onnxruntime")


def export(folder: Path, to: Path | None = None, form: str = "onnx") -> tuple[Path, float]:
    """Write the model of the run in `folder` to `to` (without it: model.onnx or model.pt2 beside its weights).

    Returns the path and the largest difference of a logit between the file and the model, over 360 images of digits.
    Raises RecordError where the folder holds no run with weights, ExportError where the packages of the extra
    `[export]` are missing or the difference exceeds `TOLERANCE`; then nothing is written.
    """
    if form == "onnx" and (missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]):
        raise ExportError(f"ONNX needs {', '.join(missing)}: pip install -e .[export] (--format torch does without)")
    _, model = load_run(folder)
    images = normalize(load_digits("to compare with").validation_images).unsqueeze(1)
    to = to or folder / f"model{SUFFIXES[form]}"
    with atomic_write(to) as part, torch.no_grad():
        answer = _write_onnx(model, part) if form == "onnx" else _write_program(model, part)
        difference = float((answer(images) - model(images)).abs().max())
        if not difference <= TOLERANCE:
            raise ExportError(f"the exported model differs from torch by {difference:.1e} in a logit; nothing written")
    return to, difference


def load_run(folder: Path) -> tuple[RunRecord, nn.Module]:
    """The record in `folder` and its model in evaluation mode with the weights beside it. Raises RecordError."""
    record, path = RunRecord.load(folder), folder / "model.safetensors"
    try:
        model = build_model(record.model.get("name"))
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise RecordError(f"{path}: no weights; run the notebook again, or take a run that kept them") from None
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise RecordError(f"{path}: not the weights of this run ({str(error).splitlines()[0]})") from error
    return record, model.eval()


def trace(model: nn.Module) -> torch.export.ExportedProgram:
    """The model's operations on images, float32 (N, 1, 28, 28), for any N."""
    batch = {0: torch.export.Dim("batch", min=1)}
    return torch.export.export(model.eval(), (torch.zeros(2, 1, 28, 28),), dynamic_shapes=(batch,))


def _write_program(model: nn.Module, path: Path):
    torch.export.save(trace(model), path)
    return torch.export.load(path).module()


def _write_onnx(model: nn.Module, path: Path):
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            trace(model), f=path, input_names=["images"], output_names=["logits"], dynamo=True, external_data=False,
            verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)

    return answer
