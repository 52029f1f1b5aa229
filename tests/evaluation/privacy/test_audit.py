"""T26 and T27 on whole audits: a second holdout passes, a copycat cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gyri.errors import DataError
from gyri.evaluation.privacy import controls
from gyri.evaluation.privacy.audit import audit, crowded, measure_distances
from gyri.evaluation.privacy.gate import decide


def test_unseen_people_raise_no_alarm(cast_of, make_people):
    made = make_people("samples", 40, 9)
    found = audit(cast_of(made), made, permutations=199)
    assert found.alarms == []
    values = {(f.space, f.measure): f for f in found.findings}
    assert values["voxels", "closer"].low < 0.5 < values["voxels", "closer"].high
    assert values["radiomics-v1", "copy_rate"].low <= 0.05
    assert not any(pair.flagged for pair in found.pairs)
    assert found.n == {"generated": 40, "TRAIN": 60, "HOLD": 40}


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copycat_alarms_and_every_copy_is_listed(cast_of, train, mirrored):
    rng = np.random.default_rng(0)
    volumes = train.volumes[:30] + 1e-3 * rng.standard_normal((30, 1, 12, 14, 12))
    volumes = volumes[:, :, ::-1] if mirrored else volumes
    table = pd.DataFrame(index=[f"s{k}" for k in range(30)])
    made = replace(train, name="samples", volumes=volumes.astype(np.float32), table=table)
    found = audit(cast_of(made), made, permutations=99)
    values = {(f.space, f.measure): f.value for f in found.findings}
    assert values["voxels", "closer"] == 1.0
    assert values["voxels", "copy_rate"] == 1.0
    assert values["voxels", "authenticity"] == 0.0
    assert values["voxels", "data_copying"] < -3
    assert any("chance explains" in alarm for alarm in found.alarms)
    flagged = {(p.sample, p.subject) for p in found.pairs if p.flagged}
    assert flagged == {(f"s{k}", train.ids[k]) for k in range(30)}
    assert not decide(found, [], None, {}).passed


def test_one_person_shown_again_and_again_alarms(cast_of, train, make_people):
    made = make_people("samples", 40, 9)
    made.volumes[:6] = train.volumes[3]
    found = audit(cast_of(made), made, permutations=99)
    assert any(alarm.startswith("closest pairs in voxels: 6 of 40") for alarm in found.alarms)


def test_controls_hold_on_their_own(cast_of, train, make_people):
    cast = cast_of(make_people("samples", 10, 9))
    negative = controls.negative_control(cast, 0)
    positive = controls.positive_control(cast, 0)
    canary = controls.canary_control(cast, controls.canaries(train, 0))
    assert negative.passed, negative.detail
    assert positive.passed, positive.detail
    assert (canary.count, canary.total) == (5, 5)
    assert "24 unseen people" in negative.detail
    assert positive.detail.startswith("5 of 24 replaced")


def test_second_holdouts_leave_nobody_on_both_sides(cast_of, make_people):
    cast = cast_of(make_people("samples", 10, 9))
    for rows, hold in controls.second_holdouts(cast, 0):
        assert not set(rows) & set(hold)
        assert set(rows) | set(hold) == set(cast.unseen)
        assert len(hold) == 40
    few = replace(cast, unseen=cast.unseen[:12], hold=cast.unseen[:8])
    with pytest.raises(DataError, match="Only 12 people are unseen"):
        controls.second_holdouts(few, 0)


def test_what_cannot_be_audited_is_refused(train, make_people):
    hold, made = make_people("HOLD", 20, 2), make_people("samples", 5, 9)
    made.volumes[2, 0, 3, 3, 3] = np.nan
    with pytest.raises(DataError, match="samples cannot be audited.*NaN"):
        measure_distances(train, hold, [], [made], dict)
    with pytest.raises(DataError, match="HOLD has 5 people"):
        measure_distances(
            train, hold.take(np.arange(5)), [], [hold.take(np.arange(2), "s")], lambda v: {}
        )
    small = replace(made, volumes=made.volumes[:, :, :10])
    with pytest.raises(DataError, match="generated volumes are"):
        measure_distances(train, hold, [], [small], dict)


@pytest.mark.parametrize(
    ("flagged", "num", "alarm"),
    [(0, 50, False), (1, 50, False), (3, 14, True), (6, 100, True), (2, 100, False)],
)
def test_crowding(flagged, num, alarm):
    assert crowded(flagged, num) is alarm
