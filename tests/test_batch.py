import json
import os
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT, make_record

from mnist_utils.__main__ import main
from mnist_utils.batch import executor
from mnist_utils.batch.devices import choose_workers, gpus, share_of_cores
from mnist_utils.batch.execute import run_notebook
from mnist_utils.batch.executor import run_batch
from mnist_utils.batch.fingerprint import fingerprint
from mnist_utils.batch.plan import Job, describe, parse_seeds, plan, read_batch
from mnist_utils.batch.summary import Log, format_summary
from mnist_utils.errors import UsageError
from mnist_utils.parameters import check_values, find_notebook, read_parameters
from mnist_utils.records import RunRecord
from mnist_utils.reports.html import render

PARAMETERS = """
# @markdown how many
count: int = 1  # @param {type:"integer"}
rate: float = 0.5
loud: bool = False
kind: str = "plain"  # @param ["plain", "fancy"]
seed: int = 3
out_dir: str = "results"
"""


@pytest.fixture
def notebook(tmp_path):
    """Write a small notebook that does `source` and return its path."""

    def write(source: str = "print(count, kind)", name: str = "small") -> Path:
        cells = [
            nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell("print('first')"),
            nbformat.v4.new_code_cell(source),
            nbformat.v4.new_code_cell("print('last')"),
        ]
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        return path

    return write


def command(*words, **options) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "mnist_utils", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, **options)


def printed(folder: Path, name: str = "small") -> str:
    cells = nbformat.read(folder / f"{name}.ipynb", as_version=4).cells
    return "".join(
        o.get("text", "") for cell in cells if cell.cell_type == "code" for o in cell.outputs
    )


def test_parameters_are_read_with_type_default_meaning_and_choices(notebook):
    parameters = read_parameters(notebook())
    assert list(parameters) == ["count", "rate", "loud", "kind", "seed", "out_dir"]
    assert (parameters["count"].default, parameters["count"].meaning) == (1, "how many")
    assert parameters["kind"].choices == ("plain", "fancy") and parameters["rate"].meaning == ""


def test_values_take_the_declared_types(notebook):
    given = {"count": "7", "rate": "1e-3", "loud": "True", "kind": "fancy"}
    assert check_values(notebook(), given) == {
        "count": 7,
        "rate": 0.001,
        "loud": True,
        "kind": "fancy",
    }


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("cuont", "3", "no parameter 'cuont'.*did you mean 'count'"),
        ("zzz", "3", "it has count, rate, loud"),
        ("count", "ten", "count must be int, got 'ten'"),
        ("count", "1.5", "count must be int"),
        ("rate", "nan", "rate must be a finite number"),
        ("rate", "-inf", "rate must be a finite number"),
        ("loud", "perhaps", "loud must be bool"),
        ("kind", "odd", "kind must be one of plain, fancy"),
        ("out_dir", "x", "out_dir is set by --out"),
    ],
)
def test_wrong_values_are_refused_by_name(notebook, name, text, message):
    with pytest.raises(UsageError, match=message):
        check_values(notebook(), {name: text})


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 3}', '{"cells": []}'])
def test_files_that_are_no_such_notebook(content, tmp_path):
    (tmp_path / "odd.ipynb").write_text(content)
    with pytest.raises(UsageError, match="odd.ipynb"):
        read_parameters(tmp_path / "odd.ipynb")


def test_notebooks_are_found_by_path_and_by_name(notebook, monkeypatch):
    path = notebook()
    assert find_notebook(str(path)) == path
    monkeypatch.chdir(ROOT)
    assert find_notebook("01_seed_model") == Path("notebooks/01_seed_model.ipynb")
    with pytest.raises(UsageError, match="did you mean '01_seed_model'"):
        find_notebook("01_sede_model")
    monkeypatch.chdir(path.parent)
    with pytest.raises(UsageError, match="run from a clone"):
        find_notebook("01_seed_model")


def test_a_run_leaves_notebook_html_and_record(notebook, tmp_path):
    record = run_notebook(notebook(), {"count": 5}, tmp_path / "out", render=render)
    folder = tmp_path / "out/small/seed-3"
    assert record.status == "completed" == RunRecord.load(folder).status
    assert printed(folder) == "first\n5 plain\nlast\n"
    assert "5 plain" in (folder / "small.html").read_text()
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.csv",
        "run.json",
        "small.html",
        "small.ipynb",
    ]


