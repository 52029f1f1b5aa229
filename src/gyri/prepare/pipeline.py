"""Prepare a cohort: every scan through the same steps onto one grid, subjects dealt to splits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from gyri import __version__
from gyri.cohort.bids import read, write_derivative_description, write_readme, write_table
from gyri.cohort.files import read_json
from gyri.cohort.prepared import IGNORED, MANIFEST, STATE_FOLDER, PreparedCohort, write_manifest
from gyri.cohort.splits import DEFAULT_SIZES, split_subjects, split_totals
from gyri.cohort.table import Cohort, ColumnType
from gyri.errors import DataError, UsageError, nearest
from gyri.prepare.claim import claimed
from gyri.prepare.crop import CropConfig
from gyri.prepare.defaults import default_steps, has_whole_heads
from gyri.prepare.session import INTENSITY_RANGE, Done, Steps, prepare_session
from gyri.prepare.survey import (
    Finding,
    Session,
    common_centre,
    finding_line,
    read_findings,
    survey_session,
)
from gyri.registry import STEPS
from gyri.runtime.progress import progress_bar
from gyri.types import Channel, Grid

STRATIFY = ("age", "sex", "cdr", "group", "site", "scanner")
"""Columns that the split follows where a cohort has them and the caller names none."""

FEW_BYTES = 64 * 2**20
"""Below this size of all files one process is done before others have started."""

SPLIT_COLUMN = ColumnType(
    kind="categorical",
    description="Part of the cohort",
    levels={
        "TRAIN": "teaches the model",
        "VAL": "chooses settings and checkpoints",
        "HOLD": "reference of the metrics",
        "TEST": "downstream tasks and readers",
    },
)

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def prepare(
    cohort: Path | Cohort,
    out: Path,
    *,
    spacing_mm: float = 4.0,
    shape: tuple[int, int, int] | None = None,
    channels: Sequence[str] = ("T1w",),
    steps: Steps | None = None,
    mask: bool | None = None,
    register: bool | None = None,
    allow_faces: bool = False,
    sizes: Mapping[str, float] | None = None,
    stratify: Sequence[str] | None = None,
    seed: int = 0,
    jobs: int | None = None,
) -> PreparedCohort:
    """Bring all scans of a cohort onto one grid and deal its subjects to splits.

    A scan that cannot be used is quarantined with its reason and the rest goes on. Where all
    scans share one grid already (they are registered) one common window is cut, around the
    median brain; otherwise each scan is centred on its own brain. Started again, it goes on
    where it was: a scan whose source and settings are unchanged is kept.

    Parameters
    ----------
    cohort : raw BIDS folder, or a cohort read from one.
    out : folder of the prepared cohort.
    spacing_mm : isotropic voxel size; ignored where `steps` is given.
    shape : voxels along I, J, K; None covers 160 x 192 x 160 mm.
    channels : modalities to prepare, in order; each session needs all of them.
    steps : registered step -> its config, in order; None gives `default_steps`.
    mask, register : take the brain out of the head, bring it to MNI152; ignored where `steps` is
        given. None does both where the cohort shows whole heads, unless `allow_faces`.
    allow_faces : use whole heads as they are. Otherwise a head that no step strips or defaces is
        quarantined: a face can be recognised.
    sizes, seed : see `split_subjects`; the subjects with at least one good scan are dealt.
    stratify : columns that the split follows; None takes what there is of `STRATIFY`.
    jobs : processes; None takes all cores unless the cohort is small.

    Returns
    -------
    PreparedCohort

    Raises
    ------
    DataError
        No such cohort, no scan that can be used, or `out` in use or holding something else.
    UsageError
        Unknown channel, step, column or split.
    """
    cohort = cohort if isinstance(cohort, Cohort) else read(cohort)
    if (cohort.root / MANIFEST).is_file():
        raise DataError(f"{cohort.root} is prepared already; expected the raw cohort.")
    sessions = _sessions(cohort, tuple(channels))
    if steps is None:
        heads = None in (mask, register) and not allow_faces and has_whole_heads(sessions)
        if heads:
            _log.info("The cohort shows whole heads: brains are masked and registered to MNI152.")
        steps = default_steps(spacing_mm, shape, whole_heads=heads, mask=mask, register=register)
    steps = dict(steps)
    for name in steps:
        STEPS[name]
    for column in stratify or ():
        cohort.column(column)
    chosen = tuple(stratify) if stratify is not None else _present(cohort)
    split_totals(len(cohort.subjects), _fractions_only(sizes))
    settings = {
        "channels": list(channels),
        "steps": [{"step": name, **asdict(config)} for name, config in steps.items()],
        "split": {"sizes": dict(sizes or DEFAULT_SIZES), "stratify": list(chosen), "seed": seed},
    }
    out = Path(out).resolve()
    with claimed(out, settings):
        run = Run(cohort, out, steps, jobs, allow_faces)
        findings, done = run.all_scans(sessions)
        return run.finish(sessions, findings, done, settings)


@dataclass
class Run:
    """One preparation."""

    cohort: Cohort
    out: Path
    steps: Steps
    jobs: int | None
    allow_faces: bool = False

    def all_scans(self, sessions: list[Session]) -> tuple[list[Finding], list[Done]]:
        """Survey and then prepare every session; a fault is a result like any other."""
        known_path = self.out / STATE_FOLDER / "survey.jsonl"
        known = read_findings(known_path)
        findings: list[Finding] = []
        calls = [(survey_session, (session, known)) for session in sessions]
        with known_path.open("w", encoding="utf-8") as log:
            for label, before in known.items():
                log.write(finding_line(label, before) + "\n")
            for session, finding in zip(sessions, self._map(calls, "Looking at scans")):
                findings.append(finding)
                log.write(finding_line(session.label, finding) + "\n")
                log.flush()
        channels = _counted(sessions[0].channels, findings)
        sessions[:] = [replace(session, channels=channels) for session in sessions]
        steps = _with_window(self.steps, common_centre(findings))
        good = [i for i, finding in enumerate(findings) if not finding.fault]
        tasks = [
            (prepare_session, (sessions[i], findings[i], steps, self.out, self.allow_faces))
            for i in good
        ]
        done = [Done(fault=finding.fault) for finding in findings]
        for index, result in zip(good, self._map(tasks, "Preparing scans")):
            done[index] = result
        return findings, done

    def finish(
        self,
        sessions: list[Session],
        findings: list[Finding],
        done: list[Done],
        settings: Mapping[str, Any],
    ) -> PreparedCohort:
        """Deal the subjects and write the tables."""
        done = _on_one_grid(done)
        quarantine = [
            {
                "subject": session.subject,
                "session": session.session,
                "file": finding.file or session.files[0],
                "rule": result.fault,
            }
            for session, finding, result in zip(sessions, findings, done)
            if result.fault
        ]
        good = [(s, r) for s, r in zip(sessions, done) if not r.fault]
        if not good:
            raise DataError(
                f"None of the {len(sessions)} scans of {self.cohort.name!r} can be used. "
                f"The first: {quarantine[0]['rule']}"
            )
        for entry in quarantine:
            _log.warning("Quarantined: %s", entry["rule"])
        subjects = self.cohort.subjects.loc[sorted({s.subject for s, _ in good})]
        split = settings["split"]
        dealt = split_subjects(subjects, split["sizes"], split["stratify"], split["seed"])
        files = {file: digest for _, result in good for file, digest in result.files}
        self._remove_strangers(set(files))
        channels = sessions[0].channels
        self._write_bids(subjects.assign(split=dealt))
        return write_manifest(
            self.out,
            name=self.cohort.name,
            grid=Grid(_triple(good[0][1].shape), good[0][1].affine),
            channels=channels,
            intensity_range=INTENSITY_RANGE,
            table=_scan_table(self.cohort, [s for s, _ in good], dealt),
            columns=self.cohort.columns,
            files=files,
            quarantine=quarantine,
            settings={**settings, "gyri_version": __version__, "source": str(self.cohort.root)},
        )

    def _write_bids(self, subjects: pd.DataFrame) -> None:
        about = read_json(self.cohort.root / "dataset_description.json", missing_ok=True)
        steps = ", ".join(self.steps)
        write_derivative_description(
            self.out,
            f"{self.cohort.name}: prepared",
            [{"Name": "gyri", "Version": __version__, "Description": f"Prepared: {steps}"}],
            [{"URL": self.cohort.root.as_uri()}],
            license=str(about.get("License", "")),
            ignore=IGNORED,
        )
        citation = str(about.get("HowToAcknowledge", ""))
        text = "Volumes on one grid with intensities in [0, 1]; `split` says who is for what."
        write_readme(self.out, f"{self.cohort.name}: prepared", text, citation=citation)
        write_table(self.out, subjects, {**self.cohort.columns, "split": SPLIT_COLUMN})

    def _remove_strangers(self, files: set[str]) -> None:
        """Remove prepared volumes whose scan has gone or is in quarantine now."""
        for path in [*self.out.glob("sub-*/**/anat/*_desc-prepared*.nii")]:
            if str(path.relative_to(self.out)) not in files:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)

    def _map(
        self, calls: Sequence[tuple[Callable[..., Result], tuple[Any, ...]]], description: str
    ) -> Iterator[Result]:
        """Yield the calls' results in order, under a progress bar."""
        from joblib import Parallel, delayed

        size = sum(Path(path).stat().st_size for path in self.cohort.scans["path"])
        jobs = self.jobs or (1 if size < FEW_BYTES else -1)
        with progress_bar(description, len(calls)) as advance:
            parallel = Parallel(n_jobs=jobs, return_as="generator")
            for result in parallel(delayed(function)(*given) for function, given in calls):
                advance()
                yield result


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]


