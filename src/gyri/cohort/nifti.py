"""NIfTI files: read with suspicion, written the same bytes every time.

nibabel does not verify a gzip checksum, allocates what a header declares and keeps the free text
of the input's header. Here the header is checked before anything is allocated, a compressed
stream is read to its end, and files are written with a header of our own.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import nibabel as nib
import numpy as np

from gyri.cohort.header import (
    HEADER_BYTES,
    HEADER_SIZE,
    STORED,
    nifti_header,
    real_type,
    refuse_extensions,
    volume_affine,
    volume_shape,
)
from gyri.errors import DataError, FileFault

SLACK_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
MAX_RATIO = 1000
RATIO_FROM_BYTES = 1 << 26

NanRule = Literal["refuse", "zero"]
"""What becomes of voxels that are NaN or infinite."""


@dataclass(frozen=True)
class VolumeInfo:
    """What a file said beside its voxels.

    Parameters
    ----------
    scale : the stored integers times `scale` are the values; 1 where the array is scaled.
    orientation : axis codes, for example ``"LAS"``.
    notes : what was done to the file on reading (a trailing axis squeezed, ...), in sentences.
    """

    scale: float
    orientation: str
    notes: tuple[str, ...] = field(default=())


def read_volume(
    path: Path,
    *,
    stored: bool = False,
    nan: NanRule = "refuse",
    axes: str = "",
    constant: bool = False,
) -> tuple[np.ndarray, np.ndarray, VolumeInfo]:
    """Read one three-dimensional volume.

    Parameters
    ----------
    path : ``.nii`` or ``.nii.gz``.
    stored : return the integers as they lie in the file (`VolumeInfo.scale` gives the values)
        where the file holds integers and no offset; otherwise float32 values.
    nan : refuse a file with NaN or infinite voxels, or set these voxels to 0 and note it.
    axes : where the axes point, for example ``"LAS"``, in files whose header declares no
        orientation; "" refuses those.
    constant : take a volume whose voxels all have one value, as the labels of somebody without a
        lesion have.

    Returns
    -------
    tuple
        array (I, J, K), affine (4, 4) in millimetres, and what else is to be known.

    Raises
    ------
    FileFault
        Naming the file, the rule it breaks and the fix: no image, truncated, damaged (gzip
        checksum), not three-dimensional, too large, NaN or Inf, constant, no usable affine.
    """
    path = Path(path)
    data = _read_bytes(path)
    header = nifti_header(path, data)
    refuse_extensions(path, header, data)
    notes: list[str] = []
    shape = volume_shape(path, header, notes)
    affine = volume_affine(path, header, shape, notes, axes)
    array = _finite(path, _voxels(header, shape, data), nan, notes)
    values, scale = _scaled(path, header, array, stored, notes)
    if not constant:
        refuse_constant(path, values)
    orientation = "".join(nib.aff2axcodes(affine))
    return values, affine, VolumeInfo(scale, orientation, tuple(notes))


def refuse_constant(path: Path, array: np.ndarray) -> None:
    """Raise `FileFault` for a volume whose voxels all have one value."""
    if array.min() == array.max():
        raise FileFault(path, "all its voxels have the same value", "Leave it out or replace it.")


def _read_bytes(path: Path) -> bytes:
    """Return the decompressed file, never more than its header declares, checksum verified."""
    if not path.is_file():
        raise FileFault(path, "there is no such file", "Check the path.")
    with path.open("rb") as file:
        head = file.read(128)
        file.seek(0)
        if not head:
            raise FileFault(path, "the file is empty", "Copy or download it again.")
        compressed = head[:2] == b"\x1f\x8b"
        if compressed != (path.suffix == ".gz"):
            raise _misnamed(path, head)
        if not compressed:
            return _read_stream(path, file)
        try:
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                return _read_stream(path, stream)
        except EOFError:
            raise FileFault(path, "the file is truncated", "Copy or download it again.") from None
        except (OSError, zlib.error) as error:
            rule = f"the compressed data are damaged ({error})"
            raise FileFault(path, rule, "Copy or download it again.") from None


def _misnamed(path: Path, head: bytes) -> FileFault:
    """Return the fault of a file that is compressed and not named so, or the reverse."""
    if path.suffix != ".gz":
        rule = f"its name ends in {path.suffix} but it is {real_type(head)}"
        return FileFault(path, rule, "Rename it to .nii.gz.")
    if head[:4] in HEADER_SIZE:
        return FileFault(path, "it is named .gz but is not compressed", "Rename it to .nii.")
    return FileFault(path, f"no image: the file is {real_type(head)}", "Download it again.")


def _read_stream(path: Path, stream: IO[bytes] | gzip.GzipFile) -> bytes:
    head = stream.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise FileFault(
            path,
            f"no image: {len(head)} bytes are no NIfTI header; the file is {real_type(head)}",
            "Download it again.",
        )
    header = nifti_header(path, head)
    shape = volume_shape(path, header, [])
    count = int(np.prod(shape)) * header.get_data_dtype().itemsize
    expected = int(header["vox_offset"]) + count
    on_disk = path.stat().st_size
    if expected > max(MAX_RATIO * on_disk, RATIO_FROM_BYTES):
        raise FileFault(
            path,
            f"its {on_disk} bytes declare {expected} bytes of voxels, too many to be true",
            "Copy or download it again.",
        )
    parts, size = [head], len(head)
    while chunk := stream.read(CHUNK_BYTES):
        size += len(chunk)
        if size > expected + SLACK_BYTES:
            raise FileFault(
                path,
                f"it holds more than the {expected} bytes that its header declares",
                "Write it again with the program that made it.",
            )
        parts.append(chunk)
    if size < expected:
        raise FileFault(
            path, f"truncated: {size} bytes of {expected}", "Copy or download it again."
        )
    return b"".join(parts)


def _voxels(header: Any, shape: tuple[int, int, int], data: bytes) -> np.ndarray:
    kind, offset = header.get_data_dtype(), int(header["vox_offset"])
    array = np.frombuffer(data, dtype=kind, count=int(np.prod(shape)), offset=offset)
    return array.reshape(shape, order="F").astype(kind.newbyteorder("="), copy=False)


def _finite(path: Path, array: np.ndarray, nan: NanRule, notes: list[str]) -> np.ndarray:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array
    good = np.isfinite(array)
    bad = int((~good).sum())
    if nan == "refuse":
        raise FileFault(
            path,
            f"{bad} voxels are NaN or infinite",
            "Mask or repair them first, or have them set to 0 where the import offers nan=zero.",
        )
    notes.append("Voxels that were NaN or infinite are set to 0.")
    return np.where(good, array, 0)


def _scaled(
    path: Path, header: Any, array: np.ndarray, stored: bool, notes: list[str]
) -> tuple[np.ndarray, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        # NIfTI: a slope of 0 (nibabel writes NaN) means that the stored values are the values.
        notes.append("The header's scale is 0 or no number; the stored values are taken.")
        slope, inter = 1.0, 0.0
    if not np.isfinite(inter):
        raise FileFault(path, f"its header adds {inter} to every voxel", "Correct the header.")
    with np.errstate(over="ignore", invalid="ignore"):
        extremes = np.array([array.min(), array.max()], dtype=np.float64) * slope + inter
        if not np.isfinite(extremes.astype(np.float32)).all():
            raise FileFault(
                path, f"its scale {slope:g} takes voxels out of float32", "Correct the header."
            )
    if stored and array.dtype.kind in "iu" and inter == 0 and slope > 0:
        return array, slope
    return (array.astype(np.float64) * slope + inter).astype(np.float32), 1.0


def write_volume(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    descrip: str,
    dtype: str | None = None,
    scale: float = 1.0,
) -> None:
    """Write a volume with a minimal header; the same input gives the same bytes.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    path : ``.nii`` or ``.nii.gz``.
    array : (I, J, K).
    affine : (4, 4) voxel to world, millimetres.
    descrip : at most 79 ASCII characters for the header's description.
    dtype : type of the stored numbers; None keeps the array's (float64 becomes float32).
    scale : stored number x `scale` = value. An integer `array` is stored as it is; a float
        `array` holds values and is divided by `scale`, and rounded where `dtype` is an integer.

    Raises
    ------
    DataError
        A value does not fit `dtype`, or `array` is not three-dimensional.
    """
    path = Path(path)
    if array.ndim != 3:
        raise DataError(f"{path}: cannot write an array of shape {array.shape}; expected (I, J, K)")
    stored = _stored(path, array, dtype, scale)
    content = _header_bytes(stored, affine, descrip, scale) + stored.tobytes(order="F")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(_gzipped(content) if path.suffix == ".gz" else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _stored(path: Path, array: np.ndarray, dtype: str | None, scale: float) -> np.ndarray:
    default = "float32" if array.dtype.kind == "f" else array.dtype.name
    kind = np.dtype("uint8" if dtype is None and array.dtype == bool else dtype or default)
    if kind.name not in STORED:
        raise DataError(f"{path}: cannot store {kind}; expected one of {', '.join(STORED)}")
    if array.dtype.kind == "f" and scale != 1.0:
        array = array.astype(np.float64) / scale
    if kind.kind in "iu":
        array = np.rint(array) if array.dtype.kind == "f" else array
        limits = np.iinfo(kind)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise DataError(
                f"{path}: values {array.min():g} to {array.max():g} do not fit {kind}; "
                "choose a larger scale or another dtype"
            )
    return array.astype(kind.newbyteorder("<"))


def _header_bytes(stored: np.ndarray, affine: np.ndarray, descrip: str, scale: float) -> bytes:
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code=1)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header.set_qform(None, code=0)
        header["pixdim"][1:4] = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    header.set_sform(affine, code=1)
    header["descrip"] = descrip.encode("ascii", "replace")[:79]
    header["magic"] = b"n+1"
    header["vox_offset"] = HEADER_BYTES
    header["scl_slope"], header["scl_inter"] = scale, 0.0
    return bytes(header.binaryblock) + b"\x00" * 4


def _gzipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    # A file name or a time in the gzip header would make equal files differ.
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()
