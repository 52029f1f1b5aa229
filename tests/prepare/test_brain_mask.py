from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes
from tests.prepare.heads import dice, phantom_head, scan_of

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError, UsageError
from gyri.prepare.brain_mask import BrainMaskConfig, brain_mask
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel


@pytest.fixture(scope="module")
def masked() -> PreparedScan:
    values, affine, _ = phantom_head()
    return brain_mask(scan_of(values, affine), BrainMaskConfig())


def test_the_brain_of_a_head_is_found(masked: PreparedScan) -> None:
    _, _, truth = phantom_head()
    assert dice(masked.foreground > 0.5, truth) > 0.9
    assert (masked.image[0][masked.foreground == 0] == 0).all()
    facts = masked.history[-1]
    assert facts["method"] == "template"
    assert facts["brain_ml"] == pytest.approx(masked.foreground.sum() * 0.064, abs=0.1)


def test_it_is_the_same_every_time(masked: PreparedScan) -> None:
    values, affine, _ = phantom_head()
    again = brain_mask(scan_of(values, affine), BrainMaskConfig())
    np.testing.assert_array_equal(again.image, masked.image)


def test_a_stripped_scan_keeps_its_support() -> None:
    values, affine, truth = phantom_head()
    before = scan_of(values * truth, affine)
    after = brain_mask(before, BrainMaskConfig())
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.foreground > 0, values * truth > 0)
    assert after.history[-1]["method"] == "stripped before"


def test_a_given_mask_is_used() -> None:
    values, affine, truth = phantom_head()
    channels = (Channel("T1w"), Channel("brain", "label", 2))
    before = PreparedScan(
        np.stack([values, truth.astype(np.float32)]), channels, affine, np.ones_like(values)
    )
    after = brain_mask(before, BrainMaskConfig(channel="brain"))
    assert after.history[-1]["method"] == "provided"
    np.testing.assert_array_equal(after.image[0], values * truth)
    np.testing.assert_array_equal(after.image[1], truth)
    marked = brain_mask(before, BrainMaskConfig(channel="brain", apply=False))
    np.testing.assert_array_equal(marked.image, before.image)
    np.testing.assert_array_equal(marked.foreground, truth)
    with pytest.raises(DataError, match="no label channel 'mask'"):
        brain_mask(before, BrainMaskConfig(channel="mask"))
    before.image[1] = 0
    with pytest.raises(DataError, match="is empty"):
        brain_mask(before, BrainMaskConfig(channel="brain"))


def test_what_is_no_head_is_refused() -> None:
    _, affine, _ = phantom_head()
    noise = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
    with pytest.raises(DataError, match="No brain was found"):
        brain_mask(scan_of(noise, affine), BrainMaskConfig())
    with pytest.raises(UsageError, match="margin_mm"):
        BrainMaskConfig(margin_mm=-1)


@pytest.mark.realdata
@pytest.mark.slow
def test_twenty_five_heads(real_data: Path) -> None:
    scores = []
    for path in sorted((real_data / "ixi" / "IXI-T1").glob("*.nii.gz")):
        volume, affine, _ = read_volume(path)
        after = brain_mask(reorient(scan_of(volume, affine), ReorientConfig()), BrainMaskConfig())
        name = path.name.replace("-T1.nii.gz", "-DLMUSE.nii.gz")
        labels = nib.as_closest_canonical(nib.load(real_data / "ixi" / "dlmuse" / name))
        truth = binary_fill_holes(labels.get_fdata() > 0)
        scores.append(dice(after.foreground > 0.5, truth))
    assert len(scores) == 25
    assert np.median(scores) >= 0.93
    assert min(scores) >= 0.88
