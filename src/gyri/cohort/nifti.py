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
from typing import IO, Any

import nibabel as nib
import numpy as np

from gyri.errors import DataError

MAX_AXIS = 1024
MAX_VOXELS = 2**28
SPACING_MM = (0.1, 10.0)
QFORM_TOLERANCE_MM = 1.0
HEADER_BYTES = 352
SLACK_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
MAX_RATIO = 1000
RATIO_FROM_BYTES = 1 << 26
STORED = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

_MAGIC = {
    b"\x1f\x8b": "a gzip file",
    b"PK": "a zip archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"\x89HDF": "an HDF5 or MINC file",
    b"NRRD": "an NRRD image",
}


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


def read_volume(path: Path, *, stored: bool = False) -> tuple[np.ndarray, np.ndarray, VolumeInfo]:
    """Read one three-dimensional volume.

    Parameters
    ----------
    path : ``.nii`` or ``.nii.gz``.
    stored : return the integers as they lie in the file (`VolumeInfo.scale` gives the values)
        where the file holds integers and no offset; otherwise float32 values.

    Returns
    -------
    tuple
        array (I, J, K), affine (4, 4) in millimetres, and what else is to be known.

    Raises
    ------
    DataError
        Naming the file, the rule it breaks and the fix: no image, truncated, damaged (gzip
        checksum), not three-dimensional, too large, NaN or Inf, constant, no usable affine.
    """
    path = Path(path)
    data = _read_bytes(path)
    header = _header(path, data)
    notes: list[str] = []
    shape = _shape(path, header, notes)
    affine = _affine(path, header, notes)
    array = _voxels(path, header, shape, data)
    values, scale = _scaled(path, header, array, stored)
    if values.min() == values.max():
        raise _fault(path, "all its voxels have the same value", "Leave it out or replace it.")
    orientation = "".join(nib.aff2axcodes(affine))
    return values, affine, VolumeInfo(scale, orientation, tuple(notes))


def _fault(path: Path, rule: str, fix: str) -> DataError:
    return DataError(f"{path}: {rule}. {fix}")


def _real_type(head: bytes) -> str:
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "a web page or XML file"
    if head and all(9 <= byte < 127 for byte in head):
        return "a text file"
    return "of a type that is not known"


def _read_bytes(path: Path) -> bytes:
    """Return the decompressed file, never more than its header declares, checksum verified."""
    if not path.is_file():
        raise _fault(path, "there is no such file", "Check the path.")
    with path.open("rb") as file:
        head = file.read(128)
        file.seek(0)
        if not head:
            raise _fault(path, "the file is empty", "Copy or download it again.")
        compressed = head[:2] == b"\x1f\x8b"
        if compressed != (path.suffix == ".gz"):
            rule = f"it is named {path.name!r} but is {_real_type(head)}"
            if compressed:
                raise _fault(path, rule, "Rename it to .nii.gz.")
            is_nifti = head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")
            if is_nifti:
                raise _fault(path, "it is named .gz but is not compressed", "Rename it to .nii.")
            raise _fault(path, f"no image: the file is {_real_type(head)}", "Download it again.")
        if not compressed:
            return _read_stream(path, file)
        try:
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                return _read_stream(path, stream)
        except EOFError:
            raise _fault(path, "the file is truncated", "Copy or download it again.") from None
        except (OSError, zlib.error) as error:
            rule = f"the compressed data are damaged ({error})"
            raise _fault(path, rule, "Copy or download it again.") from None


def _read_stream(path: Path, stream: IO[bytes] | gzip.GzipFile) -> bytes:
    head = stream.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise _fault(
            path,
            f"no image: {len(head)} bytes are no NIfTI header; the file is {_real_type(head)}",
            "Download it again.",
        )
    header = _header(path, head)
    shape = _shape(path, header, [])
    count = int(np.prod(shape)) * header.get_data_dtype().itemsize
    expected = int(header["vox_offset"]) + count
    on_disk = path.stat().st_size
    if expected > max(MAX_RATIO * on_disk, RATIO_FROM_BYTES):
        raise _fault(
            path,
            f"its {on_disk} bytes declare {expected} bytes of voxels, too many to be true",
            "Copy or download it again.",
        )
    parts, size = [head], len(head)
    while chunk := stream.read(CHUNK_BYTES):
        size += len(chunk)
        if size > expected + SLACK_BYTES:
            raise _fault(
                path,
                f"it holds more than the {expected} bytes that its header declares",
                "Write it again with the program that made it.",
            )
        parts.append(chunk)
    if size < expected:
        raise _fault(path, f"truncated: {size} bytes of {expected}", "Copy or download it again.")
    return b"".join(parts)


