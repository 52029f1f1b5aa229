"""What a subject table holds, in lines for people."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from gyri.cohort.table import ColumnType

MOST_LEVELS = 8


def describe(table: pd.DataFrame, columns: Mapping[str, ColumnType]) -> list[str]:
    """Return one line a column: range and mean, or the count of each level, and what is missing."""
    lines = []
    for name, column in columns.items():
        if name not in table:
            continue
        values = table[name].dropna()
        missing = len(table) - len(values)
        if values.empty:
            text = "no value"
        elif column.kind == "continuous":
            number = values.astype(float)
            text = (
                f"{number.min():g} to {number.max():g}, mean {number.mean():.3g}, "
                f"SD {number.std():.3g} {column.unit}".rstrip()
            )
        else:
            counts = values.value_counts()
            text = ", ".join(f"{level} {count}" for level, count in counts[:MOST_LEVELS].items())
            if len(counts) > MOST_LEVELS:
                text += f" and {len(counts) - MOST_LEVELS} more levels"
        lines.append(f"{name:14} {text}" + (f"; {missing} missing" if missing else ""))
    return lines
