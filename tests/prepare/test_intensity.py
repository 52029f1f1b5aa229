from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from gyri.errors import DataError, UsageError
from gyri.prepare.intensity import IntensityConfig, Scaling, intensity
from gyri.prepare.scan import PreparedScan
from gyri.prepare.template import mni152
from gyri.types import Channel


def scan(values: np.ndarray) -> PreparedScan:
    """Foreground of the given values (8 x 8 x 8) in background that is not quite 0."""
    volume = np.full((12, 12, 12), 3.0, np.float32)
    mask = np.zeros((12, 12, 12), np.float32)
    volume[2:10, 2:10, 2:10], mask[2:10, 2:10, 2:10] = values.reshape(8, 8, 8), 1
    return PreparedScan(volume[None], (Channel("T1w"),), np.eye(4), mask)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).uniform(10, 100, 512)


def test_percentile_is_mapped_to_the_level(values: np.ndarray) -> None:
    after = intensity(scan(values), IntensityConfig(percentile=90, level=0.7))
    inside = after.image[0][after.foreground > 0]
    assert np.percentile(inside, 90) == pytest.approx(0.7, abs=1e-5)
    np.testing.assert_allclose(inside, values * 0.7 / np.percentile(values, 90), rtol=1e-5)
    assert (after.image[0][after.foreground == 0] == 0).all()


def test_gain_does_not_matter(values: np.ndarray) -> None:
    first = intensity(scan(values), IntensityConfig()).image
    np.testing.assert_allclose(first, intensity(scan(17 * values), IntensityConfig()).image, 1e-5)


def test_half_voxels_decide_what_is_background(values: np.ndarray) -> None:
    half = scan(values)
    half.foreground[2] *= 0.49
    half.foreground[3] *= 0.51
    after = intensity(half, IntensityConfig())
    assert (after.image[0][2] == 0).all()
    assert (after.image[0][3, 2:10, 2:10] > 0).all()


def test_clipping_is_recorded(values: np.ndarray) -> None:
    values[:10] = 5000
    after = intensity(scan(values), IntensityConfig())
    facts = after.history[0]["scaling"]["T1w"]
    assert facts["clipped_above_percent"] == pytest.approx(100 * 10 / 512, abs=1e-3)
    assert after.image.max() == 1
    values[:60] = np.linspace(1e4, 1e6, 60)
    with pytest.raises(DataError, match="would be clipped"):
        intensity(scan(values), IntensityConfig(percentile=85))


def test_negative_values_move_the_zero(values: np.ndarray) -> None:
    centred = (values - values.mean()) / values.std()
    after = intensity(scan(centred), IntensityConfig())
    inside = after.image[0][after.foreground > 0]
    assert after.history[0]["scaling"]["T1w"]["zero"] == pytest.approx(np.percentile(centred, 0.5))
    np.testing.assert_allclose(np.corrcoef(inside, centred)[0, 1], 1, atol=1e-3)


@pytest.mark.parametrize("method", get_args(Scaling))
def test_labels_pass_every_method_untouched(values: np.ndarray, method: Scaling) -> None:
    before = scan(values)
    labels = np.arange(12**3, dtype=np.float32).reshape(12, 12, 12) % 3
    both = PreparedScan(
        np.stack([before.image[0], labels]),
        (Channel("T1w"), Channel("dseg", "label", 3)),
        np.eye(4),
        before.foreground,
    )
    done = intensity(both, IntensityConfig(method=method, output_range=(-1, 1)))
    np.testing.assert_array_equal(done.image[1], labels)
    assert 0 <= done.image[0].min() < done.image[0].max() <= 1


@pytest.mark.parametrize("bad", [(1, 0), (0, 0), (0, float("inf"))])
def test_wrong_ranges(bad: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="the lower first"):
        IntensityConfig(output_range=bad)


def test_no_contrast_and_bad_settings() -> None:
    with pytest.raises(DataError, match="no contrast"):
        intensity(scan(np.zeros(512)), IntensityConfig())
    with pytest.raises(UsageError, match="percentile is 0"):
        IntensityConfig(percentile=0)


def after(values: np.ndarray, **settings: object) -> np.ndarray:
    result = intensity(scan(values), IntensityConfig(**settings))  # type: ignore[arg-type]
    assert (result.image[0][result.foreground == 0] == 0).all()
    return result.image[0][result.foreground > 0]


def test_min_max(values: np.ndarray) -> None:
    inside = after(values, method="min-max")
    expected = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(inside, expected, atol=1e-5)


def test_z_score() -> None:
    values = np.random.default_rng(0).normal(50, 5, 512)
    inside = after(values, method="z-score")
    assert inside.mean() == pytest.approx(0.5, abs=1e-4)
    assert inside.std() == pytest.approx(0.125, abs=1e-3)


def test_white_stripe_finds_the_brightest_peak() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(30, 3, 80), rng.normal(60, 4, 232), rng.normal(90, 3, 200)])
    inside = after(values, method="white-stripe", level=0.7)
    assert np.median(inside[values > 80]) == pytest.approx(0.7, abs=0.02)


def test_histogram_gives_the_template_s_quantiles(values: np.ndarray) -> None:
    template = mni152()
    goal = np.quantile(template.image[template.mask], [0.1, 0.5, 0.9])
    inside = after(values, method="histogram")
    np.testing.assert_allclose(np.quantile(inside, [0.1, 0.5, 0.9]), goal, atol=0.01)
    assert (np.diff(inside[np.argsort(values)]) >= 0).all()
    with pytest.raises(UsageError, match="'histo'"):
        IntensityConfig(method="histo")  # type: ignore[arg-type]
