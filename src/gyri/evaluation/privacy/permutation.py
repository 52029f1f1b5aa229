"""Whether membership matters: all measures in all spaces against permuted membership.

Under the hypothesis that samples know nothing of who was in TRAIN rather than in HOLD, the labels
TRAIN and HOLD can be exchanged. So every measure's distribution is known without assumption,
correlated samples and smooth samples included, and the largest of all standardised measures
(Westfall and Young 1993, max-T) gives p-values that hold for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gyri.evaluation.features import FloatArray
from gyri.evaluation.privacy.measures import Sides, statistics
from gyri.evaluation.privacy.spaces import Rows, Space

Key = tuple[str, str]
"""Space and measure."""


@dataclass(frozen=True)
class Tested:
    """One measure in one space.

    Parameters
    ----------
    mean, sd : of the measure's statistic (see `gyri.evaluation.privacy.measures.STATISTICS`) with
        membership permuted.
    p_value : family-wise over all measures and spaces, one-sided.
    """

    mean: float
    sd: float
    p_value: float


def permute_membership(
    spaces: Sequence[Space],
    rows: Rows,
    train: Rows,
    hold: Rows,
    permutations: int,
    rng: np.random.Generator,
) -> dict[Key, Tested]:
    """Test every measure in every space.

    Parameters
    ----------
    spaces : with the same first rows and columns, the real people.
    rows : the samples' rows.
    train, hold : rows (and columns) of members and non-members.
    permutations : 99 at least, for a p-value of 0.01.
    """
    pool = np.concatenate([train, hold])
    observed = _statistics(spaces, rows, train, hold)
    keys = list(observed)
    drawn = np.empty((permutations, len(keys)))
    for row in range(permutations):
        order = rng.permutation(pool)
        found = _statistics(spaces, rows, order[: len(train)], order[len(train) :])
        drawn[row] = [found[key] for key in keys]
    values = np.array([observed[key] for key in keys])
    every = np.concatenate([values[None], drawn])
    mean, sd = every.mean(0), every.std(0)
    largest = _standardise(drawn, mean, sd).max(1)
    reached = largest[:, None] >= _standardise(values[None], mean, sd) - 1e-9
    p_values = (1 + reached.sum(0)) / (permutations + 1)
    return {key: Tested(*map(float, numbers)) for key, *numbers in zip(keys, mean, sd, p_values)}


def _standardise(values: FloatArray, mean: FloatArray, sd: FloatArray) -> FloatArray:
    return np.divide(values - mean, sd, out=np.zeros_like(values), where=sd > 1e-12)


def _statistics(spaces: Sequence[Space], rows: Rows, train: Rows, hold: Rows) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for space in spaces:
        sides: Sides = space.sides(rows, train, hold)
        found |= {(space.name, name): value for name, value in statistics(sides).items()}
    return found
