"""Intervals, adjustment and the rule."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.utility.statistics import Draws, Gain, Spread, decide, holm
from gyri.evaluation.utility.statistics import estimate as estimate_spread


def estimate(statistic, drawn: Draws):
    return estimate_spread(Spread.of(statistic, drawn), drawn)


def mean_of(values: np.ndarray):
    """Return the statistic (S, R): mean over subjects of every seed's (S, N) values."""
    return lambda weights: values @ weights.T / weights.sum(1)


def draws(num_subjects: int, num_seeds: int, seed: int = 0, resamples: int = 2000) -> Draws:
    ids = [str(k) for k in range(num_subjects)]
    return Draws.make(ids, num_seeds, resamples, np.random.default_rng(seed))


def test_interval_has_the_width_of_both_levels():
    rng = np.random.default_rng(3)
    subjects = rng.standard_normal(400)
    only = estimate(mean_of(np.tile(subjects, (5, 1))), draws(400, 5))
    assert only.high - only.low == pytest.approx(2 * 1.96 / 20 * subjects.std(), rel=0.1)
    shifted = subjects + np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None]
    both = estimate(mean_of(shifted), draws(400, 5))
    # Drawing five seeds with replacement: spread sqrt(2) / sqrt(5).
    assert both.high - both.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 5), rel=0.15)


def test_coverage_of_a_mean_under_both_levels():
    covered = 0
    for repeat in range(60):
        rng = np.random.default_rng(repeat)
        values = (
            rng.standard_normal(40) + rng.standard_normal((8, 1)) + rng.standard_normal((8, 40))
        )
        found = estimate(mean_of(values), draws(40, 8, repeat, 600))
        covered += found.low <= 0 <= found.high
    # Eight seeds underestimate their own spread: not quite 95 %.
    assert covered >= 48


def test_no_difference_covers_zero_and_has_no_evidence():
    found = estimate(mean_of(np.zeros((5, 30))), draws(30, 5))
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_gain_is_paired():
    rng = np.random.default_rng(0)
    hard = rng.standard_normal((5, 50))  # subjects differ much, arms little
    drawn = draws(50, 5)
    ours, theirs = (Spread.of(mean_of(values), drawn) for values in (hard - 0.1, hard))
    found = estimate_spread(ours.gain_over(theirs, sign=-1), drawn)
    assert found.value == pytest.approx(0.1)
    assert found.high - found.low < 1e-9


def test_p_value_falls_with_the_effect():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((5, 50))
    p_values = [estimate(mean_of(noise + shift), draws(50, 5)).p_value for shift in (0, 0.2, 1)]
    assert p_values[0] > p_values[1] > p_values[2]
    assert p_values[2] < 0.01


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({}) == {}


def gain(low: float, value: float, high: float, adjusted: float = 0.001) -> Gain:
    return Gain("R + 1 S", "R", value, low, high, adjusted, adjusted)


@pytest.mark.parametrize(
    ("gains", "decision"),
    [
        ([gain(0.01, 0.02, 0.03), gain(0.001, 0.02, 0.03)], "helps"),
        ([gain(0.01, 0.02, 0.03), gain(-0.005, 0.02, 0.03)], "no harm"),
        ([gain(0.01, 0.02, 0.03), gain(0.01, 0.02, 0.03, adjusted=0.2)], "no harm"),
        ([gain(0.01, 0.02, 0.03), gain(-0.02, 0.02, 0.03)], "not shown"),
        ([gain(-0.3, -0.2, -0.1)], "not shown"),
        ([], "not shown"),
    ],
)
def test_rule(gains, decision):
    assert decide(gains, margin=0.01) == decision
