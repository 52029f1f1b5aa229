from __future__ import annotations

from gyri.evaluation.metrics.volumes import TISSUES, Volumes


def test_scores_of_unseen_phantoms(judge, cohort):
    scores = {s.key: s for s in Volumes().scores(judge.evidence(cohort["generated"]), judge.study)}
    assert len(scores) == 4 * len(TISSUES) + 1
    mean = scores["volumes/brain_ml/mean"]
    assert mean.low <= mean.value <= mean.high
    assert mean.unit == "ml"
    assert scores["volumes/in_range"].value >= 0.8
    assert "HOLD outside" in scores["volumes/in_range"].note


def test_shrunken_brains_leave_the_range(judge, cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[:, :, :, 12:] = 0
    evidence = judge.evidence(changed(volumes))
    scores = {s.key: s for s in Volumes().scores(evidence, judge.study)}
    assert scores["volumes/in_range"].value == 0.0
    assert scores["volumes/brain_ml/d"].value < -2
    assert not any(Volumes().samples(evidence, judge.study)["brain_in_range"])
