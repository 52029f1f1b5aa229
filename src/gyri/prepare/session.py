"""Take one session through the steps, or keep what an earlier run made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gyri.cohort.files import read_json, write_json
from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import INT16_MAX, file_hash, prepared_path
from gyri.errors import DataError
from gyri.prepare.scan import PreparedScan, is_stripped
from gyri.prepare.survey import Finding, Session, read_session
from gyri.registry import STEPS

INTENSITY_RANGE = (0.0, 1.0)
CODE_VERSION = 2
"""Part of every preparation's key: raised when a step's result changes for the same settings."""

Steps = Mapping[str, Any]
"""Registered step -> its config, in order."""


@dataclass(frozen=True)
class Done:
    """A prepared session: its grid and files, or the fault that keeps it out."""

    shape: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    fault: str = ""


def prepare_session(
    session: Session, finding: Finding, steps: Steps, out: Path, allow_faces: bool = False
) -> Done:
    """Take one session through the steps and write its volumes, or keep those that are there."""
    about = {
        "version": CODE_VERSION,
        "allow_faces": allow_faces,
        "subject": session.subject,
        "session": session.session,
        "steps": [{"step": name, **asdict(config)} for name, config in steps.items()],
        "channels": [vars(channel) for channel in session.channels],
        "sources": finding.hashes,
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    kept = _kept(session, key, out)
    if kept is not None:
        return kept
    try:
        scan = read_session(session)
        stripped = _is_stripped(scan)
        if not (stripped or allow_faces or _removes_faces(steps)):
            raise DataError(
                "it shows a whole head, whose face can be recognised. Take the brain out of it "
                "with the step brain_mask (mask=True, --mask), or use it as it is with "
                "allow_faces=True (--allow-faces)."
            )
        for name, config in steps.items():
            scan = STEPS[name].component(scan, config)
    except DataError as error:
        return Done(fault=f"{session.files[0]}: {error}")
    affine = tuple(tuple(row) for row in np.round(scan.affine, 6).tolist())
    files = []
    for index, channel in enumerate(session.channels):
        relative = prepared_path(session.subject, session.session, channel)
        path = out / relative
        label = channel.kind == "label"
        scale = 1.0 if label else max(map(abs, INTENSITY_RANGE)) / INT16_MAX
        write_volume(
            path, scan.image[index], np.array(affine), descrip=f"gyri prepared {channel.name}",
            dtype="int16", scale=scale,
        )  # fmt: skip
        digest = file_hash(path)
        files.append((str(relative), digest))
        sidecar = {
            "Sources": [f"bids:raw:{Path(session.files[index]).name}"],
            "SkullStripped": stripped or _strips(steps),
            "SourceSha256": finding.hashes[index],
            "Sha256": digest,
            "PreparationKey": key,
            "Steps": list(scan.history),
            "Grid": {"shape": list(scan.shape), "affine": [list(row) for row in affine]},
        }
        write_json(path.with_suffix(".json"), sidecar)
    return Done(scan.shape, affine, tuple(files))


def _is_stripped(scan: PreparedScan) -> bool:
    volumes = [v for v, channel in zip(scan.image, scan.channels) if channel.kind != "label"]
    return all(is_stripped(volume, scan.affine) for volume in volumes)


def _strips(steps: Steps) -> bool:
    return "brain_mask" in steps and bool(steps["brain_mask"].apply)


def _removes_faces(steps: Steps) -> bool:
    return _strips(steps) or "deface" in steps


def _kept(session: Session, key: str, out: Path) -> Done | None:
    """Return the session as it was prepared before, if that is still whole and the same."""
    files, grid = [], {}
    for channel in session.channels:
        relative = prepared_path(session.subject, session.session, channel)
        path = out / relative
        try:
            sidecar = read_json(path.with_suffix(".json"))
            whole = path.is_file() and file_hash(path) == sidecar["Sha256"]
            if not whole or sidecar["PreparationKey"] != key:
                return None
            grid = sidecar["Grid"]
        except (DataError, KeyError):
            return None
        files.append((str(relative), str(sidecar["Sha256"])))
    return Done(tuple(grid["shape"]), tuple(map(tuple, grid["affine"])), tuple(files))
