from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from gyri.errors import UsageError
from gyri.reading.equivalence import equivalence, plan_lines, power_of, trials_needed


def test_pinned_numbers_of_trials():
    assert trials_needed(0.10) == 215
    assert trials_needed(0.05) == 857
    assert trials_needed(0.10, icc=0.05, m=21) == 429  # 214.1 x 2


@pytest.mark.parametrize(("right", "n"), [(100, 200), (115, 200), (0, 20), (20, 20)])
def test_tails_are_exact_binomial_ones(right, n):
    test = equivalence(right, n, 0.1)
    assert test.p_low == pytest.approx(binomtest(right, n, 0.4, alternative="greater").pvalue)
    assert test.p_high == pytest.approx(binomtest(right, n, 0.6, alternative="less").pvalue)


@pytest.mark.parametrize("n", [60, 215, 400, 1000])
def test_size_is_at_most_five_percent(n):
    # by enumeration at the two borders, where the error is largest
    assert power_of(n, 0.1, accuracy=0.4) <= 0.05
    assert power_of(n, 0.1, accuracy=0.6) <= 0.05


def test_few_trials_show_nothing_and_enough_do():
    assert not equivalence(30, 60, 0.1).shown
    assert equivalence(150, 300, 0.1).shown
    assert not equivalence(210, 300, 0.1).shown
    assert power_of(227, 0.1) >= 0.8


def test_simulated_guessing_agrees_with_the_power():
    rng = np.random.default_rng(0)
    shown = np.mean([equivalence(k, 240, 0.1).shown for k in rng.binomial(240, 0.5, 2000)])
    assert shown == pytest.approx(power_of(240, 0.1), abs=0.03)


def test_the_plan_says_what_is_needed():
    text = " ".join(plan_lines(0.1, 0.8, 0.0, 4, None))
    assert "215 independent trials by the normal formula, 227 for the exact test" in text
    assert "power 8" in text
    assert "cannot reach it" in " ".join(plan_lines(0.05, 0.8, 0.02, 4, None))
    assert "power 0%" in " ".join(plan_lines(0.1, 0.8, 0.0, 1, 30))
    with pytest.raises(UsageError, match="--margin"):
        plan_lines(0.6, 0.8, 0.0, 4, None)
