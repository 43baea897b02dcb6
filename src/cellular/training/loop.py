"""The training loop: Cellpose's network, loss and augmentation, with a record of every epoch.

`cellpose.train.train_seg` shows nothing before it ends, cannot be resumed, and gives the weights of
its last epoch. With the parameters in conf/reference.yaml, this loop gives the same losses and
weights as `train_seg`, bit by bit (tests/training/test_loop.py).

`Trainer` sets up data, network, optimizer and schedule; `train` runs the epochs. All random numbers
of an epoch depend on the seed and the number of the epoch alone, so a resumed run needs no state of
a random generator.
"""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from cellpose.resnet_torch import CPnet
from lightning_fabric import Fabric
from torch.nn import functional
from tqdm import tqdm

from cellular.base.devices import freed_memory_kept
from cellular.base.errors import TOO_HIGH, InputError
from cellular.imaging.trainingset import TrainingField
from cellular.network import weights
from cellular.training.checkpoints import Checkpoint
from cellular.training.crops import Batch, Crops
from cellular.training.params import TrainParams
from cellular.training.schedules import learning_rates

log = logging.getLogger(__name__)

# The validation loss is computed on the same crops, whatever the augmentation.
VALIDATION = {"scale_range": None, "flip": True, "paste_cells": 0.0}
VALIDATION_SEED = 42  # Cellpose's
SEED_STEP = 1_000_003  # a prime above any number of epochs, so that runs never share a crop's seed
FLOW_WEIGHT = 5.0  # Cellpose's: the network predicts flows of five times the length
AROUND = 4  # pixels of background around an annotated cell that count in full: a tenth of a cell
EXPLODED = 1e4  # no run recovered from such a loss; that of random weights is about 6
READ_EVERY = 0.5  # seconds between two readings of the loss: each makes a GPU wait
REPEATED = 1.0  # seconds within which a launcher passes on a signal that has come already


class Exploded(InputError):
    """The loss is not a number, or so large that no run recovers from it."""


@dataclass(frozen=True)
class Epoch:
    """The record of an epoch. Losses are means over crops; None: there was no validation."""

    epoch: int
    train_loss: float
    valid_loss: float | None
    learning_rate: float  # of its last step
    valid_ap50: float | None = None


@dataclass
class Run:
    """The progress of a run: all that changes in it, but for weights and optimizer."""

    step: int = 0  # finished steps of the current epoch
    losses: list[float] = field(default_factory=list)  # of those steps, each a sum over its crops
    epochs: list[Epoch] = field(default_factory=list)  # finished epochs
    best: int | None = None  # number of the best epoch so far
    # AP@0.5 in that epoch (0: not computed), and minus the validation loss, which decides ties
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    without_improvement: int = 0  # validations since the best epoch
    best_state: weights.State | None = None
    stopped: str | None = None  # the reason, once the run is over


def flow_loss(
    predicted: torch.Tensor, targets: torch.Tensor, background_weight: float = 1.0
) -> torch.Tensor:
    """Return Cellpose's loss: mean squared error of the flows / 2 + cross entropy of the cells.

    With a `background_weight` below 1, background weighs less where the network sees a cell
    (`TrainParams.background_weight`): a cell that nobody annotated would teach it to miss such
    cells. Around annotated cells it weighs as ever, since it shows where they end. The idea of
    trusting the network against a label is that of Reed et al. 2015, "Training deep neural networks
    on noisy labels with bootstrapping" (arXiv:1412.6596).

    Parameters
    ----------
    predicted : (n, 3, H, W) flow in y, flow in x, cell (as logit)
    targets : (n, 3, H, W) cell, flow in y, flow in x

    Source: `_loss_fn_seg` of `cellpose.train`, a module that takes seconds to import. Tested
    against it, bit by bit.
    """
    flows, logits = predicted[:, :2], predicted[:, -1]
    expected, cells = FLOW_WEIGHT * targets[:, 1:], (targets[:, 0] > 0.5).float()
    if background_weight == 1:
        error = functional.mse_loss(flows, expected) / 2.0
        return error + functional.binary_cross_entropy_with_logits(logits, cells)
    doubted = (1 - torch.sigmoid(logits.detach())).clamp(min=background_weight)
    known = functional.max_pool2d(cells[:, None], 2 * AROUND + 1, stride=1, padding=AROUND)[:, 0]
    weight = torch.where(known > 0, 1.0, doubted)
    error = (weight[:, None] * functional.mse_loss(flows, expected, reduction="none")).mean() / 2.0
    return error + functional.binary_cross_entropy_with_logits(logits, cells, weight)


