from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gyri.evaluation.effects import varying
from gyri.evaluation.features.morph import MORPH_NAMES
from gyri.evaluation.metrics.anatomy import (
    FEATURES,
    Anatomy,
    energy_kernel,
    is_small,
    slopes,
)
from gyri.evaluation.metrics.kernel import plain_distance
from gyri.evaluation.metrics.volumes import TISSUES


@pytest.fixture(scope="module")
def found(judge, cohort):
    evidence = judge.evidence(cohort["generated"])
    return {score.key: score for score in Anatomy().scores(evidence, judge.study)}


def scores_of(evidence, study):
    return {score.key: score for score in Anatomy().scores(evidence, study)}


def test_every_feature_is_reported_once(found, judge):
    assert set(TISSUES) | set(FEATURES) == set(MORPH_NAMES)
    assert not set(TISSUES) & set(FEATURES)
    kept = [name for name in varying(judge.study) if name in FEATURES]
    assert [key for key in found if key.endswith("/d")] == [f"anatomy/{n}/d" for n in kept]


def test_the_energy_distance_is_szekelys():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((7, 4)) + 1
    within = sum(cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y))
    expected = 2 * cdist(x, y).mean() - within
    assert plain_distance(energy_kernel(x, y), 9) == pytest.approx(expected)


def test_the_energy_distance_sees_variance_alone():
    rng = np.random.default_rng(1)
    x, y, z = (rng.standard_normal((200, 3)) * scale for scale in (1, 1, 2))
    assert abs(plain_distance(energy_kernel(x, y), 200)) < 0.05
    assert plain_distance(energy_kernel(x, z), 200) > 0.3


def test_unseen_phantoms_are_plausible(found):
    assert found["anatomy/energy"].p_value > 0.01
    assert found["anatomy/in_range"].value >= 0.6
    assert "HOLD outside it" in found["anatomy/in_range"].note
    assert "80% wanted" in found["anatomy/small"].note


def test_p_values_of_unseen_phantoms_are_not_small_after_holm(found):
    assert min(s.p_value for key, s in found.items() if key.endswith("/ks")) > 0.01


def test_shrunken_brains_are_seen(judge, cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[:, :, :, 12:] = 0
    evidence = judge.evidence(changed(volumes))
    scores = scores_of(evidence, judge.study)
    assert scores["anatomy/in_range"].value == 0.0
    assert scores["anatomy/energy"].p_value < 0.01
    assert scores["anatomy/extent_j_mm/d"].value < -2
    assert scores["anatomy/extent_j_mm/ks"].p_value < 0.01
    assert scores["anatomy/small"].value < 0.5
    assert not any(Anatomy().samples(evidence, judge.study)["tissues_in_range"])


def test_small_needs_a_narrow_interval():
    from gyri.evaluation.effects import Effect

    none = np.zeros(3)
    known = Effect(none, none, 0.1, -0.2, 0.4, 0.0, 1.0, 0.0)
    assert is_small(known)
    assert not is_small(replace(known, low=-0.6))
    assert not is_small(replace(known, d=0.25))
    assert not is_small(replace(known, d=float("nan")))


def test_slopes_count_rows_as_repeats_do():
    rng = np.random.default_rng(2)
    x = rng.uniform(20, 90, 12)
    y = 0.4 * x + rng.standard_normal(12)
    counts = rng.multinomial(12, np.full(12, 1 / 12), size=3).astype(float)
    expected = [
        np.polyfit(np.repeat(x, c.astype(int)), np.repeat(y, c.astype(int)), 1)[0] for c in counts
    ]
    np.testing.assert_allclose(slopes(x, y, counts), expected)
    assert np.isnan(slopes(np.ones(12), y, counts)).all()


def with_ventricles(evidence, per_year, ages):
    """The evidence with ventricles that grow by `per_year` and ages in its table."""
    noise = np.random.default_rng(len(ages)).standard_normal(len(ages))
    morph = evidence.morph | {"central_csf_ml": 10 + per_year * ages + noise}
    volumes = replace(evidence.volumes, table=evidence.volumes.table.assign(age=ages))
    return replace(evidence, morph=morph, volumes=volumes)


def test_the_slope_of_the_ventricles_is_judged_against_holds(judge, cohort):
    rng = np.random.default_rng(3)
    made = judge.evidence(cohort["generated"])
    hold = with_ventricles(judge.study.hold, 0.5, rng.uniform(20, 90, len(judge.study.hold)))
    study = replace(judge.study, hold=hold)
    ages = rng.uniform(20, 90, len(made))
    key = "anatomy/ventricle_age_slope"
    same = scores_of(with_ventricles(made, 0.5, ages), study)[key]
    assert same.low < same.value < same.high
    assert same.value == pytest.approx(0.5, abs=0.05)
    assert same.target == pytest.approx(0.5, abs=0.05)
    assert "the intervals overlap" in same.note
    flat = scores_of(with_ventricles(made, 0.1, ages), study)[key]
    assert "do not overlap" in flat.note
    ages[7:] = np.nan
    assert key not in scores_of(with_ventricles(made, 0.5, ages), study)


def test_without_ages_there_is_no_slope(judge, cohort):
    made = cohort["generated"]
    bare = replace(made, table=made.table.drop(columns="age"))
    assert "anatomy/ventricle_age_slope" not in scores_of(judge.evidence(bare), judge.study)


def test_samples_have_their_columns(judge, cohort):
    made = judge.evidence(cohort["generated"])
    columns = Anatomy().samples(made, judge.study)
    assert set(columns) == {"central_csf_ml", "tissues_in_range"}
    assert all(len(values) == len(made) for values in columns.values())
