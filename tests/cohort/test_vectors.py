"""Vector images."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from gyri.cohort.vectors import read_vectors, write_vectors
from gyri.errors import DataError
from gyri.types import Grid

GRID = Grid((4, 5, 6), ((2.0, 0, 0, -3.0), (0, 3.0, 0, 1.0), (0, 0, 4.0, 7.0), (0, 0, 0, 1.0)))


@pytest.fixture
def field():
    return np.random.default_rng(0).normal(size=(3, *GRID.shape)).astype(np.float32)


def test_what_is_written_is_read_again_and_the_same_bytes(field, tmp_path):
    write_vectors(tmp_path / "a.nii.gz", field, GRID, "a field")
    write_vectors(tmp_path / "b.nii.gz", field, GRID, "a field")
    assert np.allclose(read_vectors(tmp_path / "a.nii.gz", GRID), field, atol=1e-6)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_itk_reads_vectors_in_millimetres_to_the_left_the_back_and_up(field, tmp_path):
    write_vectors(tmp_path / "a.nii.gz", field, GRID, "a field")
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert image.GetNumberOfComponentsPerPixel() == 3
    assert image.GetSize() == GRID.shape
    assert image.GetPixel(1, 2, 3) == pytest.approx(
        field[:, 1, 2, 3] * np.array([-2.0, -3.0, 4.0]), abs=1e-5
    )
    header = nib.load(tmp_path / "a.nii.gz").header
    assert header.get_intent()[0] == "vector"


def test_another_grid_is_refused(field, tmp_path):
    write_vectors(tmp_path / "a.nii.gz", field, GRID, "a field")
    other = Grid((4, 5, 7), GRID.affine)
    with pytest.raises(DataError, match="expected is"):
        read_vectors(tmp_path / "a.nii.gz", other)
    with pytest.raises(DataError, match="There is no field"):
        read_vectors(tmp_path / "none.nii.gz", GRID)
