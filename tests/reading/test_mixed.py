from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gyri.reading.mixed import mixed_model


def answers(seed: int, intercept: float, reader_sd: float, case_sd: float, readers=6, cases=80):
    rng = np.random.default_rng(seed)
    reader, case = np.repeat(np.arange(readers), cases), np.tile(np.arange(cases), readers)
    eta = (
        intercept + rng.normal(0, reader_sd, readers)[reader] + rng.normal(0, case_sd, cases)[case]
    )
    right = rng.random(len(eta)) < 1 / (1 + np.exp(-eta))
    return pd.Series(right), pd.Series(reader).map(str), pd.Series(case).map(str)


def test_truth_is_found_again():
    fits = [mixed_model(*answers(seed, 1.0, 0.4, 1.0)) for seed in range(5)]
    assert np.mean([fit["intercept"] for fit in fits]) == pytest.approx(1.0, abs=0.3)
    assert np.mean([fit["case_sd"] for fit in fits]) == pytest.approx(1.0, abs=0.3)
    truth = 1 / (1 + np.exp(-1.0))
    assert all(fit["interval"][0] < truth < fit["interval"][1] for fit in fits)


def test_guessing_has_no_intercept():
    fit = mixed_model(*answers(3, 0.0, 0.0, 0.0))
    assert abs(fit["intercept"]) < 3 * fit["intercept_sd"]
    assert fit["case_sd"] < 0.6


def test_where_there_is_nothing_to_fit():
    right, reader, case = answers(0, 0.0, 0.0, 0.0)
    assert mixed_model(right[:80], reader[:80], case[:80]) is None
    assert mixed_model(right | True, reader, case) is None
