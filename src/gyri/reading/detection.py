"""How well readers tell: accuracy with an interval, sensitivity d' and criterion c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gyri.evaluation.bootstrap import share_interval


@dataclass(frozen=True)
class Detection:
    """Signal detection of one reader, or of all together (Macmillan and Creelman 2005).

    Parameters
    ----------
    d_prime : 0 cannot tell; its standard error is `d_error` (Gourevitch and Galanter 1967).
    criterion : above 0 leans to "real", below 0 to "synthetic"; standard error half of `d_error`.
    sensitivity, specificity : share of the synthetic, and of the real, called right.
    """

    d_prime: float
    d_error: float
    criterion: float
    sensitivity: float
    specificity: float


def detect(truth: np.ndarray, choice: np.ndarray) -> Detection:
    """Compute d' and c of yes/no answers; the signal is ``synthetic``.

    Half an answer is added to each of the four cells (log-linear rule, Hautus 1995), so that a
    perfect reader has a finite d'.
    """
    from scipy.stats import norm

    signal, says = truth == "synthetic", choice == "synthetic"
    hits, n_signal = (signal & says).sum(), signal.sum()
    false, n_noise = (~signal & says).sum(), (~signal).sum()
    hit_rate = (hits + 0.5) / (n_signal + 1)
    false_rate = (false + 0.5) / (n_noise + 1)
    z_hit, z_false = norm.ppf(hit_rate), norm.ppf(false_rate)
    variance = sum(
        rate * (1 - rate) / (n + 1) / norm.pdf(z) ** 2
        for rate, n, z in ((hit_rate, n_signal, z_hit), (false_rate, n_noise, z_false))
    )
    return Detection(
        d_prime=float(z_hit - z_false),
        d_error=float(np.sqrt(variance)),
        criterion=float(-(z_hit + z_false) / 2),
        sensitivity=float(hits / n_signal) if n_signal else float("nan"),
        specificity=float(1 - false / n_noise) if n_noise else float("nan"),
    )


def effective_trials(right: pd.Series, reader: pd.Series, case: pd.Series) -> float:
    """Return how many independent trials the answers of several readers are worth.

    A reader's answers go together, and so do the answers to one case. Components of variance of
    readers, cases and the rest come from the two-way table of right answers by the method of
    moments; the variance of the mean is then set equal to ``p (1 - p) / n``.

    Parameters
    ----------
    right : True or False; `reader` and `case` name the rows and columns of the table.

    Returns
    -------
    float
        At most the number of answers. With one reader readers cannot be generalised over, and it
        is the number of answers.
    """
    table = right.astype(float).set_axis([reader, case]).unstack()
    n, mean = len(right), float(right.mean())
    # Cases that some reader has not reached yet cannot be split into components.
    full = table.dropna(axis=1)
    r, c = full.shape
    if r < 2 or c < 2 or mean in (0.0, 1.0):
        return float(n)
    values = full.to_numpy()
    by_reader, by_case = values.mean(1), values.mean(0)
    rest = values - by_reader[:, None] - by_case[None] + values.mean()
    ms_rest = (rest**2).sum() / ((r - 1) * (c - 1))
    var_reader = max(0.0, (c * by_reader.var(ddof=1) - ms_rest) / c)
    var_case = max(0.0, (r * by_case.var(ddof=1) - ms_rest) / r)
    # What readers and cases do not explain; together they are the variance of one answer.
    var_rest = max(0.0, mean * (1 - mean) - var_reader - var_case)
    variance = var_reader / r + var_case / c + var_rest / (r * c)
    return float(min(n, n * (mean * (1 - mean) / (r * c)) / variance)) if variance else float(n)


def accuracy(right: pd.Series, reader: pd.Series, case: pd.Series) -> dict[str, Any]:
    """Return the share of right answers, Wilson's interval at the effective number of trials."""
    n = len(right)
    if not n:
        return {"n": 0, "right": 0, "value": None, "interval": [None, None], "effective_n": 0.0}
    effective = effective_trials(right, reader, case)
    value = float(right.mean())
    low, high = share_interval(value * effective, effective)
    return {
        "n": n,
        "right": int(right.sum()),
        "value": value,
        "interval": [low, high],
        "effective_n": effective,
    }
