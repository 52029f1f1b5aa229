"""Prepare a cohort: every scan through the same steps onto one grid, subjects dealt to splits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gyri import __version__
from gyri.cohort.bids import write_derivative_description, write_readme, write_table
from gyri.cohort.files import read_json
from gyri.cohort.laterality import mirror_warnings
from gyri.cohort.prepared import IGNORED, STATE_FOLDER, PreparedCohort, write_manifest
from gyri.cohort.splits import DEFAULT_SIZES, SPLIT_COLUMN, split_subjects, split_totals
from gyri.cohort.table import Cohort, listed
from gyri.cohort.twins import twins
from gyri.errors import DataError
from gyri.prepare.claim import claimed
from gyri.prepare.plan import Choices, Plan, plan
from gyri.prepare.preview import PREVIEWS
from gyri.prepare.session import Done, prepare_session
from gyri.prepare.steps import Steps, intensity_range, plain
from gyri.prepare.survey import Finding, Session
from gyri.types import Grid

STRATIFY = ("age", "sex", "cdr", "group", "site", "scanner")
"""Columns that the split follows where a cohort has them and the caller names none."""

_log = logging.getLogger(__name__)


def prepare(
    cohort: Path | Cohort,
    out: Path,
    *,
    spacing_mm: float | None = None,
    shape: tuple[int, int, int] | None = None,
    channels: Sequence[str] = ("T1w",),
    steps: Steps | Sequence[Any] | Path | str | None = None,
    mask: bool | None = None,
    register: bool | None = None,
    allow_faces: bool = False,
    sizes: Mapping[str, float] | None = None,
    stratify: Sequence[str] | None = None,
    seed: int = 0,
    jobs: int | None = None,
    dask: str | None = None,
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
    spacing_mm : isotropic voxel size; None is 4 mm.
    shape : voxels along I, J, K; None covers 160 x 192 x 160 mm.
    channels : modalities to prepare, in order; each session needs all of them.
    steps : instead of spacing, shape, mask and register: a pipeline file, the same as plain data
        (see `gyri.prepare.steps.load_steps`), or registered step -> its config, in order.
    mask, register : take the brain out of the head, bring it to MNI152. None does both where the
        cohort shows whole heads, unless `allow_faces`.
    allow_faces : use whole heads as they are. Otherwise a head that no step strips or defaces is
        quarantined: a face can be recognised.
    sizes, seed : see `split_subjects`; the subjects with at least one good scan are dealt.
    stratify : columns that the split follows; None takes what there is of `STRATIFY`.
    jobs : processes; None takes all cores unless the cohort is small.
    dask : address of a Dask scheduler whose workers take the place of `jobs`.

    Returns
    -------
    PreparedCohort

    Raises
    ------
    DataError
        No such cohort, no scan that can be used, two subjects with the same voxels, or `out` in
        use or holding something else.
    UsageError
        Unknown channel, step, setting, column or split.
    UnavailableError
        No Dask scheduler answers.
    """
    planned = plan(
        cohort,
        Choices(
            channels=channels, steps=steps, spacing_mm=spacing_mm, shape=shape,
            mask=mask, register=register, allow_faces=allow_faces,
        ),
        jobs=jobs, dask=dask,
    )  # fmt: skip
    cohort = planned.cohort
    for column in stratify or ():
        cohort.column(column)
    chosen = tuple(stratify) if stratify is not None else _present(cohort)
    split_totals(len(cohort.subjects), sizes or DEFAULT_SIZES)
    settings = {
        "channels": list(channels),
        "steps": plain(planned.steps),
        "split": {"sizes": dict(sizes or DEFAULT_SIZES), "stratify": list(chosen), "seed": seed},
    }
    out = Path(out).resolve()
    with claimed(out, settings):
        planned, findings = planned.surveyed(out / STATE_FOLDER / "survey.jsonl")
        run = Run(planned, out)
        prepared = run.finish(run.all_scans(findings), settings)
    for warning in mirror_warnings(prepared):
        _log.warning("%s", warning)
    return prepared


