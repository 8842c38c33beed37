import csv
import json
import os
import stat
import subprocess
import sys
import threading

import pytest
import torch
from conftest import ROOT, make_record

from mnist_utils.errors import RecordError
from mnist_utils.records import SCHEMA, RunRecord, atomic_write, save_misread, write_text
from mnist_utils.training import save_weights


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    record = make_record(error='a "quoted"\n[ line ]')
    record.save(tmp_path / "deep/folder")
    assert RunRecord.load(tmp_path / "deep/folder") == record


def test_metrics_hold_one_row_an_epoch_with_accuracies_from_the_counts(tmp_path):
    record = make_record((9800, 9942))
    record.save(tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["validation_accuracy"]) for row in rows] == [0.98, 0.9942]


def test_last_and_best():
    record = make_record((9800, 9942, 9942, 9926))
    assert (record.last.epoch, record.best.epoch) == (4, 2)
    with pytest.raises(RecordError, match="no epoch"):
        make_record(()).last  # noqa: B018


def test_a_record_knows_versions_and_git_state():
    record = make_record()
    assert record.versions["torch"] and record.versions["python"]
    assert record.started.endswith("+00:00")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    assert record.git.get("commit", "") == commit


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "epochs": [{"x": 1}]}']
)
def test_a_damaged_record_is_reported(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RecordError, match="run.json: (damaged|schema)"):
        RunRecord.load(tmp_path)


def test_a_missing_or_newer_record_is_reported(tmp_path):
    with pytest.raises(RecordError, match="no such record"):
        RunRecord.load(tmp_path)
    make_record().save(tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(facts | {"schema": SCHEMA + 1}))
    with pytest.raises(RecordError, match=f"schema {SCHEMA + 1}"):
        RunRecord.load(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    make_record((9000,)).save(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError), atomic_write(tmp_path / "run.json") as part:
        part.write_text("half")
        raise ValueError
    assert (tmp_path / "run.json").read_bytes() == before
    bad = make_record((9000,))
    bad.parameters["learning_rate"] = float("nan")
    with pytest.raises(ValueError):
        bad.save(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "run.json"]


def test_status_is_one_of_the_known():
    with pytest.raises(ValueError, match="unknown status"):
        make_record().finish("done")


def test_the_rooms_and_the_records_load_no_torch():
    code = (
        "import sys, mnist_utils.records, mnist_utils.assignment, mnist_utils.batch.plan, "
        "mnist_utils.batch.execute, mnist_utils.batch.executor, mnist_utils.reports.pages, "
        "mnist_utils.__main__; sys.exit('torch' in sys.modules or 'distributed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_misread_images_are_listed_with_guess_and_confidence(tmp_path):
    probabilities = torch.tensor([[0.9, 0.1], [0.25, 0.75], [0.625, 0.375]])
    save_misread(tmp_path, torch.tensor([0, 0, 1]), probabilities)
    text = (tmp_path / "misread.csv").read_text(encoding="utf-8")
    assert text == "image,label,guess,confidence\n1,0,1,0.7500\n2,1,0,0.6250\n"


def test_nothing_misread_leaves_the_head_alone(tmp_path):
    save_misread(tmp_path, torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
    assert (tmp_path / "misread.csv").read_text(
        encoding="utf-8"
    ) == "image,label,guess,confidence\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="files as on Unix")
def test_a_write_follows_links_and_goes_through_what_is_no_plain_file(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    (tmp_path / "dangling").symlink_to("later")
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "later").read_text() == "made"
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "through")
    reader.join(timeout=10)
    assert read == ["through"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    write_text("/dev/null", "nothing")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
@pytest.mark.parametrize("mask, mode", [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_a_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(tmp_path, mask, mode):
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o640)
    before = os.umask(mask)
    try:
        write_text(tmp_path / "new", "")
        write_text(tmp_path / "old", "")
        # A library that writes a file of its own in place of the one it was given.
        with atomic_write(tmp_path / "own") as part:
            part.unlink()
            part.touch(0o600)
        save_weights(torch.nn.Conv2d(1, 1, 1), tmp_path / "weights")
    finally:
        os.umask(before)
    for name in ("new", "own", "weights"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640


def test_a_record_names_its_attempt_and_an_older_one_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_UTILS_ATTEMPT", "12ab")
    record = make_record()
    record.save(tmp_path)
    assert record.attempt == "12ab" == RunRecord.load(tmp_path).attempt
    facts = json.loads((tmp_path / "run.json").read_text())
    del facts["attempt"]
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert RunRecord.load(tmp_path).attempt == ""


def test_a_foreign_repository_around_a_run_is_not_its_own(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    words = ["git", "rev-parse", "HEAD"]
    own = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert make_record().git.get("commit", "") == own
    package = tmp_path / "site/mnist_utils"
    package.mkdir(parents=True)
    monkeypatch.setattr("mnist_utils.records.__file__", str(package / "records.py"))
    (package / "records.py").touch()
    assert make_record().git == {}
