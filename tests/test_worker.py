"""Processes that have their libraries imported already: as if each were new, and gone when the batch is."""

import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT

from mnist_utils.batch.plan import Job, run_batch
from mnist_utils.batch.worker import FORKS, Worker
from mnist_utils.parameters import find_notebook
from mnist_utils.records import RunRecord

pytestmark = pytest.mark.skipif(not FORKS, reason="forks as on Linux")

PARAMETERS = 'seed: int = 0\nout_dir: str = "results"'
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
LOOK = """
import sys
known = [name for name in ("torch", "mnist_utils") if name in sys.modules]
import atexit, json, os, random
from pathlib import Path
import matplotlib.pyplot as plt
import numpy as np
import torch

atexit.register((Path(out_dir) / "left").touch)
loader = torch.utils.data.DataLoader(range(4), num_workers=1, multiprocessing_context="fork")
facts = dict(known=known, pid=os.getpid(), draws=[random.random(), np.random.rand()], sum=int(sum(loader)))
facts |= dict(torch_seed=torch.initial_seed(), name=__name__, folder=os.getcwd())
facts["device"] = os.environ["CUDA_VISIBLE_DEVICES"]
(Path(out_dir) / "facts.json").write_text(json.dumps(facts))
plt.plot([1, 2]);
"""


def write(path: Path, source: str) -> Path:
    cells = [
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(source),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def test_each_kernel_is_as_new_but_for_its_imports(tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_utils.batch.plan.gpus", lambda: ["3"])
    path = write(tmp_path / "look.ipynb", LOOK)
    jobs = [Job(path, {"seed": seed}, tmp_path / "out") for seed in range(3)]
    records, _ = run_batch(jobs, workers=1)
    assert [record.status for record in records] == ["completed"] * 3, records
    facts = [json.loads((job.folder / "facts.json").read_text()) for job in jobs]
    for fact, job in zip(facts, jobs):
        assert fact["known"] == ["torch"] and fact["sum"] == 6 and fact["device"] == "3"
        assert (fact["name"], fact["folder"]) == ("__main__", str(Path.cwd()))
        assert (job.folder / "left").exists(), "what a kernel does at its end was left out"
        assert '"image/png"' in (job.folder / "look.ipynb").read_text(), "pyplot drew into no cell"
    assert len({fact["pid"] for fact in facts}) == 3 and len({fact["torch_seed"] for fact in facts}) == 1
    assert len({draw for fact in facts for draw in fact["draws"]}) == 6
    assert not [one for one in psutil.Process().children() if "mnist_utils.batch.worker" in " ".join(one.cmdline())]


def test_importing_the_libraries_asks_for_no_gpu():
    """A process that has asked CUDA anything cannot be forked into one that uses it."""
    code = """
import torch
from mnist_utils.batch import worker
asked = []
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, lambda name=name: asked.append(name) or 0)
worker._import_libraries()
assert not asked and not torch.cuda.is_initialized(), asked
torch.cuda.is_available()
assert asked or torch.version.cuda is None, "this test saw nothing"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_forked_training_ends_with_the_bits_of_a_new_process(tmp_path):
    values = {"dataset": "digits", "epochs": 2, "threads": 2}
    path, ended = find_notebook("01_seed_model"), {}
    for name, seeds in (("many", (1, 2)), ("one", (2,))):
        records, _ = run_batch([Job(path, values | {"seed": seed}, tmp_path / name) for seed in seeds], workers=1)
        ended[name] = (tmp_path / name / "01_seed_model/seed-2/model.safetensors").read_bytes()
        assert all(record.status == "completed" for record in records)
    assert ended["many"] == ended["one"]


def test_the_run_after_a_killed_or_endless_one_has_a_whole_worker(tmp_path):
    end = "import os, signal, time\nfrom pathlib import Path\n(Path(out_dir) / 'kernel').write_text(str(os.getpid()))\n"
    end += "if seed == 1: os.kill(os.getppid(), signal.SIGKILL)\nif seed == 2: time.sleep(1e6)"
    path = write(tmp_path / "end.ipynb", end)
    jobs = [Job(path, {"seed": seed}, tmp_path / "out") for seed in (0, 1, 2, 3)]
    records, _ = run_batch(jobs, workers=1, timeout=20)
    assert [record.status for record in records] == ["completed", "failed", "failed", "completed"]
    assert "killed" in records[1].error and "timeout" in records[2].error
    kernels = [int((job.folder / "kernel").read_text()) for job in jobs]
    assert len(set(kernels)) == 4 and not any(map(psutil.pid_exists, kernels)), "a kernel outlived its run"


@pytest.mark.parametrize("end", ["kill", "terminate", "close"])
def test_a_worker_ended_from_outside_leaves_no_process(tmp_path, end):
    path = write(tmp_path / "long.ipynb", "import time\ntime.sleep(1e6)")
    worker, folder = Worker(), Job(path, {}, tmp_path / "out").folder
    facts = {"path": str(path), "values": {}, "out": str(tmp_path / "out"), "variant": ""}
    worker.ask(facts | {"memory": None, "device": None, "warm": False})
    deadline = time.monotonic() + 60
    while not (folder / "long.ipynb").exists():
        assert worker.answer(0.05) is None and time.monotonic() < deadline
    started = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    assert len(started) == 3, "a worker, the process that executes, the kernel"
    getattr(worker, end)()
    if end == "terminate":
        assert worker.answer(30) == 1 and RunRecord.load(folder).status == "interrupted" and worker.is_free()
    worker.close()
    assert not psutil.wait_procs(started, timeout=20)[1]
