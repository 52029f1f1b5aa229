"""Whether a model's loss tells who was in TRAIN: membership inference from a table of losses.

The attack of Yeom et al. 2018: members have lower losses. It reads the table that ``gyri score``
writes and needs the model, not its samples; somebody who has only samples can do less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gyri.errors import DataError
from gyri.evaluation.features import FloatArray

FALSE_POSITIVES = 0.01
LARGEST_TPR = 0.03
LEVEL = 0.025
"""One-sided, as the lower end of a 95 % interval."""
MIN_PEOPLE = 8


@dataclass(frozen=True)
class Membership:
    """What an attacker with the model learns of membership.

    Parameters
    ----------
    auc, low, high : area under the ROC curve with its 95 % interval; 0.5 is nothing, 1 is
        everything.
    tpr : share of members found at 1 % false positives.
    tpr_p_value : probability of as many where losses tell nothing.
    num_train, num_hold : people.
    """

    auc: float
    low: float
    high: float
    tpr: float
    tpr_p_value: float
    num_train: int
    num_hold: int

    @property
    def alarm(self) -> bool:
        """Whether the area's interval lies above 0.5, or too many members are found surely."""
        return self.low > 0.5 or (self.tpr > LARGEST_TPR and self.tpr_p_value <= LEVEL)


def infer_membership(table: pd.DataFrame) -> Membership:
    """Attack with a table of losses.

    Parameters
    ----------
    table : columns ``subject``, ``split`` (TRAIN and HOLD are read) and ``loss``; the scans of a
        person are averaged.

    Raises
    ------
    DataError
        If a split has fewer than 8 people, or a loss is not finite.
    """
    losses = {}
    for split in ("TRAIN", "HOLD"):
        rows = table[table["split"] == split]
        losses[split] = rows.groupby("subject")["loss"].mean().to_numpy(np.float64)
        if len(losses[split]) < MIN_PEOPLE or not np.isfinite(losses[split]).all():
            raise DataError(
                f"The table of losses has {len(losses[split])} people of {split} and "
                f"{int((~np.isfinite(losses[split])).sum())} losses that are not finite; the test "
                f"needs {MIN_PEOPLE} people a side. Run `gyri score` on TRAIN and HOLD again."
            )
    train, hold = losses["TRAIN"], losses["HOLD"]
    auc, low, high = area(train, hold)
    tpr, p_value = true_positive_rate(train, hold)
    return Membership(auc, low, high, tpr, p_value, len(train), len(hold))


def area(train: FloatArray, hold: FloatArray) -> tuple[float, float, float]:
    """Return P(loss of a member < loss of a non-member), ties a half, with its 95 % interval.

    DeLong et al. 1988 on the logit scale, which keeps the interval inside [0, 1]; where all pairs
    agree and the variance vanishes, the interval ends at the rank-sum bound of one pair of people.
    """
    wins = (train[:, None] < hold).astype(np.float64) + (train[:, None] == hold) / 2
    auc = float(wins.mean())
    variance = wins.mean(1).var(ddof=1) / len(train) + wins.mean(0).var(ddof=1) / len(hold)
    smallest = 0.5 / (len(train) * len(hold))
    inside = float(np.clip(auc, smallest, 1 - smallest))
    half = 1.96 * np.sqrt(variance) / (inside * (1 - inside))
    ends = np.log(inside / (1 - inside)) + np.array([-half, half])
    low, high = 1 / (1 + np.exp(-ends))
    return auc, float(min(low, auc)), float(max(high, auc))


def true_positive_rate(train: FloatArray, hold: FloatArray) -> tuple[float, float]:
    """Return the share of members below the loss that 1 % of non-members stay below, and p.

    The p-value is exact: that of as many members before so few non-members in a random order.
    """
    from scipy.stats import hypergeom

    allowed = int(FALSE_POSITIVES * len(hold))
    found = int((train < np.sort(hold)[allowed]).sum())
    if not found:
        return 0.0, 1.0
    both = len(train) + len(hold)
    p_value = hypergeom.sf(found - 1, both, len(train), found + allowed)
    return found / len(train), float(p_value)
