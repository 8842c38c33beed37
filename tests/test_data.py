import contextlib
import gzip
import hashlib
import http.server
import itertools
import multiprocessing
import os
import socket
import threading
import time
from functools import partial

import pytest
import torch
from torchvision import datasets, transforms

from mnist_utils.augment import Affine, straighten
from mnist_utils.data import (
    CHECKSUMS,
    TensorLoader,
    hold_out,
    load_data,
    load_digits,
    load_mnist,
    make_loaders,
    normalize,
)
from mnist_utils.errors import DataError

IMAGES = "train-images-idx3-ubyte"


@pytest.fixture
def serve(small_mnist):
    """Serve a folder over HTTP on the loopback; returns the URL."""
    servers = []

    def start(folder):
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def same(a, b) -> bool:
    return all(
        torch.equal(getattr(a, n), getattr(b, n))
        for n in ("train_images", "train_labels", "validation_images")
    )


def test_real_mnist_is_torchvisions(real_data, real_root):
    for train, images, labels in (
        (True, real_data.train_images, real_data.train_labels),
        (False, real_data.validation_images, real_data.validation_labels),
    ):
        oracle = datasets.MNIST(real_root, train=train)
        assert torch.equal(images, oracle.data) and torch.equal(labels, oracle.targets)


def test_real_holdout_is_fixed_balanced_and_from_the_training_images(real_data):
    held = hold_out(real_data)
    assert held.split == "holdout" and held.facts()["train"] == 50_000
    assert torch.bincount(held.validation_labels).tolist() == [1000] * 10
    # The draw is a promise: results on the holdout can be compared only while these images stay.
    digest = hashlib.sha256(held.validation_images.numpy().tobytes()).hexdigest()
    assert digest.startswith("3cf8bef3b480"), digest


def test_holdout_parts_training_images_and_leaves_out_the_test_images():
    digits = load_digits("test")
    held = hold_out(digits)

    def rows(*parts) -> list[bytes]:
        return sorted(bytes(image.numpy()) for part in parts for image in part)

    assert rows(held.train_images, held.validation_images) == rows(digits.train_images)
    assert len(set(torch.bincount(held.validation_labels).tolist())) == 1
    assert same(held, hold_out(digits))


@pytest.mark.parametrize("kind", ["folder", "file URL", "HTTP"])
def test_every_kind_of_mirror_fills_the_cache(kind, small_mnist, serve, tmp_path):
    mirror = {
        "folder": str(small_mnist),
        "file URL": small_mnist.as_uri(),
        "HTTP": serve(small_mnist),
    }[kind]
    data = load_mnist(tmp_path / "cache", mirror)
    assert data.train_images.shape == (300, 28, 28) and data.train_images.dtype == torch.uint8
    assert data.train_labels.shape == (300,) and data.train_labels.dtype == torch.int64
    assert data.note == "" and same(data, load_mnist(tmp_path / "cache"))
    names = sorted(path.name for path in (tmp_path / "cache/MNIST/raw").iterdir())
    assert names == sorted([*CHECKSUMS, *(f"{name}.gz" for name in CHECKSUMS)])


@pytest.mark.parametrize(
    "damage", ["truncated", "a flipped pixel", "labels out of range", "empty", "no header"]
)
def test_damaged_cache_is_named_and_repaired_from_its_archives(damage, small_mnist, tmp_path):
    whole = load_mnist(tmp_path, str(small_mnist))
    path = tmp_path / "MNIST/raw" / ("train-labels-idx1-ubyte" if "labels" in damage else IMAGES)
    content = bytearray(path.read_bytes())
    content[-1] = 77 if "labels" in damage else content[-1] ^ 1
    damaged = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "no header": content[16:],
    }.get(damage, content)
    path.write_bytes(damaged)
    mended = load_mnist(tmp_path)
    assert same(mended, whole) and "Repaired" in mended.note and "train-" in mended.note
    assert load_mnist(tmp_path).note == ""


def test_damaged_cache_without_archive_is_reported(small_mnist, tmp_path):
    load_mnist(tmp_path, str(small_mnist))
    (tmp_path / "MNIST/raw" / IMAGES).write_bytes(b"nonsense")
    (tmp_path / "MNIST/raw" / f"{IMAGES}.gz").unlink()
    with pytest.raises(DataError, match=f"{IMAGES}.gz: .*it is not there"):
        load_mnist(tmp_path)
    assert (tmp_path / "MNIST/raw" / IMAGES).read_bytes() == b"nonsense"  # nothing half-repaired


