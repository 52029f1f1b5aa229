"""Analyze 7.5 and two-file NIfTI: a header (``.hdr``) beside its voxels (``.img``).

Analyze says nothing dependable about how voxels lie in space: its ``orient`` byte is left at 0 by
most programs and says nothing of left and right. Who knows the data set says it instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1PairHeader

from gyri.cohort.header import (
    HEADER_SIZE,
    centred_affine,
    refuse_kind,
    refuse_spacing,
    volume_affine,
    volume_shape,
)
from gyri.cohort.nifti import VolumeInfo, refuse_constant
from gyri.errors import FileFault

ANALYZE_BYTES = 348
NIFTI_PAIR = b"ni1\x00"


def read_pair(
    path: Path, *, axes: str, constant: bool = False
) -> tuple[np.ndarray, np.ndarray, VolumeInfo]:
    """Read the stored voxels of a header and image pair.

    Parameters
    ----------
    path : the ``.hdr`` or the ``.img``.
    axes : where the stored axes point, for example ``"LAS"``: the first from right to left, the
        second to anterior, the third to superior. A NIfTI header that declares its own
        orientation is believed instead.
    constant : take a volume whose voxels all have one value.

    Returns
    -------
    tuple
        array (I, J, K), affine (4, 4) in millimetres, and what else is to be known. Without a
        declared orientation the world's origin is the centre of the volume.

    Raises
    ------
    FileFault
        Naming the file, the rule it breaks and the fix: a half of the pair is missing, no header,
        not three-dimensional, too large, another number of voxels than declared, NaN or Inf,
        constant.
    """
    header_path, image_path = path.with_suffix(".hdr"), path.with_suffix(".img")
    for half in (header_path, image_path):
        if not half.is_file():
            raise FileFault(
                half, "this half of the pair is missing", "Copy .hdr and .img together."
            )
    header = _header(header_path)
    notes: list[str] = []
    shape = volume_shape(header_path, header, notes)
    array = _voxels(image_path, header, shape)
    if not constant:
        refuse_constant(image_path, array)
    declared = bytes(header["magic"]) if "magic" in header.keys() else b""  # noqa: SIM118
    codes = [int(header[key]) for key in ("sform_code", "qform_code")] if declared else [0, 0]
    if any(codes):
        affine = volume_affine(header_path, header, shape, notes)
    else:
        affine = centred_affine(shape, _spacing(header_path, header), axes)
        notes.append(f"The header declares no orientation; {axes} is assumed.")
    return array, affine, VolumeInfo(1.0, "".join(nib.aff2axcodes(affine)), tuple(notes))


def _header(path: Path) -> Any:
    with path.open("rb") as file:
        data = file.read(ANALYZE_BYTES)
    if len(data) < ANALYZE_BYTES or data[:4] not in HEADER_SIZE:
        raise FileFault(path, f"no Analyze header in its {len(data)} bytes", "Copy it again.")
    kind: Any = Nifti1PairHeader if data[344:348] == NIFTI_PAIR else nib.AnalyzeHeader
    try:
        header = kind(data, endianness="<" if data[0] else ">", check=False)
        voxel = header.get_data_dtype()
    except Exception as error:
        raise FileFault(path, f"its header is damaged ({error})", "Copy it again.") from None
    refuse_kind(path, voxel)
    return header


def _spacing(path: Path, header: Any) -> tuple[float, float, float]:
    spacing = [abs(float(size)) for size in header["pixdim"][1:4]]
    refuse_spacing(path, spacing)
    return spacing[0], spacing[1], spacing[2]


def _voxels(path: Path, header: Any, shape: tuple[int, int, int]) -> np.ndarray:
    kind = header.get_data_dtype()
    offset = max(int(header["vox_offset"]), 0)
    expected = offset + int(np.prod(shape)) * kind.itemsize
    size = path.stat().st_size
    if size != expected:
        raise FileFault(
            path, f"{size} bytes, its header declares {expected}", "Copy or download it again."
        )
    array = np.fromfile(path, dtype=kind, offset=offset).reshape(shape, order="F")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileFault(path, "it holds NaN or infinite voxels", "Mask or repair them first.")
    return array.astype(kind.newbyteorder("="), copy=False)
