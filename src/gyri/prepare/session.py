"""Take one session through the steps, or keep what an earlier run made of it."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gyri.cohort.files import read_json, write_json
from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import INT16_MAX, file_hash, prepared_path
from gyri.cohort.twins import voxel_hash
from gyri.errors import DataError, FileFault
from gyri.prepare.provided_mask import mask_file
from gyri.prepare.scan import PreparedScan, is_stripped
from gyri.prepare.steps import Steps, intensity_range, plain
from gyri.prepare.survey import Finding, Session, own_grids, read_session
from gyri.registry import STEPS

ROUNDING = 1e-5
CODE_VERSION = 3
"""Part of every preparation's key: raised when a step's result changes for the same settings."""


@dataclass(frozen=True)
class Done:
    """A prepared session, or what keeps it out.

    Parameters
    ----------
    shape, affine : its grid.
    files : relative name and SHA-256 of each file.
    voxels : hash of the raw voxels of each intensity channel, see `voxel_hash`.
    file, fault : the raw file that cannot be used and why; "" where all is well.
    """

    shape: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    voxels: tuple[str, ...] = ()
    file: str = ""
    fault: str = ""


def prepare_session(
    session: Session, finding: Finding, steps: Steps, out: Path, allow_faces: bool = False
) -> Done:
    """Take one session through the steps and write its volumes, or keep those that are there."""
    decides = {
        "version": CODE_VERSION,
        "allow_faces": allow_faces,
        "subject": session.subject,
        "session": session.session,
        "steps": plain(steps),
        "channels": [vars(channel) for channel in session.channels],
        "sources": finding.hashes,
        "mask": _mask_hash(session, steps),
    }
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    kept = _kept(session, key, out)
    if kept is not None:
        return kept
    try:
        scan: PreparedScan = read_session(session, apart="coregister" in steps)
        stripped = shows_brain_only(scan)
        if not (stripped or allow_faces or _removes_faces(steps)):
            raise DataError(
                "it shows a whole head, whose face can be recognised. Take the brain out of it "
                "with the step brain_mask (mask=True, --mask), or use it as it is with "
                "allow_faces=True (--allow-faces)."
            )
        # One scan in memory at a time, whatever the number of steps.
        scan = deque(through(scan, steps), maxlen=1).pop()
        about = {"SkullStripped": stripped or _strips(steps), "PreparationKey": key}
        return _written(session, finding, scan, intensity_range(steps), out, about)
    except FileFault as fault:
        return Done(file=str(fault.path), fault=str(fault))
    except DataError as error:
        return Done(file=session.files[0], fault=f"{session.files[0]}: {error}")


def through(scan: PreparedScan, steps: Steps) -> Iterator[PreparedScan]:
    """Yield the scan as it is before the steps, and after each."""
    yield scan
    for name, config in steps.items():
        scan = STEPS[name].component(scan, config)
        yield scan


def _written(
    session: Session,
    finding: Finding,
    scan: PreparedScan,
    limits: tuple[float, float],
    out: Path,
    about: Mapping[str, Any],
) -> Done:
    """Write each channel's volume and sidecar."""
    affine = tuple(tuple(row) for row in np.round(scan.affine, 6).tolist())
    grid = {"shape": list(scan.shape), "affine": [list(row) for row in affine]}
    files, voxels = [], []
    for index, channel in enumerate(session.channels):
        label = channel.kind == "label"
        values = scan.image[index] if label else _in_range(scan.image[index], limits)
        relative = prepared_path(session.subject, session.session, channel)
        path = out / relative
        write_volume(
            path, values, np.array(affine), descrip=f"gyri prepared {channel.name}",
            dtype="int16", scale=1.0 if label else max(map(abs, limits)) / INT16_MAX,
        )  # fmt: skip
        raw = voxel_hash(Path(session.files[index]))
        voxels += [] if label else [raw]
        digest = file_hash(path)
        files.append((str(relative), digest))
        sidecar = {
            "Sources": [f"bids:raw:{Path(session.files[index]).name}"],
            "SourceSha256": finding.hashes[index],
            "SourceVoxelSha256": raw,
            "Sha256": digest,
            **about,
            "Steps": list(scan.history),
            "Grid": grid,
        }
        write_json(path.with_suffix(".json"), sidecar)
    return Done(scan.shape, affine, tuple(files), tuple(voxels))


def _in_range(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Bring values from [0, 1] to the range of the files."""
    low, high = limits
    if values.min() < -ROUNDING or values.max() > 1 + ROUNDING:
        raise DataError(
            f"After all steps intensities run from {values.min():.3g} to {values.max():.3g}, "
            "expected 0 to 1. Put the step intensity after those that change brightness."
        )
    return low + (high - low) * np.clip(values, 0, 1)


def shows_brain_only(scan: PreparedScan) -> bool:
    """Say whether no channel shows a head; see `is_stripped`."""
    volumes = zip(own_grids(scan), scan.channels)
    return all(is_stripped(*volume) for volume, channel in volumes if channel.kind != "label")


def _strips(steps: Steps) -> bool:
    return "brain_mask" in steps and bool(steps["brain_mask"].apply)


def _mask_hash(session: Session, steps: Steps) -> str:
    """Return the hash of the mask that comes with the scan, "" where none is read."""
    config = steps.get("brain_mask")
    if config is None or config.method not in ("auto", "provided"):
        return ""
    mask = mask_file(session, config.file)
    return file_hash(mask) if mask is not None and mask.is_file() else ""


def _removes_faces(steps: Steps) -> bool:
    return _strips(steps) or "deface" in steps


def _kept(session: Session, key: str, out: Path) -> Done | None:
    """Return the session as it was prepared before, if that is still whole and the same."""
    files, grid, voxels = [], {}, []
    for channel in session.channels:
        relative = prepared_path(session.subject, session.session, channel)
        path = out / relative
        try:
            sidecar = read_json(path.with_suffix(".json"))
            whole = path.is_file() and file_hash(path) == sidecar["Sha256"]
            if not whole or sidecar["PreparationKey"] != key:
                return None
            grid = sidecar["Grid"]
            voxels += [] if channel.kind == "label" else [sidecar["SourceVoxelSha256"]]
        except (DataError, KeyError):
            return None
        files.append((str(relative), str(sidecar["Sha256"])))
    affine = tuple(map(tuple, grid["affine"]))
    return Done(tuple(grid["shape"]), affine, tuple(files), tuple(voxels))
