import pytest
import torch

from mnist_utils.batch.execute import run_notebook
from mnist_utils.batch.plan import Job
from mnist_utils.bench import Settings, batches, tables
from mnist_utils.data import load_data
from mnist_utils.parameters import find_notebook


def test_a_bare_training_ends_as_the_notebooks_does(tmp_path, monkeypatch):
    values = {"dataset": "digits", "split": "holdout", "epochs": 2, "threads": 1, "seed": 5}
    record = run_notebook(find_notebook("01_seed_model"), values, tmp_path)
    monkeypatch.setattr(batches, "load_data", lambda *_, **__: load_data("digits", split="holdout"))
    threads = torch.get_num_threads()
    try:
        assert batches.train_bare(5, 2, "digits") == record.last.validation_loss
    finally:
        torch.set_num_threads(threads)
    job = Job(find_notebook("01_seed_model"), values, tmp_path)
    parts = batches.parts_of(job)
    assert all(seconds > 0 for seconds in parts.values()) and sum(parts.values()) < 120


def test_scheduling_counts_what_the_cluster_did():
    pytest.importorskip("distributed")
    text = tables.scheduling(batches.scheduling(Settings(), (3, 20)))
    head, _, dask, ours = text.splitlines()
    assert head.split("  ")[-2:] == ["3 jobs", "20 jobs"]
    assert all(float(cell) > 0 for line in (dask, ours) for cell in line.split()[-2:])
