from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.msssim_by_level import DiversityByLevel

LEAST = "gyri.evaluation.metrics.msssim_by_level.LEAST"


def test_one_brain_a_level_is_seen_within_the_level(judge, cohort, changed, monkeypatch):
    monkeypatch.setattr(LEAST, 3)
    generated = cohort["generated"]
    sexes = generated.table["sex"].to_numpy()
    firsts = {sex: int(np.flatnonzero(sexes == sex)[0]) for sex in set(sexes)}
    repeated = changed(generated.volumes[[firsts[sex] for sex in sexes]])
    scores = DiversityByLevel().scores(judge.evidence(repeated), judge.study)
    by_level = {score.key: score for score in scores if "sex" in score.key}
    assert set(by_level) == {"msssim_by_level/sex=F", "msssim_by_level/sex=M"}
    for score in by_level.values():
        assert score.value > 0.02 > abs(score.anchors["ceiling"])
        assert score.low <= score.value <= score.high


def test_levels_of_few_people_are_refused(judge, cohort, monkeypatch):
    monkeypatch.setattr(LEAST, 100)
    with pytest.raises(Refusal, match="has 100 volumes on every side"):
        DiversityByLevel().scores(judge.evidence(cohort["generated"]), judge.study)
