from __future__ import annotations

import numpy as np
import pytest
from tests.reading.brains import brain as little
from tests.reading.brains import grid_of

from gyri.errors import DataError
from gyri.reading.encode import Encoder, brain
from gyri.reading.study import Encoding

SHAPE = (16, 18, 16)
GRID = grid_of(SHAPE, 8.0)
RNG = np.random.default_rng(0)
REAL = [little(SHAPE, RNG) for _ in range(6)]


def encoder(**settings) -> Encoder:
    return Encoder.fit(Encoding(**settings), GRID, lambda: REAL)


def test_background_noise_and_scale_leave_no_trace():
    volume = REAL[0]
    noisy = volume + 0.01 * np.random.default_rng(1).random(SHAPE) * (volume == 0)
    plain, other = encoder()(volume), encoder()(0.5 * noisy)
    assert ((plain == 0) == (other == 0)).all()
    assert np.abs(plain.astype(int) - other).max() <= 1
    assert plain.dtype == np.uint8
    assert plain[brain(volume)].min() == 1
    assert plain.max() == 255


def test_a_common_mask_is_one_for_all():
    common = encoder(mask="common")
    kept = [common(volume) > 0 for volume in REAL]
    assert all((mask == kept[0]).all() for mask in kept)


def test_matched_histograms_are_one_for_all_even_where_values_are_clipped():
    matched = encoder(mask="common", intensity="matched")
    clipped = np.where(REAL[1] > 0, REAL[1].clip(0.3, 0.6), 0)
    counts = [
        np.bincount(matched(v).ravel(), minlength=256) for v in (REAL[0], clipped, REAL[2] ** 2)
    ]
    assert (counts[0] == counts[1]).all()
    assert (counts[0] == counts[2]).all()


def test_smoothing_takes_noise_from_both():
    rough = encoder()(REAL[0]).astype(float)
    smooth = encoder(smooth_fwhm_mm=16.0)(REAL[0]).astype(float)
    inside = brain(REAL[0])
    assert (
        np.diff(smooth, axis=0)[inside[1:]].std() < 0.7 * np.diff(rough, axis=0)[inside[1:]].std()
    )


def test_files_are_the_same_but_for_voxels(tmp_path):
    for place in (0, 1):
        encoder().write(tmp_path / f"{place}.nii", encoder()(REAL[place]))
    files = [(tmp_path / f"{place}.nii").read_bytes() for place in (0, 1)]
    assert files[0][:352] == files[1][:352]
    assert len(files[0]) == len(files[1]) == 352 + np.prod(SHAPE)


def test_an_empty_volume_is_refused():
    with pytest.raises(DataError, match="empty"):
        encoder()(np.zeros(SHAPE, np.float32))
