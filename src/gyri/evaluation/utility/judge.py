"""From folders to a sheet: read the cohorts, run the study, say what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gyri import __version__
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import UsageError
from gyri.evaluation.utility.data import Generated, Reader
from gyri.evaluation.utility.estimators import Place, build_estimator, definition, settings
from gyri.evaluation.utility.sheet import build_sheet
from gyri.evaluation.utility.study import Material, Plan, Progress, Study
from gyri.evaluation.utility.tasks import Task, find_task, subset_size

TOLERANCE = 0.2
"""Relative; how far a generator's TRAIN may be from the fraction that it is given for."""


def task_of(cohort: PreparedCohort, name: str) -> Task:
    """Return a task of a prepared cohort by name; see `find_task`."""
    return find_task(name, cohort.rows("TRAIN"), cohort.columns, cohort.channels)


def judge(
    synthetic: Sequence[Path],
    against: Path,
    task_name: str,
    plan: Plan,
    *,
    estimator_name: str | None = None,
    place: Place | None = None,
    by_fraction: Mapping[float, Sequence[Path]] | None = None,
    test: Sequence[str] = ("TEST",),
    test_cohort: Path | None = None,
    ledger: Path | None = None,
    allow_leaks: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure what synthetic cohorts are worth for a task.

    Parameters
    ----------
    synthetic : synthetic cohorts of generators trained on the TRAIN of `against`.
    against : prepared cohort.
    task_name : see `find_task`.
    estimator_name, place : the model, and where it is trained.
    by_fraction : synthetic cohorts of generators trained on a fraction of TRAIN alone.
    test : splits whose subjects are asked about.
    test_cohort : another prepared cohort to take them from (an external site).
    ledger : file that keeps finished cells.
    allow_leaks : go on, and tag results, where test subjects are known to training.

    Returns
    -------
    dict
        The sheet, see `build_sheet`.

    Raises
    ------
    UsageError
        Wrong names or numbers, or a leak.
    DataError
        A folder that cannot be read, no case of a split, other grids.
    """
    if not synthetic:
        raise UsageError("Give at least one folder made by `gyri sample`.")
    if {"TRAIN", "VAL"} & set(test) and test_cohort is None:
        raise UsageError("TRAIN teaches and VAL tunes; test on TEST, on HOLD or on both.")
    cohort = PreparedCohort.read(against)
    task = task_of(cohort, task_name)
    if plan.balance and task.kind != "classification":
        raise UsageError(f"{task.name} is a {task.kind}; only classes can be balanced.")
    name, estimator = build_estimator(estimator_name, task, place or Place())
    first = SyntheticCohort.read(synthetic[0])
    reader = Reader(cohort, task, [c.name for c in first.channels if c.kind == "intensity"])
    sets = tuple(reader.synthetic(SyntheticCohort.read(folder)) for folder in synthetic)
    train = reader.real(["TRAIN"])
    material = Material(
        train=train,
        val=reader.real(["VAL"]),
        test=reader.real(test, PreparedCohort.read(test_cohort) if test_cohort else None),
        generated=sets,
        by_fraction={
            fraction: tuple(_of_fraction(reader, folder, fraction, cohort) for folder in folders)
            for fraction, folders in (by_fraction or {}).items()
        },
    )
    study = Study(plan, task, material, estimator, ledger, allow_leaks=allow_leaks)
    study.run(progress)
    return build_sheet(
        study,
        {
            "gyri": __version__,
            "cohort": cohort.name,
            "data_hash": cohort.data_hash,
            "split_hash": cohort.split_hash,
            "test": {"splits": list(test), "cohort": str(test_cohort or cohort.root)},
            "synthetic": {str(folder): _about(folder) for folder in synthetic},
            "estimator": {"name": name, "definition": definition(estimator)} | settings(estimator),
            "working_grid_mm": list(reader.spacing_mm),
        },
    )


def _of_fraction(
    reader: Reader, folder: Path, fraction: float, cohort: PreparedCohort
) -> Generated:
    """Read samples for a fraction, and refuse those of a generator that saw another share."""
    generated = reader.synthetic(SyntheticCohort.read(folder))
    everyone = {str(name) for name in cohort.rows("TRAIN").index}
    if generated.trained_on is None:
        raise UsageError(
            f"{folder} is given for {fraction:g} of TRAIN, but its run or that run's cohort is "
            "gone or has changed, so nobody can say whom its generator saw. Leave it out, or "
            "sample again from the run."
        )
    seen = generated.trained_on & everyone
    wanted = subset_size(fraction, len(everyone))
    if abs(len(seen) - wanted) > max(1, TOLERANCE * wanted):
        raise UsageError(
            f"{folder} is given for {fraction:g} of TRAIN, which is {wanted} subjects; its "
            f"generator saw {len(seen)} of them. Make a cohort of that fraction by "
            f"`gyri utility fraction PREPARED OUT --fraction {fraction:g}`, train on it and sample."
        )
    return generated


def _about(folder: Path) -> dict[str, Any]:
    """Return what a synthetic cohort says of its origin."""
    facts = SyntheticCohort.read(folder).facts
    names = ("recipe_name", "run", "checkpoint_sha256", "seed", "num")
    return {name: facts[name] for name in names}
