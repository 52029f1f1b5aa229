from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.anchors import ANCHORS, build_anchor, mean_mask


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_are_seeded_sets_on_the_real_grid(name, cohort):
    first = build_anchor(name, cohort["TRAIN"], cohort["HOLD"], 24, 3)
    again = build_anchor(name, cohort["TRAIN"], cohort["HOLD"], 24, 3)
    assert first.volumes.shape == (24, 1, 20, 24, 20)
    assert first.volumes.dtype == np.float32
    assert np.array_equal(first.volumes, again.volumes)
    assert first.grid == cohort["TRAIN"].grid
    assert len(set(first.ids)) == 24
    if name not in ("mean_image",):
        other = build_anchor(name, cohort["TRAIN"], cohort["HOLD"], 24, 4)
        assert not np.array_equal(first.volumes, other.volumes)


def test_noise_fills_the_mean_brain(cohort):
    noise = build_anchor("noise", cohort["TRAIN"], cohort["HOLD"], 20, 0).volumes[:, 0]
    mask = mean_mask(cohort["TRAIN"])
    assert (noise[:, ~mask] == 0).all()
    assert noise[:, mask].mean() == pytest.approx(0.5, abs=0.01)


def test_phase_surrogates_keep_amplitudes_and_mean(cohort):
    made = build_anchor("phase_random", cohort["TRAIN"], cohort["HOLD"], 30, 0).volumes[:, 0]
    real = cohort["TRAIN"].volumes[:, 0]
    amplitudes = [np.sort(np.abs(np.fft.fftn(v.astype(float))).ravel()) for v in (made[0],)]
    candidates = [np.sort(np.abs(np.fft.fftn(v.astype(float))).ravel()) for v in real]
    gap = min(np.abs(c - amplitudes[0]).max() / c.max() for c in candidates)
    assert gap < 1e-3
    np.testing.assert_allclose(
        np.sort(made.mean((1, 2, 3))), np.sort(real.mean((1, 2, 3))), atol=1e-5
    )


def test_copies_come_from_train_and_blur_from_hold(cohort):
    copies = build_anchor("train_copies", cohort["TRAIN"], cohort["HOLD"], 30, 0).volumes
    gaps = np.abs(copies[:, None] - cohort["TRAIN"].volumes[None]).max((2, 3, 4, 5)).min(1)
    assert gaps.max() < 0.01
    blurred = build_anchor("blurred", cohort["TRAIN"], cohort["HOLD"], 20, 0).volumes
    assert blurred.sum() == pytest.approx(cohort["HOLD"].volumes.sum(), rel=0.02)
