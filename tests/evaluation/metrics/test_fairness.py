from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.people import people

from gyri.evaluation.metrics import Refusal, Study
from gyri.evaluation.metrics.fairness import Fairness, group_levels, groups
from gyri.evaluation.metrics.kernel import kernel_distance


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(people(100, seed=1), people(160, seed=2), 160, resamples=200)


@pytest.fixture(scope="module")
def made():
    return people(160, seed=3)


def scores(evidence, study) -> dict:
    return {s.key.removeprefix("fairness/"): s for s in Fairness().scores(evidence, study)}


def test_ages_become_decades(made):
    table = made.volumes.table.iloc[:4].assign(age=[20, 29.9, "n/a", 80])
    assert group_levels(table, "age") == ["20-29", "20-29", None, "80-89"]


def test_no_group_below_the_least_n(study, made):
    table = made.volumes.table.copy()
    table["scanner"] = "A"
    table.iloc[:6, table.columns.get_loc("scanner")] = "B"
    found = groups(table, study.hold.volumes.table)
    assert [g.level for g in found if g.column == "scanner"] == ["A"]
    assert all(min(len(g.real), len(g.made)) >= 7 for g in found)


def test_scores_of_a_group_are_those_of_its_people_alone(study, made):
    found = scores(made, study)
    rows = {
        name: np.flatnonzero(e.volumes.table["sex"] == "F")
        for name, e in (("hold", study.hold), ("made", made))
    }
    x, y = (
        np.concatenate([e.features["morph-v1"], e.features["radiomics-v1"]], 1)[rows[name]]
        for name, e in (("hold", study.hold), ("made", made))
    )
    score = found["sex/F/kid"]
    assert score.value == pytest.approx(kernel_distance(x, y))
    assert score.low < score.value < score.high
    assert (score.n_real, score.n_generated) == (len(x), len(y))


def test_small_groups_are_shown_and_not_ranked(study, made):
    found = scores(made, study)
    decade = found["age/20-29/kid"]
    assert min(decade.n_real, decade.n_generated) < 30
    assert not decade.reliable
    assert "no ranking" in decade.note
    assert found["sex/F/kid"].reliable
    assert "age/gap/kid" not in found


def test_a_set_that_serves_all_alike_has_no_gap(study, made):
    found = scores(made, study)
    for column in ("sex", "scanner"):
        gap = found[f"{column}/gap/kid"]
        assert gap.low < 0 < gap.high
        assert gap.value >= 0


def test_a_group_that_is_served_worse_is_found(study, made):
    men = np.flatnonzero(made.volumes.table["sex"] == "M")
    features = {name: x.copy() for name, x in made.features.items()}
    features["radiomics-v1"][men] += 1.0
    morph = {name: x.copy() for name, x in made.morph.items()}
    morph["gm_ml"][men] += 40
    found = scores(replace(made, features=features, morph=morph), study)
    for quantity in ("kid", "coverage"):
        gap = found[f"sex/gap/{quantity}"]
        assert gap.note.startswith("worst M")
        assert gap.low > 0
    assert found["sex/M/gm_ml/d"].low > 1
    assert abs(found["sex/F/gm_ml/d"].value) < 0.6


def test_coverage_of_ranked_groups_is_at_the_same_size(study, made):
    found = scores(made, study)
    notes = {found[f"sex/{level}/coverage"].note for level in "FM"}
    assert len(notes) == 1


def test_a_set_without_groups_is_refused(study, made):
    bare = replace(made, volumes=replace(made.volumes, table=made.volumes.table[["shoe"]]))
    with pytest.raises(Refusal, match="No group by sex, age, scanner"):
        Fairness().scores(bare, study)


def test_anchors_are_judged_without_intervals(study, made):
    score = scores(made, study.without_intervals())["sex/gap/kid"]
    assert np.isnan(score.low)
    assert np.isfinite(score.value)
