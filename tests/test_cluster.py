"""The same plan on a Dask cluster, here one of local processes, a thread each."""

import os
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_faults import Batch

from mnist_utils.records import RunRecord

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
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
    fault_table(
        "a worker of the cluster is killed (SIGKILL)",
        "epochs since the last checkpoint",
        batch.goes_on(),
    )


def test_a_scheduler_that_is_not_there_is_an_error(tmp_path):
    code, said = Batch(tmp_path).run("--scheduler", "tcp://127.0.0.1:9")
    assert code == 2 and "no Dask scheduler answers at tcp://127.0.0.1:9" in said, said


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
def test_the_cluster_may_ask_for_a_certificate(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost".split()
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    both = dict(tls_ca_file=str(certificate), require_encryption=True)
    both |= {f"tls_{role}_{part}": str(file) for role in ("client", "scheduler", "worker")
             for part, file in (("key", key), ("cert", certificate))}  # fmt: skip
    security = distributed.Security(**both)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=":0", security=security
    ) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        batch = Batch(tmp_path)
        code, said = batch.run("--scheduler", cluster.scheduler_address)
        assert code == 2 and "no Dask scheduler answers at tls://" in said, said
        for name, value in {
            "CA_FILE": certificate,
            "CLIENT__CERT": certificate,
            "CLIENT__KEY": key,
        }.items():
            monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}", str(value))
        code, said = batch.run("--scheduler", cluster.scheduler_address)
        assert code == 0 and "3 of 3 runs completed" in said, said


class Store(BaseHTTPRequestHandler):
    """Keeps what is put; refuses all while `full`."""

    kept: dict = {}
    full = False

    def do_PUT(self):
        self.send_response(507 if self.full else 201)
        self.end_headers()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.full:
            self.kept[self.path] = body

    def do_GET(self):
        self.send_response(200 if self.path in self.kept else 404)
        self.end_headers()
        self.wfile.write(self.kept.get(self.path, b"not found"))

    def log_message(self, *_):
        pass


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(Store, "kept", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/runs"
    server.shutdown()


def test_what_is_copied_to_an_address_is_enough_to_go_on_from(cluster, store, tmp_path):
    batch, where = Batch(tmp_path), ("--scheduler", cluster.scheduler_address, "--copy-to", store)
    code, said = batch.run(*where)
    names = [
        f"/runs/toy/seed-{seed}/{name}" for seed in range(3) for name in ("run.json", "toy.ipynb")
    ]
    assert code == 0 and sorted(Store.kept) == names, said
    shutil.rmtree(batch.out)  # as on a machine that shares no folder with the workers
    code, said = batch.run(*where)
    assert (
        code == 0 and "3 of 3 runs are done already" in said and "3 of 3 runs completed" in said
    ), said


def test_what_could_not_be_copied_is_said_and_copied_next_time(store, tmp_path, monkeypatch):
    batch = Batch(tmp_path)
    monkeypatch.setattr(Store, "full", True)
    code, said = batch.run("--copy-to", store)
    assert code == 1 and "could not be copied to" in said and "0 of 3 runs completed" in said, said
    assert batch.status(0) == "completed"
    monkeypatch.setattr(Store, "full", False)
    code, said = batch.run("--copy-to", store)
    assert code == 0 and "3 of 3 runs are done already" in said and len(Store.kept) == 6, said


@pytest.mark.parametrize("address", ["results", "ftp://host/runs"])
def test_an_address_that_papermill_does_not_write_to_is_refused(tmp_path, address):
    code, said = Batch(tmp_path).run("--copy-to", address)
    assert code == 2 and f"papermill cannot write to '{address}'" in said, said
