"""Look at every scan once before any is prepared: is it sound, what grid, where is the brain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gyri.cohort.nifti import read_volume
from gyri.cohort.prepared import file_hash
from gyri.errors import DataError
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan, box_centre_mm, foreground
from gyri.types import Channel

SAME_GRID = 1e-3
VERSION = 2
"""Raised when the same files would be found to be something else."""


@dataclass(frozen=True)
class Session:
    """The files of one session that become one prepared scan.

    Parameters
    ----------
    subject, session : labels; session is "" where there is none.
    files : one path a channel, in the order of `channels`.
    channels : what they are.
    """

    subject: str
    session: str
    files: tuple[str, ...]
    channels: tuple[Channel, ...]

    @property
    def label(self) -> str:
        """``sub-X[ ses-Y]`` for messages."""
        return f"sub-{self.subject}" + (f" ses-{self.session}" if self.session else "")


@dataclass(frozen=True)
class Finding:
    """What the survey knows of one session.

    Parameters
    ----------
    hashes : SHA-256 of the session's files.
    shape, affine : the grid after reorientation.
    centre_mm : middle of the brain's bounding box in the world.
    max_label : largest label over the label channels.
    file, fault : the file that cannot be used and why; "" where all is well.
    """

    hashes: tuple[str, ...]
    shape: tuple[int, ...] = ()
    affine: tuple[tuple[float, ...], ...] = ()
    centre_mm: tuple[float, ...] = ()
    max_label: int = 0
    file: str = ""
    fault: str = ""


def read_session(session: Session) -> PreparedScan:
    """Read a session's files as one scan.

    Raises
    ------
    DataError
        A file cannot be used, or the files lie on different grids.
    """
    volumes: list[np.ndarray] = []
    first = np.eye(4)
    notes: list[str] = []
    for path, channel in zip(session.files, session.channels):
        volume, affine, info = read_volume(Path(path))
        notes += [f"{channel.name}: {note}" for note in info.notes]
        first = first if volumes else affine
        if volumes and not same_grid(volume.shape, affine, volumes[0].shape, first):
            raise DataError(
                f"{path}: its grid {volume.shape} is not that of {session.files[0]} "
                f"{volumes[0].shape}. Resample it onto that grid first."
            )
        if channel.kind == "label" and not np.array_equal(volume, np.rint(np.abs(volume))):
            raise DataError(f"{path}: labels must be integers from 0 on. Check the file.")
        volumes.append(volume.astype(np.float32))
    reference = next(i for i, channel in enumerate(session.channels) if channel.kind != "label")
    mask = foreground(volumes[reference], first).astype(np.float32)
    history = ({"step": "read", "notes": notes},) if notes else ()
    return PreparedScan(np.stack(volumes), session.channels, first, mask, history)


def same_grid(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other: np.ndarray
) -> bool:
    """Say whether two volumes lie on the same grid, to a thousandth of a millimetre."""
    return tuple(shape) == tuple(other_shape) and bool(np.allclose(affine, other, atol=SAME_GRID))


def survey_session(session: Session, known: Mapping[str, Finding]) -> Finding:
    """Return what is known of a session; files whose content was surveyed before are not reread."""
    for path in session.files:
        if not Path(path).is_file():
            return Finding((), file=path, fault=f"{path}: there is no such file.")
    hashes = tuple(file_hash(Path(path)) for path in session.files)
    before = known.get(session.label)
    if before is not None and before.hashes == hashes:
        return before
    try:
        scan = reorient(read_session(session), ReorientConfig())
    except DataError as error:
        named = [path for path in session.files if path in str(error)]
        return Finding(hashes, file=(named or list(session.files))[0], fault=str(error))
    labels = [i for i, channel in enumerate(session.channels) if channel.kind == "label"]
    return Finding(
        hashes=hashes,
        shape=scan.shape,
        affine=tuple(map(tuple, scan.affine.tolist())),
        centre_mm=tuple(box_centre_mm(scan.foreground > 0, scan.affine).tolist()),
        max_label=int(scan.image[labels].max()) if labels else 0,
    )


def common_centre(findings: Sequence[Finding]) -> tuple[float, float, float] | None:
    """Return the median brain centre where all sound scans share one grid, otherwise None."""
    sound = [finding for finding in findings if not finding.fault]
    if len(sound) < 2:
        return None
    shape, affine = sound[0].shape, np.array(sound[0].affine)
    if not all(same_grid(f.shape, np.array(f.affine), shape, affine) for f in sound[1:]):
        return None
    x, y, z = np.median([finding.centre_mm for finding in sound], axis=0).tolist()
    return x, y, z


def finding_line(label: str, finding: Finding) -> str:
    """Return one line of JSON on the session called `label`, for `read_findings`."""
    return json.dumps({"version": VERSION, "label": label, **asdict(finding)})


def read_findings(path: Path) -> dict[str, Finding]:
    """Read what an interrupted survey had found; half a line at the end is left out."""
    found: dict[str, Finding] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.pop("version", None) != VERSION:
            continue
        label = entry.pop("label")
        entry["affine"] = tuple(map(tuple, entry["affine"]))
        for key in ("hashes", "shape", "centre_mm"):
            entry[key] = tuple(entry[key])
        found[label] = Finding(**entry)
    return found