def _present(cohort: Cohort) -> tuple[str, ...]:
    return tuple(name for name in STRATIFY if name in cohort.subjects)


def _fractions_only(sizes: Mapping[str, float] | None) -> Mapping[str, float]:
    """Let counts pass here: they are compared with the good subjects, known only at the end."""
    sizes = sizes or DEFAULT_SIZES
    total = sum(sizes.values())
    return sizes if total <= 1 or not total else {k: v / total for k, v in sizes.items()}


def _sessions(cohort: Cohort, channels: tuple[str, ...]) -> list[Session]:
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
    return sessions


def _counted(channels: tuple[Channel, ...], findings: Sequence[Finding]) -> tuple[Channel, ...]:
    """Say how many labels the label channels have over the whole cohort."""
    most = max((finding.max_label for finding in findings), default=0) + 1
    return tuple(
        replace(channel, num_labels=most) if channel.kind == "label" else channel
        for channel in channels
    )


def _with_window(steps: Steps, centre: tuple[float, float, float] | None) -> dict[str, Any]:
    """Give the crop the common window's centre, unless its config names one."""
    return {
        name: replace(config, centre_mm=centre)
        if isinstance(config, CropConfig) and config.centre_mm is None and centre is not None
        else config
        for name, config in steps.items()
    }


def _on_one_grid(done: Sequence[Done]) -> list[Done]:
    """Refuse the sessions whose grid is not that of most."""
    grids = [(result.shape, result.affine) for result in done if not result.fault]
    if not grids:
        return list(done)
    common = max(set(grids), key=grids.count)
    return [
        result
        if result.fault or (result.shape, result.affine) == common
        else Done(
            fault=f"After all steps its grid {result.shape} is not that of most scans "
            f"{common[0]}. Add the steps resample and crop."
        )
        for result in done
    ]


def _scan_table(cohort: Cohort, sessions: Sequence[Session], dealt: pd.Series) -> pd.DataFrame:
    rows = [
        {
            "session": session.session,
            "split": dealt.loc[session.subject],
            **cohort.covariates(session.subject, session.session),
        }
        for session in sessions
    ]
    index = pd.Index([session.subject for session in sessions], name="subject")
    return pd.DataFrame(rows, index=index, columns=["session", "split", *cohort.columns])
