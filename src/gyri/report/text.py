"""Words and numbers of the report: formatting, captions and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

MISSING = "–"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_AGE_COLUMNS = ("age", "age_years", "age_at_scan")
_SEX_COLUMNS = ("sex", "gender", "m/f")


def number(value: Any, digits: int = 3) -> str:
    """Write a number with `digits` significant digits; missing or non-finite ones as a dash.

    Examples
    --------
    >>> number(0.123456), number(-2), number(12345.6), number(None), number(3.2e-6)
    ('0.123', '−2', '12,346', '–', '3.2×10⁻⁶')
    """
    if value is None or isinstance(value, bool):
        return MISSING
    try:
        value = float(value)
    except (TypeError, ValueError):
        return MISSING
    if not math.isfinite(value):
        return MISSING
    size = abs(value)
    if value == int(value) and size < 1e6:
        text = f"{int(value):,}"
    elif size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
        text = f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    elif size >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits - 1 - math.floor(math.log10(size))}f}"
    return text.replace("-", "−")


def interval(low: Any, high: Any) -> str:
    """Write an interval; a dash when an end is missing."""
    ends = number(low), number(high)
    return MISSING if MISSING in ends else f"{ends[0]} to {ends[1]}"


def p_value(value: Any) -> str:
    """Write a p-value with three decimals, tiny ones as a bound; empty when missing."""
    if number(value) == MISSING:
        return ""
    return "< 0.001" if value < 0.0005 else f"= {value:.3f}"


def score_label(score: Mapping[str, Any]) -> str:
    """Name a score for readers, with its feature set unless the label already says it."""
    label = str(score.get("label") or score.get("name"))
    features = str(score.get("features") or "")
    label = label[:1].upper() + label[1:]
    return label if not features or features in label else f"{label}, {features}"


def duration(seconds: float) -> str:
    """Write a duration in its two largest units.

    Examples
    --------
    >>> duration(12.3), duration(372), duration(7300), duration(200000)
    ('12 s', '6 min 12 s', '2 h 2 min', '2 d 8 h')
    """
    whole = max(0, round(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for place, (name, size) in enumerate(units):
        if whole >= size:
            text = f"{whole // size} {name}"
            rest = (whole % size) // units[place + 1][1] if place + 1 < len(units) else 0
            return f"{text} {rest} {units[place + 1][0]}" if rest else text
    return f"{seconds:.2g} s" if seconds > 0 else "0 s"


def words(name: Any) -> str:
    """Turn an identifier into words: ``"one_component"`` becomes ``"One component"``."""
    text = str(name).replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def find_column(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    """Return the table's own name of the first column called one of `names`, ignoring case."""
    known = {str(column).strip().lower(): column for column in table.columns}
    return next((known[name] for name in names if name in known), None)


def ages(table: pd.DataFrame) -> pd.Series | None:
    """Ages in years, NaN where missing; None when the table has no age at all."""
    column = find_column(table, _AGE_COLUMNS)
    if column is None:
        return None
    values = pd.to_numeric(table[column], errors="coerce").astype(float)
    return values if bool(values.notna().any()) else None


def sexes(table: pd.DataFrame) -> pd.Series | None:
    """Sexes as upper-case words, empty where missing; None when the table has no such column."""
    column = find_column(table, _SEX_COLUMNS)
    if column is None:
        return None
    values = table[column]
    return values.astype(object).where(values.notna(), "").map(lambda value: str(value).upper())


def subject_facts(table: pd.DataFrame, row: int) -> str:
    """Age and sex of a row as a short caption; empty when neither is known."""
    facts = []
    years, sex = ages(table), sexes(table)
    if years is not None and math.isfinite(years.iloc[row]):
        facts.append(f"{years.iloc[row]:.0f} y")
    if sex is not None and sex.iloc[row]:
        facts.append({"FEMALE": "F", "MALE": "M"}.get(sex.iloc[row], sex.iloc[row]))
    return " · ".join(facts)


_UNITS: dict[str, Callable[[float], str]] = {
    "_s": duration,
    "_gib": lambda value: f"{number(value)} GiB",
    "_kwh": lambda value: f"{number(value)} kWh",
    "_usd": lambda value: f"{number(value)} USD",
}


def costs(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the entries of the provenance's ``cost`` whose names end in a unit.

    Returns
    -------
    list
        (what, how much with its unit), for example ``("Training", "6 min 12 s")``; units are
        seconds, GiB, kWh and USD (``_s``, ``_gib``, ``_kwh``, ``_usd``).
    """

    def flat(prefix: str, entries: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in entries.items():
            label = f"{prefix} {name}".strip()
            if isinstance(value, Mapping):
                yield from flat(label, value)
            for ending, write in _UNITS.items():
                if label.endswith(ending) and number(value) != MISSING:
                    yield words(label.removesuffix(ending)), write(float(value))

    cost = provenance.get("cost")
    return list(flat("", cost)) if isinstance(cost, Mapping) else []


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``plural(1, "gate")`` is ``"1 gate"``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def join(parts: Sequence[str]) -> str:
    """Join with commas and a last "and"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
