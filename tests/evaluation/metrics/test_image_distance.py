from __future__ import annotations

import numpy as np

from gyri.evaluation.metrics.image_distance import ImageDistance


def score(judge, volumes):
    (found,) = ImageDistance().scores(judge.evidence(volumes), judge.study)
    return found


def test_real_subjects_are_at_zero_within_the_interval(judge, cohort):
    found = score(judge, cohort["generated"])
    assert found.low < 0 < found.high
    assert found.p_value > 0.01


def test_collapse_to_the_mean_is_worse_where_a_linear_kernel_prefers_it(judge, cohort, changed):
    from gyri.evaluation.metrics.legacy import legacy_image_mmd

    mean = np.repeat(cohort["TRAIN"].volumes.mean(0, keepdims=True), 16, axis=0)
    assert score(judge, changed(mean)).value > 5 * abs(score(judge, cohort["generated"]).value)
    hold, real, collapsed = (
        v.reshape(len(v), -1) for v in (cohort["HOLD"].volumes, cohort["generated"].volumes, mean)
    )
    linear = [legacy_image_mmd(hold, v, np.random.default_rng(0)) for v in (real, collapsed)]
    assert linear[1] < linear[0]