def _header(path: Path, data: bytes) -> Any:
    sizeof_hdr = data[:4]
    magic = data[344:348]
    if sizeof_hdr not in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c") or magic != b"n+1\x00":
        raise _fault(
            path,
            f"no image: expected NIfTI-1, the file is {_real_type(data[:128])}",
            "Convert it to NIfTI, or download it again.",
        )
    try:
        # nibabel guesses the byte order from the number of axes, which may be what is damaged.
        order = "<" if data[0] else ">"
        header = nib.Nifti1Header(data[: HEADER_BYTES - 4], endianness=order, check=False)
        kind = header.get_data_dtype()
    except Exception as error:
        raise _fault(path, f"its header is damaged ({error})", "Convert it again.") from None
    if kind.names or kind.kind == "c" or kind.newbyteorder("=").name not in STORED:
        raise _fault(
            path, f"its voxels are {kind}, expected one real number each", "Convert it again."
        )
    offset = float(header["vox_offset"])
    if not (HEADER_BYTES <= offset <= SLACK_BYTES and offset == int(offset)):
        raise _fault(path, f"its header places the voxels at byte {offset:g}", "Convert it again.")
    return header


def _shape(path: Path, header: Any, notes: list[str]) -> tuple[int, int, int]:
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise _fault(path, f"its header declares {rank} axes", "Convert it again.")
    shape = [int(n) for n in header["dim"][1 : rank + 1]]
    trailing = len(shape) > 3 and all(n == 1 for n in shape[3:])
    if trailing:
        notes.append(f"Squeezed {tuple(shape)} to {tuple(shape[:3])}.")
        shape = shape[:3]
    if len(shape) != 3:
        raise _fault(
            path,
            f"its shape is {tuple(shape)}, expected one three-dimensional volume",
            "Choose one volume of the series and save it alone.",
        )
    if any(n < 1 for n in shape):
        raise _fault(path, f"its shape is {tuple(shape)}", "Convert it again.")
    if max(shape) > MAX_AXIS or np.prod(shape, dtype=np.int64) > MAX_VOXELS:
        raise _fault(
            path,
            f"its shape {tuple(shape)} is beyond {MAX_AXIS} voxels an axis or {MAX_VOXELS} in all",
            "Crop or resample it first.",
        )
    return shape[0], shape[1], shape[2]


def _affine(path: Path, header: Any, notes: list[str]) -> np.ndarray:
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform == 0 and qform == 0:
        raise _fault(
            path,
            "its header does not say how voxels lie in space (sform and qform codes are 0)",
            "Set the orientation with the program that made it.",
        )
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception as error:
        raise _fault(path, f"its affine cannot be read ({error})", "Convert it again.") from None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise _fault(path, "its affine is singular or not finite", "Convert it again.")
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        raise _fault(
            path,
            f"its voxels measure {np.round(spacing, 4).tolist()} mm, expected 0.1 to 10",
            "Check the units of the header.",
        )
    if sform > 0 and qform > 0:
        _compare_forms(path, header, affine, notes)
    return affine


def _compare_forms(path: Path, header: Any, affine: np.ndarray, notes: list[str]) -> None:
    try:
        other = np.asarray(header.get_qform(), dtype=np.float64)
    except Exception:
        notes.append("The qform is unreadable; the sform is used.")
        return
    extent = np.array([int(n) - 1 for n in header["dim"][1:4]], dtype=np.float64)
    corners = np.array(list(np.ndindex(2, 2, 2))) * extent
    gap = np.linalg.norm(corners @ (affine - other)[:3, :3].T + (affine - other)[:3, 3], axis=1)
    if gap.max() > QFORM_TOLERANCE_MM:
        # Registered data often keep the scanner's qform: only equal codes contradict each other.
        if int(header["sform_code"]) == int(header["qform_code"]):
            raise _fault(
                path,
                f"its sform and qform place the corners {gap.max():.1f} mm apart",
                "Correct the header; it is not clear where the head lies.",
            )
        notes.append(f"sform and qform differ by {gap.max():.1f} mm; the sform is used.")


def _voxels(path: Path, header: Any, shape: tuple[int, int, int], data: bytes) -> np.ndarray:
    kind, offset = header.get_data_dtype(), int(header["vox_offset"])
    array = np.frombuffer(data, dtype=kind, count=int(np.prod(shape)), offset=offset)
    array = array.reshape(shape, order="F")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise _fault(path, f"{bad} voxels are NaN or infinite", "Mask or repair them first.")
    return array.astype(kind.newbyteorder("="), copy=False)


def _scaled(path: Path, header: Any, array: np.ndarray, stored: bool) -> tuple[np.ndarray, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        # NIfTI: a slope of 0 (nibabel writes NaN) means that the stored values are the values.
        slope, inter = 1.0, 0.0
    inter = inter if np.isfinite(inter) else 0.0
    if stored and array.dtype.kind in "iu" and inter == 0 and slope > 0:
        return array, slope
    with np.errstate(over="ignore", invalid="ignore"):
        values = (array.astype(np.float64) * slope + inter).astype(np.float32)
    if not np.isfinite(values).all():
        raise _fault(
            path, f"its scale {slope:g} takes voxels out of float32", "Correct the header."
        )
    return values, 1.0


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
