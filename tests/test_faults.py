"""What can go wrong in a batch, done for real: nothing else is lost, the summary says so, the same command goes on.

python -m pytest tests/test_faults.py --fault-table reports/faults/README.md      # measures and writes the table
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT

from mnist_utils.batch.execute import only_one
from mnist_utils.batch.plan import Job
from mnist_utils.errors import UsageError
from mnist_utils.records import RunRecord

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits as on Unix")

PARAMETERS = """
seed: int = 0
flags: str = ""
out_dir: str = "results"
"""
EPOCHS = """
import os, shutil, signal, time
from pathlib import Path
from mnist_utils.records import EpochRow, RunRecord

out, flag = Path(out_dir), Path(flags) / f"{seed}"
record = RunRecord.start("toy", {}, seed=seed)
for epoch in range(1, 4):
    record.epochs.append(EpochRow(epoch, 0.1, 0.5, seed, 10, 0.0, 0.5, epoch, 10, 0.0))
    record.save(out)
    if epoch == 2 and seed == 1 and not flag.exists():
        flag.touch()
        FAULT
    time.sleep(PAUSE)
record.finish()
record.save(out)
"""


def epochs_in(folder: Path) -> int:
    """How many epochs the record in the folder has, if there is one."""
    table = folder / "metrics.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def is_running(folder: Path) -> bool:
    """Whether a process is running this folder's notebook."""
    try:
        with only_one(folder):
            return False
    except UsageError:
        return True


class Batch:
    """Three runs of a notebook, side by side, of which the one with seed 1 goes wrong the first time."""

    def __init__(self, folder: Path, fault: str = "pass", pause: float = 0.1):
        self.path, self.flags, self.out = folder / "toy.ipynb", folder / "flags", folder / "out"
        self.flags.mkdir()
        source = EPOCHS.replace("FAULT", fault).replace("PAUSE", str(pause))
        cells = [
            nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source),
        ]
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), self.path)

    def start(self, *words: str, seeds: str = "0-2") -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "mnist_utils",
            "run",
            self.path,
            "--seeds",
            seeds,
            "--jobs",
            "3",
        ]
        command += ["-p", "flags", self.flags, "--out", self.out, *words]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, **options) -> tuple[int, str]:
        process = self.start(*words, **options)
        said, _ = process.communicate(timeout=120)
        assert "Traceback" not in said, said
        return process.returncode, said

    def folder(self, seed: int) -> Path:
        return Job(self.path, {"seed": seed}, self.out).folder

    def status(self, seed: int) -> str:
        return RunRecord.load(self.folder(seed)).status

    def wait_for(self, seed: int, seconds: float = 60) -> None:
        """Until that run has finished an epoch."""
        deadline = time.monotonic() + seconds
        while not epochs_in(self.folder(seed)):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def goes_on(self) -> float:
        """The same command again completes everything; the seconds that takes."""
        started = time.monotonic()
        code, said = self.run()
        assert code == 0 and "3 of 3 runs completed" in said, said
        for seed in range(3):
            record = RunRecord.load(self.folder(seed))
            assert record.status == "completed" and len(record.epochs) == 3 and record.inputs
        return time.monotonic() - started


FAULTS = {
    "a notebook raises": ("raise RuntimeError('on purpose')", (), "RuntimeError: on purpose"),
    "a kernel is killed (SIGKILL) in mid-epoch": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        (),
        "the kernel died",
    ),
    "a run's process is killed (SIGKILL)": (
        "os.kill(os.getppid(), signal.SIGKILL)",
        (),
        "its process was killed",
    ),
    "the process that forks the kernels is killed (SIGKILL)": (
        "os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)",
        ("--jobs", "1"),
        "the kernel died",
    ),
    "a run's process that has forked kernels is killed (SIGKILL)": (
        "import psutil; psutil.Process().parents()[1].kill(); time.sleep(60)",
        ("--jobs", "1"),
        "its process was killed",
    ),
    "a forked kernel is killed (SIGKILL)": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        ("--jobs", "1"),
        "the kernel died",
    ),
    "a notebook never ends": (
        "time.sleep(1e6)",
        ("--timeout", "10"),
        "stopped after 10 seconds, its timeout",
    ),
    "a notebook wants too much memory": ("bytearray(4 << 30)", ("--memory", "2"), "MemoryError"),
    "a forked notebook wants too much memory": (
        "bytearray(4 << 30)",
        ("--jobs", "1", "--memory", "2"),
        "MemoryError",
    ),
    "the run's folder is removed meanwhile": (
        "shutil.rmtree(out); os._exit(1)",
        (),
        "FileNotFoundError",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_run_goes_wrong(tmp_path, fault, fault_table):
    source, words, error = FAULTS[fault]
    batch = Batch(tmp_path, source)
    code, said = batch.run(*words)
    assert code == 1 and f"toy/seed-1: failed, {error}" in said.replace("cell In [3]: ", ""), said
    assert (batch.status(0), batch.status(2)) == ("completed", "completed") and batch.status(
        1
    ) == "failed"
    summary = (batch.out / "summary.csv").read_text().splitlines()
    assert [line.split(",")[3] for line in summary] == [
        "status",
        "completed",
        "failed",
        "completed",
    ]
    kept = [(batch.folder(seed) / "run.json").stat().st_mtime_ns for seed in (0, 2)]
    fault_table(fault, "that run's own epochs since its last checkpoint", batch.goes_on())
    assert kept == [(batch.folder(seed) / "run.json").stat().st_mtime_ns for seed in (0, 2)]
    assert not list(batch.out.rglob(".run.json*")) and not list(batch.out.rglob("inputs.json"))


def test_the_batch_itself_is_killed(tmp_path, fault_table):
    batch = Batch(tmp_path, pause=1)
    process = batch.start()
    for seed in range(3):
        batch.wait_for(seed)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(is_running(batch.folder(seed)) for seed in range(3)):
        assert time.monotonic() < deadline, "a run outlived its batch"
        time.sleep(0.1)
    fault_table(
        "the batch's own process is killed (SIGKILL)",
        "epochs since the last checkpoints",
        batch.goes_on(),
    )


def test_ctrl_c_once_waits_for_what_runs_and_says_what_is_left(tmp_path, fault_table):
    batch = Batch(tmp_path, pause=1)
    process = batch.start("--jobs", "1")
    batch.wait_for(0)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and "waiting for 1 runs" in said
        and "1 of 3 runs completed" in said
    ), said
    assert batch.status(0) == "completed" and not batch.folder(1).exists()
    fault_table("Ctrl-C once", "nothing", batch.goes_on())


