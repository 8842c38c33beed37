"""Kinds of logs that real notebooks, READMEs and programs have, each in forms that differ from one another."""

import pytest
import submissions as made
from submissions import code, course_log, keras_log, notebook, torchsummary

from mnist_utils.assignment import FAIL, PASS
from mnist_utils.grading import NOT_SHOWN, grade, load_rules

TABLE = code(made.SUMMARY, torchsummary())
NET = code(made.NET)
LOOP = made.LOOP


def result(tmp_path, data, name="a.ipynb"):
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    (found,) = grade([path])
    return found


def read(tmp_path, data, name="a.ipynb"):
    """(outcome, trainings, epochs, last, best, best epoch) of what counts."""
    found = result(tmp_path, data, name)
    if not found.best:
        return found.outcome, 0, None, None, None, None
    iteration, training = found.best.iteration, found.best.iteration.training
    last = iteration.result and round(iteration.result.percent, 2)
    if not training:
        return found.outcome, len(found.judged), None, last, None, None
    best = training.best and round(training.best.percent, 2)
    return (
        found.outcome,
        len(found.judged),
        training.epochs or None,
        last,
        best,
        training.best_epoch or None,
    )


def counts(*right):
    return course_log(right)


NINETEEN = [9900 + 2 * n for n in range(18)] + [9941]
PER_EPOCH = "Epoch {n}/{of}: {train} {acc}: 98.1%, {test} {acc}: {value:.2f}%\n"


def lines(form, values, of=None, **words):
    of = of or len(values)
    return "".join(
        form.format(n=n, of=of, value=value, **words) for n, value in enumerate(values, 1)
    )


VALUES = [98.8, 99.1, 99.3, 99.41, 99.45]


# A test after the training is no training


