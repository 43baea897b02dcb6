"""The training loop: with Cellpose's recipe, Cellpose's own losses and weights."""

import os
import signal

import numpy as np
import pytest
import torch
from cellpose.train import _loss_fn_seg, train_seg
from helpers.interrupts import interrupted_at
from helpers.repository import REFERENCE
from helpers.training_fields import in_memory
from hypothesis import given
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.imaging.fields import check_pairs, read_pair
from cellular.network import weights
from cellular.training.accelerators import launch
from cellular.training.checkpoints import Checkpoint
from cellular.training.loop import flow_loss, train
from cellular.training.params import TrainParams

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = {"n_epochs": 3, "batch_size": 2, "crop_size": 64, "min_train_masks": 1}
RECIPES = {
    "sgd": {"use_sgd": True, "learning_rate": 0.05},
    "adamw": {"use_sgd": False, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def raw(pieces):
    """The real pieces as arrays: for each split, images and label maps."""
    return [
        tuple(zip(*(read_pair(pair) for pair in check_pairs(pieces / split)), strict=True))
        for split in ("train", "valid")
    ]


def ours(raw, pretrained, params, seed=0, **options):
    groups = [
        [
            in_memory(str(number), *pair, params.channels)
            for number, pair in enumerate(zip(*group, strict=True))
        ]
        for group in raw
    ]
    net = weights.network(weights.load(pretrained))
    fabric = launch(CPU, params.precision)
    run, _ = train(net, *groups, params, seed=seed, fabric=fabric, **options)
    return net, run


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("rescale", "validation", "images", "channels"),
    [
        (True, True, 4, [0, 0]),
        (True, False, None, [0, 0]),
        (False, True, None, [2, 3]),
        (False, False, 4, [0, 0]),
    ],
)
def test_losses_and_weights_are_those_of_train_seg(
    raw, pretrained, tmp_path, recipe, rescale, validation, images, channels
):
    params = TrainParams(
        **(SMALL | REFERENCE["train"] | RECIPES[recipe]),
        rescale=rescale,
        images_per_epoch=images,
        channels=channels,
    )
    net, run = ours(raw, pretrained, params)

    reference = weights.network(weights.load(pretrained))
    (images_train, labels_train), (images_valid, labels_valid) = raw
    _, train_losses, valid_losses = train_seg(
        reference,
        train_data=list(images_train),
        train_labels=list(labels_train),
        test_data=list(images_valid) if validation else None,
        test_labels=list(labels_valid) if validation else None,
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
    assert [epoch.train_loss for epoch in run.epochs] == train_losses.tolist()
    if validation:
        assert run.epochs[0].valid_loss == valid_losses[0]  # Cellpose: in epochs 0, 5, 10, ...
    for key, value in reference.state_dict().items():
        if key not in weights.DIAMETERS:
            assert torch.equal(value, net.state_dict()[key]), key


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_loss_is_cellposes(seed, count):
    random = np.random.default_rng(seed)
    targets = random.normal(size=(count, 3, 16, 16)).astype(np.float32)
    predicted = torch.from_numpy(random.normal(size=(count, 3, 16, 16)).astype(np.float32))
    ours = flow_loss(predicted, torch.from_numpy(targets))
    assert torch.equal(ours, _loss_fn_seg(targets, predicted, CPU))


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99))
def test_background_weighs_less_where_the_network_sees_a_cell(seed, least):
    random = np.random.default_rng(seed)
    targets = random.normal(size=(2, 3, 16, 16)).astype(np.float32)
    targets[:, 0] = random.random((2, 16, 16)) > 0.99  # two or three pixels of cells
    predicted = random.normal(size=(2, 3, 16, 16)).astype(np.float32) * 3
    total = 0.0
    for number, y, x in np.ndindex(2, 16, 16):
        cell, *flow = targets[number, :, y, x].astype(float)
        *guess, logit = predicted[number, :, y, x].astype(float)
        seen = 1 / (1 + np.exp(-logit))
        near = targets[number, 0, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] > 0.5
        weight = 1.0 if near.any() else max(1 - seen, least)
        squares = np.mean([(g - 5 * f) ** 2 for g, f in zip(guess, flow, strict=True)])
        total += weight * (squares / 2 - np.log(seen if cell > 0.5 else 1 - seen))
    loss = flow_loss(torch.from_numpy(predicted), torch.from_numpy(targets), least)
    assert loss.item() == pytest.approx(total / 512, rel=1e-4)


