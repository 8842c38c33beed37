import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, load_model
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from mnist_utils.augment import Affine
from mnist_utils.data import load_digits, make_loaders, normalize
from mnist_utils.errors import DivergedError
from mnist_utils.models import build_model
from mnist_utils.training import (
    choose_device,
    device_facts,
    predict,
    rise_and_fall,
    save_weights,
    set_seed,
    test,
    train,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_digits("test")


def short_run(data, seed, epochs=1, batch_size=64, rate=0.1):
    """A whole small training, rate falling to zero: (model, passes of training, last test)."""
    set_seed(seed)
    model = build_model("seed").to(memory_format=torch.channels_last)
    loader, validation = make_loaders(data, batch_size, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * len(loader))
    passes = [
        train(model, CPU, loader, optimizer, epoch + 1, scheduler, progress=False)
        for epoch in range(epochs)
    ]
    return model, passes, test(model, CPU, validation, progress=False)


def test_short_training_on_real_mnist(real_data):
    """10,000 images, sorted by label, once: over 97%.

    Without the shuffle the loss diverges, and with a constant rate it is 95.6%. Batch norm would
    forgive a wrong normalisation, so that is checked against the pixels' own mean and spread.
    """
    order = real_data.train_labels[:10_000].argsort(stable=True)
    data = replace(
        real_data,
        train_images=real_data.train_images[order],
        train_labels=real_data.train_labels[order],
    )
    pixels = normalize(real_data.train_images)
    assert abs(pixels.mean()) < 1e-3 and abs(pixels.std() - 1) < 1e-3
    accuracies = [short_run(data, seed)[2].accuracy for seed in (0, 1)]
    assert sum(accuracies) / 2 > 0.97, accuracies


def test_digits_are_learnt(digits):
    _, passes, tested = short_run(digits, seed=0, epochs=6, batch_size=32)
    assert tested.accuracy > 0.9 and passes[-1].loss < passes[0].loss


def test_test_agrees_with_scikit_learn_and_leaves_the_model_alone(digits):
    model = build_model("seed").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, loader = make_loaders(digits, 100, seed=0)  # 360 images: the last batch is smaller
    result = test(model, CPU, loader, progress=False)
    probabilities = predict(model, CPU, loader)
    labels = digits.validation_labels
    assert result.total == 360 and probabilities.shape == (360, 10)
    assert result.accuracy == accuracy_score(labels, probabilities.argmax(dim=1))
    exact = probabilities.double() / probabilities.double().sum(dim=1, keepdim=True)
    assert result.loss == pytest.approx(log_loss(labels, exact, labels=range(10)), rel=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_train_takes_the_steps_that_plain_torch_takes(digits):
    set_seed(0)
    ours, plain = build_model("seed", dropout=0), build_model("seed", dropout=0)
    plain.load_state_dict(ours.state_dict())
    batches = list(make_loaders(digits, 500, seed=0)[0])
    result = train(ours, CPU, batches, torch.optim.SGD(ours.parameters(), lr=0.1), progress=False)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    loss_sum = correct = 0
    for images, labels in batches:
        optimizer.zero_grad()
        logits = plain(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(dim=1) == labels).sum())
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name])
    assert (result.correct, result.total) == (correct, 1437) and result.loss == pytest.approx(
        loss_sum / 1437
    )


def test_the_loss_is_weighted_by_batch_size():
    class Echo(nn.Module):  # logits that are the images' own values
        def forward(self, images):
            return images.flatten(1)

    right = torch.eye(10)[:, None, None] * 20
    batches = [(right, torch.arange(10)), (torch.zeros(1, 1, 1, 10), torch.tensor([3]))]
    result = test(Echo(), CPU, batches, progress=False)
    assert result.loss == pytest.approx(torch.log(torch.tensor(10.0)).item() / 11, rel=1e-3)
    assert (result.correct, result.total) == (10, 11)


def test_a_standard_dataloader_serves_as_well(digits):
    dataset = TensorDataset(
        normalize(digits.validation_images).unsqueeze(1), digits.validation_labels
    )
    model = build_model("seed")
    ours = test(model, CPU, make_loaders(digits, 128, seed=0)[1], progress=False)
    theirs = test(model, CPU, DataLoader(dataset, batch_size=50), progress=False)
    assert (ours.correct, ours.total) == (theirs.correct, theirs.total)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    loader = DataLoader(dataset, batch_size=50, shuffle=True)
    assert (
        train(model, CPU, loader, torch.optim.SGD(model.parameters(), lr=0.1), progress=False).total
        == 360
    )


def test_an_iterator_without_length_serves_as_well(digits, capsys):
    model = build_model("seed")
    batches = iter(list(make_loaders(digits, 500, seed=0)[0]))
    assert train(model, CPU, batches, torch.optim.SGD(model.parameters(), lr=0.1)).total == 1437