AFTER = {
    "the best checkpoint": (
        "model.load_state_dict(torch.load('best.pt'))\ntest(model)",
        "Accuracy: 9960/10000 (99.60%)",
    ),
    "a function of another name": (
        "check_accuracy(test_loader, model)",
        "Got 9960 / 10000 with accuracy 99.60",
    ),
    "a summary of both": ("print(results)", "Train accuracy: 99.8%\nTest accuracy: 99.60%"),
    "two models tested": (
        "evaluate(a)\nevaluate(b)",
        "Test Accuracy: 99.60%\nTest Accuracy: 99.55%",
    ),
    "test-time augmentation with a bar": (
        "tta(model)",
        "100%|██████████| 79/79 [00:03<00:00]\nTest Accuracy: 99.60%",
    ),
    "Keras evaluates": (
        "model.evaluate(x, y)",
        "313/313 [==============================] - 1s 2ms/step - loss: 0.02 - accuracy: 0.9960",
    ),
    "Keras 3 evaluates": (
        "model.evaluate(x, y)",
        "313/313 ━━━━━━━━━━━━━━━━━━━━ 1s 2ms/step - accuracy: 0.9960 - loss: 0.02",
    ),
    "Lightning tests": (
        "trainer.test(model)",
        "┃ Test metric ┃ DataLoader 0 ┃\n│ test_acc │ 0.9960 │",
    ),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_test_after_the_training_is_no_training(tmp_path, name):
    data = notebook(NET, TABLE, code(LOOP, counts(*NINETEEN[:18], 9921)), code(*AFTER[name]))
    assert read(tmp_path, data)[:4] == (FAIL, 1, 19, 99.21)


@pytest.mark.parametrize("name", AFTER)
def test_a_test_alone_shows_no_epochs(tmp_path, name):
    outcome, trainings, epochs, *_ = read(tmp_path, notebook(NET, TABLE, code(*AFTER[name])))
    assert (outcome, trainings, epochs) == (NOT_SHOWN, 1, None)


def test_a_test_in_the_same_cell_after_the_last_epoch_is_none(tmp_path):
    again = "loading best.pt\n\nTest set: Average loss: 0.0100, Accuracy: 9960/10000 (99.60%)\n"
    found = read(tmp_path, notebook(NET, TABLE, code(LOOP, counts(9930, 9960, 9921) + again)))
    assert found == (FAIL, 1, 3, 99.21, 99.6, 2)


# The same training told twice


@pytest.mark.parametrize(
    "again",
    [
        lines("Epoch {n}: train 98.0 test acc {value:.2f}\n", [99.3, 99.35, 99.41]),
        "   epoch  train_acc  test_acc\n0      1      98.10     99.30\n1      2      98.92     99.35\n2      3      98.9     99.41\n",
        "| Epoch | Test Accuracy |\n|---|---|\n| 1 | 99.3% |\n| 2 | 99.35% |\n| 3 | 99.41% |\n",
        "Best: Epoch 3: test accuracy 99.41%\n",
    ],
)
@pytest.mark.parametrize("same_cell", [True, False])
def test_a_list_of_the_epochs_that_were_logged_is_no_other_training(tmp_path, again, same_cell):
    log = counts(9930, 9935, 9941)
    cells = (
        [code(LOOP, log + "\nHistory\n" + again)]
        if same_cell
        else [code(LOOP, log), code("history", again)]
    )
    assert read(tmp_path, notebook(NET, TABLE, *cells)) == (PASS, 1, 3, 99.41, 99.41, 3)


# Epochs begun and not finished, chosen, elided


@pytest.mark.parametrize("rest", ["EPOCH: 4\n" + made.bar(4, 200), "EPOCH: 4\n"])
def test_an_epoch_that_was_stopped_is_not_counted(tmp_path, rest):
    log = counts(9930, 9935, 9941) + rest
    error = made.error("KeyboardInterrupt", "")
    assert read(tmp_path, notebook(NET, TABLE, code(LOOP, log, error)))[2:4] == (3, 99.41)


def test_a_log_whose_first_heading_is_missing_begins_at_the_first_epoch(tmp_path):
    log = keras_log([0.99, 0.9935, 0.9942], total="469/469").partition("\n")[2]
    assert read(tmp_path, notebook(TABLE, code("model.fit(x)", log)))[:4] == (PASS, 1, 3, 99.42)


def test_keras_that_was_stopped(tmp_path):
    log = keras_log([0.99, 0.9942], total="469/469").replace("/2", "/20")
    log += "Epoch 3/20\n 12/469 [..............................] - ETA: 9s - loss: 0.01 - acc: 0.99"
    outcome, trainings, epochs, last, *_ = read(
        tmp_path, notebook(TABLE, code("model.fit(x)", log))
    )
    assert (outcome, epochs, last) == (NOT_SHOWN, 2, 99.42)


@pytest.mark.parametrize(
    "numbers, epochs",
    [([1, 5, 10, 15, 19], 19), ([5, 10, 15, 20], 20), ([0, 5, 10, 15], 16), ([1, 2, 3, 25], 25)],
)
def test_epochs_that_were_chosen_say_how_far_the_training_went(tmp_path, numbers, epochs):
    log = "".join(f"Epoch {n}: test accuracy 99.{40 + i}%\n" for i, n in enumerate(numbers))
    table = "| Epoch | Test accuracy |\n|---|---|\n" + "".join(
        f"| {n} | 99.{40 + i}% |\n" for i, n in enumerate(numbers)
    )
    for data, name in ((notebook(TABLE, code(LOOP, log)), "a.ipynb"), (f"# A\n\n{table}", "a.md")):
        assert read(tmp_path, data, name)[2] == epochs
    assert read(tmp_path, f"# A\n\n{table}", "a.md")[0] == (FAIL if epochs >= 20 else NOT_SHOWN)


@pytest.mark.parametrize(
    "said", ["Streaming output truncated to the last 5000 lines.", "Output exceeds the size limit."]
)
def test_a_log_whose_beginning_a_program_cut_off_shows_no_number_of_epochs(tmp_path, said):
    data = notebook(NET, TABLE, code(LOOP, f"{said}\n{course_log([9930, 9941], heading='')}"))
    verdicts = result(tmp_path, data).best.verdicts
    assert [one.outcome for one in verdicts] == [PASS, PASS, NOT_SHOWN, PASS]
    assert "the log's beginning is not shown" in verdicts[2].evidence


def test_every_second_epoch_of_a_log_that_begins_later(tmp_path):
    log = "".join(f"Epoch {n}: test accuracy 99.4{n % 10}%\n" for n in (11, 13, 15, 17))
    training = result(tmp_path, notebook(TABLE, code(LOOP, log))).best.iteration.training
    assert (training.first_epoch, training.epochs, training.best_epoch) == (11, 7, 17)


# Keras called an epoch at a time, with other headings around


def test_keras_that_evaluates_after_each_fit(tmp_path):
    log = ""
    for n in (1, 2, 3):
        log += "Epoch 1/1\n469/469 [==============================] - 9s - loss: 0.1 - acc: 0.97\n"
        log += f"[0.0281, 0.994{n}]\n"
    source = "for e in range(3):\n    model.fit(x, y, epochs=1)\n    print(model.evaluate(a, b))"
    assert read(tmp_path, notebook(TABLE, code(source, log)))[:4] == (PASS, 1, 3, 99.43)


@pytest.mark.parametrize(
    "heading", ["Training epoch number: {}\n", "epoch {} of 3\n", "Época {}\n", ""]
)
def test_fit_called_for_each_epoch_is_one_training(tmp_path, heading):
    log = ""
    for n in (1, 2, 3):
        log += heading.format(n) + keras_log([0.99 + n / 1000], total="469/469")
    data = notebook(TABLE, code("for e in range(3):\n    model.fit(x, y, epochs=1)", log))
    assert read(tmp_path, data)[:4] == (FAIL, 1, 3, 99.3)


# Words of other languages and libraries


WORDS = [
    dict(train="Train", test="Test", acc="Acc"),
    dict(train="train", test="val", acc="accuracy"),
    dict(train="Training", test="Validation", acc="Accuracy"),
    dict(train="Trainings", test="Validierung", acc="Genauigkeit"),
    dict(train="entrenamiento", test="validación", acc="precisión"),
    dict(train="treino", test="teste", acc="acurácia"),
    dict(train="entraînement", test="validation", acc="précision"),
    dict(train="訓練", test="テスト", acc="正解率"),
    dict(train="训练", test="测试", acc="准确率"),
    dict(train="훈련", test="검증", acc="정확도"),
    dict(train="обучение", test="тест", acc="точность"),
    dict(train="Train", test="Test", acc="Top1"),
    dict(train="train", test="eval", acc="Prec@1"),
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words["acc"])
def test_words_of_many_languages(tmp_path, words):
    log = lines(PER_EPOCH, VALUES, **words)
    assert read(tmp_path, notebook(TABLE, code("run()", log))) == (PASS, 1, 5, 99.45, 99.45, 5)


@pytest.mark.parametrize(
    "form",
    [
        "exactitud de entrenamiento: 98.1%, exactitud de prueba: {value:.2f}%",
        "précision d'entraînement : 98.1%, précision de validation : {value:.2f}%",
        "Genauigkeit Training: 98.1 %, Genauigkeit Test: {value:.2f} %",
        "dokładność treningu: 98.1%, dokładność testu: {value:.2f}%",
        "точность на обучении: 98.1%, точность на тесте: {value:.2f}%",
        "eğitim doğruluğu: 98.1%, test doğruluğu: {value:.2f}%",
        "accuracy for training: 98.1%, accuracy for test: {value:.2f}%",
        "train acc.: 98.1, test acc.: {value:.2f}",
        "train accuracy after epoch {n}: 98.1%, test accuracy after epoch {n}: {value:.2f}%",
    ],
)
def test_whose_accuracy_it_is_may_stand_behind_the_word(tmp_path, form):
    log = lines("Epoch {n}/{of}: " + form + "\n", VALUES)
    assert read(tmp_path, notebook(TABLE, code("run()", log))) == (PASS, 1, 5, 99.45, 99.45, 5)


@pytest.mark.parametrize(
    "name",
    [
        "val_sparse_categorical_accuracy",
        "val_CategoricalAccuracy",
        "valAcc",
        "val_acc",
        "testAccuracy",
    ],
)
def test_names_that_libraries_and_code_have(tmp_path, name):
    log = lines("Epoch {n}/{of}\nloss: 0.1 " + name + "={value:.4f}\n", [v / 100 for v in VALUES])
    assert read(tmp_path, notebook(TABLE, code("run()", log)))[:4] == (PASS, 1, 5, 99.45)


@pytest.mark.parametrize(
    "heading",
    [
        "Epoche {n} von 5",
        "Época: {n}/5",
        "Époque {n}",
        "エポック {n}",
        "Эпоха {n}",
        "Epoch #{n}",
        "ep {n}",
    ],
)
def test_words_for_epochs(tmp_path, heading):
    log = lines(heading + "\nTest accuracy: {value:.2f}%\n", VALUES)
    assert read(tmp_path, notebook(TABLE, code("run()", log)))[:4] == (PASS, 1, 5, 99.45)


def test_decimal_commas(tmp_path):
    log = lines("Epoche {n}: Testgenauigkeit x, Test Genauigkeit: {value:.2f}%\n", VALUES).replace(
        "99.", "99,"
    )
    assert read(tmp_path, notebook(TABLE, code("run()", log)))[3] == 99.45


def test_a_person_can_add_words(tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text('[words]\naccuracy = ["Trefferquote"]\ntest = ["Prüfung"]\n', encoding="utf-8")
    log = lines("Epoch {n}: Prüfung Trefferquote {value:.2f}%\n", VALUES)
    (tmp_path / "a.ipynb").write_bytes(notebook(TABLE, code("run()", log)))
    assert grade([tmp_path / "a.ipynb"])[0].outcome == NOT_SHOWN
    assert grade([tmp_path / "a.ipynb"], load_rules(str(rules)))[0].outcome == PASS


# READMEs: what a person says is no log


SAID = {
    "best at an epoch": "Max test accuracy: 99.52% (at epoch 17)\nTrain accuracy: 99.1% (at epoch 17)\n",
    "a table of models": "| Model | Params | Epochs | Test Acc |\n|--|--|--|--|\n| A | 9,000 | 10 | 99.4% |\n| B | 8,000 | 15 | 99.5% |\n",
    "a table by epochs tried": "| Experiment | Epoch | Accuracy |\n|--|--|--|\n| 1 | 15 | 99.4 |\n| 2 | 19 | 99.5 |\n",
    "a quoted best epoch": "Best epoch:\n```\nEPOCH: 18\nTest set: Average loss: 0.02, Accuracy: 9952/10000 (99.52%)\n```\n",
    "a list": "- Test accuracy: 99.50%\n- Train accuracy: 99.0%\n- Epochs: 15\n- Parameters: 9,000\n",
    "milestones": "- Epoch 1: 97.84%\n- Epoch 16: **99.54%** (Best performance)\n",
    "prose": "The model reached an accuracy of 99.50% on the test set after 15 epochs.\n",
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_readme_says_shows_no_epochs(tmp_path, name):
    outcome, _, epochs, last, *_ = read(
        tmp_path, f"# MNIST\n\nTotal params: 9,000\n\n{SAID[name]}", "README.md"
    )
    assert (outcome, epochs, last) == (NOT_SHOWN, None, None)


@pytest.mark.parametrize("name", SAID)
def test_what_a_readme_says_does_not_hide_the_notebook(tmp_path, name):
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "README.md").write_text(f"# MNIST\n\nTotal params: 9,000\n\n{SAID[name]}")
    (folder / "train.ipynb").write_bytes(
        notebook(NET, TABLE, code(LOOP, course_log([9930] * 24 + [9941])))
    )
    (found,) = grade([folder])
    assert found.outcome == FAIL and found.best.iteration.training.epochs == 25
    assert found.best.iteration.document == "train.ipynb"


def test_the_nearest_of_several_counts_is_a_training_s(tmp_path):
    text = "# First\nParameters: 194,884\nAccuracy 99.2\n\n# Second\nParams: 13,808\n"
    text += f"```\n{counts(9930, 9941)}```\n\n# Next\nWe will go below 8,000 parameters\n"
    found = result(tmp_path, text, "a.md").best.iteration
    assert str(found.parameters) == "13,808" and found.training.epochs == 2


# Several models


def test_counts_printed_at_each_model_belong_to_its_training(tmp_path):
    cells, trainings = [], []
    for name, params, right in (("A", 30_000, 9960), ("B", 12_000, 9930), ("C", 7_000, 9920)):
        net = made.NET.replace("class Net", f"class {name}")
        cells.append(
            code(
                f"{net}\nm = {name}()\nprint(sum(p.numel() for p in m.parameters()))", f"{params}\n"
            )
        )
        trainings.append(code(f"model = {name}().to(device)\nfit(model)", counts(9900, right)))
    found = result(tmp_path, notebook(*cells, *trainings))
    assert [str(j.iteration.parameters) for j in found.judged] == ["30,000", "12,000", "7,000"]
    assert found.outcome == FAIL


# Whose images


@pytest.mark.parametrize(
    "line, said",
    [
        ("Test set: Accuracy: 59640/60000 (99.40%)", "60,000"),
        ("Validation: accuracy 9945/12000 (82.9%)", "12,000"),
        ("Test accuracy: 4980/5000 (99.60%)", "5,000"),
    ],
)
def test_other_images_than_the_test_images_decide_nothing(tmp_path, line, said):
    log = "".join(f"Epoch {n}\n{line}\n" for n in (1, 2, 3))
    found = result(tmp_path, notebook(TABLE, code(LOOP, log)))
    assert found.outcome == NOT_SHOWN and any(said in flag for flag in found.best.iteration.flags)
    assert found.best.iteration.training.epochs == 3


def test_the_test_images_count_where_both_are_tested(tmp_path):
    both = "Test set: Average loss: 0.01, Accuracy: 59900/60000 (99.83%)\n\nTest set: Average loss: 0.02, Accuracy: 9941/10000 (99.41%)\n"
    log = "".join(f"Epoch {n}\n{both}" for n in (1, 2, 3))
    assert read(tmp_path, notebook(TABLE, code(LOOP, log)))[:4] == (PASS, 1, 3, 99.41)


# Downloads, and logs of programs


@pytest.mark.parametrize(
    "said",
    [
        "100%|██████████| 9912422/9912422 [00:00<00:00, 89463141.77it/s]\n100%|██████████| 28881/28881 [00:00<00:00, 1it/s]\n",
        "100%|██████████| 9.91M/9.91M [00:00<00:00, 17.1MB/s]\n100%|██████████| 4.54k/4.54k [00:00<00:00, 3.9MB/s]\n",
        "\r0it [00:00, ?it/s]Downloading\n9920512it [00:01, 8883817.66it/s]\nExtracting\n32768it [00:00, 134693.63it/s]\n",
        "Downloading data from https://x/mnist.npz\n11493376/11490434 [==============================] - 0s 0us/step\n",
        "HBox(children=(FloatProgress(value=0.0, max=9912422.0), HTML(value='')))\nHBox(children=(FloatProgress(value=0.0, max=28881.0)))\n",
    ],
)
def test_downloads_are_no_epochs(tmp_path, said):
    data = notebook(
        NET, TABLE, code("datasets.MNIST('.', download=True)", said), code(LOOP, counts(9930, 9941))
    )
    assert read(tmp_path, data)[:4] == (PASS, 1, 2, 99.41)
    assert (
        read(tmp_path, notebook(NET, TABLE, code("d = datasets.MNIST('.', download=True)", said)))[
            2
        ]
        is None
    )


@pytest.mark.parametrize(
    "lead",
    [
        "2025-01-01 07:12:01 - INFO - ",
        "[2025-01-01 07:12:01,123][INFO] ",
        "INFO:root:",
        "07:12:01 | ",
        "",
    ],
)
def test_logs_of_programs_count_as_printed(tmp_path, lead):
    text = f"{lead}Total trainable parameters: 9,412\n"
    for n, value in enumerate(VALUES, 1):
        text += f"{lead}Epoch [{n}/5]\n{lead}Train Loss: 0.1 | Train Acc: 98.1%\n{lead}Test Acc: {value:.2f}%\n"
    for name in ("train.log", "out.txt"):
        found = result(tmp_path, text, name).best.iteration
        assert (found.parameters_from, found.training.epochs) == ("print", 5), name
        assert found.result.percent == 99.45


# A second training of the same model

FIRST = [9900 + n for n in range(11)] + [9941]
SECOND = [9930 + n for n in range(11)] + [9945]
MAKE = code("model = Net().to(device)")
STEPS = """\
for epoch in range(1, 13):
    train(model, device, train_loader, optimizer, epoch)
    test(model, device, test_loader)
"""
TRAIN = code(STEPS, counts(*FIRST))
AGAIN = code(STEPS, counts(*SECOND))
BOTH = counts(*FIRST) + counts(*SECOND)
GLOBAL = code("def fit(epoch):\n    loss = F.nll_loss(model(x), y)\n    loss.backward()\n")
CALLS = "for epoch in range(1, 13): fit(epoch)"
KERAS = code("model = Sequential([Conv2D(8, 3), Flatten()])", made.keras_summary())
FIT = "model.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=12)"


def in_keras(right):
    return keras_log([count / 10_000 for count in right])


def epochs_of(tmp_path, cells):
    """(epochs, whether it passes the rule on epochs) of each training."""
    judged = result(tmp_path, notebook(*map(dict, cells))).judged
    verdicts = [{v.key: v.outcome for v in one.verdicts} for one in judged]
    return [(one.iteration.training.epochs, v["epochs"]) for one, v in zip(judged, verdicts)]


ON = {
    "made in a cell of its own": [NET, TABLE, MAKE, TRAIN, AGAIN],
    "made in the first loop's cell": [
        *(NET, TABLE, code("model = Net()\n" + STEPS, counts(*FIRST)), AGAIN)
    ],
    "used by a function": [
        *(NET, TABLE, MAKE, GLOBAL, code(CALLS, counts(*FIRST)), code(CALLS, counts(*SECOND)))
    ],
    "Keras": [KERAS, code(FIT, in_keras(FIRST)), code(FIT, in_keras(SECOND))],
    "with another optimizer": [
        *(NET, TABLE, MAKE, TRAIN, code("optimizer = optim.Adam(model.parameters())"), AGAIN)
    ],
    "made again before the first": [
        *(NET, TABLE, MAKE | {"execution_count": 3}, TRAIN | {"execution_count": 5}),
        *(MAKE | {"execution_count": 4}, AGAIN | {"execution_count": 6}),
    ],
    "in the cell of the first": [NET, TABLE, MAKE, code(STEPS + STEPS, BOTH)],
    "in the cell that makes it": [NET, TABLE, code("model = Net()\n" + STEPS + STEPS, BOTH)],
    "by calls in one cell": [NET, TABLE, MAKE, GLOBAL, code(f"{CALLS}\n{CALLS}", BOTH)],
}


@pytest.mark.parametrize("name", ON)
def test_a_second_training_of_the_same_model_adds_its_epochs(tmp_path, name):
    assert epochs_of(tmp_path, ON[name]) == [(12, PASS), (24, FAIL)]
    second = result(tmp_path, notebook(*map(dict, ON[name]))).judged[1]
    assert any("those epochs count too" in flag for flag in second.iteration.flags)


ANEW = {
    "made between": [NET, TABLE, MAKE, TRAIN, MAKE, AGAIN],
    "made in each cell": [
        *(NET, TABLE, code("model = Net()\n" + STEPS, counts(*FIRST))),
        code("model = Net()\n" + STEPS, counts(*SECOND)),
    ],
    "made by a function": [
        *(NET, TABLE, MAKE, TRAIN, code("model = build()"), AGAIN),
    ],
    "its cell was run again": [
        *(NET, TABLE, MAKE | {"execution_count": 6}, TRAIN | {"execution_count": 5}),
        AGAIN | {"execution_count": 7},
    ],
    "its weights reset": [NET, TABLE, MAKE, TRAIN, code("model.apply(init_weights)"), AGAIN],
    "another model": [
        *(NET, TABLE, code("model = Net()\nother = Net()"), TRAIN),
        code(STEPS.replace("model", "other"), counts(*SECOND)),
    ],
    "made in the function that trains": [
        *(NET, TABLE, code("def run(rate):\n    model = Net()\n    train(model, rate)\n")),
        *(code("run(0.1)", counts(*FIRST)), code("run(0.01)", counts(*SECOND))),
    ],
    "made by a function through global": [
        *(NET, TABLE, code("def fresh():\n    global model\n    model = Net()\n")),
        *(MAKE, TRAIN, code("fresh()"), AGAIN),
    ],
    "its weights reset by a function": [
        *(NET, TABLE, code("def again():\n    model.apply(init_weights)\n")),
        *(MAKE, TRAIN, code("again()"), AGAIN),
    ],
    "made twice in one cell": [NET, TABLE, code(f"model = Net()\n{STEPS}" * 2, BOTH)],
    "made for each rate": [
        *(NET, TABLE),
        code("for rate in (0.1, 0.01):\n    model = Net()\n    fit(model, rate)", BOTH),
    ],
    "made for each call": [
        *(NET, TABLE, code("model = Net()\nfit(model)\nmodel = Net()\nfit(model)", BOTH)),
    ],
}


@pytest.mark.parametrize("name", ANEW)
def test_a_model_made_anew_begins_its_epochs_anew(tmp_path, name):
    assert epochs_of(tmp_path, ANEW[name]) == [(12, PASS), (12, PASS)]


LOAD = "model.load_state_dict(torch.load('model.pt'))\n"
LOADED = {
    "in a cell before": ([NET, TABLE, MAKE, code(LOAD), TRAIN], True),
    "in the training's cell": (
        [NET, TABLE, code(f"model = Net()\n{LOAD}{STEPS}", counts(*FIRST))],
        True,
    ),
    "by way of a variable": (
        [
            *(NET, TABLE, MAKE),
            code("state = torch.load('model.pt')\nmodel.load_state_dict(state['model'])"),
            TRAIN,
        ],
        True,
    ),
    "in Keras": ([KERAS, code("model.load_weights('model.h5')"), code(FIT, in_keras(FIRST))], True),
    "the best ones, afterwards": (
        [NET, TABLE, MAKE, code(STEPS + LOAD, counts(*FIRST)), code(LOAD)],
        False,
    ),
    "into a model before this one": ([NET, TABLE, MAKE, code(LOAD), MAKE, TRAIN], False),
    "of data": ([NET, TABLE, code("images = torch.load('training.pt')"), MAKE, TRAIN], False),
    "as they were at first": (
        [NET, TABLE, MAKE, code("model.load_state_dict(first)"), TRAIN],
        False,
    ),
}


@pytest.mark.parametrize("name", LOADED)
def test_weights_that_are_loaded_before_a_training_are_flagged(tmp_path, name):
    cells, expected = LOADED[name]
    iteration = result(tmp_path, notebook(*map(dict, cells))).best.iteration
    assert any("loads weights" in flag for flag in iteration.flags) == expected
