from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.tissue import (
    FRACTIONS,
    GROUP,
    BiasField,
    TissueModel,
    align_intensity,
    fit_mixture,
    flatten,
    histogram,
)

TRUTH = TissueModel(
    np.array([0.4, 0.95, 1.4]),
    np.full(3, 0.004),
    np.array([0.12, 0.4, 0.3]),
    mixed=np.array([0.08, 0.1]),
)


def draw(num: int, seed: int) -> np.ndarray:
    """Intensities of a brain whose classes are `TRUTH`."""
    rng = np.random.default_rng(seed)
    weights = np.concatenate([TRUTH.weights, TRUTH.mixed])[GROUP] / np.bincount(GROUP)[GROUP]
    which = rng.choice(len(FRACTIONS), num, p=weights)
    means, variances = FRACTIONS @ TRUTH.means, FRACTIONS @ TRUTH.variances
    return rng.normal(means[which], np.sqrt(variances[which])).astype(np.float32).clip(0.01)


def test_components_are_pure_or_mix_neighbours():
    assert FRACTIONS.shape == (11, 3)
    np.testing.assert_allclose(FRACTIONS.sum(1), 1)
    assert not ((FRACTIONS[:, 0] > 0) & (FRACTIONS[:, 2] > 0)).any()


def test_the_density_is_one():
    x = np.linspace(-1, 3, 4001)
    assert np.trapezoid(TRUTH.joint(x).sum(1), x) == pytest.approx(1.0, abs=1e-6)


def test_pure_and_mixed_classes_are_found():
    start = TissueModel(np.array([0.5, 0.9, 1.3]), np.full(3, 0.03), np.array([0.15, 0.5, 0.35]))
    found = fit_mixture(histogram(draw(200_000, 0)), start, None)
    for _ in range(5):
        found = fit_mixture(histogram(draw(200_000, 0)), found, None)
    np.testing.assert_allclose(found.means, TRUTH.means, atol=0.02)
    np.testing.assert_allclose(found.weights, TRUTH.weights, atol=0.04)
    np.testing.assert_allclose(found.mixed, TRUTH.mixed, atol=0.05)


def test_the_prior_holds_classes_that_a_volume_lacks():
    values = draw(50_000, 1)
    found = fit_mixture(histogram(values[values < 1.15]), TRUTH, TRUTH)
    assert found.means[2] == pytest.approx(TRUTH.means[2], abs=0.15)
    assert found.weights[2] < 0.1


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.5])
def test_the_gain_is_found_within_a_step(gain):
    values = draw(60_000, 2)
    assert align_intensity(gain * values, TRUTH) == pytest.approx(gain, rel=0.01)
    assert align_intensity(gain * values, TRUTH, 1.2 * gain) == pytest.approx(gain, rel=0.01)


def biased(shape=(32, 32, 32), strength=0.3):
    """Voxels of a cube in random tissues under a smooth field, and the field's logarithm."""
    axis = np.linspace(-1, 1, shape[2])
    log_gain = np.broadcast_to(strength * (axis - 0.5 * axis**2), shape)
    values = draw(int(np.prod(shape)), 3).reshape(shape) * np.exp(log_gain)
    return values.astype(np.float32), log_gain - log_gain.mean()


def test_a_bias_field_is_found():
    values, log_gain = biased()
    mask = np.ones(values.shape, bool)
    field = BiasField(mask, (4.0, 4.0, 4.0))
    flat = flatten(values[mask], field, TRUTH, 16)
    left = np.log(values[mask] / flat) - log_gain[mask]
    assert left.std() < 0.2 * log_gain.std()
    spread = [np.log(v).std() for v in (values, flat)]
    assert spread[1] < spread[0]


def test_without_a_bias_field_little_is_changed():
    values, _ = biased(strength=0.0)
    mask = np.ones(values.shape, bool)
    flat = flatten(values[mask], BiasField(mask, (4.0, 4.0, 4.0)), TRUTH, 8)
    assert np.log(values[mask] / flat).std() < 0.03


def test_the_field_keeps_the_mean_and_strides_agree():
    mask = np.random.default_rng(4).random((20, 24, 20)) < 0.7
    field = BiasField(mask, (8.0, 8.0, 8.0))
    values = np.ones(int(mask.sum()), np.float32)
    assert np.array_equal(field.divide(values), values)
    rng = np.random.default_rng(5)
    count = len(values[::3])
    field.update(rng.normal(0.1, 0.1, count).astype(np.float32), np.ones(count, np.float32))
    np.testing.assert_allclose(field.divide(values)[::3], field.divide(values, 3), rtol=1e-6)
    assert np.log(field.divide(values)).mean() == pytest.approx(0, abs=0.01)