def test_what_is_printed_is_in_the_courses_form(digits, capsys):
    model = build_model("seed")
    loader, validation = make_loaders(digits, 128, seed=0)
    train(
        model, CPU, loader, torch.optim.SGD(model.parameters(), lr=0.01), 7
    )  # as the course calls it
    result = test(model, CPU, validation)
    bar, line = capsys.readouterr().out.rstrip("\n").split("\n")
    assert "Epoch 7: 100%" in bar and "12/12" in bar and "loss=" in bar and "batch_id=11" in bar
    assert line == (
        f"Test set: Average loss: {result.loss:.4f}, "
        f"Accuracy: {result.correct}/360 ({100 * result.correct / 360:.2f}%)"
    )
    test(model, CPU, validation, progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("progress", [True, False])
def test_a_diverging_loss_stops_the_run(digits, progress, capsys):
    model = build_model("seed")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e6)
    with pytest.raises(
        DivergedError, match="the loss is (nan|inf) in epoch 1; lower the learning rate, 1e\\+06"
    ):
        train(model, CPU, make_loaders(digits, 32, seed=0)[0], optimizer, progress=progress)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(digits):
    runs = [short_run(digits, seed, epochs=2) for seed in (5, 5, 6)]
    first, again, other = [
        [(p.loss, p.correct) for p in passes] + [tested.loss] for _, passes, tested in runs
    ]
    assert first == again != other
    states = [model.state_dict() for model, _, _ in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_weights_are_saved_without_code_and_load_back(digits, tmp_path):
    model = build_model("seed").to(memory_format=torch.channels_last)
    save_weights(model, tmp_path / "model.safetensors")
    copy = build_model("seed")
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = normalize(digits.validation_images[:8]).unsqueeze(1)
    torch.testing.assert_close(copy.eval()(images), model.eval()(images))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_that_two_layers_share_are_saved_once(tmp_path):
    layer = nn.Conv2d(4, 4, 3)
    save_weights(nn.Sequential(layer, layer), tmp_path / "model.safetensors")
    copy = nn.Sequential(layer, layer)
    with torch.no_grad():
        before = layer.weight.clone()
        layer.weight.zero_()
    load_model(copy, tmp_path / "model.safetensors")
    assert torch.equal(copy[1].weight, before)


@pytest.mark.parametrize("name", ["warp", "cuda:99", "meta:x", ""])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match="cannot be used here.*try 'auto'"):
        choose_device(name)


def test_device_and_threads_are_recorded():
    before = torch.get_num_threads()
    device = choose_device("cpu", threads=1)
    assert device_facts(device)["threads"] == 1 and device_facts(device)["name"]
    torch.set_num_threads(before)
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_one_image_is_enough(digits):
    one = replace(
        digits,
        train_images=digits.train_images[:1],
        train_labels=digits.train_labels[:1],
        validation_images=digits.validation_images[:1],
        validation_labels=digits.validation_labels[:1],
    )
    loader, validation = make_loaders(one, 1, seed=0, augment=Affine(10, 0.1, 0.1, 5, 0.03))
    model = build_model("seed")
    assert (
        train(model, CPU, loader, torch.optim.SGD(model.parameters(), lr=0.1), progress=False).total
        == 1
    )
    assert test(model, CPU, validation, progress=False).total == 1


def test_threads_below_zero_are_refused():
    with pytest.raises(ValueError, match="threads must be at least 1"):
        choose_device("cpu", threads=-1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_step(digits):
    """Page faults are the oracle: without the setting a step takes thousands of them."""
    import resource

    choose_device("cpu")
    model, (loader, _) = build_model("seed"), make_loaders(digits, 128, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        train(model, CPU, loader, optimizer, progress=False)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults / len(loader) < 500


@pytest.mark.parametrize("size", ["rows 0 cols 0", "rows 1 cols 1", "rows 24 cols 80"])
def test_each_epochs_line_survives_on_a_terminal_of_any_size(size, tmp_path):
    script = shutil.which("script")
    if not script:
        pytest.skip("no script command to make a terminal")
    (tmp_path / "train.py").write_text(
        "import torch\n"
        "from mnist_utils.models import build_model\n"
        "from mnist_utils import training\n"
        "from mnist_utils.training import train\n"
        # However slow the machine is, a bar is drawn at its beginning and at its end.
        "training.BAR_SECONDS = 600\n"
        "model = build_model('seed')\n"
        "batches = [(torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64))] * 3\n"
        "for epoch in (1, 2):\n"
        "    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "    train(model, torch.device('cpu'), batches, optimizer, epoch)\n"
    )
    command = f"stty {size}; {sys.executable} {tmp_path / 'train.py'}"
    printed = subprocess.run([script, "-qec", command, "/dev/null"], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stdout
    assert re.findall(r"Epoch (\d): 100%", printed.stdout) == ["1", "2"]


def test_a_warmup_of_all_steps_never_divides_by_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = rise_and_fall(optimizer, steps=4, warmup=1.0)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0


def test_an_empty_loader_is_an_error():
    with pytest.raises(ValueError, match="no batch"):
        test(build_model("seed"), CPU, [], progress=False)


def test_the_rate_rises_falls_and_ends_at_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler, rates = rise_and_fall(optimizer, steps=100, warmup=0.2), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.5 / 21) and max(rates) == rates[20] == 0.5
    assert optimizer.param_groups[0]["lr"] == 0 and rates[-1] == pytest.approx(0.5 / 80)
    assert all(b > a for a, b in zip(rates[:20], rates[1:21])) and all(
        b < a for a, b in zip(rates[20:], rates[21:])
    )


def test_without_warmup_the_rate_is_torchs_linear_one():
    rates = []
    for make in (
        lambda o: rise_and_fall(o, 50),
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 50),
    ):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = make(optimizer)
        rates.append([])
        for _ in range(50):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert rates[0] == pytest.approx(rates[1], abs=1e-9)


def test_the_average_takes_in_every_step(digits):
    set_seed(0)
    model = build_model("seed", dropout=0.0)
    loader, _ = make_loaders(digits, 400, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    average, sums = AveragedModel(model), []
    scheduler = rise_and_fall(optimizer, len(loader))
    keep = model.block1[0].weight
    scheduler.step = lambda: sums.append(
        keep.detach().clone()
    )  # called after each step of the optimizer
    train(model, CPU, loader, optimizer, 1, scheduler, progress=False, average=average)
    assert len(sums) == len(loader) == 4
    assert torch.allclose(average.module.block1[0].weight, torch.stack(sums).mean(0), atol=1e-6)
