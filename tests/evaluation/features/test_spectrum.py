"""T20."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.features.spectrum import (
    NUM_BANDS,
    band_edges,
    log_power,
    projection,
    radial_frequency,
)

SHAPE = (48, 48, 48)


def power_law(alpha: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k = radial_frequency(SHAPE)
    k[0, 0, 0] = 1.0
    white = np.fft.rfftn(rng.standard_normal(SHAPE))
    return np.fft.irfftn(white * k ** (-alpha / 2), s=SHAPE, axes=(0, 1, 2)).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, 3.0])
def test_slope_of_a_power_law(alpha):
    features = log_power(power_law(alpha, 0)[None]) @ projection(SHAPE).T
    assert features[0, -1] == pytest.approx(alpha, abs=0.05)


@pytest.mark.parametrize("shape", [(20, 24, 20), (40, 48, 40), (21, 25, 19)])
def test_every_band_holds_modes_and_averages(shape):
    rows = projection(shape)
    np.testing.assert_allclose(rows[:NUM_BANDS].sum(1), 1.0)
    assert rows[-1].sum() == pytest.approx(0.0, abs=1e-9)
    assert len(band_edges(shape)) == NUM_BANDS + 1


def test_blur_empties_and_noise_fills_the_high_bands(judge, cohort, changed):
    from scipy import ndimage

    volumes = cohort["generated"].volumes
    noisy = volumes + 0.1 * np.random.default_rng(0).standard_normal(volumes.shape)
    blurred = ndimage.gaussian_filter(volumes, (0, 0, 0.7, 0.7, 0.7))
    high = [
        judge.evidence(changed(v)).features["spectrum-v1"][:, 18:24].mean()
        for v in (blurred, volumes, noisy)
    ]
    assert high[0] < high[1] - 1 < high[2] - 2
