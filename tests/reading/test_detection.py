from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from gyri.reading.detection import accuracy, detect, effective_trials

TRUTH = np.repeat(["real", "synthetic"], 100)


def says(hits: int, false: int) -> np.ndarray:
    made = np.array(["real"] * 200, dtype=object)
    made[:false] = "synthetic"
    made[100 : 100 + hits] = "synthetic"
    return made


def test_d_prime_and_criterion_of_known_rates():
    seen = detect(TRUTH, says(84, 16))
    hit, false = 84.5 / 101, 16.5 / 101
    assert seen.d_prime == pytest.approx(norm.ppf(hit) - norm.ppf(false))
    assert seen.criterion == pytest.approx(0, abs=1e-12)
    assert (seen.sensitivity, seen.specificity) == (0.84, 0.84)


def test_a_biased_reader_is_biased_and_not_able():
    seen = detect(TRUTH, says(90, 90))
    assert seen.d_prime == pytest.approx(0)
    assert seen.criterion < -1
    assert detect(TRUTH, says(10, 10)).criterion > 1


def test_a_perfect_reader_has_a_finite_d_prime():
    seen = detect(TRUTH, says(100, 0))
    assert 4 < seen.d_prime < 6
    assert np.isfinite(seen.d_error)


def test_the_standard_error_is_that_of_simulated_readers():
    rng = np.random.default_rng(0)
    found = [detect(TRUTH, says(*rng.binomial(100, [0.7, 0.4]))) for _ in range(600)]
    assert np.std([f.d_prime for f in found]) == pytest.approx(found[0].d_error, rel=0.12)
    assert np.std([f.criterion for f in found]) == pytest.approx(found[0].d_error / 2, rel=0.12)


def table(right: np.ndarray) -> tuple[pd.Series, pd.Series, pd.Series]:
    """(readers, cases) to answers."""
    readers, cases = np.indices(right.shape)
    return pd.Series(right.ravel()), pd.Series(readers.ravel()), pd.Series(cases.ravel())


def test_the_pinned_interval_of_half_of_a_hundred():
    found = accuracy(*table(np.array([[True, False] * 50])))
    assert [round(100 * end, 1) for end in found["interval"]] == [40.4, 59.6]
    assert found["effective_n"] == 100


def test_guessing_readers_interval_covers_a_half():
    rng = np.random.default_rng(1)
    for readers, cases in ((1, 60), (4, 60)):
        ends = [
            accuracy(*table(rng.random((readers, cases)) < 0.5))["interval"] for _ in range(300)
        ]
        covered = np.mean([low <= 0.5 <= high for low, high in ends])
        assert covered >= 0.93


def test_answers_that_go_together_are_worth_less():
    rng = np.random.default_rng(2)
    same_cases = np.tile(rng.random((1, 100)) < 0.5, (4, 1))
    assert effective_trials(*table(same_cases)) == pytest.approx(100, rel=0.05)
    worth = [effective_trials(*table(rng.random((4, 100)) < 0.5)) for _ in range(30)]
    assert np.median(worth) > 200
    assert max(worth) <= 400
    able = rng.random((4, 100)) < np.array([[0.2], [0.4], [0.6], [0.8]])
    assert effective_trials(*table(able)) < 30