@pytest.mark.parametrize("kind", ["folder", "HTTP"])
def test_corrupt_archive_of_full_length_is_refused(kind, small_mnist, serve, tmp_path):
    archive = small_mnist / f"{IMAGES}.gz"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match="three ways out"):
        load_mnist(tmp_path / "cache", str(small_mnist) if kind == "folder" else serve(small_mnist))
    assert not list((tmp_path / "cache").rglob("*ubyte*"))


def test_cached_corrupt_archive_is_replaced_from_the_mirror(small_mnist, tmp_path):
    raw = tmp_path / "cache/MNIST/raw"
    raw.mkdir(parents=True)
    (raw / f"{IMAGES}.gz").write_bytes(b"x" * (small_mnist / f"{IMAGES}.gz").stat().st_size)
    assert len(load_mnist(tmp_path / "cache", str(small_mnist)).train_labels) == 300


def test_mirror_without_the_files_names_the_first_missing(small_mnist, tmp_path):
    (small_mnist / f"{IMAGES}.gz").unlink()
    with pytest.raises(DataError, match=f"{IMAGES}.gz: .*it is not there"):
        load_mnist(tmp_path / "cache", str(small_mnist))


def test_mirror_that_answers_404(serve, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="404"):
        load_mnist(tmp_path / "cache", serve(tmp_path / "empty"))


