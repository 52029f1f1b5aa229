"""One person under two labels: volumes with the same voxels, however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError

Item = TypeVar("Item")


def voxel_hash(path: Path) -> str:
    """Return a hash of a volume's values in RAS order; of an unreadable file's bytes.

    Compression, number type, scale and the order of the axes make no difference.
    """
    try:
        values, affine, _ = read_volume(path)
    except DataError:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    ras = nib.orientations.apply_orientation(values, nib.orientations.io_orientation(affine))
    content = np.ascontiguousarray(ras, dtype=np.float32).tobytes()
    return hashlib.sha256(str(ras.shape).encode() + content).hexdigest()


def twins(scans: Iterable[tuple[str, str, Item]]) -> list[tuple[Item, Item]]:
    """Return pairs of scans with the same voxels under different labels.

    Parameters
    ----------
    scans : label, `voxel_hash` and what to name in the pair; label images do not belong here, two
        may well be equal.
    """
    seen: dict[str, tuple[str, Item]] = {}
    pairs = []
    for label, voxels, item in scans:
        first_label, first = seen.setdefault(voxels, (label, item))
        if first_label != label:
            pairs.append((first, item))
    return pairs