def test_a_failing_cell_leaves_the_partial_notebook_and_a_failed_record(notebook, tmp_path):
    result = command("run", notebook("raise ValueError('no good')"), "--out", tmp_path / "out")
    folder = tmp_path / "out/small/seed-3"
    record = RunRecord.load(folder)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert record.status == "failed" and record.error == "cell In [4]: ValueError: no good"
    assert record.error in result.stdout
    assert printed(folder) == "first\n" and (folder / "small.html").exists()


def test_a_killed_kernel_is_a_failure_in_record_and_notebook(notebook, tmp_path):
    record = run_notebook(
        notebook("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), {}, tmp_path / "out"
    )
    assert record.status == "failed" and "kernel died" in record.error
    metadata = nbformat.read(tmp_path / "out/small/seed-3/small.ipynb", as_version=4).metadata
    assert metadata.mnist_utils.status == "failed" and metadata.papermill.exception is True


@pytest.mark.skipif(os.name != "posix", reason="signals as on Unix")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_the_partial_notebook_and_an_interrupted_record(
    stop, notebook, tmp_path
):
    path = notebook("import time; print('waiting', flush=True); time.sleep(60)")
    words = [sys.executable, "-m", "mnist_utils", "run", str(path), "--out", str(tmp_path / "out")]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  (a shell's background jobs ignore it)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(words, cwd=ROOT, preexec_fn=heed, **pipes)
    for line in process.stdout:
        if "waiting" in line:
            break
    process.send_signal(stop)
    out, err = process.communicate(timeout=60)
    folder = tmp_path / "out/small/seed-3"
    assert process.returncode == 130 and "Traceback" not in err, err
    assert RunRecord.load(folder).status == "interrupted" and "interrupted" in out
    assert "first" in printed(folder) and "last" not in printed(folder)
    assert (
        nbformat.read(folder / "small.ipynb", as_version=4).metadata.mnist_utils.status
        == "interrupted"
    )


def test_a_failure_does_not_cost_the_completed_run_before_it(notebook, tmp_path):
    out = tmp_path / "out"
    run_notebook(notebook("print('good')"), {}, out)
    for _ in range(2):
        run_notebook(notebook("raise SystemError"), {}, out)
    assert RunRecord.load(out / "small/seed-3").status == "failed"
    assert RunRecord.load(out / "small/seed-3.previous").status == "completed"
    run_notebook(notebook("print('better')"), {}, out)
    assert (
        "better" in printed(out / "small/seed-3") and not (out / "small/seed-3.previous").exists()
    )


def test_other_peoples_files_are_not_cleared_away(notebook, tmp_path):
    folder = tmp_path / "out/small/seed-3"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds files that are no run"):
        run_notebook(notebook(), {}, tmp_path / "out")
    assert (folder / "thesis.txt").read_text() == "precious"


def test_an_output_folder_that_cannot_be_written(notebook, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = command("run", notebook(), "--out", tmp_path / "file")
    assert (
        result.returncode == 2 and "cannot write to" in result.stderr and "--out" in result.stderr
    )
    assert "first" not in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
def test_a_read_only_output_folder(notebook, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    out = tmp_path / "out" if os.getuid() else Path("/proc/out")  # where root may not write either
    result = command("run", notebook(), "--out", out)
    assert result.returncode == 2 and "cannot write to" in result.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (["run", "nowhere"], "no notebook 'nowhere'"),
        (["run", "-p", "epohcs", "3"], "did you mean 'epochs'"),
        (["run", "-p", "epochs", "ten"], "epochs must be int"),
        (["run", "-p", "learning_rate", "nan"], "learning_rate must be a finite number"),
        (["run", "--dataset", "fashion"], "dataset must be one of auto, mnist, digits"),
        (["run", "--seed", "one"], "seed must be int"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, message, tmp_path):
    result = command(*words, "--out", tmp_path / "out")
    assert (
        result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    )
    assert not (tmp_path / "out").exists()


def test_help_names_the_commands():  # that it loads no torch, and so answers at once, is tested with the records
    result = command("--help")
    assert result.returncode == 0 and all(
        name in result.stdout for name in ("run", "list", "bench")
    )


def test_list_shows_every_notebook_with_its_parameters():
    everything = command("list").stdout
    assert "2 of them at 99.40% or more, 283 s of training" in everything  # notebook 01
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert path.stem in everything
        out = command("list", path.stem).stdout
        for parameter in read_parameters(path).values():
            assert parameter.name in out and parameter.meaning in out


class Page(HTMLParser):
    """What a report asks for and what its pictures say."""

    def __init__(self, html):
        super().__init__()
        self.requests, self.alts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.alts.append(attributes.get("alt"))
        if tag in ("img", "script", "link", "iframe", "source"):
            self.requests += [attributes.get("src") or attributes.get("href") or ""]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The submission notebook, really run, on the digits, where MNIST cannot be had."""
    out = tmp_path_factory.mktemp("digits")
    words = ["run", "-p", "epochs", "2", "--dataset", "digits", "--out", out]
    return command(*words), out / "quickest/seed-0"


def test_the_submission_runs_on_digits_and_is_not_judged(digits_run):
    result, folder = digits_run
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Test set: Average loss:") == 2 and "\r" not in result.stdout
    assert result.stdout.splitlines()[-1] == f"the report: {folder / 'quickest.html'}"
    assert result.stdout.count("not judged: not MNIST (") == 1
    record = RunRecord.load(folder)
    html = (folder / "quickest.html").read_text()
    assert (
        "NOT MNIST" in result.stdout
        and "NOT MNIST" in record.dataset["note"]
        and "NOT MNIST" in html
    )
    assert record.verdict[0]["outcome"] == "not judged" and "not judged: not MNIST" in result.stdout
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "quickest.ipynb", "quickest.html", "run.json", "metrics.csv",
        "accuracy.png", "loss.png", "model.safetensors", "misread.csv",
    }  # fmt: skip


def test_the_report_is_one_file_that_asks_for_nothing_and_describes_its_pictures(digits_run):
    html = (digits_run[1] / "quickest.html").read_text()
    page = Page(html)
    assert all(request.startswith("data:") for request in page.requests)
    assert len(page.alts) == 10 and all(page.alts)
    assert "@import" not in html and "<script" not in html and len(html) < 1_500_000


def test_the_executed_notebook_is_clean(digits_run):
    notebook = nbformat.read(digits_run[1] / "quickest.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "widgets" not in notebook.metadata
    streams = [o for cell in code for o in cell.outputs if o.output_type == "stream"]
    assert all(o.name == "stdout" for o in streams) and not any("\r" in o.text for o in streams)
    log = next(o.text for o in streams if "Epoch 1" in o.text).splitlines()
    # A bar and a line an epoch; a slow machine says how long it takes as well.
    assert len([line for line in log if "takes about" not in line]) == 4


def test_the_same_seed_gives_the_same_metrics(digits_run, tmp_path):
    folder = digits_run[1]
    words = ["run", "-p", "epochs", "2", "--dataset", "digits", "--out", tmp_path]
    assert command(*words).returncode == 0
    first, second = (RunRecord.load(f) for f in (folder, tmp_path / "quickest/seed-0"))
    rows = [
        [(r.train_loss, r.train_correct, r.validation_loss) for r in record.epochs]
        for record in (first, second)
    ]
    assert rows[0] == rows[1]
    weights = [
        (f / "model.safetensors").read_bytes() for f in (folder, tmp_path / "quickest/seed-0")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "words, message",
    [
        (["-p", "batch_size", "100000"], "ValueError: batch_size must be from 1 to 1,437"),
        (["-p", "learning_rate", "1e9", "-p", "epochs", "1"], "DivergedError: the loss is"),
    ],
)
def test_values_that_only_the_notebook_can_judge_fail_clearly(words, message, tmp_path):
    words = ["01_seed_model", "--dataset", "digits", *words, "--out", tmp_path]
    result = command("run", *words)
    assert result.returncode == 1 and message in result.stdout and "Traceback" not in result.stderr
    record = RunRecord.load(tmp_path / "01_seed_model/seed-0")
    assert record.status == "failed" and message in record.error and not record.epochs


def test_mnist_that_cannot_be_had_is_an_error_with_three_ways_out(tmp_path):
    (tmp_path / "empty").mkdir()
    words = ["--dataset", "mnist", "--mirror", tmp_path / "empty", "--data", tmp_path / "cache"]
    result = command("run", *words, "--out", tmp_path / "out")
    assert (
        result.returncode == 1
        and "three ways out" in result.stdout
        and "is not there" in result.stdout
    )


def test_seeds_are_read_as_ranges_and_numbers():
    assert parse_seeds("0-3, 7,2") == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("text", ["", "3-1", "a", "1,,2", "-1", "1-"])
def test_seeds_that_mean_nothing_are_refused(text):
    with pytest.raises(UsageError, match="seeds must look like"):
        parse_seeds(text)


def test_a_plan_is_checked_before_anything_runs(notebook, tmp_path):
    jobs = plan([notebook()], {"count": "2"}, [4, 5], tmp_path)
    assert [(job.name, job.values) for job in jobs] == [
        ("small/seed-4", {"count": 2, "seed": 4}),
        ("small/seed-5", {"count": 2, "seed": 5}),
    ]
    with pytest.raises(UsageError, match="no parameter 'rat' .did you mean 'rate'"):
        plan([notebook()], {"rat": "2"}, [4, 5], tmp_path)


def test_several_values_make_a_run_each_under_a_stable_name(notebook, tmp_path):
    jobs = plan(
        [notebook(), notebook(name="other")],
        {"rate": "0.1, 2", "kind": "plain,fancy"},
        None,
        tmp_path,
    )
    assert [job.name for job in jobs[:4]] == [
        "small/rate=0.1,kind=plain/seed-3",
        "small/rate=0.1,kind=fancy/seed-3",
        "small/rate=2.0,kind=plain/seed-3",
        "small/rate=2.0,kind=fancy/seed-3",
    ]
    assert len({job.folder for job in jobs}) == len(jobs) == 8
    assert jobs[3].values == {"rate": 2.0, "kind": "fancy"}
    with pytest.raises(UsageError, match="rate must be float, got 'x'"):
        plan([notebook()], {"rate": "0.1,x"}, None, tmp_path)


@pytest.mark.parametrize("suffix", [".toml", ".yaml"])
def test_a_batch_is_read_from_a_file(tmp_path, suffix):
    text = {
        ".toml": 'notebooks = ["a", "b"]\nseeds = "0-2"\n[parameters]\nrate = [0.1, 0.2]\nloud = true\n',
        ".yaml": "notebooks: [a, b]\nseeds: 0-2\nparameters:\n  rate: [0.1, 0.2]\n  loud: true\n",
    }[suffix]
    file = tmp_path / f"batch{suffix}"
    file.write_text(text)
    assert read_batch(file) == (["a", "b"], {"rate": ["0.1", "0.2"], "loud": "true"}, "0-2")


@pytest.mark.parametrize(
    "text", ["", "notebooks = 3 3", 'seeds = "1"', 'notebooks = ["a"]\nseed = 1']
)
def test_a_file_that_is_no_batch_is_named(tmp_path, text):
    (tmp_path / "batch.toml").write_text(text)
    with pytest.raises(UsageError, match="batch.toml"):
        read_batch(tmp_path / "batch.toml")


def test_a_dry_run_shows_the_plan_and_runs_nothing(notebook, tmp_path):
    done = command(
        "run",
        notebook(),
        "-p",
        "rate",
        "1,2",
        "--seeds",
        "0-1",
        "--dry-run",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 0 and not (tmp_path / "out").exists()
    assert (
        "to run  small/rate=1.0/seed-0  rate=1.0 seed=0" in done.stdout
        and "4 of 4 to run, 1 at a time" in done.stdout
    )


def test_runs_side_by_side_share_the_cores(notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert [share_of_cores(workers) for workers in (1, 3, 16)] == [8, 2, 1]
    assert 1 <= choose_workers("auto") <= 8
    path = notebook("print('threads', __import__('os').environ.get('OMP_NUM_THREADS'))")
    # One at a time, two, and two where the user has said how many.
    for workers, said, threads in ((1, None, "None"), (2, None, "4"), (2, "3", "3")):
        if said:
            monkeypatch.setenv("OMP_NUM_THREADS", said)
        jobs = plan([path], {}, [0, 1], tmp_path / f"{workers}-{said}")
        run_batch(jobs, workers)
        assert all(f"threads {threads}\n" in printed(job.folder) for job in jobs)
        assert os.environ.get("OMP_NUM_THREADS") == said


def test_how_many_runs_there_are_at_a_time_decides_nothing(tmp_path, monkeypatch, capsys):
    """On many cores a run has several threads, but its own number of threads stays as it was."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.chdir(ROOT)
    plans = []
    for jobs in ("1", "2"):
        words = ["run", "every_seed", "--seeds", "0-1", "--jobs", jobs, "--dry-run"]
        assert main([*words, "--out", str(tmp_path)]) == 0
        plans.append(capsys.readouterr().out.splitlines()[:-1])
    assert plans[0] == plans[1] and "threads" not in plans[0][0]


def test_workers_that_are_lost_together_are_waited_for_once(monkeypatch):
    slept = []
    monkeypatch.setattr(executor.time, "sleep", slept.append)
    monkeypatch.setattr(executor, "_ended", lambda futures: futures)
    future = type("Future", (), {"status": "lost"})
    client = SimpleNamespace(submit=lambda *_, **__: future())
    ended = list(executor.Engine(client, 4).map_unordered(print, range(4)))
    assert [type(outcome) for _, outcome in ended] == [executor.Lost] * 4
    assert slept == [executor.ORPHAN]


def test_on_gpus_the_runs_are_spread_over_the_devices(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert choose_workers("auto") == 2
    source = "(__import__('pathlib').Path(out_dir) / 'device').write_text(__import__('os').environ['CUDA_VISIBLE_DEVICES'])"
    jobs = plan([notebook(source)], {}, [0, 1], tmp_path / "out")
    run_batch(jobs, workers=2)
    assert sorted((job.folder / "device").read_text() for job in jobs) == ["3", "5"]
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert gpus() == []


def test_what_is_done_stays_done_and_the_rest_is_run(notebook, tmp_path, capsys):
    path = notebook(
        "assert seed != 2\n(__import__('pathlib').Path(out_dir) / 'made').write_text(str(seed))"
    )
    jobs = plan([path], {}, [1, 2], tmp_path / "out")
    records, stopped = run_batch(jobs, workers=2)
    assert not stopped
    assert [record.status for record in records] == ["completed", "failed"]
    assert (
        "AssertionError" in records[1].error
        and "small/seed-2: failed, cell In [4]" in capsys.readouterr().out
    )
    made = tmp_path / "out/small/seed-1/made"
    before = made.stat().st_mtime_ns
    assert jobs[0].is_done() and not jobs[1].is_done()
    assert describe(jobs, 1).endswith("1 of 2 to run, 1 at a time")
    assert describe(jobs, 1, force=True).endswith("2 of 2 to run, 1 at a time")
    run_batch(jobs)
    assert (
        made.stat().st_mtime_ns == before
        and "1 of 2 runs are done already" in capsys.readouterr().out
    )
    run_batch(jobs[:1], force=True)
    assert made.stat().st_mtime_ns > before
    lines = (tmp_path / "out/summary.csv").read_text().splitlines()
    assert lines[0].startswith("job,notebook,seed,status") and lines[1].startswith(
        "small/seed-1,small,1,completed"
    )


DRAWS = """
import multiprocessing, numpy, os, torch
torch.manual_seed(seed)
print("torch", torch.rand(1).item(), os.environ["MINE"])
print("numpy", numpy.random.rand())
print("forked", multiprocessing.parent_process() is not None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
def test_a_batch_forks_kernels_that_draw_what_a_single_run_draws(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("MINE", "kept")
    path = notebook(DRAWS)
    run_batch(plan([path], {}, [1, 2], tmp_path / "many"), workers=1)
    run_notebook(path, {"seed": 1}, tmp_path / "one")
    folders = [
        tmp_path / place for place in ("many/small/seed-1", "many/small/seed-2", "one/small/seed-1")
    ]
    first, second, single = (
        dict(line.split(" ", 1) for line in printed(f).splitlines()[1:-1]) for f in folders
    )
    assert first["torch"] == single["torch"] != second["torch"] and "kept" in first["torch"]
    assert first["numpy"] != second["numpy"]  # nobody gave it a seed
    assert (first["forked"], single["forked"]) == ("True", "False")


@pytest.mark.skipif(os.name != "posix", reason="pipes as on Unix")
def test_a_reader_who_leaves_early_sees_no_traceback():
    words = [sys.executable, "-m", "mnist_utils", "list"]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1


def test_the_summary_has_a_line_for_the_seeds_of_each_notebook_and_variant(notebook, tmp_path):
    def row(name, variant, status, correct):
        facts = dict(status=status, dataset={"note": "digits"} if name == "b" else {})
        return Job(notebook(name=name), {"seed": 1}, tmp_path, variant), make_record(
            (correct,), **facts
        )

    rows = [
        row("a", "", "completed", 9900),
        row("a", "", "completed", 9940),
        row("a", "", "failed", 9999),
    ]
    head, *lines = format_summary(
        [*rows, row("a", "x=1", "failed", 1), row("b", "", "completed", 9000)]
    ).splitlines()
    assert head.split() == "notebook runs completed mean lowest highest".split()
    assert [line.split() for line in lines] == [
        ["a", "3", "2", "99.200%", "99.00%", "99.40%"],
        ["a/x=1", "1", "0"],
        ["b", "1", "1", "90.000%", "90.00%", "90.00%", "not", "MNIST"],
    ]


def test_a_run_of_other_inputs_is_not_done(notebook, tmp_path, monkeypatch):
    path = notebook()
    same = fingerprint(path, {"seed": 1})
    assert same == fingerprint(path, {"seed": 1, "out_dir": "elsewhere"})
    assert same != fingerprint(path, {"seed": 2})
    assert same != fingerprint(notebook("print(count, 'changed')"), {"seed": 1})
    installing = json.loads(notebook().read_text())
    installing["cells"].append(nbformat.v4.new_code_cell("%pip install elsewhere"))
    path.write_text(json.dumps(installing))
    assert same == fingerprint(path, {"seed": 1})


def test_a_default_run_is_done_where_one_on_mnist_with_one_thread_is(tmp_path):
    path = ROOT / "notebooks/every_seed.ipynb"

    def done(record: RunRecord, *given: str) -> bool:
        values = check_values(path, dict(pair.split("=") for pair in given))
        return Job(path, values, tmp_path).is_done(record)

    committed = RunRecord.load(ROOT / "reports/every_seed/seed-0")
    parameters = committed.inputs["parameters"]
    assert (parameters["dataset"], parameters["threads"]) == ("mnist", 1)
    for given in ([], ["threads=0"], ["dataset=mnist"], ["dataset=auto", "threads=1"]):
        assert done(committed, *given)
    for given in (["threads=2"], ["dataset=digits"], ["seed=1"], ["dataset=auto", "epochs=18"]):
        assert not done(committed, *given)
    # What `auto` found may have been the digits.
    parameters["dataset"] = "auto"
    assert done(committed) and not done(committed, "dataset=mnist")


def test_the_command_runs_seeds_and_says_which_failed(notebook, tmp_path):
    path = notebook("assert seed != 8")
    done = command("run", path, "--seeds", "7-8", "--jobs", "2", "--out", tmp_path / "out")
    assert (
        done.returncode == 1
        and "1 of 2 runs completed" in done.stdout
        and "small/seed-8: failed" in done.stdout
    )
    assert command("run", path, "--seeds", "7", "--out", tmp_path / "out").returncode == 0


@pytest.mark.parametrize(
    "words", [("--seeds", "x"), ("--seeds", "1", "--seed", "2"), ("--seeds", "1", "--jobs", "0")]
)
def test_bad_seeds_and_jobs_are_refused(notebook, tmp_path, words):
    refused = command("run", notebook(), *words, "--out", tmp_path / "out")
    assert (
        refused.returncode == 2
        and "Traceback" not in refused.stderr
        and not (tmp_path / "out").exists()
    )


def test_listings_stay_in_the_report_and_bars_come_as_their_last_state(capsys):
    log = Log()
    for text in ("begun\n", "layer\n" * 31, "rule\n" * 4, "\r 10%", "\r 90%", "\r100%\n", "end\n"):
        log.write(text)
    said = ["begun", "(31 lines: see the report)", *["rule"] * 4, "100%", "end"]
    assert capsys.readouterr().out.splitlines() == said


def test_a_single_run_says_first_what_its_recorded_runs_reach(monkeypatch, tmp_path, capsys):
    done = make_record(status="completed")
    monkeypatch.setattr("mnist_utils.batch.execute.run_notebook", lambda *_, **__: done)
    monkeypatch.chdir(ROOT)
    assert main(["run", "01_seed_model", "--out", str(tmp_path)]) == 0
    running, recorded, _ = capsys.readouterr().out.splitlines()
    assert "running" in running and "2 of them at 99.40% or more" in recorded
    # A report folder that cannot be read is no reason not to run.
    odd = tmp_path / "reports/01_seed_model/seed-0/run.json"
    odd.parent.mkdir(parents=True)
    odd.write_text("{")
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "01_seed_model", "--out", str(tmp_path / "out")]) == 0
    assert "recorded runs" not in capsys.readouterr().out
