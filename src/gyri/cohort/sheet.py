"""Tables as people keep them: any delimiter, byte-order mark, CR line ends, decimal commas."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from gyri.errors import DataError

DELIMITERS = (",", ";", "\t", "|")


def read_sheet(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV file as text, one column a heading.

    The delimiter is the one that cuts most lines into as many cells as the heading. Encodings:
    UTF-8 (with or without mark), UTF-16 with mark, otherwise Windows-1252.

    Raises
    ------
    DataError
        No such file, no table in it, two columns of one heading, or rows of the wrong length.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such table. Check the path.")
    text = _decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines or "\x00" in text:
        raise DataError(f"{path}: holds no table. Save it as CSV.")
    delimiter = _delimiter(lines)
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    heading = [cell.strip() for cell in rows[0]]
    while heading and heading[-1] == "":
        heading.pop()
    doubled = sorted({name for name in heading if heading.count(name) > 1})
    if doubled or not heading:
        raise DataError(f"{path}: two columns are called {', '.join(doubled)!r}. Rename one.")
    body = [_fitted(path, number, row, len(heading)) for number, row in enumerate(rows[1:], 2)]
    return pd.DataFrame(body, columns=heading, dtype=object)


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _delimiter(lines: list[str]) -> str:
    def agreement(delimiter: str) -> tuple[int, int]:
        counts = [len(next(csv.reader([line], delimiter=delimiter))) for line in lines[:100]]
        fitting = sum(count == counts[0] for count in counts) if counts[0] > 1 else 0
        return fitting, counts[0]

    return max(DELIMITERS, key=agreement)


def _fitted(path: Path, number: int, row: list[str], width: int) -> list[str]:
    cells = [cell.strip() for cell in row]
    if any(cells[width:]):
        raise DataError(
            f"{path}, line {number}: {len(cells)} cells under {width} headings. "
            "A cell that holds the delimiter must be in quotes."
        )
    return (cells + [""] * width)[:width]


def harmonise(table: pd.DataFrame) -> pd.DataFrame:
    """Give columns and levels their conventional names: ``gender`` -> ``sex``, ``m`` -> ``M``."""
    table = table.copy()
    for other in ("gender", "m_f", "biological_sex"):
        if other in table and "sex" not in table:
            table = table.rename(columns={other: "sex"})
    for other, name in {"hand": "handedness", "diagnosis": "group"}.items():
        if other in table and name not in table:
            table = table.rename(columns={other: name})
    words = {
        "sex": {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"},
        "handedness": {"r": "R", "right": "R", "l": "L", "left": "L", "a": "A"},
    }
    for name, levels in words.items():
        if name in table:
            table[name] = [
                levels.get(v.strip().lower(), v) if isinstance(v, str) else v for v in table[name]
            ]
    return table