@dataclass(frozen=True)
class Run:
    """One preparation."""

    plan: Plan
    out: Path

    def all_scans(self, findings: Sequence[Finding]) -> list[Done]:
        """Prepare every sound session; a fault is a result like any other.

        The largest go first: a long one at the end would leave all other workers idle.
        """
        good = [i for i, finding in enumerate(findings) if not finding.fault]
        good.sort(key=lambda i: self.plan.sessions[i].num_bytes, reverse=True)
        steps, faces = self.plan.steps, self.plan.allow_faces
        tasks = [
            (prepare_session, (self.plan.sessions[i], findings[i], steps, self.out, faces))
            for i in good
        ]
        done = [Done(file=finding.file, fault=finding.fault) for finding in findings]
        for index, result in zip(good, self.plan.workers.map(tasks, "Preparing scans")):
            done[index] = result
        return done

    def finish(self, done: Sequence[Done], settings: Mapping[str, Any]) -> PreparedCohort:
        """Deal the subjects and write the tables."""
        cohort, sessions = self.plan.cohort, self.plan.sessions
        done = _on_one_grid(done)
        quarantine = [
            {
                "subject": session.subject,
                "session": session.session,
                "file": result.file or session.files[0],
                "rule": result.fault,
            }
            for session, result in zip(sessions, done)
            if result.fault
        ]
        good = [(s, r) for s, r in zip(sessions, done) if not r.fault]
        if not good:
            raise DataError(
                f"None of the {len(sessions)} scans of {cohort.name!r} can be used. "
                f"The first: {quarantine[0]['rule']}"
            )
        for entry in quarantine:
            _log.warning("Quarantined: %s", entry["rule"])
        _refuse_twins(sessions, done)
        subjects = cohort.subjects.loc[sorted({s.subject for s, _ in good})]
        split = settings["split"]
        dealt = split_subjects(subjects, split["sizes"], split["stratify"], split["seed"])
        files = {file: digest for _, result in good for file, digest in result.files}
        self._remove_strangers(set(files))
        channels = sessions[0].channels
        self._write_bids(subjects.assign(split=dealt))
        return write_manifest(
            self.out,
            name=cohort.name,
            grid=Grid(_triple(good[0][1].shape), good[0][1].affine),
            channels=channels,
            intensity_range=intensity_range(self.plan.steps),
            table=_scan_table(cohort, [s for s, _ in good], dealt),
            columns=cohort.columns,
            files=files,
            quarantine=[*cohort.quarantine, *quarantine],
            settings={**settings, "gyri_version": __version__, "source": str(cohort.root)},
        )

    def _write_bids(self, subjects: pd.DataFrame) -> None:
        cohort = self.plan.cohort
        about = read_json(cohort.root / "dataset_description.json", missing_ok=True)
        steps = ", ".join(self.plan.steps)
        write_derivative_description(
            self.out,
            f"{cohort.name}: prepared",
            [{"Name": "gyri", "Version": __version__, "Description": f"Prepared: {steps}"}],
            [{"URL": cohort.root.as_uri()}],
            license=str(about.get("License", "")),
            ignore=(*IGNORED, PREVIEWS),
        )
        citation = str(about.get("HowToAcknowledge", ""))
        low, high = intensity_range(self.plan.steps)
        text = (
            f"Volumes on one grid with intensities in [{low:g}, {high:g}]; `split` says who is for "
            "what."
        )
        write_readme(self.out, f"{cohort.name}: prepared", text, citation=citation)
        write_table(self.out, subjects, {**cohort.columns, "split": SPLIT_COLUMN})

    def _remove_strangers(self, files: set[str]) -> None:
        """Remove prepared volumes whose scan has gone or is in quarantine now."""
        for path in [*self.out.glob("sub-*/**/anat/*_desc-prepared*.nii")]:
            if str(path.relative_to(self.out)) not in files:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]


def _present(cohort: Cohort) -> tuple[str, ...]:
    return tuple(name for name in STRATIFY if name in cohort.subjects)


def _refuse_twins(sessions: Sequence[Session], done: Sequence[Done]) -> None:
    """Refuse two subjects with the same voxels: they would meet in TRAIN and HOLD."""
    scans = (
        (session.subject, voxels, session.label)
        for session, result in zip(sessions, done)
        for voxels in result.voxels
    )
    pairs = dict.fromkeys(f"{first} and {second}" for first, second in twins(scans))
    if pairs:
        raise DataError(
            f"The same voxels lie under two subjects: {listed(pairs)}. One person would count "
            "twice, and could lie in two splits. Remove one of each pair from the cohort; what is "
            "prepared is kept."
        )


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