def test_ctrl_c_twice_stops_now(tmp_path, fault_table):
    batch = Batch(tmp_path, pause=100)
    process = batch.start()
    for seed in range(3):
        batch.wait_for(seed)
    process.send_signal(signal.SIGINT)
    assert any("Ctrl-C again" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 130 and "0 of 3 runs completed" in said and "Traceback" not in said
    ), said
    assert {batch.status(seed) for seed in range(3)} == {"interrupted"}
    rewritten = batch.path.read_text().replace("time.sleep(100)", "time.sleep(0.1)")
    batch.path.write_text(rewritten)
    fault_table("Ctrl-C twice", "epochs since the last checkpoints", batch.goes_on())


def test_the_terminal_is_closed(tmp_path, fault_table):
    batch = Batch(tmp_path, pause=100)
    process = batch.start()
    for seed in range(3):
        batch.wait_for(seed)
    process.send_signal(signal.SIGHUP)
    process.stdout.close()
    assert process.wait(timeout=60) == 130
    assert {batch.status(seed) for seed in range(3)} == {"interrupted"}
    assert (batch.out / "summary.csv").read_text().count("interrupted,") == 3
    batch.path.write_text(batch.path.read_text().replace("time.sleep(100)", "time.sleep(0.1)"))
    fault_table(
        "the terminal is closed (SIGHUP)", "epochs since the last checkpoints", batch.goes_on()
    )


def test_nobody_reads_the_output_any_more(tmp_path, fault_table):
    batch = Batch(tmp_path)
    process = batch.start()
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert (batch.out / "summary.csv").read_text().count(",completed,") == 3
    fault_table("the output's reader leaves (`head -1`)", "nothing", batch.goes_on())


def test_a_record_is_damaged_afterwards(tmp_path, fault_table):
    batch = Batch(tmp_path)
    assert batch.run()[0] == 0
    path = batch.folder(1) / "run.json"
    path.write_text(path.read_text().replace('"validation_total": 10', '"validation_total": 0'))
    code, said = batch.run("--dry-run")
    assert code == 0 and "1 of 3 to run" in said, said
    fault_table("a record is damaged afterwards", "that run", batch.goes_on())


def test_two_batches_on_one_folder_never_run_the_same_job(tmp_path, fault_table):
    batch = Batch(tmp_path, pause=8)  # longer than a second batch takes to start
    first = batch.start()
    for seed in range(3):
        batch.wait_for(seed)
    code, said = batch.run()
    assert (
        code == 1
        and said.count("another process is running") >= 3
        and "0 of 3 runs completed" in said
    ), said
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and "3 of 3 runs completed" in said, said
    fault_table(
        "two batches on one folder",
        "nothing: the second leaves what the first is running",
        batch.goes_on(),
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder])


def test_the_disk_is_full(tmp_path, small_disk, fault_table):
    batch = Batch(tmp_path, "(out / 'big').write_bytes(bytes(10**6))")
    batch.out = small_disk
    code, said = batch.run("--jobs", "1")
    assert code == 1 and "No space left on device" in said, said
    for path in small_disk.rglob("run.json"):
        RunRecord.load(path.parent)
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    fault_table(
        "the disk is full", "that run's own epochs since its last checkpoint", batch.goes_on()
    )


def test_a_training_killed_at_a_random_epoch_ends_with_the_same_bits(tmp_path, fault_table):
    """The real notebook, on the digits: everything of the run is killed at once, as by a power cut, and begun again."""
    command = [
        sys.executable,
        "-m",
        "mnist_utils",
        "run",
        "03_augmentation",
        "--seeds",
        "0",
        "--dataset",
        "digits",
    ]
    command += ["-p", "epochs", "8", "-p", "threads", "1", "--out"]
    subprocess.run([*command, tmp_path / "whole"], cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen([*command, tmp_path / "parts"], cwd=ROOT, stdout=subprocess.DEVNULL)
    folder, epoch = tmp_path / "parts/03_augmentation/seed-0", random.randint(1, 6)
    while not (folder / f"checkpoint-{epoch:04}.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.kill()
    process.wait()
    assert (
        RunRecord.load(folder).status == "running" and not (folder / "model.safetensors").exists()
    )
    started = time.monotonic()
    subprocess.run([*command, tmp_path / "parts"], cwd=ROOT, check=True, capture_output=True)
    fault_table(
        "power cut in mid-training", "epochs since the last checkpoint", time.monotonic() - started
    )
    assert "resuming after epoch" in (folder / "03_augmentation.ipynb").read_text()
    whole = tmp_path / "whole/03_augmentation/seed-0"
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    counts = [
        [
            (row.train_correct, row.train_loss, row.validation_correct, row.validation_loss)
            for row in record.epochs
        ]
        for record in (RunRecord.load(folder), RunRecord.load(whole))
    ]
    assert counts[0] == counts[1] and len(counts[0]) == 8
    assert not list(folder.glob("checkpoint-*.pt"))
