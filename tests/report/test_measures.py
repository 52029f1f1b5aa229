from __future__ import annotations

import numpy as np

from gyri.report import measures


def test_a_copy_is_found_mirrored_or_not():
    gallery = np.random.default_rng(1).random((6, 8, 8, 8)).astype(np.float32)
    queries = np.stack([gallery[4], gallery[1, ::-1]])
    found = measures.nearest_residual(queries, gallery)
    np.testing.assert_array_equal(found.index, [4, 1])
    np.testing.assert_array_equal(found.mirrored, [False, True])
    np.testing.assert_allclose(found.correlation, 1, atol=1e-5)


def test_the_mean_image_is_no_copy_of_anyone():
    gallery = np.random.default_rng(2).random((9, 16, 16, 16)).astype(np.float32)
    found = measures.nearest_residual(gallery.mean(axis=0, keepdims=True), gallery)
    assert found.correlation[0] < 0.35


def test_independent_noise_is_like_nobody():
    rng = np.random.default_rng(3)
    queries, gallery = rng.random((2, 5, 16, 16, 16))
    # Both residuals share the mirrored mean of five, which alone correlates by about 1/11.
    assert np.abs(measures.nearest_residual(queries, gallery).correlation).max() < 0.2


def test_constant_and_empty_volumes_have_no_correlation():
    found = measures.nearest_residual(np.zeros((1, 6, 6, 6)), np.zeros((2, 6, 6, 6)))
    assert found.correlation.tolist() == [0.0]


def test_white_noise_has_a_flat_spectrum_and_blur_removes_the_upper_half():
    noise = np.random.default_rng(3).standard_normal((4, 32, 32, 32)).astype(np.float32)
    frequency, power = measures.radial_spectrum(noise)
    assert frequency.shape == (24,)
    assert power.shape == (4, 24)
    assert np.ptp(power.mean(axis=0)[4:]) < 0.2
    from scipy.ndimage import gaussian_filter

    _, blurred = measures.radial_spectrum(gaussian_filter(noise, (0, 1, 1, 1)))
    drop = (power - blurred).mean(axis=0)
    assert drop[-1] > 1 > drop[1]


def test_a_repeated_slice_is_like_itself_at_every_distance():
    rng = np.random.default_rng(4)
    repeated = np.repeat(rng.random((1, 8, 8, 1)), 10, axis=3)
    independent = rng.standard_normal((1, 32, 32, 10))
    alike = measures.slice_correlation(np.concatenate([repeated] * 2), 5)
    np.testing.assert_allclose(alike, 1, atol=1e-6)
    assert np.abs(measures.slice_correlation(independent, 5)).max() < 0.1


def test_an_empty_volume_has_no_slice_correlation():
    assert np.isnan(measures.slice_correlation(np.zeros((1, 4, 4, 4)), 2)).all()
