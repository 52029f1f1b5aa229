"""Text files of a data set: JSON and TSV, complete or absent, the same bytes every time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gyri.cohort.table import cell
from gyri.errors import DataError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people: two spaces, keys in the order given, file complete or absent."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tsv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index; a missing value is ``n/a``, no cell is a formula."""
    lines = ["\t".join(map(str, table.columns))]
    lines += ["\t".join(cell(v) for v in row) for row in table.itertuples(index=False, name=None)]
    write_text(path, "\n".join(lines) + "\n")


def read_json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """Read a JSON object; `DataError` names the file when it is none."""
    if missing_ok and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable JSON: {error}. Correct or remove it.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected an object.")
    return content


def read_tsv(path: Path) -> pd.DataFrame:
    """Read a TSV file as text."""
    try:
        return pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable table: {error}. Correct it.") from None


def refuse_outside(src: Path, paths: Iterable[Path]) -> None:
    """Raise `DataError` for a file that a link takes from a place outside the data set.

    The folders on the way count: a folder may be a link as well.
    """
    root = src.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(root):
            raise DataError(
                f"{path} links to {path.resolve()}, outside the data set. "
                "Copy the file into the data set."
            )
