from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from gyri.errors import DataError
from gyri.evaluation.privacy.membership import area, infer_membership, true_positive_rate


def table(train: np.ndarray, hold: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject": [f"s{k}" for k in range(len(train) + len(hold))],
            "split": ["TRAIN"] * len(train) + ["HOLD"] * len(hold),
            "loss": np.concatenate([train, hold]),
        }
    )


def test_equal_losses_tell_nothing():
    found = infer_membership(table(np.ones(50), np.ones(40)))
    assert (found.auc, found.low, found.high, found.tpr) == (0.5, 0.5, 0.5, 0.0)
    assert not found.alarm


def test_the_area_is_sklearns_and_lower_losses_are_members():
    rng = np.random.default_rng(0)
    train, hold = rng.standard_normal(80) - 0.7, rng.standard_normal(60)
    auc, low, high = area(train, hold)
    truth = np.repeat([1, 0], [80, 60])
    assert auc == pytest.approx(roc_auc_score(truth, -np.concatenate([train, hold])))
    assert low < auc < high
    assert infer_membership(table(train, hold)).alarm
    assert not infer_membership(table(hold, train)).alarm


def test_the_interval_covers_one_half_where_losses_are_exchangeable():
    missed, alarms = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = infer_membership(table(rng.random(60), rng.random(40)))
        missed += not found.low <= 0.5 <= found.high
        alarms += found.alarm
    assert missed <= 20
    assert alarms <= 18


def test_perfect_separation():
    found = infer_membership(table(np.arange(20.0), np.arange(20.0) + 50))
    assert (found.auc, found.tpr) == (1.0, 1.0)
    assert found.alarm


def test_few_members_that_are_found_surely_alarm():
    rng = np.random.default_rng(1)
    train, hold = rng.random(150), rng.random(150)
    train[:20] -= 2
    found = infer_membership(table(train, hold))
    assert found.tpr >= 20 / 150
    assert found.tpr_p_value < 0.001
    assert found.alarm


def test_the_p_value_of_the_true_positives_is_that_of_a_random_order():
    rng = np.random.default_rng(0)
    _, p_value = true_positive_rate(np.r_[-1.0, -2.0, rng.random(8)], 0.5 + rng.random(100))
    found = np.mean(
        [true_positive_rate(*np.split(rng.random(110), [10]))[1] <= 0.05 for _ in range(500)]
    )
    assert p_value < 0.05
    assert found <= 0.08


def test_scans_of_a_person_are_averaged_and_small_or_broken_tables_refused():
    whole = table(np.arange(10.0), np.arange(10.0) + 3)
    doubled = pd.concat([whole, whole.assign(loss=whole["loss"] + 2)])
    assert infer_membership(doubled).num_train == 10
    assert infer_membership(doubled).auc == infer_membership(whole).auc
    with pytest.raises(DataError, match="5 people of HOLD"):
        infer_membership(table(np.arange(10.0), np.arange(5.0)))
    with pytest.raises(DataError, match="1 losses that are not finite"):
        infer_membership(table(np.r_[np.arange(9.0), np.nan], np.arange(9.0)))
