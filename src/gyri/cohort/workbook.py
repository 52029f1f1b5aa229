"""Tables of any kind a data set is published with: CSV, TSV, and Excel's xlsx and xls."""

from __future__ import annotations

import datetime
import importlib.util
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import pandas as pd

from gyri.cohort.sheet import read_sheet
from gyri.cohort.table import is_missing, listed
from gyri.errors import DataError, UnavailableError

TEXT = (".csv", ".tsv", ".txt")
Engine = Literal["openpyxl", "xlrd", "calamine"]
ENGINES: dict[str, tuple[Engine, ...]] = {
    ".xlsx": ("openpyxl", "calamine"),
    ".xls": ("calamine", "xlrd"),
}
"""What pandas can read each kind of workbook with, the preferred one first."""
PACKAGES = {".xlsx": "openpyxl", ".xls": "xlrd"}
"""What to install for each kind of workbook."""

MODULES: dict[Engine, str] = {"openpyxl": "openpyxl", "xlrd": "xlrd", "calamine": "python_calamine"}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as text, one column a heading; of a workbook its first sheet.

    Raises
    ------
    DataError
        No such file, no table in it, or a kind of file that is not known.
    UnavailableError
        A workbook whose package is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending in TEXT:
        return read_sheet(path)
    if ending not in ENGINES:
        raise DataError(f"{path}: expected a table that ends in {', '.join((*TEXT, *ENGINES))}.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such table. Check the path.")
    engine = require_engine(path)
    try:
        raw = pd.read_excel(path, dtype=object, keep_default_na=False, engine=engine)
    except Exception as error:
        raise DataError(f"{path}: no readable workbook ({error}). Save it as CSV.") from None
    text = [[_text(value) for value in row] for row in raw.itertuples(index=False, name=None)]
    table = pd.DataFrame(text, columns=[str(name).strip() for name in raw.columns], dtype=object)
    return table[[any(row) for row in text]].reset_index(drop=True)


def can_read(path: Path) -> bool:
    """Say whether what reads this kind of table is installed."""
    ending = path.suffix.lower()
    return ending not in ENGINES or _engine(ending) is not None


def require_engine(path: Path) -> Engine:
    """Return what reads the workbook `path`; `UnavailableError` where it is not installed."""
    ending = path.suffix.lower()
    engine = _engine(ending)
    if engine is None:
        package = PACKAGES[ending]
        raise UnavailableError(
            f"{path.name} is a workbook and the package {package} is not installed. Run "
            f"`pip install {package}`, or save the table as CSV."
        )
    return engine


def _engine(ending: str) -> Engine | None:
    for engine in ENGINES[ending]:
        if importlib.util.find_spec(MODULES[engine]) is not None:
            return engine
    return None


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
    for endings in (TEXT, tuple(ENGINES)):
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
