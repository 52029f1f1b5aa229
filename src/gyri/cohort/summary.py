"""What a cohort holds, in lines for people: its table, and the grids of its scans."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from gyri.cohort.files import read_json
from gyri.cohort.header import HEADER_BYTES, nifti_header, volume_affine, volume_shape
from gyri.cohort.table import ColumnType
from gyri.errors import DataError

MOST_LEVELS = 8
HEADER_COLUMNS = ("shape", "spacing_mm", "orientation", "scanner", "fault")


def describe(table: pd.DataFrame, columns: Mapping[str, ColumnType]) -> list[str]:
    """Return one line a column: range and mean, or the count of each level, and what is missing."""
    lines = []
    for name, column in columns.items():
        if name not in table:
            continue
        text, missing = summarise(table[name], column)
        lines.append(f"{name:14} {text}" + (f"; {missing} missing" if missing else ""))
    return lines


def summarise(values: pd.Series, column: ColumnType) -> tuple[str, int]:
    """Return a column's range and mean or its levels, and how many values are missing."""
    known = values.dropna()
    missing = len(values) - len(known)
    if known.empty:
        return "no value", missing
    if column.kind == "continuous":
        number = known.astype(float)
        text = (
            f"{number.min():g} to {number.max():g}, mean {number.mean():.3g}, "
            f"SD {number.std():.3g} {column.unit}".rstrip()
        )
        return text, missing
    return counted(known), missing


def counted(values: pd.Series, form: str = "{0} {1}") -> str:
    """Return the levels with their counts, the commonest first: ``"F 12, M 9"``.

    Parameters
    ----------
    form : how a level (0) and its count (1) are written.
    """
    counts = values.value_counts()
    text = ", ".join(form.format(level, count) for level, count in counts[:MOST_LEVELS].items())
    more = len(counts) - MOST_LEVELS
    return text + (f" and {more} more" if more > 0 else "")


def read_headers(scans: pd.DataFrame) -> pd.DataFrame:
    """Read the header of every scan; voxels stay on disk.

    Parameters
    ----------
    scans : see `gyri.cohort.table.Cohort.scans`.

    Returns
    -------
    pandas.DataFrame
        `scans` with ``shape`` (``"256 x 256 x 128"``), ``spacing_mm`` (``"1 x 1 x 1.25"``),
        ``orientation`` (axis codes, ``"LAS"``), ``scanner`` (from the sidecar, None where it says
        nothing) and ``fault`` (why the header cannot be read, None where it can).
    """
    found = [_header(Path(path)) for path in scans["path"]]
    headers = pd.DataFrame(found, index=scans.index, columns=list(HEADER_COLUMNS), dtype=object)
    headers = headers.where(headers.notna(), None)
    return pd.concat([scans, headers], axis=1)


def _header(path: Path) -> dict[str, str | None]:
    scanner = _scanner(path)
    try:
        header = nifti_header(path, _first_bytes(path))
        shape = volume_shape(path, header, [])
        affine = volume_affine(path, header, shape, [])
    except DataError as error:
        return {"scanner": scanner, "fault": str(error)}
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return {
        "shape": " x ".join(map(str, shape)),
        "spacing_mm": " x ".join(f"{size:.3g}" for size in spacing),
        "orientation": "".join(nib.aff2axcodes(affine)),
        "scanner": scanner,
        "fault": None,
    }


def _first_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: it cannot be read ({error}). Download it again.") from None


def _scanner(path: Path) -> str | None:
    """Manufacturer, model and field strength, as a scan's own sidecar names them."""
    try:
        about = read_json(path.with_name(path.name.split(".")[0] + ".json"), missing_ok=True)
    except DataError:
        return None
    words = [str(about[key]) for key in ("Manufacturer", "ManufacturersModelName") if key in about]
    if field_t := about.get("MagneticFieldStrength"):
        words.append(f"{field_t} T")
    return " ".join(words) or None


def describe_grids(headers: pd.DataFrame) -> list[str]:
    """Return lines on the scans' grids, orientations and scanners.

    Parameters
    ----------
    headers : of `read_headers`.
    """
    lines = []
    for modality, rows in headers.groupby("modality", sort=True):
        for label, column in (
            ("voxels", "shape"),
            ("spacing in mm", "spacing_mm"),
            ("orientation", "orientation"),
            ("scanner", "scanner"),
        ):
            known = rows[column].dropna()
            if not known.empty:
                lines.append(f"{modality:14} {label}: {counted(known, '{1} of {0}')}")
    faults = headers["fault"].dropna()
    if not faults.empty:
        lines.append(f"unreadable     {len(faults)} scans; the first: {faults.iloc[0]}")
    return lines
