from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.people import people

from gyri.cohort.synthetic import SWEEP_BASE
from gyri.evaluation.metrics import Evidence, Refusal, Study
from gyri.evaluation.metrics.conditioning import Conditioning, response, squared_errors

NUM_GENERATED = 60


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(people(120, seed=1), people(80, seed=2), NUM_GENERATED, resamples=400)


def with_table(evidence: Evidence, table) -> Evidence:
    return replace(evidence, volumes=replace(evidence.volumes, table=table))


def shuffled(evidence: Evidence, seed: int) -> Evidence:
    table = evidence.volumes.table
    rows = np.random.default_rng(seed).permutation(len(table))
    return with_table(evidence, table.iloc[rows].set_index(table.index))


def gains(evidence: Evidence, study: Study) -> dict:
    return {
        s.key.split("/")[1]: s
        for s in Conditioning().scores(evidence, study)
        if s.key.endswith("gain")
    }


def test_shuffled_error_is_the_mean_over_all_other_labels():
    rng = np.random.default_rng(0)
    p, y = rng.standard_normal((2, 7, 2))
    others = [((p[i] - y[j]) ** 2).sum() for i in range(7) for j in range(7) if i != j]
    own, shuffle = squared_errors(p, y)
    assert own == pytest.approx(((p - y) ** 2).sum(1).mean())
    assert shuffle == pytest.approx(np.mean(others))


def test_response_is_the_drop_of_error_over_the_spread_of_labels():
    rng = np.random.default_rng(1)
    y = rng.standard_normal((9, 3))
    p = y + rng.standard_normal((9, 3))
    own, shuffle = squared_errors(p, y)
    _, spread = squared_errors(y, y)
    assert response(p, y, np.ones((1, 9)))[0] == pytest.approx((shuffle - own) / spread)


def test_response_closed_forms():
    y = np.arange(10.0)[:, None]
    ones = np.ones((1, 10))
    assert response(3 * y + 40, y, ones)[0] == pytest.approx(3.0)
    assert response(np.full((10, 1), 5.0), y, ones)[0] == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(response(y, np.ones((10, 1)), ones)[0])
    male = np.repeat([0.0, 1.0], [4, 6])
    p = np.where(male == 1, 0.8, 0.3)
    both = [np.stack([1 - v, v], axis=1) for v in (p, male)]
    assert response(*both, ones)[0] == pytest.approx(0.5)  # Tjur: 0.8 - 0.3


def test_weights_count_rows_as_repeats_do():
    rng = np.random.default_rng(2)
    p, y = rng.standard_normal((2, 8, 1))
    counts = rng.multinomial(8, np.full(8, 1 / 8), size=3).astype(float)
    rows = [np.repeat(np.arange(8), c.astype(int)) for c in counts]
    expected = [response(p[r], y[r], np.ones((1, len(r))))[0] for r in rows]
    np.testing.assert_allclose(response(p, y, counts), expected)


def test_other_people_of_the_same_kind_gain_one(study):
    found = [
        score
        for seed in range(10, 18)
        for column, score in gains(people(NUM_GENERATED, seed), study).items()
        if column != "shoe"
    ]
    assert np.mean([score.low < 1.0 < score.high for score in found]) > 0.85
    assert np.mean([score.value for score in found]) == pytest.approx(1.0, abs=0.05)
    assert all("error on HOLD" in score.note for score in found)


def test_shuffled_labels_gain_nothing(study):
    """The interval covers 0 in nearly all of many shuffles."""
    made = people(NUM_GENERATED, seed=3)
    covered = [
        score.low <= 0 <= score.high
        for seed in range(12)
        for column, score in gains(shuffled(made, seed), study).items()
        if column in ("age", "sex", "scanner")
    ]
    assert np.mean(covered) > 0.85


def test_one_ignored_condition_is_told_from_those_that_are_followed(study):
    found = gains(people(NUM_GENERATED, seed=4, age=0.0), study)
    assert found["age"].low <= 0 <= found["age"].high
    assert "no sign" in found["age"].note
    assert found["scanner"].low > 0.5


def test_a_caricature_gains_more_than_one(study):
    score = gains(people(NUM_GENERATED, seed=5, age=1.8), study)["age"]
    assert score.value == pytest.approx(1.8, abs=0.25)
    assert score.low > 1.0
    assert score.note.startswith("caricature")


def test_the_error_grows_with_the_caricature_and_with_a_shift(study):
    keys = {s.key: s for s in Conditioning().scores(people(60, seed=5, age=2.5), study)}
    plain = {s.key: s for s in Conditioning().scores(people(60, seed=5), study)}
    assert keys["conditioning/age/error"].value > 1.5 * plain["conditioning/age/error"].value


def test_hold_itself_gains_exactly_one(study):
    found = gains(study.hold, study.without_intervals())
    for column in ("age", "sex", "scanner"):
        assert found[column].value == pytest.approx(1.0, abs=1e-12)
        assert np.isnan(found[column].low)


def test_what_hold_does_not_show_is_not_judged(study):
    score = gains(people(NUM_GENERATED, seed=3), study)["shoe"]
    assert np.isnan(score.value)
    assert not score.reliable
    assert "shoe cannot be estimated from HOLD itself" in score.note


def test_missing_conditions_are_left_out_and_too_few_are_named(study):
    made = people(NUM_GENERATED, seed=3)
    table = made.volumes.table.astype(object)
    table.iloc[:20, table.columns.get_loc("age")] = "n/a"
    table.iloc[8:, table.columns.get_loc("sex")] = None
    table["scanner"] = "A"
    found = gains(with_table(made, table), study)
    assert found["age"].n_generated == NUM_GENERATED - 20
    assert "known of 8 of the samples; 10 are needed" in found["sex"].note
    assert "fewer than two levels" in found["scanner"].note


def test_a_set_without_conditions_is_refused(study):
    made = people(NUM_GENERATED, seed=3)
    with pytest.raises(Refusal, match="no column that TRAIN has"):
        Conditioning().scores(with_table(made, made.volumes.table[[]]), study)
    assert Conditioning().samples(with_table(made, made.volumes.table[[]]), study) == {}


def test_bases_of_a_sweep_are_drawn_together(study):
    made = people(NUM_GENERATED, seed=3)
    table = made.volumes.table.assign(**{SWEEP_BASE: np.repeat(["a", "b", "c"], 20)})
    one = gains(made, study)["age"]
    few = gains(with_table(made, table), study)["age"]
    assert few.value == one.value
    assert (few.low, few.high) != (one.low, one.high)


def test_samples_carry_their_estimates(study):
    made = people(NUM_GENERATED, seed=3)
    columns = Conditioning().samples(made, study)
    assert set(columns) == {"age_estimated", "sex_probability", "scanner_probability"}
    ages = np.array(columns["age_estimated"])
    assert np.corrcoef(ages, made.volumes.table["age"])[0, 1] > 0.8
    assert np.mean(columns["scanner_probability"]) > 0.7
