"""Rows 10 to 27: headers that cannot be true, and voxels that cannot be used."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.cohort.small import AFFINE, SHAPE, brain, small_cohort
from tests.faults.bench import (
    accepted,
    good_bytes,
    patched,
    rule_for,
    rule_for_bytes,
    volume_path,
)
from tests.faults.test_files import memory_below

from gyri.cohort.bids import Scan
from gyri.cohort.laterality import mirror_warnings, mirrored
from gyri.cohort.nifti import read_volume
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import FileFault
from gyri.prepare.pipeline import prepare

DIM, KIND, PIXDIM, OFFSET, SLOPE, INTER = 40, 70, 80, 108, 112, 116
QFORM_CODE, SFORM_CODE, SROW_X, MAGIC, EXTENDER = 252, 254, 280, 344, 348
GRID = {"spacing_mm": 8.0, "shape": (20, 24, 20), "jobs": 1}
NAN, INF = float("nan"), float("inf")


def image_bytes(data: np.ndarray, affine: np.ndarray = AFFINE) -> bytes:
    return nib.Nifti1Image(data, affine).to_bytes()


def holed(value: float) -> np.ndarray:
    data = brain(3)
    data[4, 5, 6] = value
    return data


def test_row_10_negative_dimension(tmp_path: Path) -> None:
    content = patched(good_bytes(), DIM, "4h", 3, -22, 26, 22)
    assert "its shape is (-22, 26, 22)" in rule_for_bytes(tmp_path, content)


def test_row_11_zero_dimension(tmp_path: Path) -> None:
    content = patched(good_bytes(), DIM, "4h", 3, 22, 0, 22)
    assert "its shape is (22, 0, 22)" in rule_for_bytes(tmp_path, content)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "rule"),
    [(DIM, "h", 9, "declares 9 axes"), (MAGIC, "4s", b"n+9\0", "expected NIfTI-1")],
)
def test_row_12_nine_axes_or_bad_magic(
    tmp_path: Path, offset: int, layout: str, value: object, rule: str
) -> None:
    assert rule in rule_for_bytes(tmp_path, patched(good_bytes(), offset, layout, value))


@pytest.mark.parametrize("place", [10.0, 1e9, NAN, -352.0])
def test_row_13_voxels_placed_outside_the_file(tmp_path: Path, place: float) -> None:
    rule = rule_for_bytes(tmp_path, patched(good_bytes(), OFFSET, "f", place))
    assert "places the voxels at byte" in rule


@pytest.mark.parametrize("size", [0, -16, 2**31 - 1])
@pytest.mark.parametrize("name", ["bad.nii", "bad.nii.gz"])
def test_row_14_extension_of_impossible_size(tmp_path: Path, size: int, name: str) -> None:
    content = good_bytes()
    extension = struct.pack("<2i", size, 6) + b"comment!"
    head = patched(content[:352], OFFSET, "f", 352.0 + len(extension))
    content = patched(head, EXTENDER, "4B", 1, 0, 0, 0) + extension + content[352:]
    assert f"an extension of {size} bytes" in rule_for_bytes(tmp_path, content, name)
    with memory_below(2), pytest.raises(FileFault):
        read_volume(tmp_path / "src" / name)


@pytest.mark.parametrize("value", [NAN, INF])
def test_row_15_voxels_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    assert "1 voxels are NaN or infinite" in rule_for_bytes(tmp_path, image_bytes(holed(value)))


def test_row_15_such_voxels_become_zero_only_when_asked(tmp_path: Path) -> None:
    cohort = accepted(tmp_path, image_bytes(holed(NAN)), nan="zero")
    values, _, _ = read_volume(volume_path(cohort))
    np.testing.assert_array_equal(values, holed(0))
    assert any("NaN or infinite are set to 0. (1 files)" in note for note in cohort.notes)


@pytest.mark.parametrize("value", [0, 7])
def test_row_16_constant_volume(tmp_path: Path, value: int) -> None:
    rule = rule_for_bytes(tmp_path, image_bytes(np.full(SHAPE, value, np.int16)))
    assert "all its voxels have the same value" in rule


def test_row_17_affine_of_nan(tmp_path: Path) -> None:
    rule = rule_for_bytes(tmp_path, patched(good_bytes(), SROW_X, "4f", NAN, 0, 0, 0))
    assert "singular or not finite" in rule


def test_row_18_singular_affine(tmp_path: Path) -> None:
    rule = rule_for_bytes(tmp_path, patched(good_bytes(), SROW_X, "4f", 0, 0, 0, 0))
    assert "singular or not finite" in rule


def forms_apart(gap_mm: float, qform_code: int) -> bytes:
    moved = AFFINE.copy()
    moved[0, 3] += gap_mm
    image = nib.Nifti1Image(brain(3), AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(moved, code=qform_code)
    return image.to_bytes()


def test_row_19_two_affines_of_one_space_that_contradict(tmp_path: Path) -> None:
    assert "5.0 mm apart" in rule_for_bytes(tmp_path, forms_apart(5, qform_code=1))


@pytest.mark.parametrize(("gap_mm", "code", "said"), [(0.5, 1, False), (5, 2, True)])
def test_row_19_the_sform_is_used_where_both_may_be_right(
    tmp_path: Path, gap_mm: float, code: int, said: bool
) -> None:
    # Registration keeps the scanner's qform beside an sform of another space: no contradiction.
    cohort = accepted(tmp_path, forms_apart(gap_mm, code))
    np.testing.assert_allclose(read_volume(volume_path(cohort))[1], AFFINE)
    assert any("the sform is used" in note for note in cohort.notes) == said


def test_row_20_no_orientation_unless_declared(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    content = patched(good_bytes(), QFORM_CODE, "2h", 0, 0)
    assert "does not say how voxels lie" in rule_for_bytes(tmp_path / "a", content)
    cohort = accepted(tmp_path / "b", content, axes="LAS")
    affine = read_volume(volume_path(cohort))[1]
    np.testing.assert_allclose(affine[:3, :3], np.diag([-8.0, 8, 8]))
    assert any("LAS is assumed" in note for note in cohort.notes)


@pytest.mark.parametrize("size", [0.0, -8.0, NAN, 100.0])
@pytest.mark.parametrize("from_qform", [False, True])
def test_row_21_voxel_sizes_that_cannot_be(tmp_path: Path, size: float, from_qform: bool) -> None:
    content = patched(good_bytes(), PIXDIM, "f", size)
    if from_qform:
        content = patched(content, QFORM_CODE, "2h", 1, 0)
    assert "its voxels measure" in rule_for_bytes(tmp_path, content)


@pytest.mark.parametrize("slope", [0.0, INF, NAN])
def test_row_22_a_slope_that_scales_nothing(tmp_path: Path, slope: float) -> None:
    cohort = accepted(tmp_path, patched(good_bytes(3), SLOPE, "2f", slope, 0))
    np.testing.assert_array_equal(read_volume(volume_path(cohort))[0], np.rint(brain(3)))
    assert any("the stored values are taken" in note for note in cohort.notes)


@pytest.mark.parametrize("inter", [NAN, INF])
def test_row_22_an_offset_that_is_no_number(tmp_path: Path, inter: float) -> None:
    rule = rule_for_bytes(tmp_path, patched(good_bytes(), SLOPE, "2f", 1, inter))
    assert "to every voxel" in rule


def test_row_23_a_slope_that_overflows(tmp_path: Path) -> None:
    rule = rule_for_bytes(tmp_path, patched(good_bytes(), SLOPE, "2f", 1e38, 0))
    assert "out of float32" in rule


RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (image_bytes(brain(3).astype(np.complex64)), "expected one real number each"),
        (image_bytes(RGB), "expected one real number each"),
        (patched(good_bytes(), KIND, "h", 4242), "header is damaged"),
        (patched(good_bytes(), KIND, "h", 1), "expected one real number each"),
    ],
    ids=["complex", "rgb", "unknown", "binary"],
)
def test_row_24_voxels_of_another_kind(tmp_path: Path, content: bytes, rule: str) -> None:
    assert rule in rule_for_bytes(tmp_path, content)


def test_row_25_a_series_is_no_volume(tmp_path: Path) -> None:
    series = np.stack([brain(n) for n in range(3)], axis=-1)
    assert "its shape is (22, 26, 22, 3)" in rule_for_bytes(tmp_path, image_bytes(series))


def test_row_25_a_trailing_axis_of_one_is_squeezed_and_said(tmp_path: Path) -> None:
    cohort = accepted(tmp_path, image_bytes(brain(3)[..., None]))
    assert any("Squeezed (22, 26, 22, 1)" in note for note in cohort.notes)


def lpi(root: Path) -> PreparedCohort:
    """Prepare three LAS scans, the middle one stored as LPI: the same voxels in another order."""
    affine = AFFINE.copy()
    affine[1:3] *= -1
    affine[1:3, 3] = [AFFINE[axis, 3] + (SHAPE[axis] - 1) * AFFINE[axis, axis] for axis in (1, 2)]
    turned = Scan("S001", "T1w", brain(1)[:, ::-1, ::-1], affine)
    small_cohort(root / "raw", 3, {"S001": turned})
    return prepare(root / "raw", root / "out", **GRID)


def test_row_26_other_orientations_are_turned_and_logged(tmp_path: Path) -> None:
    cohort = lpi(tmp_path)
    straight = small_cohort(tmp_path / "straight", 3)
    expected = prepare(straight.root, tmp_path / "expected", **GRID)
    np.testing.assert_array_equal(cohort.load(cohort.table)[0], expected.load(expected.table)[0])
    for subject, stored in (("S000", "LAS"), ("S001", "LPI")):
        path = cohort.path(subject, "", cohort.channels[0])
        assert nib.aff2axcodes(nib.load(path).affine) == ("R", "A", "S")
        assert json.loads(path.with_suffix(".json").read_text())["Steps"][0]["from"] == stored


def test_row_27_mirrored_voxels_are_noticed_by_their_asymmetry(tmp_path: Path) -> None:
    # The header is as it was: nothing but the voxels says that left and right are swapped.
    wrong = {"S003": Scan("S003", "T1w", brain(3)[::-1], AFFINE)}
    small_cohort(tmp_path / "raw", 12, wrong)
    cohort = prepare(tmp_path / "raw", tmp_path / "out", **GRID)
    assert mirrored(cohort) == ["sub-S003"]
    assert "1 of 12 scans may be mirrored" in mirror_warnings(cohort)[0]


def test_row_27_a_sound_cohort_is_not_suspected(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 12)
    assert mirror_warnings(prepare(tmp_path / "raw", tmp_path / "out", **GRID)) == []


def test_a_file_that_is_gone_is_listed(tmp_path: Path) -> None:
    rule = rule_for(tmp_path, "bad.nii.gz", lambda path: path.mkdir())
    assert "there is no such file" in rule
