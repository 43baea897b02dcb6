"""Schedules: Cellpose's own rates, and where the others rise and fall."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellular.training.schedules import cellpose_rates, learning_rates


@pytest.mark.parametrize("n_epochs", [1, 9, 10, 40, 100, 101, 300, 301, 500])
def test_the_rates_of_the_schedule_cellpose_are_cellposes(n_epochs):
    # Recomputed as `train_seg` does, list by list.
    rate = 0.2
    expected = np.append(np.linspace(0, rate, 10), rate * np.ones(max(0, n_epochs - 10)))
    cut, every = (100, 10) if n_epochs > 300 else (50, 5)
    if n_epochs > 100:
        expected = expected[:-cut]
        for _ in range(10):
            expected = np.append(expected, expected[-1] / 2 * np.ones(every))
    assert np.array_equal(cellpose_rates(n_epochs, rate), expected[:n_epochs])


def test_the_first_rates_are_as_computed_by_hand():
    assert learning_rates("cellpose", 3, 2, 0.9).tolist() == [[0, 0], [0.1, 0.1], [0.2, 0.2]]
    cosine = learning_rates("cosine", 10, 10, 1.0).ravel()
    assert cosine[:2] == pytest.approx([0.05, 0.15])  # it rises for ten steps of a hundred
    assert cosine[54] == pytest.approx(0.5, abs=0.02)  # half-way down


def test_one_cycle_rises_for_three_tenths_of_the_steps_and_then_falls():
    rates = learning_rates("one-cycle", 10, 10, 1.0).ravel()
    assert rates[0] == pytest.approx(1 / 25) and rates.argmax() == 29 and rates[29] == 1.0
    assert (np.diff(rates[:30]) > 0).all() and (np.diff(rates[29:]) < 0).all()


@given(
    st.sampled_from(["cellpose", "cosine", "one-cycle"]),
    st.integers(1, 400),
    st.integers(1, 9),
    st.floats(1e-6, 10),
)
def test_every_rate_is_between_zero_and_the_highest(schedule, n_epochs, steps, rate):
    rates = learning_rates(schedule, n_epochs, steps, rate)
    assert rates.shape == (n_epochs, steps)
    assert (rates >= 0).all() and (rates <= rate * (1 + 1e-12)).all()
