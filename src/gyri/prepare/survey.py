"""Look at every scan once before any is prepared: is it sound, what grid, where is the brain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from gyri.cohort.nifti import read_volume
from gyri.cohort.prepared import file_hash
from gyri.errors import DataError, FileFault
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan, box_centre_mm, foreground
from gyri.types import Channel

SAME_GRID = 1e-3
VERSION = 3
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

    @property
    def num_bytes(self) -> int:
        """Size of the files that are there."""
        return sum(Path(path).stat().st_size for path in self.files if Path(path).is_file())


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


@dataclass(frozen=True)
class Apart:
    """A channel that lies on a grid of its own until `coregister` brings it to the others.

    Parameters
    ----------
    index : of the channel, whose image is 0 in the scan as yet.
    volume : (I, J, K) float32.
    affine : (4, 4) voxel to world, millimetres.
    """

    index: int
    volume: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class SessionScan(PreparedScan):
    """A scan that was read from files.

    Parameters
    ----------
    source : the session and its files.
    apart : channels on other grids than the scan's.
    """

    source: Session = field(kw_only=True)
    apart: tuple[Apart, ...] = ()


def read_session(session: Session, *, apart: bool = False) -> PreparedScan:
    """Read a session's files as one `SessionScan`, on the grid of the first intensity channel.

    Parameters
    ----------
    apart : let channels lie on other grids; the step `coregister` must follow.

    Raises
    ------
    DataError
        A file cannot be used, or the files lie on different grids and are not `apart`.
    """
    volumes: list[np.ndarray] = []
    affines: list[np.ndarray] = []
    notes: list[str] = []
    for path, channel in zip(session.files, session.channels):
        volume, affine, info = read_volume(Path(path), constant=channel.kind == "label")
        notes += [f"{channel.name}: {note}" for note in info.notes]
        if channel.kind == "label" and not np.array_equal(volume, np.rint(np.abs(volume))):
            raise FileFault(Path(path), "labels must be integers from 0 on", "Check the file.")
        volumes.append(volume.astype(np.float32))
        affines.append(affine)
    main = next(i for i, channel in enumerate(session.channels) if channel.kind != "label")
    grid = volumes[main].shape, affines[main]
    away = tuple(
        Apart(index, volume, affine)
        for index, (volume, affine) in enumerate(zip(volumes, affines))
        if not same_grid(volume.shape, affine, *grid)
    )
    if away and not apart:
        raise FileFault(
            Path(session.files[away[0].index]),
            f"its grid {away[0].volume.shape} is not that of {session.channels[main].name} "
            f"{volumes[main].shape}",
            "Add the step coregister after reorient.",
        )
    for other in away:
        volumes[other.index] = np.zeros_like(volumes[main])
    mask = foreground(volumes[main], affines[main]).astype(np.float32)
    history = ({"step": "read", "notes": notes},) if notes else ()
    return SessionScan(
        np.stack(volumes), session.channels, affines[main], mask, history,
        source=session, apart=away,
    )  # fmt: skip


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
        # Whether a step brings grids together is not known here, only what there is.
        scan = read_session(session, apart=True)
        upright = reorient(scan, ReorientConfig())
    except DataError as error:
        named = [path for path in session.files if path in str(error)]
        return Finding(hashes, file=(named or list(session.files))[0], fault=str(error))
    return Finding(
        hashes=hashes,
        shape=upright.shape,
        affine=tuple(map(tuple, upright.affine.tolist())),
        centre_mm=tuple(box_centre_mm(upright.foreground > 0, upright.affine).tolist()),
        max_label=_max_label(scan),
    )


def own_grids(scan: PreparedScan) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each channel's (I, J, K) voxels and (4, 4) affine, be it apart or not."""
    volumes = [(volume, scan.affine) for volume in scan.image]
    for other in scan.apart if isinstance(scan, SessionScan) else ():
        volumes[other.index] = other.volume, other.affine
    return volumes


def _max_label(scan: PreparedScan) -> int:
    volumes = zip(own_grids(scan), scan.channels)
    most = [volume.max() for (volume, _), channel in volumes if channel.kind == "label"]
    return int(max(most, default=0))


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
