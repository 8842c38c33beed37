"""The same plan on a Dask cluster, here one of local processes, a thread each."""

import os
import signal

import pytest
from test_faults import Batch

from mnist_utils.records import RunRecord

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


def rows(batch: Batch) -> list:
    return [RunRecord.load(batch.folder(seed)).epochs for seed in range(3)]


def test_the_cluster_gives_the_same_results_as_one_machine(cluster, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    one, many = Batch(here), Batch(there)
    assert one.run()[0] == 0
    code, said = many.run("--scheduler", cluster.scheduler_address)
    assert code == 0 and "3 of 3 runs completed" in said, said
    assert rows(one) == rows(many)
    code, said = many.run("--scheduler", cluster.scheduler_address)
    assert "3 of 3 runs are done already" in said


def test_a_failing_run_leaves_the_others_alone(cluster, tmp_path):
    batch = Batch(tmp_path, "raise RuntimeError('on purpose')")
    code, said = batch.run("--scheduler", cluster.scheduler_address)
    assert code == 1 and "toy/seed-1: failed" in said and "2 of 3 runs completed" in said, said


@pytest.mark.skipif(os.name != "posix", reason="signals as on Unix")
def test_a_lost_worker_costs_nothing_but_time(cluster, tmp_path, fault_table):
    batch = Batch(tmp_path, pause=1)
    process = batch.start("--scheduler", cluster.scheduler_address)
    batch.wait_for(0)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "3 of 3 runs completed" in said, said
    fault_table("a worker of the cluster is killed (SIGKILL)", "epochs since the last checkpoint", batch.goes_on())


def test_a_scheduler_that_is_not_there_is_an_error(tmp_path):
    code, said = Batch(tmp_path).run("--scheduler", "tcp://127.0.0.1:9")
    assert code == 2 and "no Dask scheduler answers at tcp://127.0.0.1:9" in said, said
