"""Mixed logistic model of right answers: readers and cases are drawn, not chosen.

``logit P(right) = intercept + reader + case`` with normal effects of both, by Laplace's
approximation of the marginal likelihood (Breslow and Clayton 1993; as lme4 does it), with the weak
prior of Chung et al. (2013) that keeps standard deviations off zero. Own code, because Python's
kept libraries fall short here: statsmodels' GEE knows one grouping, the Laplace fit of its
`BinomialBayesMixedGLM` did not converge on tables of four readers and sixty cases, and the
intervals of its variational fit held the truth in 70 % of simulated studies instead of 95 %.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

_LEAST = 10
_NEWTON_STEPS = 50
_PRIOR_SHAPE, _PRIOR_RATE = 2.0, 0.1
"""Gamma prior of each standard deviation, in log odds: no pull but away from zero."""


def mixed_model(right: pd.Series, reader: pd.Series, case: pd.Series) -> dict[str, Any] | None:
    """Fit the model.

    Returns
    -------
    dict or None
        ``intercept`` and ``intercept_sd`` (log odds), ``accuracy`` of a typical reader and case
        with its 95 % ``interval`` (Student's t, readers less one degrees of freedom),
        ``reader_sd`` and ``case_sd`` (log odds). None with one reader, fewer than ten answers, or
        answers that are all right or all wrong.
    """
    from scipy.optimize import minimize
    from scipy.stats import t

    if reader.nunique() < 2 or len(right) < _LEAST or right.nunique() < 2:
        return None
    readers, num_readers = _codes(reader)
    cases, num_cases = _codes(case)
    rows = np.arange(len(right))
    design = np.zeros((len(right), 1 + num_readers + num_cases))
    design[:, 0] = 1
    design[rows, 1 + readers] = 1
    design[rows, 1 + num_readers + cases] = 1
    y = right.to_numpy(float)
    groups = np.repeat([0, 1], [num_readers, num_cases])

    def cost(log_sds: np.ndarray) -> float:
        sds = np.exp(log_sds)
        prior = ((_PRIOR_SHAPE - 1) * log_sds - _PRIOR_RATE * sds).sum()
        return float(-_laplace(design, y, sds[groups])[0] - prior)

    best = minimize(cost, np.log([0.3, 0.5]), method="Nelder-Mead",
                    bounds=[(-6, 2), (-6, 2)], options={"xatol": 0.01, "fatol": 0.001})  # fmt: skip
    sds = np.exp(best.x)
    _, effects, covariance = _laplace(design, y, sds[groups])
    intercept, spread = float(effects[0]), float(np.sqrt(covariance[0, 0]))
    half = float(t.ppf(0.975, num_readers - 1)) * spread
    return {
        "intercept": intercept,
        "intercept_sd": spread,
        "accuracy": _share(intercept),
        "interval": [_share(intercept - half), _share(intercept + half)],
        "reader_sd": float(sds[0]),
        "case_sd": float(sds[1]),
    }


def _codes(names: pd.Series) -> tuple[np.ndarray, int]:
    codes, found = pd.factorize(names)
    return codes, len(found)


def _laplace(
    design: np.ndarray, y: np.ndarray, sds: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the log marginal likelihood, the modes of all effects and their covariance.

    The first column of `design` has a flat prior, the others normal ones with `sds`.
    """
    precision = np.concatenate([[0.0], 1 / sds**2])
    effects = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-design @ effects))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(precision)
        # A ridge that is far below any precision of the data keeps the first step solvable.
        step = np.linalg.solve(
            hessian + 1e-9 * np.eye(len(effects)), design.T @ (y - p) - precision * effects
        )
        effects = effects + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    eta = design @ effects
    likelihood = float((y * eta - np.logaddexp(0, eta)).sum())
    penalty = 0.5 * float((precision * effects**2).sum()) + float(np.log(sds).sum())
    _, log_determinant = np.linalg.slogdet(hessian)
    return likelihood - penalty - 0.5 * log_determinant, effects, np.linalg.inv(hessian)


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
