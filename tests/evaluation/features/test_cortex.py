"""Shells of known thickness, broken inputs, and real scans."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gyri.cohort.phantom import phantom_grid
from gyri.evaluation.features.cortex import (
    CORTEX_NAMES,
    REGIONS,
    Cortex,
    tissue_position,
    weighted_percentiles,
)
from gyri.evaluation.segment import CSF, GM, WM, Segmented, erode

LEVELS = np.array([0.1, 0.5, 0.8])
SPACING = (2.0, 2.0, 2.0)
SHAPE = (44, 44, 44)
WHITE_MM, PIAL_MM, BRAIN_MM = 28.0, 31.0, 37.0


def head(grey_mm=PIAL_MM - WHITE_MM, levels=LEVELS) -> np.ndarray:
    """White ball in a grey shell in CSF, partial volumes by supersampling."""
    fine = 3
    axis = (np.arange(SHAPE[0] * fine) + 0.5) / fine * 2 - SHAPE[0]
    x, y, z = np.ix_(axis, axis, axis)
    radius = np.sqrt(x**2 + y**2 + z**2)
    white = radius < WHITE_MM
    grey = (radius < WHITE_MM + grey_mm) & ~white
    csf = (radius < BRAIN_MM) & ~white & ~grey
    image = white * levels[2] + grey * levels[1] + csf * levels[0]
    blocks = [part for n in SHAPE for part in (n, fine)]
    return image.reshape(blocks).mean((1, 3, 5)).astype(np.float32)


def segmented(images, levels=LEVELS) -> Segmented:
    """Label each voxel by the nearest level, inside whatever is not background."""
    images = np.asarray(images, np.float32)
    mask = images > 0.05
    gains = np.maximum(images.max(axis=(1, 2, 3), keepdims=True) / max(levels), 1e-6)
    gap = np.abs(images[..., None] / gains[..., None] - levels)
    labels = np.where(mask, np.array([CSF, GM, WM])[gap.argmin(-1)], 0).astype(np.uint8)
    none = np.zeros(len(images), np.int64)
    return Segmented(images, mask, labels, none, none.astype(float), none, SPACING)


def table(feature_set: Cortex, part: Segmented) -> dict[str, np.ndarray]:
    return dict(zip(feature_set.names, feature_set.extract(part).T))


@pytest.fixture(scope="module")
def fitted() -> Cortex:
    feature_set = Cortex()
    feature_set.fit(segmented([head()]))
    return feature_set


def test_fit_finds_the_middle_and_the_levels(fitted):
    np.testing.assert_allclose(fitted.state["middle"], 0.5, atol=0.01)
    np.testing.assert_allclose(fitted.state["half"], BRAIN_MM / 88, atol=0.02)
    np.testing.assert_allclose(fitted.state["levels"], LEVELS, atol=0.01)


@pytest.mark.parametrize("smoothing_mm", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("grey_mm", [2.0, 2.5, 3.0, 4.0])
def test_thickness_of_a_shell_is_found_everywhere(fitted, grey_mm, smoothing_mm):
    image = ndimage.gaussian_filter(head(grey_mm), smoothing_mm / 2)
    found = table(fitted, segmented([image]))
    for name in ("mean", "p50", *REGIONS):
        assert found[f"thickness_{name}_mm"][0] == pytest.approx(grey_mm, abs=0.45), name
    assert found["thickness_mean_mm"][0] == pytest.approx(grey_mm, abs=0.4)
    assert found["thickness_sd_mm"][0] < 0.3
    # Volume over area counts the shell's outer side too: thicker by t / R.
    bent = grey_mm * (1 + grey_mm / WHITE_MM + grey_mm**2 / (3 * WHITE_MM**2))
    # The box that leaves out the cerebellum cuts both alike.
    assert found["volume_per_area_mm"][0] == pytest.approx(bent, rel=0.25)


def test_a_sphere_is_not_folded(fitted):
    found = table(fitted, segmented([head()]))
    assert found["gyrification_pial"][0] == pytest.approx(1, abs=0.02)
    assert found["gyrification_white"][0] == pytest.approx((WHITE_MM / PIAL_MM) ** 2, abs=0.04)
    assert found["closed_share"][0] == 0
    # The box takes an eighth to a fifth of the sphere.
    assert 0.75 < found["pial_area_cm2"][0] / (4 * np.pi * PIAL_MM**2 / 100) < 0.9


def test_a_slit_is_deep_and_folded(fitted):
    cut = head()
    centre = SHAPE[0] // 2
    slit = np.zeros(SHAPE, bool)
    slit[centre - 1 : centre + 1, :, centre + 8 :] = True  # 16 mm above the middle
    cut[slit & (cut > 0.05)] = LEVELS[0]
    smooth, folded = (table(fitted, segmented([v])) for v in (head(), cut))
    added = folded["sulcal_csf_ml"][0] - smooth["sulcal_csf_ml"][0]
    # A slab of 4 mm between the chord 16 mm up and the arc above it.
    half_angle = np.arccos(16 / PIAL_MM)
    segment_mm2 = PIAL_MM**2 * (half_angle - np.sin(half_angle) * np.cos(half_angle))
    assert added == pytest.approx(4 * segment_mm2 / 1000, rel=0.2)
    # Two walls of that size, less 7 % by which a plane along the axes is missed, and no mouth;
    # the box leaves in 83 % of the sphere.
    walls_mm2 = 2 * 0.93 * segment_mm2 - 4 * 2 * half_angle * PIAL_MM
    grown = walls_mm2 / (0.83 * 4 * np.pi * PIAL_MM**2)
    gained = folded["gyrification_pial"][0] - smooth["gyrification_pial"][0]
    assert gained == pytest.approx(grown, rel=0.25)
    total = [t["sulcal_csf_ml"][0] * t["sulcal_depth_mean_mm"][0] for t in (smooth, folded)]
    angle = np.linspace(-half_angle, half_angle, 2001)
    low = 16 / np.cos(angle)
    rays = PIAL_MM * (PIAL_MM**2 - low**2) / 2 - (PIAL_MM**3 - low**3) / 3
    depth_mm = rays.mean() * 2 * half_angle / segment_mm2
    assert (total[1] - total[0]) / added == pytest.approx(depth_mm, abs=1.0)


def test_gain_and_contrast_do_not_matter(fitted):
    plain, dim = fitted.extract(segmented([head(), 0.6 * head()]))
    np.testing.assert_allclose(dim, plain, rtol=1e-3, atol=1e-3)
    falling = np.array([0.9, 0.6, 0.3])  # T2w
    bright = segmented([head(levels=falling)], falling)
    # Bright CSF that mixes with the background looks like brain: without the mask's rim.
    rim = ~erode(bright.mask[0])
    bright.mask[0, rim], bright.labels[0, rim] = False, 0
    other = Cortex()
    other.fit(bright)
    dark = other.extract(bright)[0]
    for name in ("thickness_mean_mm", "white_area_cm2"):
        column = CORTEX_NAMES.index(name)
        assert dark[column] == pytest.approx(plain[column], rel=0.1), name


def test_blur_widens_the_transitions(fitted):
    blurred = [ndimage.gaussian_filter(head(), sigma) for sigma in (0.5, 0.75, 1.0, 1.25)]
    found = table(fitted, segmented(blurred))
    assert (np.diff(found["white_transition_mm"]) > 0).all()
    assert (np.diff(found["pial_transition_mm"]) > 0).all()


@pytest.mark.parametrize("kind", ["empty", "noise", "constant", "speck", "no labels"])
def test_broken_volumes_have_finite_features(fitted, kind):
    image = {
        "empty": np.zeros(SHAPE),
        "noise": np.random.default_rng(0).random(SHAPE),
        "constant": np.full(SHAPE, 0.5),
        "speck": np.pad(np.ones((1, 1, 1)), [(20, 23)] * 3),
        "no labels": head(),
    }[kind]
    part = segmented([image])
    if kind == "no labels":
        part = replace(part, labels=np.zeros_like(part.labels))
    found = fitted.extract(part)
    assert found.shape == (1, len(CORTEX_NAMES))
    assert np.isfinite(found).all()
    if kind == "empty":
        assert (found == 0).all()


def test_a_set_that_shows_nothing_can_be_fitted():
    feature_set = Cortex()
    part = segmented(np.zeros((2, *SHAPE)))
    feature_set.fit(part)
    assert np.isfinite(feature_set.state["levels"]).all()
    assert np.isfinite(feature_set.extract(segmented([head()]))).all()


def test_coarse_grids_are_refused_with_the_way_out():
    for spacing_mm in (4.0, 8.0):
        reason = Cortex.refusal(phantom_grid(spacing_mm))
        assert reason is not None
        assert f"not measurable: the spacing is {spacing_mm:g} mm" in reason
        assert "--spacing 2" in reason
    assert Cortex.refusal(phantom_grid(2.0)) is None


def test_definition_follows_geometry_and_state(fitted, monkeypatch):
    before = fitted.definition()
    other = Cortex()
    other.state = fitted.state | {"levels": LEVELS + 0.01}
    assert other.definition() != before
    read = "gyri.evaluation.features.cortex.inspect.getsource"
    monkeypatch.setattr(read, lambda module: module.__name__)
    assert fitted.definition() != before


def test_position_between_levels():
    image = np.array([0.0, 0.1, 0.3, 0.5, 0.65, 0.8, 1.0], np.float32).reshape(7, 1, 1)
    found = tissue_position(image, np.ones(image.shape, bool), LEVELS)
    np.testing.assert_allclose(found.ravel(), [0, 0, 0.5, 1, 1.5, 2, 2], atol=1e-6)


def test_weighted_percentiles_count_copies():
    values, counts = np.array([3.0, 1.0, 2.0]), np.array([1, 6, 3])
    found = weighted_percentiles(values, counts, (10, 50, 80, 95))
    truth = np.percentile(np.repeat(values, counts), (10, 50, 80, 95), method="inverted_cdf")
    assert found.tolist() == truth.tolist()
    assert weighted_percentiles(values, 0 * counts, (50,)).tolist() == [0]


@pytest.fixture(scope="module")
def real_features():
    """Features of 40 HOLD scans, of the same blurred by 2 mm, and of 40 TRAIN scans."""
    from gyri.cohort.prepared import PreparedCohort
    from gyri.evaluation.features.extraction import Extractor

    if "GYRI_PREPARED" not in os.environ:
        pytest.skip("no prepared cohort: set GYRI_PREPARED to OASIS-1 at 2 mm")
    cohort = PreparedCohort.read(Path(os.environ["GYRI_PREPARED"]))
    train, hold = cohort.volume_set("TRAIN"), cohort.volume_set("HOLD")
    extractor = Extractor(train, None, ["cortex-v1"])
    few = np.random.default_rng(0).permutation(min(len(train), len(hold)))[:40]
    sigma = (0, 0, *(2.0 / np.sqrt(8 * np.log(2)) / np.array(hold.grid.spacing_mm)))
    sets = {"train": train.take(few), "hold": hold.take(few)}
    blurred = ndimage.gaussian_filter(sets["hold"].volumes, sigma)
    sets["blurred"] = replace(sets["hold"], volumes=blurred)
    found = {key: extractor.extract(volumes)["cortex-v1"] for key, volumes in sets.items()}
    return found | {"age": sets["hold"].table["age"].to_numpy(float)}


@pytest.mark.slow
@pytest.mark.realdata
def test_blur_fails_and_a_second_holdout_passes(real_features):
    from gyri.evaluation.effects import cohens_d
    from gyri.evaluation.metrics.kernel import cubic_kernel, permutation_p_value, plain_distance

    train, hold = real_features["train"], real_features["hold"]
    centre, spread = train.mean(0), train.std(0, ddof=1)
    judged = {}
    for key in ("train", "blurred"):
        pooled = (np.concatenate([hold, real_features[key]]) - centre) / spread
        kernel = cubic_kernel(pooled, pooled)
        p_value = permutation_p_value(kernel, len(hold), 1000, np.random.default_rng(0))
        judged[key] = plain_distance(kernel, len(hold)), p_value
    assert judged["train"][1] > 0.05
    assert judged["blurred"][1] < 0.005
    assert judged["blurred"][0] > 5 * max(judged["train"][0], 0.05)
    # On 100 scans three more effects exceed 0.8, by 0.05 to 0.1: 40 scans cannot show those.
    effects = [cohens_d(a, b) for a, b in zip(hold.T, real_features["blurred"].T)]
    found = dict(zip(CORTEX_NAMES, effects))
    assert found["pial_area_cm2"] < -0.8
    assert found["gyrification_pial"] < -0.8


@pytest.mark.slow
@pytest.mark.realdata
def test_real_cortex_is_two_to_three_millimetres_thick_and_thins_with_age(real_features):
    thickness = real_features["hold"][:, CORTEX_NAMES.index("thickness_mean_mm")]
    assert 2.0 < thickness.mean() < 3.0
    age = real_features["age"]
    known = np.isfinite(age)
    assert np.corrcoef(age[known], thickness[known])[0, 1] < -0.5
