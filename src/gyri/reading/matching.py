"""Pair real people with synthetic ones of their age, sex and scanner."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gyri.errors import UsageError
from gyri.reading.study import USUAL_RULES, Rule

_NEVER = 1e6


def rules_for(
    asked: Mapping[str, Rule] | None, real: pd.DataFrame, synthetic: pd.DataFrame
) -> dict[str, Rule]:
    """Return what is matched: what was asked for, or the usual columns that both tables have.

    Raises
    ------
    UsageError
        A column that was asked for is missing in one of the tables.
    """
    both = [column for column in real.columns if column in synthetic.columns]
    if asked is None:
        return {column: rule for column, rule in USUAL_RULES.items() if column in both}
    for column, rule in asked.items():
        if column not in both:
            raise UsageError(
                f"match.{column}: the real and the synthetic table do not both have this column. "
                f"Both have: {', '.join(both) or 'none'}."
            )
        if rule != "exact" and not rule > 0:
            raise UsageError(f"match.{column} is {rule}; expected 'exact' or a distance above 0.")
    return dict(asked)


def match_pairs(
    real: pd.DataFrame, synthetic: pd.DataFrame, rules: Mapping[str, Rule]
) -> list[tuple[int, int]]:
    """Pair as many rows as the rules allow, with the smallest differences in sum.

    Parameters
    ----------
    real, synthetic : one row a volume.
    rules : per column the largest difference, or ``"exact"``. A missing value matches nothing.

    Returns
    -------
    list
        (row of `real`, row of `synthetic`), each row at most once, in the order of `real`.
    """
    from scipy.optimize import linear_sum_assignment

    cost = np.zeros((len(real), len(synthetic)))
    for column, rule in rules.items():
        cost += _differences(real[column], synthetic[column], rule)
    rows, columns = linear_sum_assignment(np.minimum(cost, _NEVER))
    return [(int(i), int(j)) for i, j in zip(rows, columns) if cost[i, j] < _NEVER]


def _differences(real: pd.Series, synthetic: pd.Series, rule: Rule) -> np.ndarray:
    """Return (N, M): 0 for equal, up to 1 within the rule, more than any sum outside it."""
    if rule == "exact":
        a, b = (_words(column) for column in (real, synthetic))
        return np.where((a[:, None] == b[None]) & (a != "")[:, None], 0.0, _NEVER)
    a, b = (pd.to_numeric(column, errors="coerce").to_numpy(float) for column in (real, synthetic))
    apart = np.abs(a[:, None] - b[None]) / rule
    return np.where(apart <= 1, apart, _NEVER)


def _words(column: pd.Series) -> np.ndarray:
    words = column.astype(object).where(column.notna(), "").map(lambda value: str(value).strip())
    return np.array(words.replace("n/a", ""), dtype=object)
