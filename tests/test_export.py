"""What is exported, loaded by its own runtime and compared with the model that was saved."""

import pytest
import torch
from conftest import make_record

from mnist_utils.__main__ import main
from mnist_utils.models import build_model
from mnist_utils.reports import export as room
from mnist_utils.training import save_weights


@pytest.fixture(params=["seed", "most_accurate"])
def run(request, tmp_path):
    """A run's folder with weights that no initialisation gives, and the model."""
    torch.manual_seed(1)
    model = build_model(request.param).train()
    with torch.no_grad():
        model(3 * torch.randn(64, 1, 28, 28))
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    make_record(model={"name": request.param, "parameters": 1, "layers": []}).save(tmp_path / "run")
    save_weights(model, tmp_path / "run/model.safetensors")
    return tmp_path / "run", model.eval()


@pytest.mark.parametrize("count", [1, 7])
def test_a_program_answers_as_the_model_for_any_number_of_images(run, capsys, count):
    folder, model = run
    assert main(["export", str(folder), "--format", "torch"]) == 0
    assert "model.pt2: " in capsys.readouterr().out
    images = torch.randn(count, 1, 28, 28)
    torch.testing.assert_close(
        torch.export.load(folder / "model.pt2").module()(images), model(images)
    )


def test_onnx_answers_as_the_model_for_any_number_of_images(run, tmp_path, capsys):
    for package in room.EXTRA:
        pytest.importorskip(package, reason=f"no {package}: pip install -e .[export]")
    import onnxruntime

    folder, model = run
    assert main(["export", str(folder), "--to", str(tmp_path / "net.onnx")]) == 0
    assert "differs from torch by at most" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for count in (1, 7):
        images = torch.randn(count, 1, 28, 28)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(images), atol=1e-4, rtol=1e-4)
    assert not list(folder.glob("*.onnx")) and not list(tmp_path.glob("*.data"))


@pytest.mark.parametrize(
    "damage", ["no run", "no weights", "other weights", "damaged weights", "unknown model", "place"]
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(tmp_path, capsys, damage):
    make_record(model={"name": "none" if damage == "unknown model" else "seed", "layers": []}).save(
        tmp_path
    )
    save_weights(
        build_model("smallest" if damage == "other weights" else "seed"),
        tmp_path / "model.safetensors",
    )
    if damage in ("no run", "no weights"):
        (tmp_path / {"no run": "run.json", "no weights": "model.safetensors"}[damage]).unlink()
    if damage == "damaged weights":
        (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    to = tmp_path / ("missing/a.pt2" if damage == "place" else "a.pt2")
    assert main(["export", str(tmp_path), "--format", "torch", "--to", str(to)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    expected = {
        "no run": "no such record",
        "no weights": "no weights",
        "unknown model": "unknown model 'none'",
    }
    assert expected.get(damage, "not the weights" if damage != "place" else "missing") in line
    assert {path.name for path in tmp_path.iterdir()} <= {
        "run.json",
        "metrics.csv",
        "model.safetensors",
    }


def test_missing_packages_are_named(run, monkeypatch, capsys):
    monkeypatch.setattr(room, "EXTRA", ("onnx", "a_package_that_is_not_there"))
    assert main(["export", str(run[0])]) == 2
    assert "a_package_that_is_not_there: pip install" in capsys.readouterr().err


def test_an_export_that_answers_otherwise_is_not_kept(run, monkeypatch, capsys):
    monkeypatch.setattr(
        room, "_write_program", lambda model, path: lambda images: model(images) + 0.001
    )
    assert main(["export", str(run[0]), "--format", "torch"]) == 2
    assert "differs from torch by 1.0e-03" in capsys.readouterr().err
    assert not (run[0] / "model.pt2").exists()
