"""What the tests share: small MNIST files they write themselves, and the way to real MNIST where there is one.

Tests that want real MNIST take a folder with its four .gz files from the variable MNIST_MIRROR.
"""

import gzip
import hashlib
import os
import re
import signal
import struct
from pathlib import Path

import nbformat
import pytest
import torch

from mnist_utils.data import CHECKSUMS, SHAPES, load_data
from mnist_utils.records import EpochRow, RunRecord

ROOT = Path(__file__).parent.parent
FAULTS = """Three runs side by side, of which one goes wrong the first time; the other two complete, and the same
command then completes the rest. The seconds are those of that second command, on cores that other work shares.
Runs of the project's notebooks resume after their last finished epoch; the small ones used here begin
anew. Written by
`python -m pytest tests/test_faults.py tests/test_cluster.py --fault-table reports/faults/README.md`.
"""


if hasattr(signal, "SIGHUP"):
    # Under nohup the tests, too, would start programs that ignore a closed terminal.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser):
    parser.addoption(
        "--fault-table", metavar="FILE", help="write the table of tests/test_faults.py to FILE"
    )
    parser.addoption(
        "--screenshots",
        type=Path,
        metavar="DIR",
        help="where tests/test_jupyterlab.py puts its pictures",
    )


@pytest.fixture(scope="session")
def fault_table(request):
    """Takes a row of the fault table: the fault, what was lost, and the seconds until all was complete again."""
    rows = []
    yield lambda *row: rows.append(row)
    file = request.config.getoption("--fault-table")
    if file and rows:
        lines = ["| fault | what was lost | seconds until all was complete |", "|---|---|---|"]
        lines += [f"| {fault} | {lost} | {seconds:.1f} |" for fault, lost, seconds in rows]
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(
            f"# Faults, each done for real\n\n{FAULTS}\n" + "\n".join(lines) + "\n"
        )


@pytest.fixture(scope="session")
def real_mirror() -> str:
    """The folder or URL of the real MNIST archives."""
    mirror = os.environ.get("MNIST_MIRROR", "")
    if not mirror:
        pytest.skip("no MNIST (set MNIST_MIRROR to a folder with its four .gz files)")
    return str((ROOT / mirror).resolve()) if "://" not in mirror else mirror


@pytest.fixture(scope="session")
def real_root(real_mirror, tmp_path_factory) -> Path:
    """A cache that holds real MNIST."""
    root = tmp_path_factory.mktemp("mnist")
    load_data("mnist", root, real_mirror)
    return root


@pytest.fixture(scope="session")
def real_data(real_root):
    return load_data("mnist", real_root)


def idx_bytes(tensor: torch.Tensor) -> bytes:
    """A uint8 tensor as an IDX file."""
    return (
        struct.pack(f">HBB{tensor.ndim}I", 0, 8, tensor.ndim, *tensor.shape)
        + tensor.numpy().tobytes()
    )


@pytest.fixture
def small_mnist(tmp_path, monkeypatch) -> Path:
    """A mirror folder of 300 + 60 random images in MNIST's format, which the package takes for MNIST."""
    from torchvision.datasets import MNIST

    generator = torch.Generator().manual_seed(0)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for part, count in (("train", 300), ("t10k", 60)):
        images = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (count,), generator=generator, dtype=torch.uint8)
        for name, tensor in (
            (f"{part}-images-idx3-ubyte", images),
            (f"{part}-labels-idx1-ubyte", labels),
        ):
            monkeypatch.setitem(SHAPES, name, tuple(tensor.shape))
            monkeypatch.setitem(
                CHECKSUMS, name, hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
            )
            (mirror / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(tensor), mtime=0))
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    return mirror


def filled_in(notebook: Path, **values) -> nbformat.NotebookNode:
    """The notebook with other values in its form, as a student leaves it who edits that."""
    filled = nbformat.read(notebook, as_version=4)
    form = next(cell for cell in filled.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in values.items():
        line = re.compile(rf"^({name}: \w+ =) \S+", re.MULTILINE)
        form.source, count = line.subn(lambda found: f"{found[1]} {value!r}", form.source)  # noqa: B023
        assert count == 1, name
    return filled


def make_record(correct=(9800, 9942, 9926), total=10_000, **facts) -> RunRecord:
    """A completed MNIST run of the seed model, an epoch for each count of right answers."""
    layer = dict(
        name="a", kind="convolution", kernel=[3, 3], stride=[1, 1], padding=[0, 0], dilation=[1, 1]
    )
    layer |= dict(
        channels=[1, 8],
        input_size=[28, 28],
        output_size=[26, 26],
        receptive_field=[3, 3],
        jump=[1, 1],
    )
    known = dict(
        status="completed",
        seed=0,
        dataset={"name": "mnist", "split": "assignment"},
        model={"name": "seed", "parameters": 9954, "layers": [layer]},
    )
    rows = [
        EpochRow(n, 0.01, 0.3 / n, 59_000, 60_000, 5.0, 0.2 / n, c, total, 0.3)
        for n, c in enumerate(correct, 1)
    ]
    return RunRecord.start("01_seed_model", {"epochs": len(rows)}, epochs=rows, **(known | facts))