def test_a_cell_that_nobody_annotated_pulls_less_the_surer_the_network_is():
    targets = torch.zeros(1, 3, 1, 2)  # background, where the network sees a cell, and ground
    predicted = torch.tensor([[0.0, 0.0], [0.0, 0.0], [4.0, -4.0]]).reshape(1, 3, 1, 2)
    pulls = []
    for least in (1.0, 0.1, 0.0):
        logits = predicted.clone().requires_grad_()
        flow_loss(logits, targets, least).backward()
        pulls.append(logits.grad[0, 2, 0].tolist())
    whole, tenth, none = pulls
    assert whole[0] > 0.4 and tenth[0] == pytest.approx(whole[0] / 10) and none[0] < tenth[0]
    assert whole[1] == pytest.approx(tenth[1], rel=0.03)  # plain ground counts as before


def test_every_crop_depends_on_the_seed(raw, pretrained):
    params = TrainParams(**SMALL, **RECIPES["sgd"])
    losses = [
        [epoch.train_loss for epoch in ours(raw, pretrained, params, seed)[1].epochs]
        for seed in (5, 5, 6)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [0.5, 0.1, 0.5]])
def test_of_epochs_with_the_same_ap50_the_one_with_the_lowest_loss_is_kept(raw, pretrained, scores):
    params = TrainParams(**SMALL, **RECIPES["adamw"], keep="ap50", images_per_epoch=4)
    left = list(scores)
    _, run = ours(raw, pretrained, params, ap50=lambda state: left.pop(0))
    losses = [epoch.valid_loss for epoch in run.epochs]
    assert losses[2] < losses[0] and run.best == 3


def test_the_error_for_a_loss_that_explodes_says_what_to_change(raw, pretrained):
    params = TrainParams(**(SMALL | {"n_epochs": 6}), use_sgd=True, learning_rate=100)
    with pytest.raises(InputError, match=r"not a number any more.*try a tenth"):
        ours(raw, pretrained, params)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_interrupted_at_any_step_resumes_and_ends_the_same(
    raw, pretrained, monkeypatch, tmp_path, stop
):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path))
    params = TrainParams(**SMALL, **RECIPES["adamw"], images_per_epoch=4)
    expected, run = ours(raw, pretrained, params)
    steps = interrupted_at(stop, monkeypatch)
    with Checkpoint("interrupted") as checkpoint:
        with pytest.raises(KeyboardInterrupt):
            ours(raw, pretrained, params, checkpoint=checkpoint)
        assert len(steps) == stop  # two steps an epoch: in the middle of one, and at its end
        net, again = ours(raw, pretrained, params, checkpoint=checkpoint)
    assert len(steps) == 6 and again.epochs == run.epochs
    for key, value in expected.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key


def test_an_interrupt_after_an_epoch_saves_that_epoch(raw, pretrained, monkeypatch, tmp_path):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path))
    params = TrainParams(**SMALL, **RECIPES["adamw"], images_per_epoch=4)

    def interrupt(epochs):
        os.kill(os.getpid(), signal.SIGINT)

    with Checkpoint("interrupted") as checkpoint:
        options = {"checkpoint": checkpoint, "save_every": 100}
        with pytest.raises(KeyboardInterrupt):
            ours(raw, pretrained, params, on_epoch=interrupt, **options)
        assert len(checkpoint.load()["progress"]["epochs"]) == 1
