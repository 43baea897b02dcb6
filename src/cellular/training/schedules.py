"""Schedules: the learning rate of every step."""

import numpy as np

from cellular.base.params import Schedule

WARM_UP = 0.1  # of the steps of cosine and constant
RISE = 0.3  # of the steps of one-cycle
ONE_CYCLE_START, ONE_CYCLE_END = 25.0, 1e4 * 25.0  # the rate is divided by these, as in PyTorch


def cellpose_rates(n_epochs: int, rate: float) -> np.ndarray:
    """Return Cellpose's learning rate of each epoch: (n_epochs,) float64.

    Linear from 0 over the first ten epochs; in runs of more than 100 (300) epochs it is halved ten
    times, every 5 (10) epochs, at the end. Source: cellpose 3.1.1.3, `train_seg`.
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
        `cellpose_rates`, one rate an epoch.
    cosine
        Linear from 0 over the first tenth of the steps, then half a cosine down to 0
        (Loshchilov and Hutter 2017, SGDR, without restarts).
    one-cycle
        Half a cosine up from a 25th over the first 0.3 of the steps, half a cosine down to a
        250,000th (Smith and Topin 2018; the shape of PyTorch's `OneCycleLR`).
    constant
        Linear from 0 over the first tenth of the steps, then `rate`.
    """
    if schedule == "cellpose":
        return np.repeat(cellpose_rates(n_epochs, rate)[:, None], steps, axis=1)
    total = n_epochs * steps
    done = (np.arange(total) + 0.5) / total
    if schedule == "one-cycle":
        start, end = rate / ONE_CYCLE_START, rate / ONE_CYCLE_END
        rates = np.where(
            done < RISE, _cosine(start, rate, done / RISE),
            _cosine(rate, end, (done - RISE) / (1 - RISE)),
        )  # fmt: skip
    else:
        rates = rate * np.minimum(1, done / WARM_UP)
        if schedule == "cosine":
            falling = _cosine(rate, 0.0, (done - WARM_UP) / (1 - WARM_UP))
            rates = np.where(done < WARM_UP, rates, falling)
    return rates.reshape(n_epochs, steps)


def _cosine(start: float, end: float, part: np.ndarray) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(np.pi * part)) / 2
