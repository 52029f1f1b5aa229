from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gyri.cohort.nifti import write_volume
from gyri.errors import DataError, UsageError
from gyri.prepare.brain_mask import BrainMaskConfig, brain_mask
from gyri.prepare.provided_mask import check_pattern, mask_file, read_mask
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan
from gyri.prepare.survey import Session, read_session
from gyri.types import Channel

LAS = np.diag([-2.0, 2.0, 3.0, 1.0])
MASK = np.zeros((40, 44, 30), dtype=np.uint8)
MASK[8:30, 10:36, 6:26] = 1
MASK[8:12, 10:14, 6:10] = 0


def scan_file(folder: Path, name: str = "sub-01_ses-2_run-1_T1w.nii.gz") -> Session:
    """Write a head in noise, LAS, and return its session."""
    noise = np.random.default_rng(0).random(MASK.shape)
    i, j, k = np.indices(MASK.shape)
    head = ((i - 19) / 18) ** 2 + ((j - 22) / 20) ** 2 + ((k - 15) / 14) ** 2 < 1
    write_volume(folder / name, (noise + 50 * head).astype(np.float32), LAS, descrip="")
    return Session("01", "2", (str(folder / name),), (Channel("T1w"),))


def upright(session: Session) -> PreparedScan:
    return reorient(read_session(session), ReorientConfig())


@pytest.mark.parametrize("method", ["auto", "provided"])
def test_a_mask_beside_the_scan_is_found_and_turned_with_it(tmp_path: Path, method: str) -> None:
    session = scan_file(tmp_path)
    write_volume(tmp_path / "sub-01_ses-2_run-1_desc-brain_mask.nii.gz", MASK, LAS, descrip="")
    before = upright(session)
    after = brain_mask(before, BrainMaskConfig(method=method))  # type: ignore[arg-type]
    np.testing.assert_array_equal(after.foreground, MASK[::-1])
    np.testing.assert_array_equal(after.image[0], before.image[0] * MASK[::-1])
    facts = after.history[-1]
    assert facts["method"] == "provided"
    assert facts["brain_ml"] == pytest.approx(MASK.sum() * 12 / 1000, abs=0.05)


def test_a_mask_in_other_axes_is_the_same_mask(tmp_path: Path) -> None:
    session = scan_file(tmp_path)
    turned, affine = MASK[::-1, :, :].transpose(2, 0, 1), np.zeros((4, 4))
    affine[0, 1], affine[1, 2], affine[2, 0], affine[3, 3] = 2, 2, 3, 1
    affine[0, 3] = -2 * 39
    write_volume(tmp_path / "mask.nii", turned, affine, descrip="")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii", upright(session)), MASK[::-1])


def test_masks_are_found_by_a_pattern(tmp_path: Path) -> None:
    session = scan_file(tmp_path)
    pattern = str(tmp_path / "masks" / "{subject}-{session}" / "{stem}_brain.nii.gz")
    path = tmp_path / "masks" / "01-2" / "sub-01_ses-2_run-1_T1w_brain.nii.gz"
    assert mask_file(session, pattern) == path
    with pytest.raises(DataError, match="no such file"):
        brain_mask(upright(session), BrainMaskConfig(file=pattern))
    write_volume(path, MASK, LAS, descrip="")
    after = brain_mask(upright(session), BrainMaskConfig(file=pattern))
    np.testing.assert_array_equal(after.foreground, MASK[::-1])


def test_other_scans_masks_are_not_taken(tmp_path: Path) -> None:
    session = scan_file(tmp_path)
    for name in ("sub-01_ses-2_desc-brain_mask.nii.gz", "sub-01_ses-2_run-2_desc-brain_mask.nii"):
        write_volume(tmp_path / name, MASK, LAS, descrip="")
    assert mask_file(session, None) is None
    with pytest.raises(DataError, match="No mask is provided"):
        brain_mask(upright(session), BrainMaskConfig(method="provided"))


@pytest.mark.parametrize(
    ("mask", "affine"),
    [
        (MASK[:-1], LAS),
        (MASK, LAS + np.array([[0, 0, 0, 1.0], *[[0] * 4] * 3])),
        (MASK, np.diag([-2.0, 2.0, 3.1, 1.0])),
    ],
    ids=["cut", "moved", "stretched"],
)
def test_a_mask_on_another_grid_keeps_the_scan_out(
    tmp_path: Path, mask: np.ndarray, affine: np.ndarray
) -> None:
    session = scan_file(tmp_path)
    path = tmp_path / "sub-01_ses-2_run-1_desc-brain_mask.nii.gz"
    write_volume(path, mask, affine, descrip="")
    with pytest.raises(DataError, match="is not the scan"):
        brain_mask(upright(session), BrainMaskConfig())


def test_patterns_are_checked_before_any_work() -> None:
    check_pattern("/masks/{subject}/{session}/{stem}.nii.gz")
    with pytest.raises(UsageError, match=r"Did you mean 'subject'"):
        BrainMaskConfig(file="/masks/{subjct}.nii")
    with pytest.raises(UsageError, match="cannot be read"):
        check_pattern("/masks/{subject.nii")
    with pytest.raises(UsageError, match="give one of them"):
        BrainMaskConfig(file="/masks/{stem}.nii", channel="brain")
    with pytest.raises(UsageError, match="choose the method 'provided'"):
        BrainMaskConfig(method="template", channel="brain")
    with pytest.raises(UsageError, match="Did you mean 'synthstrip'"):
        BrainMaskConfig(method="synth-strip")  # type: ignore[arg-type]
