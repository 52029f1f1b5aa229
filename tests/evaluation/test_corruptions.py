from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.corruptions import CORRUPTIONS, LEVELS, corrupt
from gyri.types import Grid


def blob(spacing_mm: float, size_mm: float = 128.0, num: int = 20, peak: float = 0.9) -> VolumeSet:
    """Off-centre Gaussians of 8 mm, one a subject, each of its own brightness."""
    import pandas as pd

    n = round(size_mm / spacing_mm)
    place = (np.arange(n) + 0.5) * spacing_mm - size_mm / 2
    i, j, k = np.meshgrid(place, place, place, indexing="ij")
    one = np.exp(-((i - 8) ** 2 + (j + 12) ** 2 + k**2) / 2 / 8**2)
    volumes = np.linspace(0.5, peak, num)[:, None, None, None, None] * one[None, None]
    affine = np.diag([spacing_mm] * 3 + [1.0])
    grid = Grid((n, n, n), tuple(map(tuple, affine)))
    table = pd.DataFrame(index=[f"s{row}" for row in range(num)])
    return VolumeSet("blobs", volumes.astype(np.float32), table, grid, ("T1w",))


def variance_mm2(volume: np.ndarray, spacing_mm: float, axis: int) -> float:
    profile = volume.sum(axis=tuple(a for a in range(3) if a != axis))
    place = np.arange(len(profile)) * spacing_mm
    mean = (profile * place).sum() / profile.sum()
    return float((profile * (place - mean) ** 2).sum() / profile.sum())


def centre_mm(volume: np.ndarray, spacing_mm: float) -> np.ndarray:
    axes = (np.arange(n) * spacing_mm - (n - 1) / 2 * spacing_mm for n in volume.shape)
    return np.array(
        [
            (volume.sum(axis=tuple(b for b in range(3) if b != a)) * x).sum() / volume.sum()
            for a, x in enumerate(axes)
        ]
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_level_0_is_the_set_and_each_level_changes_more(name):
    real = blob(8.0, peak=1.3)
    real.volumes.clip(0, 1, out=real.volumes)
    assert corrupt(real, name, 0) is real
    before = real.volumes.copy()
    change = [
        float(np.abs(corrupt(real, name, level).volumes - real.volumes).mean())
        for level in range(1, LEVELS + 1)
    ]
    assert all(np.diff(change) > 0), change
    np.testing.assert_array_equal(real.volumes, before)
    again = corrupt(real, name, 3)
    np.testing.assert_array_equal(again.volumes, corrupt(real, name, 3).volumes)
    assert again.volumes.dtype == np.float32
    assert again.volumes.min() >= 0
    assert again.volumes.max() <= 1
    assert again.ids == real.ids
    assert CORRUPTIONS[name].summary.endswith(".") or ";" in CORRUPTIONS[name].summary


@pytest.mark.parametrize("spacing_mm", [2.0, 4.0, 8.0])
def test_blur_is_in_millimetres(spacing_mm):
    real = blob(spacing_mm, num=1)
    soft = corrupt(real, "blur", 4).volumes[0, 0]
    for axis in range(3):
        grown = variance_mm2(soft, spacing_mm, axis)
        grown -= variance_mm2(real.volumes[0, 0], spacing_mm, axis)
        assert grown == pytest.approx(25.0, rel=0.05)


@pytest.mark.parametrize("spacing_mm", [4.0, 8.0])
def test_rotation_turns_the_axial_plane_about_the_middle(spacing_mm):
    real = blob(spacing_mm, num=1)
    start = centre_mm(real.volumes[0, 0], spacing_mm)
    turned = centre_mm(corrupt(real, "rotation", 4).volumes[0, 0], spacing_mm)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(start), rel=0.03)
    angle = np.arctan2(start[1], start[0]) - np.arctan2(turned[1], turned[0])
    assert abs(np.rad2deg(angle)) == pytest.approx(40.0, abs=1.5)


def test_rotation_respects_unequal_spacing():
    real = blob(4.0, num=1)
    affine = np.diag([4.0, 8.0, 4.0, 1.0])
    thin = replace(
        real,
        volumes=real.volumes[:, :, :, ::2],
        grid=Grid((32, 16, 32), tuple(map(tuple, affine))),
    )
    turned = corrupt(thin, "rotation", 4).volumes[0, 0]
    full = corrupt(real, "rotation", 4).volumes[0, 0]
    np.testing.assert_allclose(turned.sum(1) * 2, full.sum(1), atol=0.35)


@pytest.mark.parametrize("spacing_mm", [2.0, 4.0, 8.0])
def test_repetition_covers_millimetres(spacing_mm):
    volume = corrupt(blob(spacing_mm, num=1), "repetition", 2).volumes[0, 0]
    middle = volume.shape[2] // 2
    equal = [k for k in range(volume.shape[2]) if (volume[..., k] == volume[..., middle]).all()]
    assert len(equal) * spacing_mm == pytest.approx(32.0 + spacing_mm)


def test_noise_has_the_stated_sd():
    real = blob(4.0, num=1)
    flat = replace(real, volumes=np.full_like(real.volumes, 0.5))
    assert corrupt(flat, "noise", 3).volumes.std() == pytest.approx(0.08, rel=0.02)


def test_bias_field_has_the_stated_gain():
    real = blob(4.0, num=1)
    flat = replace(real, volumes=np.full_like(real.volumes, 0.2))
    made = corrupt(flat, "bias_field", 2).volumes[0, 0, 0, :, 0]
    gap = np.log(made[-1] / made[0])
    assert gap == pytest.approx(0.2 * (128 - 4) / 100, rel=1e-4)


def test_mode_dropping_keeps_the_stated_share_of_subjects():
    real = blob(8.0)
    made = corrupt(real, "mode_dropping", 3).volumes
    gaps = np.abs(made[:, None] - real.volumes[None]).mean(axis=(2, 3, 4, 5))
    np.testing.assert_array_equal(gaps.argmin(1), np.arange(20) % 6)  # 0.3 of 20
    assert not (made[6] == made[0]).all()


def test_flips_are_whole_volumes_from_left_to_right():
    real = blob(8.0)
    made = corrupt(real, "left_right_flip", 2).volumes
    np.testing.assert_array_equal(made[:8], real.volumes[:8, :, ::-1])
    np.testing.assert_array_equal(made[8:], real.volumes[8:])
