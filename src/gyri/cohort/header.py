"""What the header of a NIfTI or Analyze file says, believed only where it can be true.

nibabel allocates what a header declares. Here every field that a reader follows is checked first,
so that a damaged or hostile header costs no memory and places no voxel wrongly in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from gyri.errors import FileFault, UsageError

MAX_AXIS = 1024
MAX_VOXELS = 2**28
SPACING_MM = (0.1, 10.0)
FORMS_TOLERANCE_MM = 1.0
HEADER_BYTES = 352
MAX_OFFSET = 1 << 20
SMALLEST_EXTENSION = 8
STORED = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
HEADER_SIZE = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")
"""The first four bytes of NIfTI-1 and Analyze: 348, in either byte order."""

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


def real_type(head: bytes) -> str:
    """Say what a file is, judged by its first bytes."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "a web page or XML file"
    if head and all(9 <= byte < 127 for byte in head):
        return "a text file"
    return "of a type that is not known"


def nifti_header(path: Path, head: bytes) -> Any:
    """Return the header in a NIfTI-1 file's first 352 bytes.

    Raises
    ------
    FileFault
        No NIfTI-1, voxels that are not one real number each, or voxels placed outside the file.
    """
    if head[:4] not in HEADER_SIZE or head[344:348] != b"n+1\x00":
        raise FileFault(
            path,
            f"no image: expected NIfTI-1, the file is {real_type(head[:128])}",
            "Convert it to NIfTI, or download it again.",
        )
    try:
        # nibabel guesses the byte order from the number of axes, which may be what is damaged.
        order = "<" if head[0] else ">"
        header = nib.Nifti1Header(head[: HEADER_BYTES - 4], endianness=order, check=False)
        kind = header.get_data_dtype()
    except Exception as error:
        raise FileFault(path, f"its header is damaged ({error})", "Convert it again.") from None
    refuse_kind(path, kind)
    offset = float(header["vox_offset"])
    if not (HEADER_BYTES <= offset <= MAX_OFFSET and offset == int(offset)):
        raise FileFault(
            path, f"its header places the voxels at byte {offset:g}", "Convert it again."
        )
    return header


def refuse_kind(path: Path, kind: np.dtype) -> None:
    """Raise `FileFault` for voxels that are colours, complex, or no numbers."""
    if kind.names or kind.newbyteorder("=").name not in STORED:
        raise FileFault(
            path, f"its voxels are {kind}, expected one real number each", "Convert it again."
        )


def refuse_extensions(path: Path, header: Any, content: bytes) -> None:
    """Raise `FileFault` where the header's extensions do not lead from one to the next.

    Parameters
    ----------
    content : the file from its beginning, at least up to its voxels.
    """
    place, stop = HEADER_BYTES, int(header["vox_offset"])
    if not content[HEADER_BYTES - 4]:
        return
    order = "little" if header.endianness == "<" else "big"
    while place < stop:
        size = int.from_bytes(content[place : place + 4], order, signed=True)  # type: ignore[arg-type]
        if not SMALLEST_EXTENSION <= size <= stop - place:
            raise FileFault(
                path,
                f"its header has an extension of {size} bytes where {stop - place} are left",
                "Convert it again.",
            )
        place += size


def volume_shape(path: Path, header: Any, notes: list[str]) -> tuple[int, int, int]:
    """Return (I, J, K); trailing axes of length 1 are left out and noted.

    Raises
    ------
    FileFault
        Not three-dimensional, an axis without voxels, or more voxels than a scan can have.
    """
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise FileFault(path, f"its header declares {rank} axes", "Convert it again.")
    shape = [int(n) for n in header["dim"][1 : rank + 1]]
    trailing = len(shape) > 3 and all(n == 1 for n in shape[3:])
    if trailing:
        notes.append(f"Squeezed {tuple(shape)} to {tuple(shape[:3])}.")
        shape = shape[:3]
    if len(shape) != 3:
        raise FileFault(
            path,
            f"its shape is {tuple(shape)}, expected one three-dimensional volume",
            "Choose one volume of the series and save it alone.",
        )
    if any(n < 1 for n in shape):
        raise FileFault(path, f"its shape is {tuple(shape)}", "Convert it again.")
    if max(shape) > MAX_AXIS or np.prod(shape, dtype=np.int64) > MAX_VOXELS:
        raise FileFault(
            path,
            f"its shape {tuple(shape)} is beyond {MAX_AXIS} voxels an axis or {MAX_VOXELS} in all",
            "Crop or resample it first.",
        )
    return shape[0], shape[1], shape[2]


def volume_affine(
    path: Path, header: Any, shape: tuple[int, int, int], notes: list[str], axes: str = ""
) -> np.ndarray:
    """Return the affine (4, 4) from voxels to the world in millimetres.

    Parameters
    ----------
    axes : where the axes point, for example ``"LAS"``, if the header declares no orientation; ""
        refuses such a header.

    Raises
    ------
    FileFault
        No orientation, an affine that is singular or not finite, voxels outside 0.1 to 10 mm, or
        two affines of one space that contradict each other.
    """
    refuse_spacing(path, header["pixdim"][1:4])
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform == 0 and qform == 0:
        if axes:
            notes.append(f"The header declares no orientation; {axes} is assumed.")
            i, j, k = header["pixdim"][1:4].astype(float).tolist()
            return centred_affine(shape, (i, j, k), axes)
        raise FileFault(
            path,
            "its header does not say how voxels lie in space (sform and qform codes are 0)",
            "Set the orientation with the program that made it.",
        )
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception as error:
        raise FileFault(path, f"its affine cannot be read ({error})", "Convert it again.") from None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise FileFault(path, "its affine is singular or not finite", "Convert it again.")
    refuse_spacing(path, np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    if sform > 0 and qform > 0:
        _compare_forms(path, header, affine, notes)
    return affine


def refuse_spacing(path: Path, spacing_mm: Sequence[float] | np.ndarray) -> None:
    """Raise `FileFault` for voxels that do not measure 0.1 to 10 mm along every axis."""
    if not all(SPACING_MM[0] <= size <= SPACING_MM[1] for size in spacing_mm):
        sizes = [round(float(size), 4) for size in spacing_mm]
        raise FileFault(
            path,
            f"its voxels measure {sizes} mm, expected {SPACING_MM[0]:g} to {SPACING_MM[1]:g}",
            "Check the units of the header.",
        )


def centred_affine(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], axes: str
) -> np.ndarray:
    """Return the affine (4, 4) whose axes point as `axes` says, its origin at the centre.

    Examples
    --------
    >>> centred_affine((3, 3, 3), (1.0, 1.0, 2.0), "LAS")[0].tolist()
    [-1.0, 0.0, 0.0, 1.0]
    """
    if sorted(axes.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
        raise UsageError(f"axes are {axes!r}; expected three letters like RAS, LAS or ASL.")
    ornt = nib.orientations.axcodes2ornt(tuple(axes))
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(ornt):
        affine[int(world), axis] = sign * spacing_mm[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
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
    if gap.max() > FORMS_TOLERANCE_MM:
        # Registered data often keep the scanner's qform: only equal codes contradict each other.
        if int(header["sform_code"]) == int(header["qform_code"]):
            raise FileFault(
                path,
                f"its sform and qform place the corners {gap.max():.1f} mm apart",
                "Correct the header; it is not clear where the head lies.",
            )
        notes.append(f"sform and qform differ by {gap.max():.1f} mm; the sform is used.")
