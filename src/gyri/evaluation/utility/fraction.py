"""A prepared cohort with a fraction of its TRAIN, for a generator that may see no more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd

from gyri import __version__
from gyri.cohort.bids import write_derivative_description, write_readme, write_table
from gyri.cohort.prepared import IGNORED, MANIFEST, PreparedCohort, file_hash, write_manifest
from gyri.errors import UsageError
from gyri.evaluation.utility.tasks import Task, nested_order, strata, subset_size
from gyri.prepare.pipeline import SPLIT_COLUMN
from gyri.runtime.seeding import numpy_rng


def fraction_subjects(
    cohort: PreparedCohort, task: Task, fraction: float, seed: int
) -> frozenset[str]:
    """Return the TRAIN subjects of a fraction; those of a smaller one are among them.

    The target's mix is kept; subjects without a known one are taken in the same share.
    """
    rows = cohort.rows("TRAIN")
    groups = strata(task, task.targets(rows))
    order = nested_order(groups, numpy_rng("utility", "fraction", seed))
    chosen = order[: subset_size(fraction, len(rows))]
    return frozenset(str(name) for name in rows.index[chosen])


def write_fraction(
    cohort: PreparedCohort, task: Task, fraction: float, out: Path, seed: int = 0
) -> PreparedCohort:
    """Write a prepared cohort whose TRAIN is a fraction of another's; the other splits stay.

    Voxel files are linked where the file system allows it, so it costs no space.

    Parameters
    ----------
    fraction : in (0, 1).
    out : new folder.
    seed : another gives other subjects.

    Raises
    ------
    UsageError
        The fraction is out of range or `out` holds something.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"The fraction is {fraction:g}; give one between 0 and 1, such as 0.25.")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Give another folder.")
    kept = fraction_subjects(cohort, task, fraction, seed)
    table = cohort.table
    chosen = table[(table["split"] != "TRAIN") | table.index.astype(str).isin(kept)]
    files = {}
    for subject, session in zip(chosen.index, chosen["session"]):
        for channel in cohort.channels:
            source = cohort.path(str(subject), session, channel)
            target = out / source.relative_to(cohort.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
            _link(source.with_suffix(".json"), target.with_suffix(".json"))
            files[str(target.relative_to(out))] = file_hash(target)
    _describe(cohort, chosen, fraction, out)
    low, high = cohort.intensity_range
    return write_manifest(
        out,
        name=cohort.name,
        grid=cohort.grid,
        channels=cohort.channels,
        intensity_range=(low, high),
        table=chosen,
        columns=cohort.columns,
        files=files,
        quarantine=cohort.quarantine,
        settings={
            **cohort.manifest["preparation"],
            "fraction": {"of": cohort.split_hash, "fraction": fraction, "seed": seed},
        },
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _describe(cohort: PreparedCohort, chosen: pd.DataFrame, fraction: float, out: Path) -> None:
    name = f"{cohort.name}: {fraction:.0%} of TRAIN"
    write_derivative_description(
        out,
        name,
        [{"Name": "gyri", "Version": __version__, "Description": f"{fraction:.0%} of TRAIN"}],
        [{"URL": cohort.root.as_uri()}],
        ignore=IGNORED,
    )
    write_readme(out, name, f"{MANIFEST} says of which cohort, and by which seed.")
    people = chosen[~chosen.index.duplicated()].drop(columns="session")
    write_table(out, people, {**cohort.columns, "split": SPLIT_COLUMN})
