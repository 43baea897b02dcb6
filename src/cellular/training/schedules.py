"""Schedules: the learning rate of every step."""

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR

from cellular.training.params import Schedule

WARM_UP = 0.1  # part of the steps in which the schedule cosine rises


def cellpose_rates(n_epochs: int, rate: float) -> np.ndarray:
    """Return Cellpose's learning rate of each epoch: (n_epochs,) float64.

    It rises linearly from 0 over the first ten epochs; in runs of more than 100 (300) epochs it is
    halved ten times at the end, every 5 (10) epochs. Source: cellpose 3.1.1.3, `train_seg`.
    """
    rates = np.append(np.linspace(0, rate, 10), np.full(max(0, n_epochs - 10), rate))
    if n_epochs > 100:
        every = 10 if n_epochs > 300 else 5
        falling = rate / 2.0 ** np.repeat(np.arange(1, 11), every)
        rates = np.append(rates[: -10 * every], falling)
    return rates[:n_epochs]


def learning_rates(schedule: Schedule, n_epochs: int, steps: int, rate: float) -> np.ndarray:
    """Return the learning rate of every step: (n_epochs, steps) float64.

    cellpose
        `cellpose_rates`, one rate for all steps of an epoch.
    cosine
        Linear from 0 over the first tenth of the steps, then half a cosine down to 0
        (Loshchilov and Hutter 2017, SGDR, without restarts).
    one-cycle
        PyTorch's `OneCycleLR` (Smith and Topin 2018).
    """
    total = n_epochs * steps
    if schedule == "cellpose":
        rates = np.repeat(cellpose_rates(n_epochs, rate), steps)
    elif schedule == "cosine":
        done = (np.arange(total) + 0.5) / total
        cosine = rate * (1 + np.cos(np.pi * ((done - WARM_UP) / (1 - WARM_UP)))) / 2
        rates = np.where(done < WARM_UP, rate * np.minimum(1, done / WARM_UP), cosine)
    else:
        # OneCycleLR sets the rate of an optimizer, step by step; this one trains nothing.
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
        cycle = OneCycleLR(optimizer, rate, total_steps=total, cycle_momentum=False)
        rates = np.empty(total)
        for step in range(total):
            rates[step] = cycle.get_last_lr()[0]
            optimizer.step()
            if step < total - 1:
                cycle.step()
    return rates.reshape(n_epochs, steps)
