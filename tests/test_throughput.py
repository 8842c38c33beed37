import pytest
import torch

from mnist_utils.batch.execute import run_notebook
from mnist_utils.batch.plan import Job
from mnist_utils.bench import throughput
from mnist_utils.data import load_data
from mnist_utils.parameters import find_notebook

RESULT = {
    "machine": {"name": "a processor"},
    "jobs": 10,
    "epochs": 2,
    "bare": [10.0, 10.0, 9.0, 10.0, 10.0],
    "batch": [20.0, 12.5, 18.0, 40.0, 9.5],
    "parts": [
        {"training and testing": 18.0, "start of the kernel": 2.0},
        {"training and testing": 22.0, "start of the kernel": 4.0},
    ],
}


def test_the_ratio_is_each_turns_own_and_the_parts_add_up():
    text = throughput.format_throughput(RESULT)
    assert "| batch / bare | 0.50 | 0.25 | 1.05 | 5 |" in text
    assert "| training and testing | 20.0 | 50% |" in text and "| start of the kernel | 3.0 | 8% |" in text
    assert (
        "| start of the workers, saving, page | 17.0 | 42% |" in text
        and "| all of it, and bare | 40.0, 19.6 | |" in text
    )


def test_a_bare_training_ends_as_the_notebooks_does(tmp_path, monkeypatch):
    values = {"dataset": "digits", "split": "holdout", "epochs": 2, "threads": 1, "seed": 5}
    record = run_notebook(find_notebook("01_seed_model"), values, tmp_path)
    monkeypatch.setattr(throughput, "DATA", load_data("digits", split="holdout"), raising=False)
    threads = torch.get_num_threads()
    try:
        assert throughput._train((5, 2)) == record.last.validation_loss
    finally:
        torch.set_num_threads(threads)
    job = Job(find_notebook("01_seed_model"), values, tmp_path)
    parts = throughput._parts(job)
    assert all(seconds > 0 for seconds in parts.values()) and sum(parts.values()) < 120


def test_scheduling_counts_what_the_cluster_did():
    pytest.importorskip("distributed")
    text = throughput.format_scheduling(throughput.scheduling((3, 20)))
    head, _, dask, ours = text.splitlines()
    assert head == "| milliseconds a job | 3 jobs | 20 jobs |"
    assert all(float(cell) > 0 for line in (dask, ours) for cell in line.split("|")[2:4])
