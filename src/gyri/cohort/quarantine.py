"""Quarantine: the scans that cannot be used, each with its reason, while the rest goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gyri.cohort.files import read_tsv, write_tsv
from gyri.cohort.table import listed
from gyri.errors import DataError

QUARANTINE = "quarantine.tsv"
QUARANTINE_COLUMNS = ("subject", "session", "file", "rule")

Entry = dict[str, str]
"""One scan in quarantine: `QUARANTINE_COLUMNS`."""


def write_quarantine(root: Path, entries: Sequence[Entry]) -> None:
    """Write the list of scans in quarantine into a data set's folder."""
    write_tsv(root / QUARANTINE, pd.DataFrame(list(entries), columns=list(QUARANTINE_COLUMNS)))


def read_quarantine(root: Path) -> list[Entry]:
    """Return the scans that a data set's folder lists as quarantined; none where it has no list."""
    if not (root / QUARANTINE).is_file():
        return []
    return [
        {str(key): "" if value == "n/a" else str(value) for key, value in row.items()}
        for row in read_tsv(root / QUARANTINE).to_dict("records")
    ]


def refuse_beyond(entries: Sequence[Entry], max_bad: int = 0) -> None:
    """Raise `DataError`, after all work is done, where too many scans are in quarantine.

    Parameters
    ----------
    entries : the scans in quarantine.
    max_bad : how many are accepted.
    """
    if len(entries) <= max_bad:
        return
    reasons = "; ".join(
        entry["rule"] if entry["file"] in entry["rule"] else f"{entry['file']}: {entry['rule']}"
        for entry in entries[:3]
    )
    others = listed(entry["file"] for entry in entries[3:])
    raise DataError(
        f"{len(entries)} scans are in quarantine, {max_bad} are accepted: {reasons}"
        f"{f' Also: {others}.' if others else ''} The others are done. Repair or remove these, or "
        f"accept them with --max-bad {len(entries)}."
    )
