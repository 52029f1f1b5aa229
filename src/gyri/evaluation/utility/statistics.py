"""Differences between arms, with intervals over subjects and seeds, and what may be said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import LEVEL, bca_interval, draw_counts

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""(R, N) weights of subjects -> (S, R) values, one row a seed."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, and a two-sided p-value of being 0."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Draws:
    """Resamples of subjects and of seeds, shared by all estimates of a study.

    Parameters
    ----------
    subjects : (R, N) counts.
    seeds : (R, S) counts.
    """

    subjects: FloatArray
    seeds: FloatArray

    @classmethod
    def make(
        cls, ids: Sequence[str], num_seeds: int, resamples: int, rng: np.random.Generator
    ) -> Draws:
        """Draw subjects and seeds, each with replacement, independently of one another."""
        names = [str(seed) for seed in range(num_seeds)]
        return cls(draw_counts(ids, resamples, rng), draw_counts(names, resamples, rng))


@dataclass(frozen=True)
class Spread:
    """A statistic of every seed: as it is, under drawn subjects, and with one subject left out.

    Parameters
    ----------
    everyone : (S,).
    drawn : (S, R).
    without : (S, N).
    """

    everyone: FloatArray
    drawn: FloatArray
    without: FloatArray

    @classmethod
    def of(cls, statistic: Statistic, draws: Draws) -> Spread:
        """Apply a statistic to all subjects, to drawn ones, and to all but one."""
        count = draws.subjects.shape[1]
        everyone = statistic(np.ones((1, count)))[:, 0]
        return cls(everyone, statistic(draws.subjects), statistic(1 - np.eye(count)))

    def gain_over(self, other: Spread, sign: float) -> Spread:
        """Return the paired difference, times `sign`: the same subjects and seeds on both sides."""
        return Spread(
            sign * (self.everyone - other.everyone),
            sign * (self.drawn - other.drawn),
            sign * (self.without - other.without),
        )


def estimate(spread: Spread, draws: Draws) -> Estimate:
    """Estimate a mean over seeds by a two-level bootstrap (subjects, seeds), BCa (Efron 1987).

    The p-value is the bootstrap's share on the other side of 0, doubled (plus one rule). With few
    seeds their spread is underestimated by (S - 1) / S.
    """
    num_seeds = draws.seeds.shape[1]
    value = float(spread.everyone.mean())
    replicates = (spread.drawn.T * draws.seeds).sum(1) / draws.seeds.sum(1)
    without = spread.without.mean(0)
    if num_seeds > 1:
        others = (spread.everyone.sum() - spread.everyone) / (num_seeds - 1)
        without = np.concatenate([without, others])
    low, high = bca_interval(value, replicates, without[np.isfinite(without)])
    finite = replicates[np.isfinite(replicates)]
    tail = min((finite <= 0).sum(), (finite >= 0).sum())
    return Estimate(value, low, high, min(1.0, 2 * (tail + 1) / (len(finite) + 1)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for their number, step down (Holm 1979)."""
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        running = max(running, (len(p_values) - rank) * p_values[name])
        adjusted[name] = min(1.0, running)
    return adjusted


@dataclass(frozen=True)
class Gain:
    """What an arm gains over another; positive is better, whatever the measure's direction.

    Parameters
    ----------
    arm, baseline : the two arms.
    adjusted_p : p-value after Holm's adjustment over all arms compared with `baseline`.
    """

    arm: str
    baseline: str
    value: float
    low: float
    high: float
    p_value: float
    adjusted_p: float

    @property
    def is_shown(self) -> bool:
        """Whether the gain is above 0 beyond chance, also after adjustment."""
        return self.low > 0 and self.adjusted_p < 1 - LEVEL


Decision = Literal["helps", "no harm", "not shown"]


def decide(gains: Sequence[Gain], margin: float) -> Decision:
    """Apply the rule that was fixed before the study.

    ``helps`` if every gain is above 0 beyond chance; ``no harm`` if every interval lies above
    -`margin`; else ``not shown``, which is no proof of harm.
    """
    if gains and all(gain.is_shown for gain in gains):
        return "helps"
    if gains and all(gain.low > -margin for gain in gains):
        return "no harm"
    return "not shown"
