from __future__ import annotations

import numpy as np

from gyri.evaluation.metrics.components import Components


def test_a_brain_is_one_piece_and_a_cut_brain_is_two(judge, cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[:4, :, :, 11:13] = 0
    volumes[4] = 0
    evidence = judge.evidence(changed(volumes))
    samples = Components().samples(evidence, judge.study)
    assert samples["one_component"] == [False] * 5 + [True] * 11
    assert samples["components"][:5] == [2, 2, 2, 2, 0]
    score = Components().scores(evidence, judge.study)[0]
    assert score.value == 11 / 16
    assert score.low < score.value < score.high


def test_the_range_of_intensities_does_not_matter(judge, cohort, changed):
    evidence = judge.evidence(changed(255 * cohort["generated"].volumes))
    assert np.all(Components().samples(evidence, judge.study)["one_component"])
