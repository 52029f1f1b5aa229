"""T21, T22 and the four criteria."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gyri.evaluation.slices import (
    Band,
    SliceModel,
    equal_share,
    lags_in_slices,
    longest_plateau,
    profile,
    slice_correlations,
)


@pytest.fixture(scope="module")
def stacks() -> np.ndarray:
    """Objects of 80 slices of 2 mm whose content changes smoothly from slice to slice."""
    rng = np.random.default_rng(0)
    template = ndimage.gaussian_filter(rng.standard_normal((24, 24, 80)), 3)
    own = ndimage.gaussian_filter(rng.standard_normal((24, 24, 24, 80)), (0, 3, 3, 3))
    return (0.5 + 4 * template + 1.0 * own).astype(np.float32)


@pytest.fixture(scope="module")
def model(stacks) -> SliceModel:
    return SliceModel(stacks[:14], stacks[14:18], (2.0, 2.0, 2.0))


def test_profile_of_an_autoregressive_volume():
    rng = np.random.default_rng(1)
    image = np.empty((90, 90, 300), np.float32)
    image[..., 0] = rng.standard_normal((90, 90))
    for k in range(1, 300):
        step = rng.standard_normal((90, 90))
        image[..., k] = 0.9 * image[..., k - 1] + np.sqrt(1 - 0.81) * step
    correlations = slice_correlations(image, np.ones(image.shape, bool), 2)
    found = profile(correlations, [1, 2, 4, 8])
    np.testing.assert_allclose(found, [0.90, 0.81, 0.66, 0.43], atol=0.02)


def test_lags_are_millimetres():
    assert lags_in_slices(1.0, 100) == [1, 2, 4, 8, 16]
    assert lags_in_slices(4.0, 40) == [1, 2, 4]
    assert lags_in_slices(8.0, 20) == [1, 2]


def test_longest_plateau_counts_slices():
    assert longest_plateau(np.array([0.0, 2, 4, 4, 4, 6, 6]), 0.5) == 3
    assert longest_plateau(np.arange(5.0), 0.5) == 1


def test_repeated_slices_are_found(stacks, model):
    clean = stacks[18:]
    repeated = clean.copy()
    repeated[..., 40:60] = clean[..., 40:41]
    good, bad = model.statistics(clean), model.statistics(repeated)
    # The slice after the run may happen to look as if it lay beside it.
    assert np.median(model.plateau(bad, 2)) == 20
    assert np.abs(model.plateau(bad, 2) - 20).max() <= 1
    assert (model.plateau(good, 2) < 8).all()
    for criterion in ("duplicates", "position"):
        assert not model.bands[criterion].inside(bad[criterion]).any()
        assert model.bands[criterion].inside(good[criterion]).mean() > 0.6


def test_two_equal_neighbours_are_found(stacks, model):
    copied = stacks[18:].copy()
    copied[..., 41] = copied[..., 40]
    assert not model.bands["duplicates"].inside(model.statistics(copied)["duplicates"]).any()


def test_equal_slices_are_counted_voxel_by_voxel():
    slices = np.random.default_rng(5).random((8, 4, 4)).astype(np.float32)
    assert equal_share(slices) == 0.0
    slices[5] = slices[2]
    slices[6] = slices[2]
    assert equal_share(slices) == 2 / 8
    slices[6, 0, 0] += 1e-3
    assert equal_share(slices) == 1 / 8


def test_the_band_holds_nearly_all_real_volumes():
    rng = np.random.default_rng(4)
    train, hold = rng.standard_normal((400, 3)), 2 * rng.standard_normal((400, 3))
    band = Band.of(train, hold)
    assert band.inside(np.concatenate([train, hold])).mean() == pytest.approx(0.99, abs=0.002)
    assert band.limit > Band.of(train, train).limit


def test_the_regressor_reads_positions_of_unseen_subjects(stacks, model):
    slope, fit = model.statistics(stacks[18:])["position"][:, 8:10].T
    assert np.abs(slope - 1).max() < 0.25
    assert fit.min() > 0.9


def test_flicker_between_slices_is_seen(stacks, model):
    flickering = stacks[18:] * np.where(np.arange(80) % 2, 1.1, 0.9).astype(np.float32)
    assert not model.bands["flicker"].inside(model.statistics(flickering)["flicker"]).any()


def test_shuffled_slices_are_seen(stacks, model):
    order = np.random.default_rng(2).permutation(80)
    shuffled = model.statistics(stacks[18:][..., order])
    assert not model.bands["profile"].inside(shuffled["profile"]).any()
    assert not model.bands["position"].inside(shuffled["position"]).any()
