"""Measures against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from gyri.evaluation.utility.measures import (
    absolute_error,
    auroc,
    balanced_accuracy,
    brier,
    calibration_error,
    measures,
)
from gyri.evaluation.utility.tasks import Task


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    target = (rng.random(40) < 0.4).astype(int)
    score = np.round(np.clip(0.3 * target + rng.random(40) * 0.7, 0, 1), 1)  # with ties
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    return {"probability": np.stack([1 - score, score], 1)}, target, weights


def test_auroc_is_scikit_learns_under_any_weights(cases):
    answers, target, weights = cases
    ours = auroc(answers, target, weights)
    theirs = [roc_auc_score(target, answers["probability"][:, 1], sample_weight=w) for w in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_brier_and_balanced_accuracy_are_scikit_learns(cases):
    answers, target, weights = cases
    score = answers["probability"][:, 1]
    theirs = [brier_score_loss(target, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(brier(answers, target, weights), theirs, atol=1e-12)
    called = answers["probability"].argmax(1)
    theirs = [balanced_accuracy_score(target, called, sample_weight=w) for w in weights]
    np.testing.assert_allclose(balanced_accuracy(answers, target, weights), theirs, atol=1e-12)


def test_auroc_of_several_classes_is_the_mean_one_against_the_rest():
    rng = np.random.default_rng(1)
    target = np.arange(30) % 3
    probability = rng.dirichlet(np.ones(3), 30)
    ours = auroc({"probability": probability}, target, np.ones((1, 30)))[0]
    assert ours == pytest.approx(roc_auc_score(target, probability, multi_class="ovr"))


def test_a_resample_of_one_class_has_no_auroc(cases):
    answers, target, _ = cases
    weights = (target == 1).astype(float)[None]
    assert np.isnan(auroc(answers, target, weights)).all()
    assert np.isfinite(brier(answers, target, weights)).all()


def test_calibration_error_by_hand():
    # Four answers of confidence 0.8, three of them right: |0.8 - 0.75|.
    answers = {"probability": np.array([[0.2, 0.8]] * 4)}
    found = calibration_error(answers, np.array([1, 1, 1, 0]), np.ones((1, 4)))
    assert found[0] == pytest.approx(0.05)


def test_absolute_error_is_weighted():
    answers = {"prediction": np.array([1.0, 5.0])}
    found = absolute_error(answers, np.array([0.0, 0.0]), np.array([[1.0, 1.0], [3.0, 1.0]]))
    np.testing.assert_allclose(found, [3.0, 2.0])


def test_structures_that_nobody_has_are_left_out():
    task = Task("seg", "segmentation", "seg", ("core", "oedema"))
    by_name = {measure.name: measure for measure in measures(task)}
    answers = {
        name: np.array([[1.0, np.nan], [0.0, 0.5], [np.nan, np.nan]])
        for name in ("dice", "hd95_mm", "volume_error_ml")
    }
    weights = np.ones((1, 3))
    assert by_name["dice"].weighted(answers, None, weights)[0] == pytest.approx((1 + 0.25) / 2)
    assert by_name["dice/oedema"].weighted(answers, None, weights)[0] == pytest.approx(0.5)
    assert by_name["dice"].minimum == 0.01
    assert by_name["hd95_mm"].sign == -1
