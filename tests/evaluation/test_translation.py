"""The judge of translations: a classifier that has not seen whom it judges, and volumes in ml."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.cohort.phantom import phantom_volumes
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.segment import GM, WM, fit_tissue_model, segment
from gyri.evaluation.translation import LevelClassifier, judge_translation, tissue_volumes

NUM = 44


@pytest.fixture(scope="module")
def people() -> VolumeSet:
    return phantom_volumes(NUM, seed=5, spacing_mm=8.0)


def side_of(volumes: VolumeSet) -> np.ndarray:
    return np.where(volumes.table["scanner"] == "B", 1, 0)


@pytest.fixture(scope="module")
def judged(people):
    """TRAIN's sides, held-out people of both scanners, and what not translating them gets."""
    train, held = people.take(np.arange(28)), people.take(np.arange(28, NUM))
    side = side_of(held)
    a, b = held.take(np.flatnonzero(side == 0)), held.take(np.flatnonzero(side == 1))
    return train, side_of(train), a, b, judge_translation(train, side_of(train), a, a, b)


def test_what_is_not_changed_fools_nobody_and_keeps_its_volumes(judged):
    _, side, a, b, (summary, table) = judged
    classifier = summary["classifier"]
    assert classifier["train"] == {"target": int(side.sum()), "others": int((1 - side).sum())}
    assert classifier["balanced_accuracy"] > 0.8
    shares = classifier["called_target"]
    assert shares["originals"] == shares["translated"]
    assert shares["originals"]["value"] < 0.4 < 0.6 < shares["real_target"]["value"]
    assert (shares["originals"]["n"], shares["real_target"]["n"]) == (len(a), len(b))
    assert list(table.index) == a.ids
    for tissue in summary["tissue"].values():
        assert tissue["change_ml"]["value"] == pytest.approx(tissue["untouched_ml"])
        assert tissue["original_ml"] > 0


def test_scans_of_the_target_fool_the_classifier_and_other_people_have_other_volumes(judged):
    train, side, a, b, _ = judged
    num = min(len(a), len(b))
    a, b = a.take(np.arange(num)), b.take(np.arange(num))
    posing = replace(b, table=a.table)
    summary, table = judge_translation(train, side, a, posing, b)
    shares = summary["classifier"]["called_target"]
    assert shares["translated"]["value"] == shares["real_target"]["value"] > 0.6
    gm = summary["tissue"]["gm"]["change_ml"]
    assert gm["low"] <= gm["value"] <= gm["high"]
    own = (table["gm_ml_translated"] - table["gm_ml"]).to_numpy()
    assert gm["value"] == pytest.approx(own.mean())
    assert abs(gm["largest"]) == pytest.approx(np.abs(own).max())
    assert abs(gm["largest"]) > 1


def test_volumes_are_those_of_the_labels(people):
    some = people.take(np.arange(3))
    model = fit_tissue_model(people)
    found = segment(some, model)
    table = tissue_volumes(some, model)
    assert list(table.index) == some.ids
    for name, label in (("gm", GM), ("wm", WM)):
        expected = (found.labels == label).sum((1, 2, 3)) * 0.512
        np.testing.assert_allclose(table[name], expected)
    assert (table["ventricle"] <= table["csf"]).all()


def test_nobody_is_judged_by_a_model_that_saw_him():
    # Features that say nothing: who has seen a subject knows him, who has not guesses.
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 400))
    is_target = np.arange(40) % 2 == 0
    ids = [f"s{k}" for k in range(40)]
    fitted = LevelClassifier.fit(features, is_target, ids, seed=0)
    assert 0.2 < fitted.accuracy < 0.8
    own = fitted.probability(features, ids) > 0.5
    assert (own == is_target).mean() == pytest.approx(fitted.accuracy)
    unknown = fitted.probability(features, [f"other{k}" for k in range(40)]) > 0.5
    assert (unknown == is_target).mean() == 1


def test_a_side_with_few_scans_has_no_classifier(judged):
    train, side, a, b, _ = judged
    few = np.where(np.cumsum(side) > 3, -1, side)
    summary, table = judge_translation(train, few, a, a, b.take(np.arange(0)))
    assert "fewer than 5" in summary["classifier"]["refusal"]
    assert "p_target" not in table
    gm = summary["tissue"]["gm"]
    assert gm["change_ml"]["value"] == pytest.approx(gm["untouched_ml"])
