"""What is to be done to which scans, decided before any work."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gyri.cohort.bids import read
from gyri.cohort.prepared import MANIFEST
from gyri.cohort.table import Cohort
from gyri.errors import DataError, UsageError, nearest
from gyri.prepare.crop import CropConfig
from gyri.prepare.defaults import SPACING_MM, default_steps, has_whole_heads
from gyri.prepare.parallel import Workers
from gyri.prepare.resample import ResampleConfig
from gyri.prepare.steps import Steps, intensity_range, load_steps, parse_steps
from gyri.prepare.survey import (
    Finding,
    Session,
    common_centre,
    finding_line,
    read_findings,
    survey_session,
)
from gyri.prepare.template import CENTRE_MM
from gyri.registry import STEPS
from gyri.types import Channel

FEW_BYTES = 64 * 2**20
"""Below this size of all files one process is done before others have started."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a caller can say about the steps and the scans; None leaves it to gyri.

    Parameters
    ----------
    channels : modalities to prepare, in order; each session needs all of them.
    steps : registered step -> its config, in order; or the same as plain data or in a YAML file,
        see `load_steps`. None gives `default_steps` with the four below.
    spacing_mm : isotropic voxel size; None is 4 mm.
    shape : voxels along I, J, K; None covers 160 x 192 x 160 mm.
    mask, register : take the brain out of the head, bring it to MNI152. None does both where the
        cohort shows whole heads, unless `allow_faces`.
    allow_faces : use whole heads as they are. Otherwise a head that no step strips or defaces is
        quarantined: a face can be recognised.
    """

    channels: Sequence[str] = ("T1w",)
    steps: Steps | Sequence[Any] | Path | str | None = None
    spacing_mm: float | None = None
    shape: tuple[int, int, int] | None = None
    mask: bool | None = None
    register: bool | None = None
    allow_faces: bool = False


@dataclass(frozen=True)
class Plan:
    """Sessions and the steps they go through.

    Parameters
    ----------
    cohort : the raw cohort.
    sessions : in order of subject and session.
    steps : registered step -> its config, in order.
    workers : who works.
    allow_faces : see `Choices`.
    """

    cohort: Cohort
    sessions: tuple[Session, ...]
    steps: Steps
    workers: Workers
    allow_faces: bool = False

    def surveyed(self, log: Path) -> tuple[Plan, list[Finding]]:
        """Look at every scan; return the plan with what only all of them together can tell.

        That is how many labels there are, and the window that scans on one grid share.

        Parameters
        ----------
        log : lines of what is known; scans that are in it and did not change are not read.
        """
        known = read_findings(log)
        calls = [(survey_session, (session, known)) for session in self.sessions]
        findings: list[Finding] = []
        with log.open("w", encoding="utf-8") as file:
            for label, before in known.items():
                file.write(finding_line(label, before) + "\n")
            for session, finding in zip(self.sessions, self.workers.map(calls, "Looking at scans")):
                findings.append(finding)
                file.write(finding_line(session.label, finding) + "\n")
                file.flush()
        channels = _counted(self.sessions[0].channels, findings)
        sessions = tuple(replace(session, channels=channels) for session in self.sessions)
        steps = _with_window(self.steps, findings)
        return replace(self, sessions=sessions, steps=steps), findings


def plan(
    cohort: Path | Cohort, choices: Choices, *, jobs: int | None = 1, dask: str | None = None
) -> Plan:
    """Choose the sessions and the steps of a raw cohort.

    Parameters
    ----------
    jobs, dask : who works, see `Workers`; None takes all cores unless the cohort is small.

    Raises
    ------
    DataError
        No such cohort, or one that is prepared already.
    UsageError
        Unknown channel or step, choices that contradict each other, or steps that bring
        intensities to no range.
    """
    cohort = cohort if isinstance(cohort, Cohort) else read(cohort)
    if (cohort.root / MANIFEST).is_file():
        raise DataError(f"{cohort.root} is prepared already; expected the raw cohort.")
    sessions = _sessions(cohort, tuple(choices.channels))
    workers = _workers(cohort, jobs, dask)
    steps = _default(sessions, choices, workers) if choices.steps is None else _given(choices)
    intensity_range(steps)
    return Plan(cohort, sessions, steps, workers, choices.allow_faces)


def _workers(cohort: Cohort, jobs: int | None, dask: str | None) -> Workers:
    size = sum(Path(path).stat().st_size for path in cohort.scans["path"])
    return Workers(jobs=jobs or (1 if size < FEW_BYTES else -1), dask=dask)


def _given(choices: Choices) -> Steps:
    ours = {name: getattr(choices, name) for name in ("spacing_mm", "shape", "mask", "register")}
    if said := [name for name, value in ours.items() if value is not None]:
        raise UsageError(
            f"{' and '.join(said)} came together with steps, which say all that themselves. Leave "
            "out one or the other."
        )
    match choices.steps:
        case str() | Path():
            return load_steps(choices.steps)
        case dict():
            for name in choices.steps:
                STEPS[name]
            return dict(choices.steps)
        case sections:
            return parse_steps(sections)


def _default(sessions: Sequence[Session], choices: Choices, workers: Workers) -> Steps:
    mask, register = choices.mask, choices.register
    undecided = None in (mask, register) and not choices.allow_faces
    heads = undecided and has_whole_heads(sessions, workers)
    if heads:
        _log.info("The cohort shows whole heads: brains are masked and registered to MNI152.")
    spacing_mm = SPACING_MM if choices.spacing_mm is None else choices.spacing_mm
    return default_steps(spacing_mm, choices.shape, whole_heads=heads, mask=mask, register=register)


def _sessions(cohort: Cohort, channels: tuple[str, ...]) -> tuple[Session, ...]:
    """Return one entry a session that has a file for every channel."""
    present = sorted(cohort.scans["modality"].unique())
    for name in channels:
        if name not in present:
            raise UsageError(
                f"Cohort {cohort.name!r} has no {name}.{nearest(name, present)} "
                f"It has: {', '.join(present)}."
            )
    labels = {
        name: any("_dseg." in path for path in rows["path"])
        for name, rows in cohort.scans.groupby("modality")
    }
    kinds = tuple(Channel(name, "label" if labels[name] else "intensity") for name in channels)
    if not channels or all(channel.kind == "label" for channel in kinds):
        raise UsageError(
            f"channels is {list(channels)}; expected at least one that holds intensities."
        )
    chosen = cohort.scans[cohort.scans["modality"].isin(channels)]
    sessions = []
    for (subject, session), rows in chosen.groupby(["subject", "session"], sort=True):
        paths = dict(zip(rows["modality"], rows["path"]))
        if absent := [name for name in channels if name not in paths]:
            where = f"sub-{subject}" + (f" ses-{session}" if session else "")
            _log.warning("%s has no %s", where, ", ".join(absent))
        base = cohort.root / f"sub-{subject}"
        files = tuple(paths.get(name, str(base / f"(no {name})")) for name in channels)
        sessions.append(Session(str(subject), str(session), files, kinds))
    return tuple(sessions)


def _counted(channels: tuple[Channel, ...], findings: Sequence[Finding]) -> tuple[Channel, ...]:
    """Say how many labels the label channels have over the whole cohort."""
    most = max((finding.max_label for finding in findings), default=0) + 1
    return tuple(
        replace(channel, num_labels=most) if channel.kind == "label" else channel
        for channel in channels
    )


def _with_window(steps: Steps, findings: Sequence[Finding]) -> dict[str, Any]:
    """Say where the voxels of all scans lie, where they lie together and no config says so.

    Registered scans have the MNI152 brain's window; scans on one grid that of their median brain,
    as long as no step moves them.
    """
    names = list(steps)
    through: tuple[float, float, float] | None = None
    centre = None if "conform" in steps else common_centre(findings)
    if "register" in steps:
        through, centre = (0.0, 0.0, 0.0), CENTRE_MM
    placed = dict(steps)
    for name, config in steps.items():
        if "register" in steps and names.index(name) < names.index("register"):
            continue
        if isinstance(config, CropConfig) and config.centre_mm is None:
            placed[name] = replace(config, centre_mm=centre)
        if isinstance(config, ResampleConfig) and config.through_mm is None:
            placed[name] = replace(config, through_mm=through)
    return placed
