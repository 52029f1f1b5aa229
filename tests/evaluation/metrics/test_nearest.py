"""T26 and T27: a second holdout raises no alarm, copies of TRAIN do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.evaluation.gates import gates
from gyri.evaluation.metrics.nearest import (
    Nearest,
    closer_share,
    copy_threshold,
    membership_p_value,
    unit_rows,
)


def by_key(evidence, judge):
    return {s.key: s for s in Nearest().scores(evidence, judge.study)}


def non_copying(scores) -> bool:
    return gates(list(scores.values()), {}, [])["non_copying"]["passed"]


def test_a_second_holdout_has_share_one_half_and_copy_rate_five_percent():
    rng = np.random.default_rng(0)
    shares, rates, alarms = [], [], []
    for _ in range(40):
        train, hold, made = rng.standard_normal((3, 60, 12))
        train, hold, made = (
            v / np.linalg.norm(v, axis=1, keepdims=True) for v in (train, hold, made)
        )
        to_train, to_hold = made @ train.T, made @ hold.T
        shares.append(closer_share(to_train, to_hold))
        rates.append((to_train.max(1) > copy_threshold(hold @ train.T)).mean())
        alarms.append(membership_p_value(to_train, to_hold, 200, rng)[0] < 0.025)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.mean(rates) == pytest.approx(0.05, abs=0.02)
    assert np.mean(alarms) <= 0.1


def test_unseen_phantoms_pass(judge, cohort):
    assert non_copying(by_key(judge.evidence(cohort["generated"]), judge))


def test_noisy_copies_fail(judge, cohort, changed):
    rng = np.random.default_rng(1)
    copies = cohort["TRAIN"].volumes[:16] + 1e-3 * rng.standard_normal((16, 1, 20, 24, 20))
    evidence = judge.evidence(changed(copies))
    scores = by_key(evidence, judge)
    assert scores["nearest/copy_rate"].value == 1.0
    assert not non_copying(scores)
    samples = Nearest().samples(evidence, judge.study)
    assert samples["nearest_id"] == cohort["TRAIN"].ids[:16]
    assert min(samples["nearest_correlation"]) > 0.999


def test_mirrored_copies_fail(judge, cohort, changed):
    scores = by_key(judge.evidence(changed(cohort["TRAIN"].volumes[:16, :, ::-1])), judge)
    assert scores["nearest/copy_rate"].value == 1.0


def test_one_copied_subject_among_sixteen_is_listed(judge, cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[3] = cohort["TRAIN"].volumes[5]
    scores = by_key(judge.evidence(changed(volumes)), judge)
    assert cohort["generated"].ids[3] in scores["nearest/copy_rate"].note


def test_a_smooth_average_is_no_copy(judge, cohort, changed):
    mean = np.repeat(cohort["TRAIN"].volumes.mean(0, keepdims=True), 16, axis=0)
    assert by_key(judge.evidence(changed(mean)), judge)["nearest/copy_rate"].value == 0.0


def test_a_real_subject_is_not_its_own_neighbour(judge):
    share = by_key(judge.study.hold, judge)["nearest/closer"].value
    assert 0.2 < share < 0.8


def test_rows_of_constant_images_are_zero():
    images = np.ones((2, 3, 3, 3), np.float32)
    assert (unit_rows(images, np.ones((3, 3, 3), bool)) == 0).all()


def test_small_holdout_is_refused(judge, cohort):
    from gyri.evaluation.metrics import Refusal

    study = replace(judge.study, hold=judge.study.hold.take(np.arange(4)), fitted={})
    with pytest.raises(Refusal, match="at least 5"):
        Nearest().scores(judge.evidence(cohort["generated"]), study)
