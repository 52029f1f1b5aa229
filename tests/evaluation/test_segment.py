from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.segment import (
    CSF,
    GM,
    WM,
    align_intensity,
    brain_mask,
    central_csf,
    dilate,
    erode,
    fit_tissue_model,
    otsu_threshold,
    segment,
)
from gyri.types import Grid


def shells(gain: float = 1.0, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """White matter in grey matter in CSF, with a ventricle, on 32^3 voxels."""
    axes = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    image = np.select([radius < 3, radius < 9, radius < 12, radius < 13], [0.2, 0.85, 0.55, 0.2], 0)
    image = image + noise * (radius < 13) * np.random.default_rng(seed).standard_normal((32,) * 3)
    return (gain * image).clip(0, 1).astype(np.float32)


def as_set(images: np.ndarray, spacing: float = 4.0) -> VolumeSet:
    affine = (*(tuple(spacing * float(a == b) for b in range(4)) for a in range(3)), (0, 0, 0, 1.0))
    table = pd.DataFrame(index=[f"s{i}" for i in range(len(images))])
    return VolumeSet("x", images[:, None], table, Grid(images.shape[1:], affine), ("T1w",))


def test_otsu_lies_between_two_modes():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0.1, 0.02, 900), rng.normal(0.7, 0.05, 300)].astype(np.float32)
    assert 0.15 < otsu_threshold(values) < 0.55
    assert otsu_threshold(np.ones(4, np.float32)) == 1.0


def test_dilation_and_erosion_match_scipy():
    mask = np.random.default_rng(1).random((9, 8, 7)) < 0.4
    assert np.array_equal(dilate(mask), ndimage.binary_dilation(mask))
    assert np.array_equal(erode(mask), ndimage.binary_erosion(mask, border_value=1))


def test_holes_are_filled_and_pieces_counted():
    image = shells()
    image[14:18, 14:18, 14:18] = 0
    image[0, 0, 0] = 0.9
    mask, pieces, share, holes = brain_mask(image, (4.0, 4.0, 4.0))
    assert mask[16, 16, 16]
    assert not mask[0, 0, 0]
    assert pieces == 1
    assert 0 < holes <= 64
    assert 0.999 < share < 1.0


def test_tissues_of_shells_whatever_the_gain():
    images = np.stack([shells(g, 0.03, i) for i, g in enumerate((1.0, 0.7, 0.5, 1.1))])
    volumes = as_set(images)
    part = segment(volumes, fit_tissue_model(volumes))
    axes = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    for labels in part.labels:
        assert (labels[radius < 2] == CSF).mean() > 0.95
        assert (labels[(radius > 4) & (radius < 8)] == WM).mean() > 0.95
        assert (labels[(radius > 10) & (radius < 11)] == GM).mean() > 0.95
        assert (labels[radius > 14] == 0).all()


def test_ventricles_that_reach_the_outside_are_filled():
    image = shells()
    image[14:18, 14:18, :18] = 0  # a canal from below
    mask = brain_mask(image, (4.0, 4.0, 4.0))[0]
    assert mask[16, 16, 16]
    assert not mask[16, 16, 0]


def test_tissues_are_found_under_a_bias_field():
    axes = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    field = np.exp(0.35 * axes[2] / 15.5)
    images = np.stack([0.8 * shells(1.0, 0.02, i) * field for i in range(4)]).clip(0, 1)
    volumes = as_set(images.astype(np.float32))
    part = segment(volumes, fit_tissue_model(volumes))
    for labels in part.labels:
        assert (labels[(radius > 4) & (radius < 8)] == WM).mean() > 0.95
        assert (labels[(radius > 10) & (radius < 11)] == GM).mean() > 0.9


def test_gain_is_found():
    volumes = as_set(np.stack([shells(1.0, 0.03, i) for i in range(4)]))
    model = fit_tissue_model(volumes)
    inside = shells(1.0, 0.03, 9)[shells() > 0]
    ratio = align_intensity(inside, model) / align_intensity(0.6 * inside, model)
    assert ratio == pytest.approx(1 / 0.6, rel=0.03)


def test_ventricles_are_central():
    volumes = as_set(np.stack([shells(1.0, 0.02, i) for i in range(3)]))
    part = segment(volumes, fit_tissue_model(volumes))
    axes = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    found = central_csf(part.labels[0], part.mask[0])
    assert found[radius < 2].all()
    assert not found[radius > 8].any()


def test_order_of_classes_follows_the_channel():
    t1 = as_set(np.stack([shells(1.0, 0.03, i) for i in range(3)]))
    t2 = replace(t1, channels=("T2w",))
    part = segment(t2, fit_tissue_model(t2))
    assert part.labels[0, 16, 16, 22] == CSF  # brightest


def test_failures_stay_in_the_set():
    images = np.stack([shells(), np.full((32,) * 3, np.nan, np.float32), np.zeros((32,) * 3, "f4")])
    volumes = as_set(images)
    part = segment(volumes, fit_tissue_model(volumes.take(np.array([0]))))
    assert part.mask.any(axis=(1, 2, 3)).tolist() == [True, False, False]
    assert part.largest_share.tolist()[1:] == [0.0, 0.0]


@pytest.mark.realdata
def test_brain_fraction_follows_the_published_one(real_data: Path):
    """OASIS-1's nWBV was measured by other software on the native scans."""
    import nibabel as nib

    folder = real_data / "oasis1-2mm"
    files = sorted(folder.glob("*_MR1_T1w.nii.gz"))[::8]
    table = pd.read_csv(folder / "oasis_cross-sectional.csv").set_index("ID")
    images = []
    for file in files:
        full = np.asarray(nib.as_closest_canonical(nib.load(file)).dataobj, np.float32)
        cut = full[:90, :108, :90].reshape(45, 2, 54, 2, 45, 2).mean((1, 3, 5))
        images.append((cut / np.percentile(cut[cut > 0], 99.5)).clip(0, 1))
    volumes = as_set(np.stack(images))
    part = segment(volumes, fit_tissue_model(volumes))
    tissue = ((part.labels == GM) | (part.labels == WM)).sum((1, 2, 3))
    fraction = tissue / part.mask.sum((1, 2, 3))
    ventricles = [central_csf(a, b).sum() for a, b in zip(part.labels, part.mask)]
    rows = table.loc[[file.name.replace("_T1w.nii.gz", "") for file in files]]
    assert np.corrcoef(fraction, rows["nWBV"])[0, 1] > 0.8
    assert np.corrcoef(ventricles, rows["Age"])[0, 1] > 0.6
