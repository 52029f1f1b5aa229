"""Brain masks that somebody has made before."""

from __future__ import annotations

import string
from pathlib import Path

import nibabel as nib
import numpy as np

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError, FileFault, UsageError, nearest
from gyri.prepare.scan import PreparedScan
from gyri.prepare.survey import Session, same_grid

PLACEHOLDERS = ("subject", "session", "stem")
ENDINGS = (".nii.gz", ".nii")


def check_pattern(pattern: str) -> None:
    """Refuse a pattern of paths that cannot be filled in; raises `UsageError`."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise UsageError(f"The pattern {pattern!r} cannot be read: {error}.") from None
    for name in names:
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise UsageError(
                f"The pattern {pattern!r} asks for {{{name}}}.{nearest(name, PLACEHOLDERS)} "
                f"Known: {known}."
            )


def mask_file(session: Session, pattern: str | None) -> Path | None:
    """Return where a session's mask is: by the pattern, or beside its first intensity channel.

    Parameters
    ----------
    pattern : path with ``{subject}``, ``{session}``, ``{stem}``; None looks for
        ``<entities>_desc-brain_mask.nii[.gz]`` beside the scan, as BIDS derivatives are named.

    Returns
    -------
    pathlib.Path or None
        None where there is no pattern and no file beside the scan.
    """
    main = next(i for i, channel in enumerate(session.channels) if channel.kind != "label")
    scan = Path(session.files[main])
    stem = scan.name
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    if pattern is not None:
        return Path(
            pattern.format(subject=session.subject, session=session.session, stem=stem)
        ).expanduser()
    entities = stem.rpartition("_")[0]
    beside = [scan.with_name(f"{entities}_desc-brain_mask{ending}") for ending in ENDINGS]
    return next((path for path in beside if path.is_file()), None)


def read_mask(path: Path, scan: PreparedScan) -> np.ndarray:
    """Return a mask file's voxels (I, J, K) bool in the order of the scan's; not 0 is brain.

    Raises
    ------
    DataError
        There is no such file, it is damaged or empty, or it lies on another grid than the scan.
    """
    values, affine, _ = read_volume(path)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.io_orientation(scan.affine)
    )
    upright = nib.apply_orientation(values, turn)
    upright_affine = affine @ nib.orientations.inv_ornt_aff(turn, values.shape)
    if not same_grid(upright.shape, upright_affine, scan.shape, scan.affine):
        places = np.round(upright_affine, 3).tolist(), np.round(scan.affine, 3).tolist()
        raise FileFault(
            path,
            f"the brain mask's grid {upright.shape} with the affine {places[0]} is not the scan's "
            f"{scan.shape} with {places[1]}",
            "Resample it onto the scan, and put brain_mask right after reorient.",
        )
    if not (upright > 0).any():
        raise FileFault(path, "the brain mask is empty", "Replace it.")
    return np.asarray(upright > 0)


def mask_channel(scan: PreparedScan, name: str) -> np.ndarray:
    """Return the mask (I, J, K) bool that a label channel holds; not 0 is brain.

    Raises
    ------
    DataError
        There is no such channel, or it is empty.
    """
    labels = {c.name: i for i, c in enumerate(scan.channels) if c.kind == "label"}
    if name not in labels:
        raise DataError(
            f"There is no label channel {name!r} to take the brain mask from; the scan has "
            f"{', '.join(channel.name for channel in scan.channels)}. Add it to the channels."
        )
    mask = scan.image[labels[name]] > 0
    if not mask.any():
        raise DataError(f"The brain mask in channel {name!r} is empty. Replace it.")
    return np.asarray(mask)
