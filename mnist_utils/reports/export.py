"""A trained model in a format that other runtimes read: ONNX, or a torch.export program (.pt2).

    export(Path("reports/every_seed/seed-0"), Path("model.onnx"), "onnx")

The file takes images as the network does, float32 (N, 1, 28, 28) with MNIST's mean at 0 and standard
deviation 1, any N, and gives logits, float32 (N, 10). A model trained with `deskew` takes images
that `augment.straighten` has straightened before.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..data import load_digits, normalize
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
        # The exporter warns about itself.
        warnings.simplefilter("ignore")
        names = dict(input_names=["images"], output_names=["logits"])
        how = dict(dynamo=True, external_data=False, verbose=False)
        torch.onnx.export(trace(model), f=path, **names, **how)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
