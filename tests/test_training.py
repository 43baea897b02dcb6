"""train.py: Cellpose's own losses and weights, what is asked for and nothing else."""

import csv
import json

import numpy as np
import pytest
import torch
from cellpose.models import CellposeModel
from cellpose.train import train_seg
from conftest import write_png

from cellular import weights
from cellular.errors import InputError
from cellular.fields import check_pairs, read_pair
from cellular.images import read_image, read_labels, write_labels
from cellular.params import TrainParams
from cellular.training import add_flows, learning_rates, load_field, shrink, train

CPU = torch.device("cpu")
SMALL = {"n_epochs": 3, "batch_size": 2, "crop_size": 64, "min_train_masks": 1}
RECIPES = {
    "sgd": {"use_sgd": True, "learning_rate": 0.05},
    "adamw": {"use_sgd": False, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def prepared(sample, tmp_path_factory):
    """Prepared folders with real pieces, a third as large: three to train, one to validate."""
    folder = tmp_path_factory.mktemp("prepared")
    for split, time, corners in (("train", 1, (0, 400, 800)), ("valid", 4, (0,))):
        (folder / split).mkdir()
        field = f"Timepoint_00{time}_220518-ST_C03_s3"
        image = read_image(sample / "images" / f"{field}.jpg")
        labels = read_labels(sample / "masks" / f"{field}.tif")
        for corner in corners:
            piece = np.s_[corner : corner + 960 : 3, corner : corner + 960 : 3]
            name = f"{field}_{corner}"
            write_png(folder / split / f"{name}.png", image[piece])
            write_labels(folder / split / f"{name}_masks.png", labels[piece])
    return folder


@pytest.fixture(scope="module")
def raw(prepared):
    """The same pieces as arrays: for each split, images and label maps."""
    return [
        tuple(zip(*(read_pair(pair) for pair in check_pairs(prepared / split)), strict=True))
        for split in ("train", "valid")
    ]


def ours(raw, pretrained, params, seed=0):
    groups = [
        [
            load_field(str(n), *pair, params.channels)
            for n, pair in enumerate(zip(*group, strict=True))
        ]
        for group in raw
    ]
    for group in groups:
        add_flows(group, CPU)
    net = weights.network(weights.load(pretrained))
    return net, train(net, *groups, params, seed)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("images", [None, 4])
def test_losses_and_weights_are_those_of_train_seg(
    raw, pretrained, tmp_path, recipe, rescale, images
):
    params = TrainParams(**SMALL, **RECIPES[recipe], rescale=rescale, images_per_epoch=images)
    net, epochs = ours(raw, pretrained, params)

    reference = weights.network(weights.load(pretrained))
    (images_train, labels_train), (images_valid, labels_valid) = raw
    _, train_losses, valid_losses = train_seg(
        reference,
        train_data=list(images_train),
        train_labels=list(labels_train),
        test_data=list(images_valid),
        test_labels=list(labels_valid),
        channels=params.channels,
        n_epochs=params.n_epochs,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        SGD=params.use_sgd,
        batch_size=params.batch_size,
        nimg_per_epoch=images,
        rescale=rescale,
        bsize=params.crop_size,
        min_train_masks=1,
        save_path=tmp_path,
    )
    assert [epoch.train_loss for epoch in epochs] == train_losses.tolist()
    assert epochs[0].valid_loss == valid_losses[0]  # Cellpose takes it in epochs 0, 5, 10, ...
    for key, value in reference.state_dict().items():
        if key not in weights.DIAMETERS:
            assert torch.equal(value, net.state_dict()[key]), key


def test_every_crop_hangs_on_the_seed(raw, pretrained):
    params = TrainParams(**SMALL, **RECIPES["sgd"])
    losses = [
        [epoch.train_loss for epoch in ours(raw, pretrained, params, seed)[1]] for seed in (5, 5, 6)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("n_epochs", [1, 9, 10, 40, 100, 101, 300, 301, 500])
def test_learning_rate_is_cellposes(n_epochs):
    # Recomputed as `train_seg` does, list by list.
    rate = 0.2
    expected = np.append(np.linspace(0, rate, 10), rate * np.ones(max(0, n_epochs - 10)))
    cut, every = (100, 10) if n_epochs > 300 else (50, 5)
    if n_epochs > 100:
        expected = expected[:-cut]
        for _ in range(10):
            expected = np.append(expected, expected[-1] / 2 * np.ones(every))
    assert np.array_equal(learning_rates(n_epochs, rate), expected[:n_epochs])


def test_shrunk_fields_have_the_networks_diameter(raw):
    field = load_field("x", raw[0][0][0], raw[0][1][0], [0, 0])
    small = shrink(field, 30 / field.diameter)
    assert small.diameter == pytest.approx(30)
    assert small.image.shape == (2, *small.labels.shape)
    assert small.labels.shape[0] == round(320 * 30 / field.diameter)
    assert set(np.unique(small.labels)) <= set(np.unique(field.labels))


def test_a_loss_that_explodes_ends_the_run_with_what_to_change(raw, pretrained):
    params = TrainParams(**(SMALL | {"n_epochs": 6}), use_sgd=True, learning_rate=1e12)
    with pytest.raises(InputError, match=r"no number any more.*try a tenth"):
        ours(raw, pretrained, params)


@pytest.fixture
def run_train(run_script, prepared, pretrained, tmp_path):
    def run(*arguments, train_dir=prepared / "train", model=pretrained):
        return run_script(
            "train",
            *("--train_dir", train_dir, "--valid_dir", prepared / "valid"),
            *("--experiments_dir", tmp_path / "experiments", "--experiment_name", "mine"),
            *("--model_type", model, "--n_epochs", 2, "--crop_size", 64, "--batch_size", 2),
            *arguments,
        )

    return run


def test_weights_losses_and_summary_are_where_users_look(run_train, tmp_path):
    code, out, _ = run_train("--learning_rate", "1e-2", "--shrink")
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


def test_two_runs_are_the_same_bytes(run_train, tmp_path):
    home = tmp_path / "experiments" / "mine"

    def content():
        assert run_train("--force", "--shrink", "--seed", 4)[0] == 0
        return [path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()]

    assert content() == content()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--use_sgd", "false"), "AdamW with learning_rate 0.2 diverges"),
        (("--min_train_masks", 500), "no field has 500 cells; lower --min_train_masks"),
        (("--train_dir", "nowhere"), "nowhere: no such folder"),
        (("--model_type", "cyto9"), "neither a file nor a known name"),
        (("--use_sgd", "perhaps"), "expected true or false, found 'perhaps'"),
        (("--epochs", 3), "unrecognized arguments"),
    ],
)
def test_bad_input_gets_one_clear_error_and_leaves_nothing(run_train, tmp_path, arguments, told):
    code, out, err = run_train(*arguments)
    assert (code, out) == (2, "") and told in err
    assert not (tmp_path / "experiments").exists()


def test_fields_with_too_few_cells_are_named(run_train, prepared, tmp_path):
    counts = [read_pair(pair)[1].max() for pair in check_pairs(prepared / "train")]
    code, _, err = run_train("--min_train_masks", max(counts))
    assert code == 0 and f"fewer than {max(counts)} cells, not trained on" in err
    summary = json.loads((tmp_path / "experiments" / "mine" / "train.json").read_text())
    assert summary["fields"]["left_out"] == sum(count < max(counts) for count in counts)
