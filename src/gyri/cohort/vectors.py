"""Displacement and velocity fields as NIfTI vector images that ITK's tools apply.

A file holds (I, J, K, 1, 3) float32 with NIFTI_INTENT_VECTOR, the components in millimetres along
ITK's axes, which run to the left, to the back and up where gyri's run to the right, to the front
and up. ``antsApplyTransforms`` and SimpleITK's `DisplacementFieldTransform` read it as it is.
"""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import nibabel as nib
import numpy as np

from gyri.errors import DataError
from gyri.types import Grid

VECTOR = 1007
"""NIFTI_INTENT_VECTOR."""
TO_ITK = np.array([-1.0, -1.0, 1.0])


def write_vectors(path: Path, field: np.ndarray, grid: Grid, descrip: str) -> None:
    """Write a field; the same field gives the same bytes.

    Parameters
    ----------
    path : ``.nii.gz``.
    field : (3, I, J, K) in voxels of `grid`, components along its axes.
    grid : the field's.
    descrip : at most 79 ASCII characters for the header.
    """
    vectors = np.moveaxis(field, 0, -1) * np.array(grid.spacing_mm) * TO_ITK
    image = nib.Nifti1Image(vectors[:, :, :, None].astype(np.float32), np.array(grid.affine))
    image.header.set_xyzt_units("mm")
    image.header.set_intent(VECTOR)
    image.header["descrip"] = descrip.encode("ascii", "replace")[:79]
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(image.to_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_vectors(path: Path, grid: Grid) -> np.ndarray:
    """Return the field (3, I, J, K) of a file, in voxels of `grid`.

    Raises
    ------
    DataError
        If the file is no vector image on `grid`.
    """
    if not path.is_file():
        raise DataError(f"There is no field {path}.")
    image = nib.Nifti1Image.from_filename(path)
    if image.shape != (*grid.shape, 1, 3) or not np.allclose(image.affine, grid.affine, atol=1e-3):
        raise DataError(
            f"{path} has the shape {image.shape} and expected is {(*grid.shape, 1, 3)} on the "
            "cohort's grid. Write it with `gyri register` for this cohort."
        )
    vectors = np.asarray(image.dataobj, np.float32)[:, :, :, 0]
    return np.moveaxis(vectors * TO_ITK / np.array(grid.spacing_mm), -1, 0).astype(np.float32)
