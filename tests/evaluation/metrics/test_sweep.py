from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.evaluation.people import people, shown

from gyri.cohort.synthetic import SWEEP_BASE
from gyri.evaluation.metrics import Evidence, Refusal, Study
from gyri.evaluation.metrics.sweep import (
    RESCAN_SD_ML,
    Sweep,
    base_slopes,
    base_taus,
    read_sweep,
    rescan_sd,
    within_sd,
)

AGES = np.linspace(25, 85, 5)
NUM_BASES = 12


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(people(100, seed=1), people(150, seed=2), 60, resamples=300)


def swept(column: str, values, **asked: float) -> Evidence:
    """The same people at every value of `column`."""
    base = people(NUM_BASES, seed=9).volumes.table.drop(columns="shoe")
    parts = [shown(base.assign(**{column: value}), 9, **asked) for value in values]
    table = pd.concat([p.volumes.table.assign(**{SWEEP_BASE: base.index}) for p in parts])
    table.index = [f"syn{k:04d}" for k in range(len(table))]
    volumes = np.concatenate([p.volumes.volumes for p in parts])
    return Evidence(
        replace(parts[0].volumes, volumes=volumes, table=table.astype(str)),
        np.zeros(len(table), bool),
        {},
        {key: np.concatenate([p.morph[key] for p in parts]) for key in parts[0].morph},
        np.ones((len(table), 2)),
    )


def scores(evidence: Evidence, study: Study) -> dict:
    return {s.key.removeprefix("sweep/"): s for s in Sweep().scores(evidence, study)}


def test_closed_forms():
    bases = np.repeat(["a", "b"], 4)
    doses = np.tile([1.0, 2.0, 3.0, 4.0], 2)
    volumes = np.array([1.0, 2.0, 3.0, 4.0, 10.0, 8.0, 6.0, 4.0])
    np.testing.assert_allclose(base_taus(doses, volumes, bases), [1.0, -1.0])
    np.testing.assert_allclose(base_slopes(doses, volumes, bases), [1.0, -2.0])
    sd, squares, freedom = within_sd(np.array([1.0, 3.0, 7.0, 7.0, 9.0]), np.array(list("aabbc")))
    assert sd == pytest.approx(1.0)
    np.testing.assert_allclose(squares, [2, 0, 0])
    np.testing.assert_allclose(freedom, [1, 1, 0])


def test_ventricles_that_grow_as_on_hold(study):
    found = scores(swept("age", AGES), study)
    slope, tau = found["age/central_csf_ml/slope"], found["age/central_csf_ml/tau"]
    assert slope.value == pytest.approx(8 / 20)  # by construction, the same for every base
    assert slope.target == pytest.approx(8 / 20, abs=0.05)
    assert "do not overlap" not in slope.note
    np.testing.assert_allclose([tau.value, tau.low, tau.high], 1.0)
    assert "grows" in tau.label
    assert "age/gm_ml/tau" not in found  # HOLD's grey matter does not change with age


def test_an_ignored_age_and_an_overdone_one(study):
    still = scores(swept("age", AGES, age=0.0), study)
    assert still["age/central_csf_ml/slope"].value == pytest.approx(0, abs=1e-12)
    assert "do not overlap" in still["age/central_csf_ml/slope"].note
    assert still["age/central_csf_ml/tau"].value == 0.0
    more = scores(swept("age", AGES, age=2.0), study)["age/central_csf_ml/slope"]
    assert more.value == pytest.approx(16 / 20)
    assert "do not overlap" in more.note


def test_ages_that_hold_does_not_reach_are_left_out(study):
    hold = study.hold.take(np.flatnonzero(study.hold.volumes.table["age"] < 60))
    young = Study(study.train, hold, 60, resamples=100)
    made = swept("age", AGES)
    made.morph["central_csf_ml"][made.volumes.table["age"].astype(float) > 60] = 500.0
    slope = scores(made, young)["age/central_csf_ml/slope"]
    assert slope.value == pytest.approx(8 / 20)
    with pytest.raises(Refusal, match="Fewer than two swept values of age lie in HOLD's range"):
        Sweep().scores(swept("age", (95.0, 99.0)), study)


def test_a_scanner_that_leaves_volumes_alone_and_one_that_does_not(study):
    same = scores(swept("scanner", "AB"), study)
    assert all(s.value == pytest.approx(0.0, abs=1e-9) for s in same.values())
    assert same["scanner/gm_ml/A-B"].target == pytest.approx(0.0, abs=8.0)
    made = swept("scanner", "AB")
    error, _ = rescan_sd("gm_ml", study)
    made.morph["gm_ml"][:NUM_BASES] += 3 * error
    score = scores(made, study)["scanner/gm_ml/change"]
    assert score.value == pytest.approx(3 / np.sqrt(2))
    assert "more than scanning twice" in score.note
    assert "HOLD subjects" in score.note  # no rescans at 8 mm


def test_rescans_of_the_cohort_are_preferred_to_constants(study):
    twice = replace(
        study.train,
        volumes=replace(
            study.train.volumes,
            table=study.train.volumes.table.set_index(
                pd.Index([f"s{k // 2}" for k in range(len(study.train))])
            ),
        ),
    )
    twice.morph["wm_ml"] = np.tile([100.0, 102.0], 50)
    sd, source = rescan_sd("wm_ml", Study(twice, study.hold, 10))
    assert sd == pytest.approx(np.sqrt(2))
    assert "50 subjects of this cohort" in source
    grid = replace(study.hold.volumes.grid, affine=tuple(map(tuple, np.diag([2.0, 2, 2, 1]))))
    fine = replace(study.hold, volumes=replace(study.hold.volumes, grid=grid))
    assert rescan_sd("wm_ml", Study(study.train, fine, 10))[0] == RESCAN_SD_ML[2.0]["wm_ml"]


def test_sexes_are_compared_with_hold(study):
    found = scores(swept("sex", "FM"), study)
    score = found["sex/brain_ml/F-M"]
    assert score.value == pytest.approx(20.0)
    assert score.target == pytest.approx(20.0, abs=8.0)
    assert found["sex/central_csf_ml/F-M"].value == pytest.approx(0.0, abs=1e-9)


def test_what_is_no_sweep(study):
    with pytest.raises(Refusal, match="no sweep.*--sweep"):
        Sweep().scores(study.hold, study)
    few = swept("age", AGES)
    rows = np.flatnonzero(few.volumes.table[SWEEP_BASE].isin(few.volumes.table[SWEEP_BASE][:3]))
    with pytest.raises(Refusal, match="3 bases; at least 5"):
        Sweep().scores(few.take(rows), study)
    table = few.volumes.table.copy()
    table["sex"] = np.random.default_rng(0).choice(["F", "M"], len(table))
    with pytest.raises(Refusal, match="2 conditions differ within a base"):
        read_sweep(table, study.train.volumes.table)
    alone = few.volumes.table.rename(columns={"age": "dose"})
    with pytest.raises(Refusal, match="dose was swept"):
        read_sweep(alone, study.train.volumes.table)
