"""Pairs of a person's first scan and a later one, as a prepared cohort of their own.

A model of later scans is given the first one (``data.context``) and told the time between them
(condition ``interval``): it makes follow-ups of people.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gyri.cohort.derived import derive
from gyri.cohort.prepared import PreparedCohort, prepared_path
from gyri.cohort.table import ColumnType
from gyri.errors import DataError, UsageError, nearest
from gyri.types import Channel

BASELINE = "baseline"
INTERVAL = "interval"


def pair_visits(prepared: Path | str, out: Path | str, time: str = "age") -> PreparedCohort:
    """Write every later scan of a person beside the first; see `gyri.cohort.derived.derive`.

    Parameters
    ----------
    prepared : prepared cohort with several sessions of some people.
    out : new folder, a prepared cohort: the channels of the later scan, and the same of the first
        with ``baseline`` before their names; covariates are those of the later scan, and
        ``interval`` says how much later it is. Splits stay.
    time : numeric column that says when a scan was made; `interval` is in its unit.

    Raises
    ------
    UsageError
        If there is no such column, or it is no number; if `out` exists.
    DataError
        If nobody has a later scan with a known time.
    """
    cohort, out = PreparedCohort.read(Path(prepared)), Path(out)
    if time not in cohort.columns:
        raise UsageError(
            f"{cohort.root} has no column {time!r}.{nearest(time, cohort.columns)} "
            f"Its columns are: {', '.join(cohort.columns)}."
        )
    if cohort.columns[time].kind != "continuous":
        raise UsageError(f"{time} is no number; name a column that says when a scan was made.")
    table, first = _later_scans(cohort.table, time)
    if table.empty:
        raise DataError(
            f"Nobody in {cohort.root} has a scan whose {time} is above that of the first. "
            "Prepare a cohort with several sessions (OASIS-2, OASIS-3, ADNI ...), or name another "
            "column with --time."
        )
    files = {}
    for subject, later, earlier in zip(map(str, table.index), table["session"], first):
        for channel in cohort.channels:
            for session, target in ((later, channel), (earlier, _baseline(channel))):
                source = cohort.path(subject, session, channel)
                files[prepared_path(subject, later, target)] = source
    interval = ColumnType(
        kind="continuous",
        unit=cohort.columns[time].unit,
        description=f"{time} minus that of the first scan",
    )
    return derive(
        cohort,
        out,
        table,
        files,
        name=f"{cohort.name}: follow-ups",
        about=f"Every later scan of a person, and the first one beside it ({BASELINE}).",
        settings={"paired_by": time, "source": str(cohort.root)},
        channels=[*cohort.channels, *map(_baseline, cohort.channels)],
        columns={**cohort.columns, INTERVAL: interval},
        ignore=[f"*{BASELINE}*"],
    )


def _later_scans(table: pd.DataFrame, time: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the later scans with their interval, and the session of each one's first scan."""
    rows, first = [], []
    for _, visits in table.dropna(subset=[time]).groupby(level=0):
        visits = visits.sort_values([time, "session"])
        interval = visits[time].astype(float) - float(visits[time].iloc[0])
        later = visits.assign(**{INTERVAL: interval})[interval > 0]
        rows.append(later)
        first += [str(visits["session"].iloc[0])] * len(later)
    found = pd.concat(rows) if rows else table.assign(**{INTERVAL: 0.0}).iloc[:0]
    return found, first


def _baseline(channel: Channel) -> Channel:
    return Channel(f"{BASELINE}{channel.name}", channel.kind, channel.num_labels)
