"""Interrupts of a training in the middle of its work."""

import os
import signal

import pytest

from cellular.training.loop import Trainer


def interrupted_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Interrupt the process after this number of steps; return the list of the steps' rates."""
    steps: list[float] = []
    plain = Trainer.step

    def step(trainer, batch, rate):
        steps.append(rate)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(trainer, batch, rate)

    monkeypatch.setattr(Trainer, "step", step)
    return steps
