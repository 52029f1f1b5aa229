"""T23 and T24."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.features.morph import (
    MORPH_NAMES,
    Morphometry,
    correlation,
    mirror,
    surface_mm2,
)
from gyri.evaluation.segment import TissueModel, brain_mask, segment

MODEL = TissueModel(np.array([0.5, 0.9, 1.3]), np.full(3, 0.03), np.full(3, 1 / 3))


def ellipsoid(shape, spacing_mm, radius_mm, centre=None) -> np.ndarray:
    centre = [(n - 1) / 2 for n in shape] if centre is None else centre
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    distance = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing_mm))
    return distance <= radius_mm**2


def test_volume_of_a_sphere_on_anisotropic_voxels():
    spacing = (1.0, 1.5, 2.0)
    image = ellipsoid((90, 60, 46), spacing, 40.0).astype(np.float32)
    mask, pieces, share, holes = brain_mask(image, spacing)
    volume = mask.sum() * np.prod(spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * 40.0**3, rel=0.02)
    assert (pieces, share, holes) == (1, 1.0, 0)


def test_surface_of_a_sphere():
    mask = ellipsoid((60, 60, 60), (1, 1, 1), 25.0)
    assert surface_mm2(mask, (1.0, 1.0, 1.0)) == pytest.approx(4 * np.pi * 25.0**2, rel=0.03)


def symmetric_set(cohort):
    volumes = cohort["generated"].take(np.arange(3))
    both = (volumes.volumes + volumes.volumes[:, :, ::-1]) / 2
    volumes.volumes[:] = both
    return volumes


def test_a_mirrored_phantom_is_symmetric(cohort):
    volumes = symmetric_set(cohort)
    part = segment(volumes, MODEL)
    features = Morphometry()
    features.fit(part)
    table = dict(zip(MORPH_NAMES, features.extract(part).T))
    assert features.state["plane"][0] == (volumes.volumes.shape[2] - 1) / 2
    np.testing.assert_allclose(table["asymmetry"], 0, atol=1e-12)
    np.testing.assert_allclose(table["mirror_correlation"], 1, atol=1e-6)


def test_asymmetry_has_a_sign(cohort):
    volumes = symmetric_set(cohort)
    part = segment(volumes, MODEL)
    features = Morphometry()
    features.fit(part)
    volumes.volumes[:, :, 14:] = 0
    cut = features.extract(segment(volumes, MODEL))[:, MORPH_NAMES.index("asymmetry")]
    assert (cut > 0.2).all()


def test_mirror_reflects_at_whole_and_half_planes():
    row = np.arange(5.0).reshape(5, 1, 1)
    assert mirror(row, 2.0).ravel().tolist() == [4, 3, 2, 1, 0]
    assert mirror(row, 1.5).ravel().tolist() == [3, 2, 1, 0, 0]


def test_correlation_of_a_constant_is_zero():
    assert correlation(np.ones(4), np.arange(4.0)) == 0.0


def test_tissues_add_up_to_the_brain(judge):
    morph = judge.study.hold.morph
    total = morph["gm_ml"] + morph["wm_ml"] + morph["csf_ml"]
    np.testing.assert_allclose(total, morph["brain_ml"])


def test_an_empty_volume_has_zeros(cohort):
    part = segment(cohort["TRAIN"], MODEL)
    features = Morphometry()
    features.fit(part)
    volumes = cohort["generated"].take(np.arange(1))
    volumes.volumes[:] = 0
    assert (features.extract(segment(volumes, MODEL)) == 0).all()
