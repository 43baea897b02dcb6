"""train.py: results where users look for them, runs that resume after a kill, clear errors."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from cellpose.models import CellposeModel
from helpers.annotations import ROOT

from cellular.imaging.fields import check_pairs, read_pair
from cellular.network import weights
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


def test_weights_losses_and_summary_are_where_users_look(run_train, tmp_path):
    code, out, _ = run_train("--learning_rate", "1e-2", "--cell_diameter", 30)
    assert code == 0 and "validation loss" in out
    home = tmp_path / "experiments" / "mine"
    model = CellposeModel(pretrained_model=str(home / "models" / "mine"), device=CPU)
    summary = json.loads((home / "train.json").read_text())
    assert float(model.diam_labels) == pytest.approx(summary["diameter"], rel=1e-6)
    assert 30 < summary["diameter"] < 45 and float(model.diam_mean) == 30
    rows = list(csv.DictReader((home / "train.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["train_loss"]) == summary["train_loss"]
    assert float(rows[-1]["valid_loss"]) == summary["valid_loss"]
    losses = [float(row["valid_loss"]) for row in rows]
    assert summary["best_epoch"] == summary["kept_epoch"] == 1 + losses.index(min(losses))
    assert summary["stopped"] == "the last epoch was reached"
    assert CellposeModel(pretrained_model=str(home / "models" / "mine_last"), device=CPU).net


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
    ],
)
def test_bad_input_gets_one_clear_error_and_leaves_nothing(run_train, tmp_path, arguments, message):
    code, out, err = run_train(*arguments)
    assert (code, out) == (2, "") and message in err
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


def test_a_loss_that_explodes_ends_the_run_and_removes_its_state(run_train, tmp_path, cache):
    code, _, err = run_train("--learning_rate", 100, "--n_epochs", 6, "--save_every", 1)
    assert code == 2 and "try a tenth of it" in err
    assert not (tmp_path / "experiments/mine/models").exists()
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


def test_a_running_mean_of_the_weights_changes_less(run_train, pretrained, tmp_path):
    home = tmp_path / "experiments" / "mine"

    def change(*arguments):
        assert run_train("--force", "--n_epochs", 4, *ADAMW, *arguments)[0] == 0
        last = weights.load(home / "models" / "mine_last")
        key = "output.2.weight"
        return (last[key] - before[key]).abs().sum()

    before = weights.load(pretrained)
    assert change("--ema_decay", 0.9) < change()


def test_flows_from_disk_and_computed_flows_give_the_same_result(run_train, flows, tmp_path):
    home = tmp_path / "experiments" / "mine"

    def content(*arguments):
        assert run_train("--force", *ADAMW, *arguments)[0] == 0
        return [path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()]

    assert content("--cell_diameter", 30) == content("--flows_dir", flows)


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
        *("--ema_decay", "0.9", "--images_per_epoch", "4"),
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
        first.path.write_bytes(first.path.read_bytes()[:100])
        assert first.load() is None and "training starts from the beginning" in caplog.text
        first.remove()
    with Checkpoint("a") as third:
        assert third.mine and third.load() is None


@pytest.mark.parametrize("launcher", ["torchrun", "fabric"])
def test_two_processes_do_the_same_as_one_with_twice_the_batch(
    pieces, flows, pretrained, tmp_path, launcher
):
    bin_folder = Path(sys.executable).parent
    launchers = {
        "torchrun": ["torchrun", "--nproc-per-node", "2"],
        "fabric": ["fabric", "run", "--accelerator", "cpu", "--strategy", "ddp", "--devices", "2"],
    }
    # SGD, because AdamW turns rounding errors into whole steps where a gradient should be 0 (of
    # biases before a batch normalisation).
    more = ("--n_epochs", "3", "--images_per_epoch", "8", "--use_sgd", "--learning_rate", "0.05")
    one = command(pieces, flows, pretrained, tmp_path / "one", *more, "--batch_size", "4")
    two = command(pieces, flows, pretrained, tmp_path / "two", *more, "--batch_size", "2")
    head = launchers[launcher]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    # After "--" come the flags of the script: `fabric run` has a --precision, too.
    script = str(ROOT / "tests/helpers/train_on_cpus.py")
    for train in (one, [f"{bin_folder}/{head[0]}", *head[1:], script, "--", *two[2:]]):
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