class Trainer:
    """A network, its optimizer and the crops that it is trained on, at some step of a run."""

    def __init__(
        self,
        net: CPnet,
        train_fields: Sequence[TrainingField],
        valid_fields: Sequence[TrainingField],
        params: TrainParams,
        fabric: Fabric,
        seed: int,
    ):
        self.params, self.fabric, self.seed = params, fabric, seed
        self.progress = Run()

        # Data
        self.crops = Crops(train_fields, params, params.images_per_epoch)
        fixed = params.model_copy(update=VALIDATION)
        self.valid_crops = Crops(valid_fields, fixed, params.valid_images)
        self.batch_size = params.batch_size * fabric.world_size
        if self.crops.count % fabric.world_size:
            raise InputError(
                f"{self.crops.count} crops an epoch cannot be shared equally by "
                f"{fabric.world_size} processes; set images_per_epoch to a multiple of that"
            )

        # Network
        self.layout = torch.channels_last if params.channels_last else torch.contiguous_format
        if fabric.world_size > 1:
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        self.net = net.to(memory_format=self.layout)

        # Optimizer
        optimizer: torch.optim.Optimizer
        if params.use_sgd:
            optimizer = torch.optim.SGD(
                net.parameters(),
                params.learning_rate,
                params.momentum,
                weight_decay=params.weight_decay,
            )
        else:
            optimizer = torch.optim.AdamW(
                net.parameters(), params.learning_rate, weight_decay=params.weight_decay
            )
        self.model, self.optimizer = fabric.setup(net, optimizer)

        # Schedule
        steps = math.ceil(self.crops.count / self.batch_size)
        self.rates = learning_rates(params.schedule, params.n_epochs, steps, params.learning_rate)

    def loss(self, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of a network on a batch."""
        images, targets = (self._to_device(array) for array in batch)
        return flow_loss(network(images)[0].float(), targets, self.params.background_weight)

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.fabric.device.type == "cuda":
            tensor = tensor.pin_memory()  # so that the copy runs beside the network
        return tensor.to(self.fabric.device, memory_format=self.layout, non_blocking=True)

    def step(self, batch: Batch, rate: float) -> torch.Tensor:
        """Make one step, and return its loss, which a GPU may still be computing."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(self.model, batch)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def batches(self) -> Iterator[Batch]:
        """Give the remaining batches of the current epoch."""
        epoch = len(self.progress.epochs)
        return self.crops.batches(
            self.seed * SEED_STEP % 2**31 + epoch,
            size=self.batch_size,
            start=self.progress.step,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )

    @torch.no_grad()
    def valid_loss(self) -> float:
        """Return the mean loss on the validation crops. Every process computes it."""
        self.net.eval()
        total = 0.0
        with self.fabric.autocast():
            for batch in self.valid_crops.batches(VALIDATION_SEED, size=self.params.batch_size):
                total += self.loss(self.net, batch).item() * len(batch[0])
        return self.fabric.broadcast(total / self.valid_crops.count)

    def train_loss(self) -> float:
        """Return the mean loss over the crops of an epoch, those of all processes together."""
        total = sum(self.progress.losses)
        if self.fabric.world_size > 1:
            part = torch.tensor(total, dtype=torch.float64)
            total = cast(torch.Tensor, self.fabric.all_reduce(part, reduce_op="sum")).item()
        return total / self.crops.count

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to resume and end in the same bytes.

        Every process has to call it: the state holds the losses of each.
        """
        losses = [self.progress.losses] * self.fabric.world_size
        if self.fabric.world_size > 1:
            torch.distributed.all_gather_object(losses, self.progress.losses)
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
            "progress": asdict(self.progress) | {"losses": losses},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the point at which `state` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        epochs = [Epoch(**epoch) for epoch in state["progress"]["epochs"]]
        losses = state["progress"]["losses"][self.fabric.global_rank]
        self.progress = Run(**state["progress"] | {"epochs": epochs, "losses": losses})


def train(
    net: CPnet,
    train_fields: Sequence[TrainingField],
    valid_fields: Sequence[TrainingField],
    params: TrainParams,
    *,
    seed: int = 0,
    fabric: Fabric,
    checkpoint: Checkpoint | None = None,
    save_every: int = 5,
    ap50: Callable[[weights.State], float] | None = None,
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda epochs: None,
) -> tuple[Run, weights.State]:
    """Train `net` in place, from the start or from the state in the checkpoint.

    Parameters
    ----------
    net : Cellpose's network
    seed : decides all crops; with 0 they are Cellpose's
    fabric : device, precision and processes (`cellular.training.accelerators.launch`)
    checkpoint : keeps the state on disk; None: it is not kept
    save_every : epochs between two savings of the state
    ap50 : scores weights on whole validation fields, for `params.keep == "ap50"`
    on_epoch : called after each epoch with the records of all epochs, and with none if the run
        fails after an epoch

    Returns
    -------
    Run, State
        The records of the run with the weights of its best epoch, and the weights of the last
        step.

    Raises
    ------
    InputError
        If the loss explodes, or several processes cannot share the crops equally.
    KeyboardInterrupt
        On Ctrl-C or a termination signal to any of the processes, once the state is saved.
    """
    checkpoint = checkpoint if fabric.is_global_zero else None
    trainer = Trainer(net, train_fields, valid_fields, params, fabric, seed)
    if saved := fabric.broadcast(checkpoint.load() if checkpoint else None):
        trainer.restore(saved)
        log.info("resuming after epoch %d of %d", len(trainer.progress.epochs), params.n_epochs)
        if trainer.progress.epochs:
            on_epoch(trainer.progress.epochs)
    else:
        _save(trainer, checkpoint)  # from now on, its losses are known as those of this run
    try:
        with freed_memory_kept(), Interrupts(fabric) as interrupts, _bar(trainer) as bar:
            while not (trainer.progress.stopped or interrupts.agreed):
                if _epoch(trainer, interrupts, bar, ap50):
                    on_epoch(trainer.progress.epochs)
                done = len(trainer.progress.epochs)
                # A signal that comes after this question is seen in the next epoch's first step.
                if interrupts.came() or trainer.progress.stopped or done % save_every == 0:
                    _save(trainer, checkpoint)
    except Exploded:
        if checkpoint:
            checkpoint.remove()  # a run that resumes there would end in the same way
        if trainer.progress.epochs:
            on_epoch([])
        raise
    if not trainer.progress.stopped:
        if checkpoint:
            log.info(
                "epoch %d of %d: state saved; give the same command again to resume",
                len(trainer.progress.epochs) + 1,
                params.n_epochs,
            )
        raise KeyboardInterrupt
    return trainer.progress, trainer.net.state_dict()


def _save(trainer: Trainer, checkpoint: Checkpoint | None) -> None:
    """Save the state; every process has to call it, though one of them has the checkpoint."""
    state = trainer.state()
    if checkpoint:
        checkpoint.save(state)


def _epoch(
    trainer: Trainer,
    interrupts: "Interrupts",
    bar: tqdm,
    ap50: Callable[[weights.State], float] | None,
) -> bool:
    """Make the remaining steps of an epoch, and validate; return whether the epoch was finished."""
    progress, params, fabric = trainer.progress, trainer.params, trainer.fabric
    number = len(progress.epochs) + 1
    rate = float(trainer.rates[number - 1, progress.step - 1])
    pending: list[tuple[torch.Tensor, int]] = []
    last_read = time.monotonic()

    def read_losses() -> None:
        for loss, count in pending:
            value = loss.item()
            _check(value, number, rate, params)
            progress.losses.append(value * count)
            bar.set_postfix(epoch=number, loss=f"{value:.3f}", lr=f"{rate:.2g}")
        pending.clear()

    trainer.model.train()
    for batch in trainer.batches():
        rate = float(trainer.rates[number - 1, progress.step])
        pending.append((trainer.step(batch, rate), len(batch[0])))
        progress.step += 1
        bar.update(len(batch[0]) * fabric.world_size)
        if interrupts.came():
            read_losses()
            return False
        if time.monotonic() - last_read > READ_EVERY:
            read_losses()
            last_read = time.monotonic()
    read_losses()

    valid_loss = score = None
    if number % params.valid_every == 0 or number == params.n_epochs:
        valid_loss = trainer.valid_loss()
        _check(valid_loss, number, rate, params)
        if ap50:
            score = fabric.broadcast(
                ap50(trainer.net.state_dict()) if fabric.is_global_zero else None
            )
    progress.epochs.append(Epoch(number, trainer.train_loss(), valid_loss, rate, score))
    progress.step, progress.losses = 0, []
    _finish_epoch(trainer)
    return True


def _finish_epoch(trainer: Trainer) -> None:
    """Record whether the last epoch is the best so far, and whether the run is over."""
    progress, params = trainer.progress, trainer.params
    epoch = progress.epochs[-1]
    if epoch.valid_loss is not None:
        score = (epoch.valid_ap50 or 0.0, -epoch.valid_loss)
        if score > progress.best_score:
            progress.best, progress.best_score = epoch.epoch, score
            progress.without_improvement = 0
            if params.keep != "last":
                progress.best_state = {
                    key: value.detach().cpu().clone()
                    for key, value in trainer.net.state_dict().items()
                }
        else:
            progress.without_improvement += 1
    if epoch.epoch == params.n_epochs:
        progress.stopped = "the last epoch was reached"
    elif params.patience and progress.without_improvement >= params.patience:
        progress.stopped = f"no improvement in {params.patience} validations"


def _check(loss: float, epoch: int, rate: float, params: TrainParams) -> None:
    """Raise `Exploded` if the loss is."""
    if loss < EXPLODED:
        return
    value = f"{loss:.3g}" if math.isfinite(loss) else "not a number any more"
    raise Exploded(
        f"the loss is {value} in epoch {epoch}, at a learning rate of {rate:.3g}; "
        f"learning_rate {params.learning_rate:g} {TOO_HIGH}"
        + (", or precision 32" if params.precision == "fp16" else "")
    )


def _bar(trainer: Trainer) -> tqdm:
    """Return a progress bar with crops a second and the time left."""
    progress, count = trainer.progress, trainer.crops.count
    return tqdm(
        total=trainer.params.n_epochs * count,
        initial=len(progress.epochs) * count + progress.step * trainer.batch_size,
        desc="train",
        unit="crop",
        leave=False,
        disable=not trainer.fabric.is_global_zero,
    )


class Interrupts:
    """Ctrl-C and termination signals, which the processes of a run ask each other for.

    All of them have to stop after the same step: a process that goes on would wait for those that
    have stopped. A second signal, later than launchers repeat the first, ends the program at once.
    """

    def __init__(self, fabric: Fabric):
        self.agreed = False  # whether a signal has come to any of the processes
        self._times: list[float] = []
        self._before: dict[int, Any] = {}
        # On the CPU, so that no GPU has to wait for the answer.
        self._group = torch.distributed.new_group(backend="gloo") if fabric.world_size > 1 else None

    def came(self) -> bool:
        """Return whether a signal has come; every process has to ask at the same step."""
        self.agreed = self.agreed or bool(self._times)
        if self._group:
            flag = torch.tensor(self.agreed, dtype=torch.uint8)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
            self.agreed = bool(flag)
        return self.agreed

    def _note(self, kind: int, frame: object) -> None:
        self._times.append(time.monotonic())
        if self._times[-1] - self._times[0] > REPEATED:
            self.__exit__()
            signal.raise_signal(kind)

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Handle signals as before."""
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