def test_mirror_that_hangs_is_left_within_seconds(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_utils.data.SILENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(DataError, match="timed out"):
            load_mnist(tmp_path / "cache", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert time.monotonic() - started < 10
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def answer():
    """A server that answers each request with these pieces, one after another; returns its URL."""
    listening = []

    def start(pieces, pause=0.0):
        listening.append(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(
            target=serve_pieces, args=(listening[-1], pieces, pause), daemon=True
        ).start()
        return f"http://127.0.0.1:{listening[-1].getsockname()[1]}"

    yield start
    for server in listening:
        server.close()


def serve_pieces(server, pieces, pause):
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with contextlib.suppress(OSError), connection:
                for piece in pieces():
                    connection.sendall(piece)
                    time.sleep(pause)


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        lambda: itertools.chain([HEAD], itertools.repeat(b"x")),
        lambda: itertools.chain([HEAD[:-2]], itertools.repeat(b"a")),
        lambda: itertools.repeat(b"H"),
    ],
    ids=["body", "header", "status line"],
)
def test_mirror_that_drips_is_left_at_the_deadline(
    pieces, small_mnist, answer, tmp_path, monkeypatch
):
    monkeypatch.setattr("mnist_utils.data.DEADLINE", 1.0)
    started = time.monotonic()
    with pytest.raises(DataError, match="not finished after 1 seconds in all.*three ways out"):
        load_mnist(tmp_path / "cache", answer(pieces, pause=0.05))
    assert time.monotonic() - started < 10


def test_mirror_that_sends_without_end_is_left_at_the_known_size(small_mnist, answer, tmp_path):
    url = answer(lambda: itertools.chain([HEAD], itertools.repeat(b"x" * 65536)))
    with pytest.raises(DataError, match="is longer than .* bytes"):
        load_mnist(tmp_path / "cache", url)
    assert not list(tmp_path.glob("cache/**/*ubyte*"))


@pytest.mark.parametrize(
    "make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")]
)
def test_what_is_no_plain_file_is_left(make, small_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_utils.data.DEADLINE", 1.0)
    (small_mnist / f"{IMAGES}.gz").unlink()
    make(small_mnist / f"{IMAGES}.gz")
    with pytest.raises(DataError, match="not finished after 1 seconds|is longer than"):
        load_mnist(tmp_path / "cache", str(small_mnist))


def test_an_archive_that_unpacks_to_more_than_it_should_is_refused(small_mnist, tmp_path):
    (small_mnist / f"{IMAGES}.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(DataError, match="its SHA-256 differs"):
        load_mnist(tmp_path / "cache", str(small_mnist))


def test_second_mirror_is_tried(small_mnist, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(
        datasets.MNIST, "mirrors", ["http://127.0.0.1:9/", serve(small_mnist) + "/"]
    )
    assert len(load_mnist(tmp_path / "cache").train_labels) == 300


def test_cache_that_cannot_be_written(small_mnist, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="Not a directory"):
        load_mnist(tmp_path / "file", str(small_mnist))


def _load(root, mirror, answers):
    answers.put(load_mnist(root, mirror).checksum)


def test_processes_that_start_at_once_on_an_empty_cache(real_mirror, real_data, tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    workers = [
        context.Process(target=_load, args=(tmp_path, real_mirror, answers)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=120) for _ in workers] == [real_data.checksum] * 3
    for worker in workers:
        worker.join()
    assert load_mnist(tmp_path).note == ""


def test_auto_takes_mnist_where_it_can(small_mnist, tmp_path):
    assert load_data("auto", tmp_path / "cache", str(small_mnist)).name == "mnist"


def test_auto_falls_back_to_digits_under_a_banner(small_mnist, tmp_path):
    data = load_data("auto", tmp_path / "cache")
    assert (
        data.name == "digits"
        and "NOT MNIST" in data.note
        and "three ways out" in " ".join(data.note.split())
    )
    assert data.facts()["note"] == data.note
    with pytest.raises(DataError, match="--mirror.*digits"):
        load_data("mnist", tmp_path / "cache")


def test_digits_look_like_mnist():
    from sklearn.datasets import load_digits as bundled

    data = load_digits("test")
    images = torch.cat([data.train_images, data.validation_images])
    assert (
        images.shape == (1797, 28, 28) and images.dtype == torch.uint8 and int(images.max()) == 255
    )
    assert not images[:, :4].any() and not images[:, :, -4:].any()  # centred in a margin of 4
    labels = torch.cat([data.train_labels, data.validation_labels])
    assert (
        torch.bincount(labels).tolist()
        == torch.bincount(torch.from_numpy(bundled().target)).tolist()
    )


@pytest.mark.parametrize("words", [dict(name="fashion"), dict(name="digits", split="train")])
def test_unknown_names_are_refused(words):
    with pytest.raises(ValueError, match="choose one of"):
        load_data(**words)


def test_normalize_is_torchvisions():
    images = load_digits("test").train_images[:50]
    oracle = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    expected = torch.cat([oracle(image.numpy()) for image in images])
    torch.testing.assert_close(normalize(images), expected)


def test_loader_serves_every_image_once_in_a_new_order_each_pass():
    images, labels = torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10)
    loader = TensorLoader(images, labels, 4, torch.Generator().manual_seed(1))
    passes = [torch.cat([batch for _, batch in loader]).tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(10)) for order in passes)
    assert len({tuple(order) for order in passes}) == 3
    assert [len(batch) for _, batch in loader] == [4, 4, 2] and len(loader) == 3


def test_loader_keeps_images_with_their_labels_and_repeats_with_its_seed():
    data = load_digits("test")
    lookup = {
        bytes(image.numpy()): int(label)
        for image, label in zip(data.train_images, data.train_labels)
    }
    orders = []
    for _ in range(2):
        train, validation = make_loaders(data, 100, seed=3)
        batches = list(train)
        orders.append(torch.cat([labels for _, labels in batches]))
        for images, labels in batches:
            pixels = (images.squeeze(1) * 255 * 0.3081 + 255 * 0.1307).round().to(torch.uint8)
            assert [lookup[bytes(image.numpy())] for image in pixels] == labels.tolist()
        assert torch.equal(torch.cat([labels for _, labels in validation]), data.validation_labels)
    assert torch.equal(*orders)


def test_loader_augments_each_pass_anew_from_its_generator():
    def add_noise(images, generator):
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    data = load_digits("test")
    passes = []
    for seed in (1, 1):
        train, validation = make_loaders(data, 400, seed, augment=add_noise)
        passes += [torch.cat([images for images, _ in train]) for _ in range(2)]
        plain = normalize(data.validation_images).unsqueeze(1)
        assert torch.equal(torch.cat([images for images, _ in validation]), plain)
    assert torch.equal(passes[0], passes[2]) and torch.equal(passes[1], passes[3])
    assert not torch.equal(passes[0].sort(dim=0)[0], passes[1].sort(dim=0)[0])


@pytest.mark.parametrize("augment", [None, Affine(10, 0.07, 0.1, 6)])
def test_loaders_serve_straightened_images_where_asked(augment):
    data = load_digits("test")
    plain = make_loaders(data, 400, 0, augment=augment)
    straight = make_loaders(data, 400, 0, augment=augment, deskew=True)
    expected = normalize(straighten(data.validation_images)).unsqueeze(1)
    assert torch.equal(torch.cat([images for images, _ in straight[1]]), expected)
    for (images, labels), (upright, same_labels) in zip(plain[0], straight[0]):
        assert torch.equal(labels, same_labels)
        assert (
            0.05 < (images - upright).abs().mean() < 0.5
        )  # moved, but the same digits distorted by the same draws


def test_straightening_with_another_augmentation_is_refused():
    with pytest.raises(ValueError, match="deskew goes with an Affine"):
        make_loaders(
            load_digits("test"), 400, 0, augment=lambda images, generator: images, deskew=True
        )


@pytest.mark.parametrize("batch_size", [0, -1, 1438])
def test_batch_size_out_of_range(batch_size):
    with pytest.raises(ValueError, match="batch_size must be from 1 to 1,437"):
        make_loaders(load_digits("test"), batch_size, seed=0)
