"""Volumes on their way into a BIDS data set, and what it calls their files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LABELS_FOLDER = Path("derivatives") / "labels"
CONTRAST_ENHANCED = {"T1c": ("ce-gadolinium", "T1w")}
"""Modalities that BIDS writes as an entity and a suffix."""


@dataclass
class Scan:
    """One volume on its way into a data set.

    Parameters
    ----------
    subject : label without ``sub-``.
    modality : ``T1w``, ``T1c``, ``T2w``, ``FLAIR``, ``PDw`` ..., or a label image's name.
    data : (I, J, K); None where there is a `file` or a `fault` instead.
    affine : (4, 4) voxel to world, millimetres.
    session : label without ``ses-``, "" where there is none.
    sidecar : content of the JSON file beside the volume.
    is_label : the voxels are integers with a meaning each (a segmentation).
    scale : integers in `data` times `scale` are the values.
    file : a volume that gyri wrote itself, copied as it is. A file from elsewhere never is: its
        header may name people.
    fault : why the volume cannot be used; it is not written but listed in the quarantine.
    """

    subject: str
    modality: str
    data: np.ndarray | None = None
    affine: np.ndarray | None = None
    session: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict)
    is_label: bool = False
    scale: float = 1.0
    file: Path | None = None
    fault: str = ""


def stem(subject: str, session: str = "") -> Path:
    """Return ``sub-X[/ses-Y]/anat/sub-X[_ses-Y]``: folder and beginning of a file's name."""
    folder = Path(f"sub-{subject}", *([f"ses-{session}"] if session else []), "anat")
    return folder / (f"sub-{subject}" + (f"_ses-{session}" if session else ""))


def scan_path(root: Path, scan: Scan) -> Path:
    """Return where a raw data set keeps `scan`; label images lie in ``derivatives/labels``."""
    base = stem(scan.subject, scan.session)
    if scan.is_label:
        desc = "" if scan.modality == "dseg" else f"_desc-{scan.modality}"
        return root / LABELS_FOLDER / f"{base}{desc}_dseg.nii.gz"
    entity, suffix = CONTRAST_ENHANCED.get(scan.modality, ("", scan.modality))
    return root / f"{base}{'_' if entity else ''}{entity}_{suffix}.nii.gz"
