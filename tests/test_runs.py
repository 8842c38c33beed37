"""Runs that must never lose a file or claim a success: each was seen going wrong, with the command line."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT
from test_faults import epochs_in

from mnist_utils.batch import copies, devices, executor
from mnist_utils.batch.execute import run_notebook
from mnist_utils.batch.executor import engine, run_batch
from mnist_utils.batch.fingerprint import fingerprint
from mnist_utils.batch.plan import Job, parse_seeds, plan, read_batch
from mnist_utils.batch.summary import say, write_summary
from mnist_utils.errors import RecordError, UsageError
from mnist_utils.parameters import check_values, find_notebook, read_parameters
from mnist_utils.records import RunRecord

PARAMETERS = """
count: int = 1
rate: float = 0.5
text: str = "a"
seed: int = 0
out_dir: str = "results"
"""
RECORD = """
from mnist_utils.records import EpochRow, RunRecord
record = RunRecord.start("small", {}, seed=seed)
record.epochs.append(EpochRow(1, 0.1, 0.5, 5, 10, 0.0, 0.5, count, 10, 0.0))
record.finish()
record.save(out_dir)
"""


def write(path: Path, source: str = RECORD, form: str = PARAMETERS, **metadata) -> Path:
    cells = [
        nbformat.v4.new_code_cell(form, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(source),
    ]
    path.parent.mkdir(exist_ok=True, parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def small(tmp_path) -> Path:
    return write(tmp_path / "small.ipynb")


def command(*words, **options) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "mnist_utils", "run", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
    done = subprocess.run(words, text=True, timeout=300, **({"cwd": ROOT} | pipes))
    assert "Traceback" not in (done.stdout or ""), done.stdout
    return done


def tree(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# A folder that is not ours


@pytest.mark.parametrize("name", ["seed-0", "seed-0.previous"])
def test_a_refused_folder_stays_as_it_is_also_at_the_second_command(small, tmp_path, name):
    other = tmp_path / "out/small" / name
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("precious")
    before = tree(tmp_path / "out")
    for _ in range(2):
        done = command(small, "--seeds", "0", "--out", tmp_path / "out")
        assert done.returncode == 2 and f"{name} holds files that are no run" in done.stdout
        assert tree(tmp_path / "out") == before


def test_what_somebody_put_into_a_runs_folder_stays_there(tmp_path):
    path = write(tmp_path / "small.ipynb", RECORD + "if count == 2: raise ValueError")
    folder = tmp_path / "out/small/seed-0"
    for count in (1, 2, 2, 3, 4):
        run_notebook(path, {"count": count}, tmp_path / "out")
        if count == 1:
            (folder / "thesis.txt").write_text("precious")
        if count == 2:
            (folder / "notes.json").write_text("{}")
            (folder / "checkpoint-0001.pt").mkdir(exist_ok=True)
    assert (folder / "thesis.txt").read_text() == "precious" and (folder / "notes.json").exists()
    assert RunRecord.load(folder).last.validation_correct == 4
    assert not folder.with_name("seed-0.previous").exists()


def test_failed_runs_never_replace_the_completed_one_that_is_kept(small, tmp_path):
    run_notebook(small, {"count": 1}, tmp_path / "out")
    gone = "import shutil; shutil.rmtree(out_dir); raise ValueError"
    for _ in range(3):
        write(small, gone)
        assert run_notebook(small, {"count": 2}, tmp_path / "out").status == "failed"
    kept = RunRecord.load(tmp_path / "out/small/seed-0.previous")
    assert (kept.status, kept.last.validation_correct) == ("completed", 1)


def test_a_file_that_is_named_like_a_runs_note_makes_no_run(small, tmp_path):
    folder = tmp_path / "out/small/seed-0"
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text('{"my": "inputs"}')
    with pytest.raises(UsageError, match="holds files that are no run"):
        run_notebook(small, {}, tmp_path / "out")
    assert (folder / "inputs.json").read_text() == '{"my": "inputs"}'


# A success that was none


def test_a_run_that_never_started_has_failed_and_does_not_show_the_older_result(small, tmp_path):
    where = ["--seeds", "0", "--out", tmp_path / "out"]
    assert command(small, "-p", "count", "1", *where).returncode == 0
    done = command(small, "-p", "count", "5", "--memory", "0.02", *where)
    assert (
        done.returncode == 1
        and "failed, no kernel of" in done.stdout
        and "10.00%" not in done.stdout
    )
    folder = tmp_path / "out/small/seed-0"
    assert RunRecord.load(folder).status == "failed"
    assert RunRecord.load(f"{folder}.previous").last.validation_correct == 1
    summary = (tmp_path / "out/summary.csv").read_text()
    # So little memory ends Python's start in one of two ways.
    why = "MemoryError" in summary or "Cannot allocate memory" in summary
    assert summary.count("no kernel of") == 1 and why


def test_a_record_of_another_attempt_is_no_success(small, tmp_path):
    run_notebook(small, {"count": 1}, tmp_path / "out")
    copying = (
        f"import shutil; shutil.copy({str(tmp_path / 'out/small/seed-0/run.json')!r}, out_dir)"
    )
    record = run_notebook(write(tmp_path / "copy.ipynb", copying), {}, tmp_path / "out")
    assert (
        record.status == "failed" and "record of another run" in record.error and not record.epochs
    )


def test_the_first_real_reason_is_the_one_shown_everywhere(tmp_path):
    path = write(
        tmp_path / "small.ipynb", "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    )
    done = command(path, "--seeds", "0", "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stdout.count("failed, its process was killed") == 2
    assert "its process was killed" in (tmp_path / "out/summary.csv").read_text()
    assert RunRecord.load(tmp_path / "out/small/seed-0").error == "its process was killed"


def test_a_process_killed_before_its_run_began_has_failed_and_the_older_result_stays(
    small, tmp_path
):
    out = tmp_path / "out"
    run_notebook(small, {"count": 1}, out)
    before = tree(out)
    record = executor._record_of(
        Job(small, {"count": 5}, out), "12ab", executor.Lost("killed"), False
    )
    assert (record.status, record.error, record.epochs) == ("failed", "killed", [])
    assert tree(out) == before


def test_a_page_that_cannot_be_made_costs_no_result(small, tmp_path):
    def render(notebook):
        raise ValueError("no template")

    record = run_notebook(small, {}, tmp_path / "out", render=render)
    assert record.status == "completed" and "no template" in record.error
    assert Job(small, {}, tmp_path / "out").is_done()


# What the plan knows, it refuses


def test_runs_that_would_share_a_folder_are_refused(tmp_path):
    paths = [write(tmp_path / folder / "same.ipynb") for folder in ("a", "b")]
    with pytest.raises(
        UsageError, match="a/same.ipynb and .*b/same.ipynb would share .*same/seed-0"
    ):
        plan(paths, {}, None, tmp_path / "out")
    assert len(plan([paths[0], paths[0]], {}, None, tmp_path / "out")) == 1
    with pytest.raises(UsageError, match="would share"):
        plan(paths[:1], {"text": ["a/b", "a_b"]}, None, tmp_path / "out")


@pytest.mark.parametrize(
    "name, message",
    [
        ("/no/such/dir/01_seed_model.ipynb", "there is no such .ipynb file; run the project's own"),
        ("elsewhere/01_seed_model", "there is no such .ipynb file"),
        ("01_seed_model.ipynb", "there is no such .ipynb file"),
        ("https://host/01_seed_model.ipynb", "is an address; download"),
        ("s3://bucket/01_seed_model", "is an address"),
        ("", "no notebook ''"),
    ],
)
def test_a_path_or_an_address_is_never_looked_for_elsewhere(name, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError, match=message):
        find_notebook(name)


@pytest.mark.parametrize("out", ["s3://bucket/runs", "https://host/runs", "gs:/bucket"])
def test_an_address_is_no_folder(small, out):
    with pytest.raises(UsageError, match="--out takes a folder"):
        plan([small], {}, None, Path(out))


@pytest.mark.parametrize("name", ["timeout", "memory"])
@pytest.mark.parametrize("value", [0, float("nan"), -1, float("inf")])
def test_limits_that_limit_nothing_are_refused(small, tmp_path, name, value):
    limit = {name: value}
    with pytest.raises(UsageError, match=f"--{name} must be a number above 0"):
        run_notebook(small, {}, tmp_path / "out", **limit)
    with pytest.raises(UsageError, match=f"--{name} must be a number above 0"):
        run_batch([Job(small, {}, tmp_path / "out")], **limit)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("epochs", "-1", "epochs must be at least 1, got '-1'"),
        ("batch_size", "0", "batch_size must be at least 1"),
        ("seed", "4294967296", "seed must be at most 4,294,967,295"),
        ("seed", "-1", "seed must be at least 0"),
        ("epochs", "9" * 30, "epochs must be at most"),
        ("epochs", "9" * 6000, "epochs must be int"),
    ],
)
def test_values_out_of_range_are_refused(name, text, message):
    with pytest.raises(UsageError, match=message) as refused:
        check_values(ROOT / "notebooks/01_seed_model.ipynb", {name: text})
    assert len(str(refused.value)) < 300


def test_a_form_may_name_a_range(tmp_path):
    form = 'share: float = 0.5  # @param {type:"slider", min:0, max:1, step:0.1}\nseed: int = 0'
    path = write(tmp_path / "form.ipynb", form=form)
    assert (read_parameters(path)["share"].least, read_parameters(path)["share"].most) == (0, 1)
    with pytest.raises(UsageError, match="share must be at most 1"):
        check_values(path, {"share": "1.5"})


@pytest.mark.parametrize(
    "text", ["0-999999999", "0-10000", "4294967296", "0-5000,5001-10001", "9" * 5000]
)
def test_absurd_seeds_are_refused_at_once(text):
    began = time.monotonic()
    with pytest.raises(UsageError, match="seeds"):
        parse_seeds(text)
    assert time.monotonic() - began < 1


def test_absurd_numbers_of_runs_are_refused_at_once(small, tmp_path):
    values = ",".join(map(str, range(101)))
    with pytest.raises(UsageError, match="more than 10,000 runs"):
        plan([small], {"count": values, "rate": values}, None, tmp_path)
    assert len(plan([small], {}, range(10_000), tmp_path)) == 10_000
    assert run_batch(plan([small], {}, [], tmp_path)) == ([], False)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    "text", [BOMB, "notebooks: " + "[" * 100_000, "notebooks: [{a: b}]", "- a", "x" * 1_000_001]
)
def test_a_batch_file_that_explodes_is_refused_at_once(tmp_path, text):
    file = tmp_path / "batch.yaml"
    file.write_text(text)
    began = time.monotonic()
    with pytest.raises(UsageError, match="batch.yaml cannot be read as a batch"):
        read_batch(file)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_a_batch_file_means_what_stands_in_it(tmp_path, small, suffix):
    file = tmp_path / f"batch.{suffix}"
    file.write_text(
        {
            "toml": 'notebooks = "small.ipynb"\nseeds = "010"\nparameters = {text = ["a", "b,c"], rate = 1e-3}\n',
            "yaml": "notebooks: small.ipynb\nseeds: 010\nparameters: {text: [a, 'b,c'], rate: 1e-3}\n",
        }[suffix]
    )
    names, given, seeds = read_batch(file)
    assert names == ["small.ipynb"] and parse_seeds(seeds) == [10]
    jobs = plan([small], given, parse_seeds(seeds), tmp_path)
    assert [job.values["text"] for job in jobs] == ["a", "b,c"] and jobs[0].values["rate"] == 0.001


def test_other_languages_are_refused_and_older_formats_are_read(tmp_path, small):
    with pytest.raises(UsageError, match="a notebook in R; only Python"):
        read_parameters(
            write(
                tmp_path / "r.ipynb",
                kernelspec={"name": "ir", "language": "R", "display_name": "R"},
            )
        )
    old = nbformat.read(small, as_version=3)
    (tmp_path / "old.ipynb").write_text(nbformat.writes(old, version=3))
    assert list(read_parameters(tmp_path / "old.ipynb"))[:2] == ["count", "rate"]
    assert (
        run_notebook(tmp_path / "old.ipynb", {"count": 4}, tmp_path / "out").last.validation_correct
        == 4
    )


# What counts as done


def test_prose_pictures_and_formatting_leave_a_result_valid(tmp_path):
    source = "from mnist_utils import plots\nx = 1  # one\nplots.show(plots.kernels(x))\n" + RECORD
    path = write(tmp_path / "small.ipynb", source)
    same = fingerprint(path, {})
    for change in (
        lambda text: text.replace("x = 1  # one", "'why'\\nx  =  1"),
        lambda text: text.replace("plots.show(plots.kernels(x))", "plots.show(plots.mistakes(x))"),
        lambda text: text.replace("count: int = 1", "# @markdown how many\\ncount: int = 1"),
        lambda text: text.replace(
            '"cells": [', '"cells": [{"cell_type": "markdown", "metadata": {}, "source": ""},'
        ),
    ):
        (tmp_path / "other.ipynb").write_text(change(path.read_text()))
        assert (tmp_path / "other.ipynb").read_text() != path.read_text()
        assert fingerprint(tmp_path / "other.ipynb", {}) == same
    for change in (
        lambda text: text.replace("x = 1", "x = 2"),
        lambda text: text.replace("count: int = 1", "count: int = 2"),
        lambda text: text.replace("plots.kernels(x)", "plots.kernels(draw())"),
    ):
        (tmp_path / "other.ipynb").write_text(change(path.read_text()))
        assert fingerprint(tmp_path / "other.ipynb", {}) != same


def test_code_of_the_package_counts_by_what_it_means(tmp_path, monkeypatch, small):
    def of(module: str, text: str) -> str:
        package = tmp_path / str(len(list(tmp_path.iterdir())))
        package.mkdir()
        (package / f"{module}.py").write_text(text)
        monkeypatch.setattr("mnist_utils.batch.fingerprint.PACKAGE", package)
        return fingerprint(small, {})["package"]

    plain = of("training", "def f(x):\n    return x + 1\n")
    told = '"""What."""\nfrom .plots import show\n\ndef f(x):\n    """Adds."""\n    return (x+1)  # one\n'
    assert plain == of("training", told)
    assert plain != of("training", "def f(x):\n    return x + 2\n")
    assert of("plots", "a = 1") == of("plots", "a = 2") != of("models", "a = 1")


ODD = {
    "no images": {"validation_total": 0},
    "more right than there are": {"validation_correct": 11},
    "a text for a number": {"train_loss": "low"},
    "a number without end": {"train_correct": 10**400},
    "no number": {"validation_loss": float("nan")},
    "infinite": {"seconds": float("inf")},
}


@pytest.mark.parametrize("odd", [*ODD, "dataset", "deep", "bytes", "status"])
def test_an_odd_record_is_said_and_the_run_made_again(small, tmp_path, odd):
    row = dict(
        epoch=1,
        learning_rate=0.1,
        train_loss=0.5,
        train_correct=5,
        train_total=10,
        train_seconds=0.0,
    )
    row |= dict(
        validation_loss=0.5, validation_correct=5, validation_total=10, validation_seconds=0.0
    )
    facts = {"notebook": "small", "parameters": {}, "status": "completed", "schema": 1}
    facts["epochs"] = [row | ODD.get(odd, {})]
    facts |= {"dataset": {"dataset": []}, "status": {"status": "fine"}}.get(odd, {})
    text = json.dumps(facts).encode()
    text = {"deep": b'{"schema": 1, "epochs": ' + b"[" * 100_000, "bytes": b"\xff\xfe"}.get(
        odd, text
    )
    folder = tmp_path / "out/small/seed-0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(text)
    (folder / "small.ipynb").write_text("{}")
    with pytest.raises(RecordError, match="run.json: damaged"):
        RunRecord.load(folder)
    if odd == "deep":
        done = command(small, "--seeds", "0", "--out", tmp_path / "out")
        assert (
            done.returncode == 0
            and "small/seed-0 runs again: " in done.stdout
            and "completed" in done.stdout
        )


# Limits of a single run


def test_a_single_run_has_a_timeout_and_a_memory_limit(tmp_path):
    path = write(
        tmp_path / "small.ipynb",
        "import time\nbytearray(4 << 30) if count == 2 else time.sleep(1e6)",
    )
    late = command(path, "--timeout", "12", "--out", tmp_path / "out")
    assert late.returncode == 1 and "failed, stopped after 12 seconds, its timeout" in late.stdout
    big = command(path, "-p", "count", "2", "--memory", "1", "--out", tmp_path / "out")
    assert big.returncode == 1 and "MemoryError" in big.stdout


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals as on Unix")
def test_a_single_run_leaves_a_record_when_the_terminal_is_closed(tmp_path):
    source = RECORD.replace("record.finish()", "record.save(out_dir)\nimport time\ntime.sleep(1e6)")
    words = [
        sys.executable,
        "-m",
        "mnist_utils",
        "run",
        write(tmp_path / "small.ipynb", source),
        "--out",
        tmp_path,
    ]
    process = subprocess.Popen(
        list(map(str, words)),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "small/seed-0"
    while not epochs_in(folder):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert (
        RunRecord.load(folder).status == "interrupted" and len(RunRecord.load(folder).epochs) == 1
    )


# Output, places and kernels that people have


@pytest.mark.parametrize("words", [(), ("--seeds", "0")])
def test_a_log_that_is_no_utf_8_ends_no_run(tmp_path, words):
    path = write(tmp_path / "small.ipynb", "print('100 % ✓ ä')")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = command(path, *words, "--out", tmp_path / "out", env=environment)
    assert done.returncode == 0 and (words or "100 % ? ?" in done.stdout)
    assert "✓ ä" in (tmp_path / "out/small/seed-0/small.ipynb").read_text(encoding="utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device as on Linux")
def test_a_full_disk_behind_the_log_ends_no_run(small, tmp_path):
    with open("/dev/full", "w") as full:
        done = command(
            small, "--seeds", "0,1", "--out", tmp_path / "out", stdout=full, stderr=subprocess.PIPE
        )
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out/summary.csv").read_text().count(",completed,") == 2


@pytest.mark.parametrize("out", ["x{seed}", "{}", "-x"])
def test_odd_names_are_names(tmp_path, out):
    path = write(tmp_path / "{braces}/-dash{0}.ipynb")
    done = command(path, f"--out={out}", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    folder = tmp_path / out / "-dash{0}/seed-0"
    assert done.returncode == 0 and RunRecord.load(folder).epochs, done.stdout
    assert "validation_correct" not in done.stdout and (folder / "-dash{0}.html").exists()
    metadata = json.loads((folder / "-dash{0}.ipynb").read_text())["metadata"]["papermill"]
    assert metadata["input_path"] == path.as_posix()


@pytest.mark.parametrize(
    "argv", [["/no/such/python"], [sys.executable, "-m", "ipykernel_launcher", "--debug"], None]
)
def test_the_kernel_is_this_interpreters_own(tmp_path, monkeypatch, argv):
    """Whatever a user's kernelspec python3 says, and also where a notebook names none."""
    if argv:
        spec = tmp_path / "share/jupyter/kernels/python3/kernel.json"
        spec.parent.mkdir(parents=True)
        facts = {
            "argv": [*argv, "-f", "{connection_file}"],
            "display_name": "x",
            "language": "python",
        }
        spec.write_text(json.dumps(facts))
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share/jupyter"))
    path = write(tmp_path / "small.ipynb", "import sys; print(sys.executable)")
    assert run_notebook(path, {}, tmp_path / "out").status == "completed"
    assert sys.executable in (tmp_path / "out/small/seed-0/small.ipynb").read_text()


