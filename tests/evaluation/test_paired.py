"""Paired metrics: closed forms, agreement with torchmetrics, intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gyri.cohort.phantom import phantom_volumes
from gyri.errors import DataError
from gyri.evaluation.paired import METRICS, Original, compare_arms, summarise

SPACING = (8.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def images():
    return phantom_volumes(4, 0, 8.0).volumes[:, 0]


def rng(name):
    return np.random.default_rng(0)


def test_a_volume_equals_itself(images):
    found = Original.of(images[0], SPACING, "a").compare(images[0])
    assert found["psnr"] == pytest.approx(100)
    assert found["ssim"] == pytest.approx(1, abs=1e-6)
    assert found["mae"] == 0


def test_a_known_shift_has_its_psnr_and_mae_and_what_lies_outside_does_not_count(images):
    original = Original.of(images[0], SPACING, "a")
    shifted = images[0] + np.float32(0.1)
    found = original.compare(shifted)
    assert found["psnr"] == pytest.approx(20, abs=1e-3)
    assert found["mae"] == pytest.approx(0.1, abs=1e-6)
    mask = np.zeros(images[0].shape, bool)
    mask[original.window] = original.mask
    outside = original.compare(np.where(mask, shifted, 0.7))
    assert outside["psnr"] == pytest.approx(found["psnr"])
    assert outside["mae"] == pytest.approx(found["mae"])


def test_ssim_is_that_of_torchmetrics(images):
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = images[:2]
    original = Original.of(x, SPACING, "a")
    tensors = [torch.from_numpy(volume.copy())[None, None] for volume in (y, x)]
    # torchmetrics returns the border of 5 voxels as it pads it; a brain's inside is left.
    _, whole = reference(*tensors, data_range=1.0, return_full_image=True)
    mask = np.zeros(x.shape, bool)
    mask[original.window] = original.mask
    inner = np.zeros(x.shape, bool)
    inner[5:-5, 5:-5, 5:-5] = True
    ours = np.zeros(x.shape, np.float32)
    ours[original.window] = original._ssim(y[original.window])
    assert (mask & inner).sum() > 500
    assert np.abs(ours - whole[0, 0].numpy())[mask & inner].max() < 1e-4


def test_noise_worsens_everything_step_by_step(images):
    original = Original.of(images[0], SPACING, "a")
    noise = np.random.default_rng(0).normal(size=images[0].shape).astype(np.float32)
    found = [original.compare(images[0] + np.float32(s) * noise) for s in (0.01, 0.05, 0.2)]
    for metric in METRICS:
        values = [entry[metric.name] for entry in found]
        assert values == sorted(values, reverse=metric.better == "higher")


def test_the_mean_image_is_nearer_than_another_person(images):
    arms = {
        "mean": (images.mean(0, keepdims=True), np.zeros(4, int)),
        "other": (images, np.array([1, 2, 3, 0])),
    }
    values = compare_arms(images, arms, SPACING, list("abcd"))
    assert (values["mean"]["psnr"] > values["other"]["psnr"]).all()
    scores = summarise(values, ("other",), "T1w", list("abcd"), 500, rng)
    assert [s.anchor for s in scores] == [False] * 3 + [True] * 3
    for score in scores:
        assert score.low <= score.value <= score.high
        assert score.value == pytest.approx(values[score.arm][score.metric].mean())
        assert score.n == 4


def test_an_original_without_a_brain_is_named():
    with pytest.raises(DataError, match="No brain is found in sub-1"):
        Original.of(np.zeros((20, 24, 20), np.float32), SPACING, "sub-1")
