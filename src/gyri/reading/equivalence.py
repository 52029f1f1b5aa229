"""Equivalence of an accuracy with guessing: two one-sided tests, and the trials they need.

A difference from 50 % that is not significant shows nothing: few trials never are. To claim that
readers cannot tell, accuracies below 50 % - margin and above 50 % + margin must both be rejected
(Schuirmann 1987). The tests are exact binomial ones, so that their error stays below alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gyri.errors import UsageError

CHANCE = 0.5
ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests of an accuracy.

    Parameters
    ----------
    margin : how far from 50 % counts as guessing.
    p_low, p_high : probability of so many right answers or more at 50 % - margin, and of so many
        or fewer at 50 % + margin.
    """

    margin: float
    p_low: float
    p_high: float

    @property
    def p_value(self) -> float:
        """The larger of the two."""
        return max(self.p_low, self.p_high)

    @property
    def shown(self) -> bool:
        """Whether guessing within the margin is shown at 5 %."""
        return self.p_value < ALPHA


def equivalence(right: float, n: float, margin: float) -> Equivalence:
    """Test `right` of `n` trials; both may be fractions, as effective numbers are.

    The binomial tails are written as incomplete beta functions, which is the same for whole
    numbers and goes on between them.
    """
    from scipy.special import betainc

    p_low = 1.0 if right <= 0 else float(betainc(right, n - right + 1, CHANCE - margin))
    p_high = 1.0 if right >= n else float(1 - betainc(right + 1, n - right, CHANCE + margin))
    return Equivalence(margin, p_low, p_high)


def trials_needed(margin: float, power: float = POWER, icc: float = 0.0, m: int = 1) -> int:
    """Return how many trials show equivalence if readers guess.

    ``n = ((z_{1-alpha} + z_{1-(1-power)/2}) / margin)^2 / 4 * (1 + (m - 1) ICC)``.

    Parameters
    ----------
    margin : for example 0.1 for ten points.
    power : probability of showing it.
    icc : intraclass correlation of answers of one reader, or to one case.
    m : answers in such a cluster.
    """
    from scipy.stats import norm

    z = norm.ppf(1 - ALPHA) + norm.ppf(1 - (1 - power) / 2)
    independent = (z / margin) ** 2 * CHANCE * (1 - CHANCE)
    return math.ceil(independent * (1 + (m - 1) * icc))


def power_of(n: int, margin: float, accuracy: float = CHANCE) -> float:
    """Return the probability that `n` independent trials show equivalence, by enumeration."""
    from scipy.stats import binom

    right = np.arange(n + 1)
    low = binom.sf(right - 1, n, CHANCE - margin) < ALPHA
    high = binom.cdf(right, n, CHANCE + margin) < ALPHA
    return float(binom.pmf(right, n, accuracy)[low & high].sum())


def plan_lines(
    margin: float, power: float, icc: float, readers: int, trials: int | None
) -> list[str]:
    """Say how many trials are needed, and what a given number of them can show.

    Raises
    ------
    UsageError
        A number out of its range.
    """
    for name, value, least, most in (
        ("margin", margin, 0.01, 0.49), ("power", power, 0.05, 0.99), ("icc", icc, 0.0, 1.0),
    ):  # fmt: skip
        if not least <= value <= most:
            raise UsageError(f"--{name} is {value:g}; expected {least:g} to {most:g}.")
    if readers < 1 or (trials is not None and trials < 1):
        raise UsageError("--readers and --trials are 1 or more.")
    independent = trials_needed(margin, power)
    exact = next(n for n in range(independent, 3 * independent) if _lasting(n, margin, power))
    lines = [
        f"Accuracy within 50 % ± {100 * margin:g} points, alpha 5 %, power {power:.0%}, if readers "
        "guess:",
        f"{independent} independent trials by the normal formula, {exact} for the exact test.",
    ]
    # Clusters: the trials of a reader, as cases are shared by all.
    each = trials
    if each is None:
        each = (
            next(m for m in range(1, 100_000) if readers * m >= exact * (1 + (m - 1) * icc))
            if icc * exact < readers
            else 0
        )
    if not each:
        return [*lines, f"{readers} readers cannot reach it at ICC {icc:g}, however many trials: "
                f"more than {math.floor(exact * icc)} readers are needed."]  # fmt: skip
    effective = readers * each / (1 + (each - 1) * icc)
    lines.append(
        f"{readers} readers with {each} trials each at ICC {icc:g}: {effective:.0f} effective "
        f"trials, power {power_of(int(effective), margin):.0%}."
    )
    return lines


def _lasting(n: int, margin: float, power: float) -> bool:
    """Say whether `n` trials have the power, and some more of them, too: exact power is a saw."""
    return all(power_of(k, margin) >= power for k in range(n, n + 20))
