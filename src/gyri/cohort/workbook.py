"""Tables of any kind a data set is published with: CSV, TSV, and Excel's xlsx and xls."""

from __future__ import annotations

import datetime
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from gyri.cohort.sheet import read_sheet
from gyri.cohort.table import is_missing, listed
from gyri.errors import DataError

TEXT = (".csv", ".tsv", ".txt")
WORKBOOKS = (".xlsx", ".xls")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as text, one column a heading; of a workbook its first sheet.

    Raises
    ------
    DataError
        No such file, no table in it, or a kind of file that is not known.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in TEXT:
        return read_sheet(path)
    if ending not in WORKBOOKS:
        raise DataError(f"{path}: expected a table that ends in {', '.join(TEXT + WORKBOOKS)}.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such table. Check the path.")
    try:
        raw = pd.read_excel(path, dtype=object, keep_default_na=False, engine="calamine")
    except Exception as error:
        raise DataError(f"{path}: no readable workbook ({error}). Save it as CSV.") from None
    text = [[_text(value) for value in row] for row in raw.itertuples(index=False, name=None)]
    table = pd.DataFrame(text, columns=[str(name).strip() for name in raw.columns], dtype=object)
    return table[[any(row) for row in text]].reset_index(drop=True)


def find_table(src: Path, pattern: str, published: str, *, ignore: str = "") -> Path:
    """Return the one table below `src` whose name matches; CSV goes before a workbook.

    Parameters
    ----------
    src : folder of the data set.
    pattern : glob of the name without its ending, for example ``"*oasis_long*"``.
    published : what the table is called where it is published, for the message.
    ignore : glob of names that match but are other tables.
    """
    matching = [
        path
        for path in sorted(src.rglob(f"{pattern}.*"))
        if path.is_file() and not fnmatch(path.name, ignore)
    ]
    for endings in (TEXT, WORKBOOKS):
        found = [path for path in matching if path.suffix.lower() in endings]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{src} holds {len(found)} tables like {published} "
                f"({listed(path.name for path in found)}); expected one. Move the others away."
            )
    raise DataError(
        f"{src} holds 0 tables like {published}; expected one. "
        "Put the published table beside the scans."
    )


def _text(value: object) -> str:
    if is_missing(value) or value is pd.NaT:
        return ""
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
