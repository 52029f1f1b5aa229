from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.power import Power, farthest, held_out_farthest, log_ratios


def found(judge, volumes):
    return {s.key: s for s in Power().scores(judge.evidence(volumes), judge.study)}


def test_twice_the_power_is_ln_2_and_counted_in_sds():
    rng = np.random.default_rng(0)
    hold = rng.standard_normal((50, 6)) * np.arange(1, 7)
    np.testing.assert_allclose(log_ratios(hold + np.log(2), hold), np.log(2))
    sd = hold.std(0, ddof=1)
    moved = hold.mean(0) + np.array([0, 0, 0, 2.5, 0, -1.0]) * sd
    assert farthest(moved[None], hold)[0] == pytest.approx(2.5)


def test_a_held_out_subject_lies_farther_than_one_that_counts():
    hold = np.random.default_rng(1).standard_normal((20, 4))
    assert (held_out_farthest(hold) > farthest(hold, hold)).all()


def test_a_scale_of_intensities_is_a_shift_of_all_bands(judge, cohort, changed):
    plain = found(judge, cohort["generated"])
    dim = found(judge, changed(cohort["generated"].volumes * 0.5))
    assert plain["power/slope"].value == pytest.approx(dim["power/slope"].value, abs=0.02)
    assert dim["power/half"].value > plain["power/half"].value + 1


def test_noise_and_blur_are_seen_on_their_own_sides(judge, cohort, changed):
    volumes = cohort["generated"].volumes
    rng = np.random.default_rng(0)
    noisy = found(judge, changed(volumes + 0.1 * rng.standard_normal(volumes.shape)))
    smooth = found(judge, changed(ndimage.gaussian_filter(volumes, (0, 0, 0.8, 0.8, 0.8))))
    plain = found(judge, cohort["generated"])
    assert plain["power/inside"].value > 0.8
    assert noisy["power/inside"].value == smooth["power/inside"].value == 0
    for bad in (noisy, smooth):
        assert bad["power/nyquist"].low > plain["power/nyquist"].high
        assert bad["power/nyquist"].value > bad["power/half"].value
    assert noisy["power/slope"].high < 0 < smooth["power/slope"].low


def test_samples_are_marked_and_failed_ones_are_not_inside(judge, cohort):
    evidence = judge.evidence(cohort["generated"])
    failed = np.zeros(16, bool)
    failed[3] = True
    marks = Power().samples(replace(evidence, failed=failed), judge.study)["power_inside"]
    assert marks[3] is False
    share = found(judge, cohort["generated"])["power/inside"].value
    assert sum(Power().samples(evidence, judge.study)["power_inside"]) == pytest.approx(16 * share)


def test_without_its_features_it_is_refused(judge, cohort):
    evidence = replace(judge.evidence(cohort["generated"]), raw={})
    assert Power().samples(evidence, judge.study) == {}
    with pytest.raises(Refusal, match="spectrum-v1"):
        Power().scores(evidence, judge.study)
