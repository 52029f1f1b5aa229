"""A prepared cohort with a fraction of its TRAIN, for a generator that may see no more."""

from __future__ import annotations

from pathlib import Path

from gyri.cohort.derived import derive
from gyri.cohort.prepared import MANIFEST, PreparedCohort
from gyri.errors import UsageError
from gyri.evaluation.utility.tasks import Task, nested_order, strata, subset_size
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
    kept = fraction_subjects(cohort, task, fraction, seed)
    table = cohort.table
    chosen = table[(table["split"] != "TRAIN") | table.index.astype(str).isin(kept)]
    files = {}
    for subject, session in zip(chosen.index, chosen["session"]):
        for channel in cohort.channels:
            source = cohort.path(str(subject), session, channel)
            files[source.relative_to(cohort.root)] = source
    return derive(
        cohort,
        out,
        chosen,
        files,
        name=cohort.name,
        about=f"{fraction:.0%} of TRAIN; {MANIFEST} says of which cohort, and by which seed.",
        settings={"fraction": {"of": cohort.split_hash, "fraction": fraction, "seed": seed}},
    )
