"""Which sample resembles which training subject too much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gyri.cohort.files import read_tsv
from gyri.errors import DataError
from gyri.evaluation.features import FloatArray

PERCENTILE = 99.9
TAIL_FROM = 80.0
"""The tail of unseen people's closeness is fitted above this percentile."""
COLUMNS = ("sample", "subject", "decision")
DISTINCT, COPY = "distinct", "copy"


@dataclass(frozen=True)
class Pair:
    """A sample and a training subject.

    Parameters
    ----------
    sample, subject : ids.
    correlation : of the residuals, mirrored or not.
    hold_as_close : share of HOLD that comes as close to some training subject.
    flagged : closer than 99.9 % of unseen people come to any training subject.
    """

    sample: str
    subject: str
    correlation: float
    hold_as_close: float
    flagged: bool

    def to_dict(self) -> dict[str, str | float | bool]:
        """Return plain values."""
        return asdict(self)


def closeness_limit(hold_to_train: FloatArray) -> float:
    """Return the distance below which one in a thousand unseen people comes to TRAIN.

    The 99.9th percentile of ``-log`` of HOLD's nearest distances. No hundred people show it, so
    that the tail above the 80th percentile is taken as exponential (Coles 2001, "An introduction
    to statistical modeling of extreme values", section 4.2).

    Parameters
    ----------
    hold_to_train : (H, T) distances, H at least 8.
    """
    closeness = -np.log(np.maximum(hold_to_train.min(1), 1e-12))
    start = float(np.percentile(closeness, TAIL_FROM))
    beyond = closeness[closeness > start] - start
    excess = float(beyond.mean()) if beyond.size else 0.0
    return float(np.exp(-(start + excess * np.log((100 - TAIL_FROM) / (100 - PERCENTILE)))))


def closest_pairs(
    samples: list[str],
    subjects: list[str],
    to_train: FloatArray,
    hold_to_train: FloatArray,
    least: int = 6,
) -> list[Pair]:
    """List every flagged pair, and the `least` closest samples whether flagged or not.

    Parameters
    ----------
    samples, subjects : N and T ids.
    to_train, hold_to_train : (N, T) and (H, T) distances of residual correlations.

    Returns
    -------
    list of Pair
        The closest first.
    """
    limit = closeness_limit(hold_to_train)
    nearest = to_train.argmin(1)
    chosen = {
        (int(row), int(nearest[row])) for row in np.argsort(to_train.min(1), kind="stable")[:least]
    }
    chosen |= {(int(row), int(column)) for row, column in np.argwhere(to_train < limit)}
    held = hold_to_train.min(1)
    order = sorted(chosen, key=lambda place: (to_train[place], place))
    return [
        Pair(
            sample=samples[row],
            subject=subjects[column],
            correlation=float(1 - to_train[row, column] ** 2 / 2),
            hold_as_close=float((held <= to_train[row, column]).mean()),
            flagged=bool(to_train[row, column] < limit),
        )
        for row, column in order
    ]


def read_reviews(path: Path) -> dict[tuple[str, str], str]:
    """Read what a person decided about pairs.

    Parameters
    ----------
    path : table (TSV) with the columns ``sample``, ``subject`` and ``decision``; the decision is
        ``distinct`` (two different brains), ``copy``, or empty where nobody has looked yet.

    Raises
    ------
    DataError
        On another column or another decision.
    """
    table = read_tsv(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; fill in the pairs.tsv that "
            "`gyri release` wrote."
        )
    decisions = {
        (row["sample"], row["subject"]): row["decision"].strip().lower()
        for _, row in table.iterrows()
    }
    for (sample, subject), decision in decisions.items():
        if decision not in (DISTINCT, COPY, "", "n/a"):
            raise DataError(
                f"{path}: the decision on {sample} and {subject} is {decision!r}; write "
                f"{DISTINCT!r} or {COPY!r}, or leave it empty."
            )
    return {pair: decision for pair, decision in decisions.items() if decision in (DISTINCT, COPY)}