@pytest.mark.parametrize(
    "visible, found", [("NoDevFiles", []), ("", []), ("-1", []), ("0,GPU-12ab", ["0", "GPU-12ab"])]
)
def test_cpu_nodes_have_no_gpu(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpus() == found


def test_each_run_has_a_gpu_of_its_own_while_there_is_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"a{os.getpid()},b{os.getpid()}")
    one, two, three = (devices.own_gpu() for _ in range(3))
    names = [lender.__enter__()["CUDA_VISIBLE_DEVICES"] for lender in (one, two, three)]
    assert len(set(names[:2])) == 2 and names[2] == names[0]
    two.__exit__(None, None, None)
    with devices.own_gpu() as environment:
        assert environment["CUDA_VISIBLE_DEVICES"] == names[1]


def test_a_spreadsheet_sees_no_formula_in_the_summary(small, tmp_path):
    record = RunRecord.start("small", {})
    record.finish("failed", "=1+1; =2+2;-3,\n+4 @5")
    write_summary([(Job(small, {}, tmp_path), record)])
    text = (tmp_path / "summary.csv").read_text()
    assert "'=1+1; '=2+2;'-3,\n'+4 @5" in text


def test_an_address_that_never_answers_is_refused_in_time(monkeypatch, small, tmp_path):
    import socket

    monkeypatch.setattr(copies, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(UsageError, match="does not answer within 1 seconds"):
            plan(
                [small],
                {},
                None,
                tmp_path,
                copy_to=f"http://127.0.0.1:{silent.getsockname()[1]}/runs",
            )
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("url", ["hdfs://host/runs", "s3://bucket/runs", "adl://store/runs"])
def test_an_address_whose_library_is_missing_is_refused_in_the_plan(small, tmp_path, url):
    if any(importlib.util.find_spec(name) for name in ("pyarrow", "boto3", "azure")):
        pytest.skip("one of these libraries is installed")
    with pytest.raises(UsageError, match="cannot write to .*, no library"):
        plan([small], {}, None, tmp_path, copy_to=url)


# The one engine


def double(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_the_engine_gives_each_outcome_and_never_hangs():
    with engine(workers=2) as pool:
        found = dict(pool.map_unordered(double, range(8)))
        processes = [psutil.Process(pid) for pid in pool.client.run(os.getpid).values()]
    assert {n: found[n] for n in (0, 1, 2, 4, 6, 7)} == {n: 2 * n for n in (0, 1, 2, 4, 6, 7)}
    assert str(found[3]) == "three" and str(found[5]) == "its process was killed"
    assert not psutil.wait_procs(processes, timeout=20)[1]


def test_the_environment_of_a_batchs_run_is_that_of_a_single_one(tmp_path):
    source = (
        "import os; print(sorted(n for n in os.environ if 'NUM_THREADS' in n or 'MALLOC' in n))"
    )
    path = write(tmp_path / "small.ipynb", source)
    printed = []
    run_notebook(path, {}, tmp_path / "one")
    run_batch([Job(path, {}, tmp_path / "many")], workers=1)
    for out in ("one", "many"):
        cells = nbformat.read(tmp_path / out / "small/seed-0/small.ipynb", as_version=4).cells
        printed.append(cells[-1].outputs[0].text)
    assert printed[0] == printed[1]


def test_what_cannot_be_shown_is_replaced(capsys, monkeypatch):
    say("ok")
    assert capsys.readouterr().out == "ok\n"
