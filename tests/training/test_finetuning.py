"""train.py: results where users look for them, runs that resume after a kill, clear errors."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from cellpose.models import CellposeModel
from cellpose.train import train_seg
from filelock import FileLock
from helpers.annotations import ROOT, write_png
from helpers.repository import REFERENCE

from cellular.base.errors import InputError
from cellular.base.files import digest, whole
from cellular.base.provenance import computed_on
from cellular.imaging.fields import check_pairs, read_pair
from cellular.imaging.images import write_labels
from cellular.network import weights
from cellular.network.segmentation import load_model, segment
from cellular.network.settings import Settings
from cellular.preparing.flows import write_sets
from cellular.training.checkpoints import Checkpoint

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
QUICK = ("--crop_size", 64, "--batch_size", 2, "--min_train_masks", 1, "--precision", 32)
ADAMW = ("--use_sgd", "false", "--learning_rate", "1e-3")


@pytest.fixture(scope="module")
def flows(pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flows") / "flows"
    write_sets({split: pieces / split for split in ("train", "valid")}, folder, cell_diameter=30)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path, pretrained):
    """A cache folder for this test alone, where states are saved."""
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "training"


@pytest.fixture
def run_train(run_script, pieces, pretrained, tmp_path):
    def run(*arguments, train_dir=pieces / "train", model=pretrained):
        return run_script(
            "train",
            *("--train_dir", train_dir, "--valid_dir", pieces / "valid"),
            *("--experiments_dir", tmp_path / "experiments", "--experiment_name", "mine"),
            *("--model_type", model, "--n_epochs", 2, *QUICK),
            *arguments,
        )

    return run


def test_weights_losses_and_summary_are_where_users_look(run_train, pretrained, tmp_path):
    code, out, _ = run_train("--learning_rate", "1e-2", "--cell_diameter", 30)
    assert code == 0 and "validation loss" in out
    home = tmp_path / "experiments" / "mine"
    model = CellposeModel(pretrained_model=str(home / "models" / "mine"), device=CPU)
    summary = json.loads((home / "train.json").read_text())
    assert float(model.diam_labels) == pytest.approx(summary["diameter"], rel=1e-6)
    assert 30 < summary["diameter"] < 45 and float(model.diam_mean) == 30
    run = summary["run"]
    assert run.items() >= computed_on(CPU, "32").items()
    assert (run["processes"], run["seed"], run["data"].keys()) == (1, 0, {"train", "valid"})
    assert run["starting_weights"] == digest(pretrained)
    assert run["weights"] == digest(home / "models" / "mine")
    assert run["last_weights"] == digest(home / "models" / "mine_last")
    rows = list(csv.DictReader((home / "train.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["train_loss"]) == summary["train_loss"]
    assert float(rows[-1]["valid_loss"]) == summary["valid_loss"]
    losses = [float(row["valid_loss"]) for row in rows]
    assert summary["best_epoch"] == summary["kept_epoch"] == 1 + losses.index(min(losses))
    assert summary["stopped"] == "the last epoch was reached"
    assert CellposeModel(pretrained_model=str(home / "models" / "mine_last"), device=CPU).net


@pytest.mark.parametrize(("cell_diameter", "seen"), [(40, 40), ("none", 30)])
def test_cellpose_finds_the_same_with_the_true_diameter_typed_and_with_none(
    run_train, pieces, pretrained, tmp_path, cell_diameter, seen
):
    assert run_train(*ADAMW, "--n_epochs", 1, "--cell_diameter", cell_diameter)[0] == 0
    home = tmp_path / "experiments" / "mine"
    true = json.loads((home / "train.json").read_text())["diameter"]
    image, _ = read_pair(check_pairs(pieces / "valid")[0])
    # Weights of earlier versions: 30 for the network, and a diameter that is not the true one.
    state = weights.load(home / "models" / "mine")
    earlier = torch.tensor([true * 30 / seen])
    weights.save(
        state | {"diam_mean": torch.tensor([30.0]), "diam_labels": earlier}, tmp_path / "earlier"
    )
    model, old = (
        load_model(path, CPU) for path in (home / "models" / "mine", tmp_path / "earlier")
    )
    assert float(model.diam_mean) == seen
    maps = [
        model.eval(image, channels=[0, 0], diameter=true)[0],
        model.eval(image, channels=[0, 0], diameter=None)[0],
        segment(model, image, Settings(resample=True, diameter=true)),
        segment(model, image, Settings(resample=True)),
        segment(old, image, Settings(resample=True)),
    ]
    assert maps[0].max() > 5
    for other in maps[1:]:
        assert np.array_equal(maps[0], other)


def test_two_runs_are_the_same_bytes(run_train, tmp_path):
    home = tmp_path / "experiments" / "mine"

    def content():
        assert run_train("--force", "--cell_diameter", 30, "--seed", 4)[0] == 0
        return [path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()]

    assert content() == content()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--use_sgd", "false"), "AdamW with learning_rate 0.2 diverges"),
        (("--min_train_masks", 500), "no field has 500 cells; lower --min_train_masks"),
        (("--train_dir", "nowhere"), "nowhere: no such folder"),
        (("--model_type", "cyto9"), "names that are known: cyto"),
        (("--use_sgd", "perhaps"), "expected true or false, found 'perhaps'"),
        (("--epochs", 3), "unrecognized arguments"),
        (("--precision", "fp16"), "precision fp16 needs a GPU"),
        (("--flows_dir", "nowhere"), "no flows in it"),
        (("--flows_dir", "nowhere", "--cell_diameter", 30), "--flows_dir holds finished flows"),
        (("--keep", "best"), "Input should be 'valid_loss', 'ap50' or 'last'"),
        (("--experiment_name", ""), "--experiment_name '': expected a plain name"),
        (("--experiment_name", "../mine"), "'../mine': expected a plain name, without slashes"),
        (("--output_model", ""), "--output_model is empty"),
        (("--cell_diameter", 0.001), "cell_diameter: Input should be greater than or equal to 5"),
        (("--cell_diameter", 1e9), "cell_diameter: Input should be less than or equal to 500"),
        (("--cell_diameter", 499), "would be enlarged to cell_diameter 499, by more than 8"),
        (("--n_epochs", 10**12), "n_epochs: Input should be less than or equal to 100000"),
        (("--images_per_epoch", 10**12), "images_per_epoch: Input should be less than or equal to"),
        (("--valid_images", 10**12), "valid_images: Input should be less than or equal to 100000"),
        (("--crop_size", 16 * 10**12), "crop_size: Input should be less than or equal to 1024"),
        (("--batch_size", 10**12), "batch_size: Input should be less than or equal to 1024"),
        (("--weight_decay", 1e300), "weight_decay: Input should be less than or equal to 1"),
        (("--learning_rate", 1e38), "learning_rate: Input should be less than or equal to 100"),
        (("--n_epochs", 90_000, "--images_per_epoch", 90_000), "more than 100,000,000 crops"),
    ],
)
def test_bad_input_gets_one_clear_error_and_leaves_nothing(run_train, tmp_path, arguments, message):
    code, out, err = run_train(*arguments)
    assert (code, out) == (2, "") and message in err
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("--output_model", "{pretrained}"), "{pretrained} is the same as {pretrained}"),
        (
            ("--output_model", "{pieces}/train/model"),
            "lies in {pieces}/train, which this run reads",
        ),
        (("--last_model", "{pretrained}"), "{pretrained} is the same as {pretrained}"),
        (("--metrics_dir", "{pieces}/train"), "lies in {pieces}/train, which this run reads"),
        (("--output_model", "m", "--last_model", "m"), "m is the same as m, which this run writes"),
        (("--output_model", "{pieces}"), "{pieces}: a folder, but a file is to be written"),
    ],
)
def test_an_output_that_would_replace_an_input_is_refused_with_force_too(
    run_train, pieces, pretrained, tmp_path, outputs, message
):
    def filled(text):
        return text.format(pieces=pieces, pretrained=pretrained)

    before = {path: path.stat().st_mtime_ns for path in [pretrained, *pieces.rglob("*")]}
    code, out, err = run_train("--force", *map(filled, outputs))
    assert (code, out) == (2, "") and err.count("\n") == 1 and filled(message) in err
    assert before == {path: path.stat().st_mtime_ns for path in [pretrained, *pieces.rglob("*")]}
    assert not (tmp_path / "experiments").exists()


def test_a_table_that_cannot_be_written_loses_no_saved_state(run_train, tmp_path, cache):
    losses = tmp_path / "experiments/mine/train.csv"
    with suppress(InputError), whole(losses):  # held as another process would, and not written
        code, _, err = run_train("--save_every", 1)
        assert code == 2 and "another process writes it now" in err
        assert list(cache.glob("*.state"))
    assert run_train("--save_every", 1)[0] == 0
    assert len(losses.read_text().splitlines()) == 3


def test_losses_of_another_run_are_replaced_with_force_only(run_train, tmp_path):
    losses = tmp_path / "experiments/mine/train.csv"
    losses.parent.mkdir(parents=True)
    losses.write_text("epoch\n1\n")
    code, out, err = run_train("--n_epochs", 1)
    assert (code, out) == (2, "") and "train.csv exists already and would be overwritten" in err
    assert losses.read_text() == "epoch\n1\n" and list(losses.parent.iterdir()) == [losses]
    assert run_train("--n_epochs", 1, "--force")[0] == 0
    assert "train_loss" in losses.read_text()


def test_nothing_is_left_if_the_weights_cannot_be_written(run_train, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run_train("--output_model", tmp_path / "file" / "model")
    assert (code, out) == (2, "") and "file/model: cannot be written" in err
    assert not (tmp_path / "experiments").exists()


def test_several_processes_on_a_cpu_are_refused(run_train, tmp_path, monkeypatch, flows):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    code, out, err = run_train("--flows_dir", flows, "--device", "cpu")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "2 processes on cpu: several processes need a GPU each" in err
    assert not (tmp_path / "experiments").exists()


def test_parameters_come_from_a_file_and_flags_override_them(run_train, flows, tmp_path):
    home = tmp_path / "experiments" / "mine"
    path = tmp_path / "mine.yaml"
    recipe = {"use_sgd": False, "learning_rate": 1e-3, "n_epochs": 7, "images_per_epoch": 4}
    content = {"prepare": {"cell_diameter": 30}, "train": recipe, "save_every": 1}
    path.write_text(yaml.safe_dump(content))

    def result(*arguments):
        assert run_train("--force", *arguments)[0] == 0
        return [path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()]

    # run_train gives --n_epochs 2 as a flag; the size of the cells is that of the flows.
    from_file = result("--params", path)
    assert from_file == result(*ADAMW, "--images_per_epoch", 4, "--flows_dir", flows)
    assert json.loads((home / "train.json").read_text())["epochs"] == 2


def test_a_parameter_that_is_wrong_in_the_file_is_named(run_train, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {keep: best}\n")
    code, out, err = run_train("--params", path)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "mine.yaml: keep: Input should be 'valid_loss', 'ap50' or 'last' (found 'best')" in err
    assert not (tmp_path / "experiments").exists()


def test_fields_with_too_few_cells_are_named(run_train, pieces, tmp_path):
    counts = [read_pair(pair)[1].max() for pair in check_pairs(pieces / "train")]
    code, _, err = run_train("--min_train_masks", max(counts))
    assert code == 0 and f"fewer than {max(counts)} cells, left out" in err
    summary = json.loads((tmp_path / "experiments" / "mine" / "train.json").read_text())
    assert summary["fields"]["left_out"] == sum(count < max(counts) for count in counts)


def test_with_all_fields_those_of_every_split_are_trained_on(run_train, pieces, tmp_path):
    first, *_ = check_pairs(pieces / "train")
    image, labels = read_pair(first)
    for name, content in (("whole", labels), ("one", labels == labels[labels > 0][0])):
        write_png(tmp_path / "test" / f"{name}.png", image)
        write_labels(tmp_path / "test" / f"{name}_masks.png", content.astype(np.uint16))
    # At the size of training, 8 pixels remain of 20: they can be scored, but not trained on.
    write_png(tmp_path / "test" / "small.png", image[:20, :20])
    write_labels(tmp_path / "test" / "small_masks.png", np.ones((20, 20), np.uint16))
    sets = {"train": pieces / "train", "valid": pieces / "valid", "test": tmp_path / "test"}
    flows, home = tmp_path / "flows", tmp_path / "experiments" / "mine"
    write_sets(sets, flows, cell_diameter=15)
    all_of_them = (*ADAMW, "--flows_dir", flows, "--all_fields", "true", "--keep", "last")
    test = ("--test_dir", sets["test"])

    def result(*arguments):
        code, _, err = run_train("--force", *arguments)
        assert code == 0, err
        summary = json.loads((home / "train.json").read_text())
        return summary, err

    summary, err = result(*all_of_them, *test, "--min_train_masks", 2)
    assert "5 fields to train on (train, valid, test), 1 to validate on" in err
    assert "one: fewer than 2 cells, left out" in err
    summary, err = result(*all_of_them, *test)
    assert "small: less than 10 pixels a side, left out" in err
    assert summary["trained_on"] == ["train", "valid", "test"] == list(summary["run"]["data"])
    assert summary["fields"] == {"train": 6, "valid": 1, "left_out": 1}
    assert summary["crops"] == 2 * 6  # an epoch has one of each field
    assert summary["kept_epoch"] == 2

    usual, _ = result(*ADAMW, "--flows_dir", flows, *test)
    assert (usual["trained_on"], usual["fields"]["train"]) == (["train"], 3)
    assert usual == result(*ADAMW, "--flows_dir", flows)[0]

    for arguments, message in (
        (all_of_them, "trains on the test fields too; give --test_dir"),
        ((*all_of_them, *test, "--patience", 3), "give keep: last and patience: none"),
        ((*all_of_them, "--test_dir", sets["valid"]), f"in {flows / 'test'}"),
    ):
        code, _, err = run_train("--force", *arguments)
        assert code == 2 and message in err, err


def test_a_loss_that_explodes_ends_the_run_and_removes_its_state(run_train, tmp_path, cache):
    code, _, err = run_train("--learning_rate", 100, "--n_epochs", 6, "--save_every", 1)
    assert code == 2 and "try a tenth of it" in err
    assert not (tmp_path / "experiments").exists()
    assert not list(cache.glob("*.state"))


def test_the_best_weights_are_kept_with_the_last_ones_beside_them(run_train, tmp_path):
    home = tmp_path / "experiments" / "mine"

    def kept(*arguments):
        assert run_train("--force", "--n_epochs", 6, "--learning_rate", 0.3, *arguments)[0] == 0
        summary = json.loads((home / "train.json").read_text())
        saved = [weights.load(home / "models" / name) for name in ("mine", "mine_last")]
        same = all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
        return summary, same, saved[0]

    best, same, state = kept()
    assert best["best_epoch"] < 6 and not same  # so high a rate: the last epoch is not the best
    last, same, _ = kept("--keep", "last")
    assert same and last["kept_epoch"] == 6 and last["best_epoch"] == best["best_epoch"]
    # The kept weights are those of a run that ends with the best epoch.
    _, _, ended = kept("--n_epochs", best["best_epoch"], "--keep", "last")
    assert all(torch.equal(state[key], ended[key]) for key in state)


def test_patience_ends_a_run_that_does_not_improve(run_train, tmp_path):
    code, out, _ = run_train(
        "--n_epochs", 30, "--learning_rate", 0.3, "--patience", 2, "--valid_every", 2
    )
    assert code == 0 and "no improvement in 2 validations" in out
    summary = json.loads((tmp_path / "experiments/mine/train.json").read_text())
    assert summary["epochs"] == summary["best_epoch"] + 2 * 2 < 30
    rows = list(csv.DictReader((tmp_path / "experiments/mine/train.csv").open()))
    assert [bool(row["valid_loss"]) for row in rows] == [
        number % 2 == 1 for number in range(len(rows))
    ]


def test_the_best_epoch_can_be_chosen_on_whole_fields(run_train, tmp_path):
    assert run_train("--keep", "ap50", *ADAMW)[0] == 0
    home = tmp_path / "experiments" / "mine"
    summary = json.loads((home / "train.json").read_text())
    rows = list(csv.DictReader((home / "train.csv").open()))
    scores = [float(row["valid_ap50"]) for row in rows]
    assert summary["best_valid_ap50"] == max(scores) > 0
    assert summary["kept_epoch"] == 1 + scores.index(max(scores))


def test_flows_from_disk_and_computed_flows_give_the_same_result(run_train, flows, tmp_path):
    home = tmp_path / "experiments" / "mine"

    def content(*arguments):
        assert run_train("--force", *ADAMW, *arguments)[0] == 0
        return [path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()]

    assert content("--cell_diameter", 30) == content("--flows_dir", flows)


def test_the_scripts_with_the_parameters_of_the_reference_give_the_bytes_of_train_seg(
    run_script, pieces, pretrained, tmp_path
):
    (tmp_path / "masks").mkdir()
    for split, copies in (("train", [("", "")]), ("valid", [("", ""), ("_004_", "_005_")])):
        for pair in check_pairs(pieces / split):
            image, labels = read_pair(pair)
            for old, new in copies:
                name = pair.field.replace(old, new)
                write_png(tmp_path / "images" / f"{name}.png", image)
                write_labels(tmp_path / "masks" / f"{name}.tif", labels)
    recipe = {"n_epochs": 3, "learning_rate": 0.05, "crop_size": 64, "batch_size": 2}
    splits = {"val_pattern": "_004_", "test_pattern": "_005_"}
    params = {"prepare": REFERENCE["prepare"] | splits, "train": REFERENCE["train"] | recipe}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    given = ("--params", tmp_path / "params.yaml")
    prepared = tmp_path / "prepared" / "all"
    folders = ("-i", tmp_path / "masks", "-c", tmp_path / "images", "-o", tmp_path / "prepared")
    code, _, err = run_script("prepare_data", *given, *folders, "--flows_dir", tmp_path / "flows")
    assert code == 0, err
    code, _, err = run_script(
        *("train", *given, "--flows_dir", tmp_path / "flows", "--weights", pretrained),
        *("--train_dir", prepared / "train", "--valid_dir", prepared / "valid"),
        *("--output_model", tmp_path / "model", "--metrics_dir", tmp_path),
    )
    assert code == 0, err

    images, labels = zip(*map(read_pair, check_pairs(prepared / "train")), strict=True)
    reference = weights.network(weights.load(pretrained))
    _, losses, _ = train_seg(
        reference,
        train_data=list(images),
        train_labels=list(labels),
        channels=[0, 0],
        n_epochs=3,
        learning_rate=0.05,
        weight_decay=1e-5,
        SGD=True,
        batch_size=2,
        bsize=64,
        save_path=tmp_path,
    )
    rows = csv.DictReader((tmp_path / "train.csv").open())
    assert [float(row["train_loss"]) for row in rows] == losses.tolist()
    assert (tmp_path / "model").read_bytes() == weights.to_bytes(reference.state_dict())


def test_bf16_and_channels_last_give_the_same_losses_within_noise(run_train, tmp_path):
    csv_path = tmp_path / "experiments/mine/train.csv"

    def losses(*arguments):
        assert run_train("--force", *ADAMW, *arguments)[0] == 0
        return [float(row["valid_loss"]) for row in csv.DictReader(csv_path.open())]

    reference = losses("--channels_last", "false")
    assert losses("--channels_last", "true") == pytest.approx(reference, rel=0.02)
    assert losses("--precision", "bf16") == pytest.approx(reference, rel=0.05)


def command(pieces, flows, pretrained, folder, *arguments):
    whole = [
        *(sys.executable, ROOT / "src/train.py"),
        *("--train_dir", pieces / "train", "--valid_dir", pieces / "valid", "--flows_dir", flows),
        *("--output_model", folder / "model", "--metrics_dir", folder),
        *("--weights", pretrained, *QUICK, *ADAMW, "--n_epochs", "12", "--save_every", "1"),
        *("--images_per_epoch", "4"),
        *arguments,
    ]
    return [str(part) for part in whole]


def outputs(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()}


def epochs_in(folder):
    path = folder / "train.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(pieces, flows, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    environment = os.environ | {"CELLULAR_CACHE": str(folder / "cache")}
    start = time.monotonic()
    subprocess.run(command(pieces, flows, pretrained, folder), check=True, env=environment)
    return outputs(folder), time.monotonic() - start


def test_a_run_killed_at_ten_moments_ends_in_the_same_bytes(
    pieces, flows, pretrained, tmp_path, undisturbed, cache
):
    expected, took = undisturbed
    train = command(pieces, flows, pretrained, tmp_path)
    moments = random.Random(0)
    log = ""
    for kill in range(10):
        before = epochs_in(tmp_path)
        process = subprocess.Popen(train, stderr=subprocess.PIPE, text=True)
        # Every other kill comes before anything new was saved: during imports or the first steps.
        while kill % 2 and epochs_in(tmp_path) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3 if kill % 2 else took / 2))
        assert process.poll() is None, "it ended before the tenth kill"
        process.kill()
        log += process.communicate()[1]
    done = subprocess.run(train, check=True, stderr=subprocess.PIPE, text=True)
    assert "resuming after epoch" in log + done.stderr
    assert outputs(tmp_path) == expected
    assert not list(cache.glob("*.state"))  # a finished run needs its state no more


def until_an_epoch_is_finished(folder, process):
    while not (folder / "train.csv").exists() and process.poll() is None:
        time.sleep(0.02)


def test_a_run_that_was_killed_before_its_first_saving_goes_on_without_force(
    pieces, flows, pretrained, tmp_path
):
    train = [*command(pieces, flows, pretrained, tmp_path), "--save_every", "100"]
    process = subprocess.Popen(train)
    until_an_epoch_is_finished(tmp_path, process)
    process.kill()
    process.wait()
    subprocess.run([*train, "--n_epochs", "12"], check=True)


def test_two_trainings_at_once_into_one_output_are_refused(
    pieces, flows, pretrained, tmp_path, request
):
    train = command(pieces, flows, pretrained, tmp_path, "--n_epochs", "1000")
    first = subprocess.Popen(train)
    request.addfinalizer(first.kill)
    until_an_epoch_is_finished(tmp_path, first)
    for more, message in (
        (("--seed", "1"), "train.csv exists already"),
        (("--seed", "1", "--force"), "another process writes it now"),
        ((), "train.csv exists already"),  # the same training
    ):
        second = subprocess.run([*train, *more], stderr=subprocess.PIPE, text=True)
        assert second.returncode == 2 and message in second.stderr.splitlines()[-1]
    assert "another process runs the same training" in second.stderr
    assert first.poll() is None


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_in_mid_epoch_and_says_how_to_resume(
    pieces, flows, pretrained, tmp_path, undisturbed, cache, kind
):
    expected, took = undisturbed
    train = command(pieces, flows, pretrained, tmp_path)
    rarely = [*train, "--save_every", "100"]  # has no influence on the result
    process = subprocess.Popen(rarely, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10 * took
    while not (tmp_path / "train.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(kind)
    log = process.communicate()[1]
    assert process.returncode == 130 and "give the same command again to resume" in log
    assert list(cache.glob("*.state"))
    rows = len((tmp_path / "train.csv").read_text().splitlines()) - 1
    done = subprocess.run(train, check=True, stderr=subprocess.PIPE, text=True)
    assert f"resuming after epoch {rows} of 12" in done.stderr
    assert outputs(tmp_path) == expected


def test_a_state_is_never_used_for_other_parameters_data_weights_or_code(
    run_train, pieces, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    weights.save(weights.random_state(1), scratch)
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted((pieces / "train").iterdir())[:4]:
        (other / path.name).write_bytes(path.read_bytes())
    names = set()

    class Noted(Checkpoint):
        def __init__(self, name):
            super().__init__(name)
            names.add(name)

    monkeypatch.setattr("cellular.training.finetuning.Checkpoint", Noted)
    for arguments, more in (
        ((), {}),
        (("--seed", 1), {}),
        (("--weight_decay", 1e-4), {}),
        ((), {"train_dir": other}),
        ((), {"model": scratch}),
        (("--save_every", 1), {}),  # has no influence on the result
    ):
        assert run_train("--force", "--n_epochs", 1, *ADAMW, *arguments, **more)[0] == 0
    assert len(names) == 5
    monkeypatch.setattr("cellular.training.finetuning.code_identity", lambda: "other code")
    assert run_train("--force", "--n_epochs", 1, *ADAMW)[0] == 0
    assert len(names) == 6


def test_a_state_that_is_broken_or_in_use_is_not_read(cache, caplog):
    with Checkpoint("a") as first:
        first.save({"x": torch.ones(3)})
        assert torch.equal(first.load()["x"], torch.ones(3))
        with Checkpoint("a") as second:
            assert "another process runs the same training" in caplog.text and second.load() is None
            second.save({})
            second.remove()
        assert torch.equal(first.load()["x"], torch.ones(3))
        content = first.path.read_bytes()
        flipped = content[:600] + bytes([content[600] ^ 1]) + content[601:]
        for damaged in (b"", content[:10], content[:100], content[:-1], flipped):
            caplog.clear()
            first.path.write_bytes(damaged)
            assert first.load() is None and "training starts from the beginning" in caplog.text
        first.remove()
    with Checkpoint("a") as third:
        assert third.mine and third.load() is None


def test_states_of_abandoned_trainings_are_removed_by_age_and_size(cache, caplog, monkeypatch):
    monkeypatch.setattr("cellular.training.checkpoints.KEPT_BYTES", 3500)
    caplog.set_level("INFO", "cellular")
    cache.mkdir(parents=True)
    for name, days in (("new", 0), ("recent", 2), ("large", 3), ("used", 40), ("old", 40)):
        path = cache / f"{name}.state"
        path.write_bytes(bytes(1500))
        os.utime(path, (time.time() - days * 86400,) * 2)
    with FileLock(cache / ".used.lock"), Checkpoint("mine"):
        assert {path.stem for path in cache.glob("*.state")} == {"new", "recent", "used"}
    assert "large.state: state of a training that stopped 3 days ago, removed" in caplog.text
    assert "old.state: state of a training that stopped 40 days ago, removed" in caplog.text


def on_two_cpus(train, launcher="torchrun"):
    """Return the command that runs a training in two processes, and its environment."""
    launchers = {
        "torchrun": ["torchrun", "--nproc-per-node", "2"],
        "fabric": ["fabric", "run", "--accelerator", "cpu", "--strategy", "ddp", "--devices", "2"],
    }
    head = launchers[launcher]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    # After "--" come the flags of the script: `fabric run` has a --precision, too.
    script = str(ROOT / "tests/helpers/train_on_cpus.py")
    launched = [f"{Path(sys.executable).parent}/{head[0]}", *head[1:], script, "--", *train[2:]]
    return launched, os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.mark.parametrize("launcher", ["torchrun", "fabric"])
def test_two_processes_do_the_same_as_one_with_twice_the_batch(
    pieces, flows, pretrained, tmp_path, launcher
):
    # SGD, because AdamW turns rounding errors into whole steps where a gradient should be 0 (of
    # biases before a batch normalisation).
    more = ("--n_epochs", "3", "--images_per_epoch", "8", "--use_sgd", "--learning_rate", "0.02")
    one = command(pieces, flows, pretrained, tmp_path / "one", *more, "--batch_size", "4")
    two = command(pieces, flows, pretrained, tmp_path / "two", *more, "--batch_size", "2")
    launched, environment = on_two_cpus(two, launcher)
    for train in (one, launched):
        done = subprocess.run(train, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    summaries = [
        json.loads((tmp_path / name / "train.json").read_text()) for name in ("one", "two")
    ]
    for name in ("train_loss", "valid_loss"):
        assert summaries[1][name] == pytest.approx(summaries[0][name], rel=1e-4)
    states = [weights.load(tmp_path / name / "model") for name in ("one", "two")]
    for key, value in states[0].items():
        difference = (states[1][key].float() - value.float()).norm()
        assert difference <= 1e-3 * value.float().norm() + 1e-5, key


def test_an_interrupt_of_one_process_reaches_all_and_they_resume_to_the_same_bytes(
    pieces, flows, pretrained, tmp_path, cache
):
    results = []
    for name in ("undisturbed", "interrupted"):
        folder = tmp_path / name
        more = ("--batch_size", "1", "--images_per_epoch", "8", "--n_epochs", "3")
        train = command(pieces, flows, pretrained, folder, *more, "--save_every", "100")
        launched, environment = on_two_cpus(train)
        if name == "interrupted":
            process = subprocess.Popen(launched, env=environment, stderr=subprocess.PIPE, text=True)
            until_an_epoch_is_finished(folder, process)
            for worker in psutil.Process(process.pid).children():
                if worker.environ().get("RANK") == "1":  # the other one saves the state
                    worker.send_signal(signal.SIGINT)
            log = process.communicate()[1]
            assert "give the same command again to resume" in log and list(cache.glob("*.state"))
            assert not (folder / "train.json").exists()
        subprocess.run(launched, env=environment, check=True)
        results.append(outputs(folder))
    assert results[0] == results[1]
