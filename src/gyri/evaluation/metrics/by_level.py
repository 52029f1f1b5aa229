"""Frechet distance of each level of a categorical condition, with the same n at every level."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gyri.evaluation.bootstrap import centred_interval, draw_counts
from gyri.evaluation.levels import LEAST, Level, categorical_columns, found_levels
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.frechet import (
    RELIABLE_SAMPLES,
    resampled_distances,
    subset_counts,
    train_axes,
)
from gyri.registry import METRICS

DRAWS = 20
"""Subsets whose distances are averaged."""
RESAMPLES = 200
DRAWS_A_RESAMPLE = 5
"""Subsets of each resample of subjects behind the interval."""
OTHERS = "other_levels"
"""Anchor: real people of the other levels in place of the samples."""


def draw_distances(
    x: FloatArray, y: FloatArray, n: int, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Return (draws,) Frechet distances of n rows of x and n of y, without replacement.

    Parameters
    ----------
    x, y : (N, p) and (M, p), N and M at least n.
    """
    counts = (subset_counts(len(side), n, draws, rng) for side in (x, y))
    return resampled_distances(x, y, *counts)


@METRICS.register("fd_by_level")
class FrechetByLevel(Metric):
    """Frechet distance of each scanner, sex or tumour type to real people of the same level.

    For every categorical column that samples, HOLD and TRAIN share: on the first axes of `fd`, as
    many as a quarter of n, the samples of a level against HOLD's people of that level. Lower is
    better, from 0. The distance
    is biased upwards by a small n, so every level of a column is cut to the same n, that of the
    smallest level on any side: mean of 20 draws without replacement. The SD over draws says how
    much the choice of n rows matters and is no error of the mean, for draws share people; it is 0
    where a level has no more than n. The interval resamples subjects. At the same n: the ceiling
    (TRAIN's people of the level) and what HOLD's people of the other levels get, about as a
    generator that ignores the condition. Levels need 10 rows on each side.
    """

    name = "fd_by_level"
    family = "conditioning"
    reads_table = True
    min_generated = LEAST
    sees: ClassVar = {"fd_by_level/radiomics-v1/*": ("+blur", "+noise", "+clipping")}
    blind_to = (
        "whether a level is followed, where levels look alike: then the other levels' distance is "
        "as small; rare levels; numbers such as age; and all that `fd` is blind to"
    )

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return a score a level and feature set; a level that is too small has no value."""
        columns = categorical_columns(generated, study)
        if not columns:
            raise Refusal(
                "The samples carry no categorical condition that HOLD and TRAIN have, too; train "
                "with one (scanner, sex) among the recipe's conditions."
            )
        axes = {features: train_axes(features, study) for features in generated.features}
        scores: list[Score] = []
        for column in columns:
            found = found_levels(column, generated, study)
            usable = [level for level in found if level.smallest >= LEAST]
            if len(usable) > 1:
                n = min(level.smallest for level in usable)
                scores += [
                    _judge(level, features, first_axes(projection, n), n, generated, study)
                    for features, projection in axes.items()
                    for level in usable
                ]
            scores += [
                _unjudged(level) for level in found if len(usable) < 2 or level not in usable
            ]
        return scores


def first_axes(axes: FloatArray, n: int) -> FloatArray:
    """Return as many of the axes (d, p) as n rows a side know a covariance of."""
    return axes[:, : n // RELIABLE_SAMPLES]


def _judge(
    level: Level, features: str, axes: FloatArray, n: int, generated: Evidence, study: Study
) -> Score:
    hold = study.hold.features[features] @ axes
    x, y = hold[level.real], generated.features[features][level.made] @ axes
    train = study.train.features[features][level.train] @ axes

    def draws(side: FloatArray, what: str) -> FloatArray:
        return draw_distances(x, side, n, DRAWS, study.rng("fd_by_level", level.words, what))

    found = draws(y, "samples")
    value, spread = float(found.mean()), float(found.std(ddof=1))
    others = float(draws(hold[level.others], "others").mean())
    low, high = _interval(level, x, y, n, value, generated, study)
    return Score(
        key=f"fd_by_level/{features}/{level.words}",
        name=f"fd_by_level[{features},zscore-train,p={axes.shape[1]},{level.words},draws={DRAWS},n={n}/{n}]",
        metric="fd_by_level",
        features=features,
        label=f"{level.column} {level.name}: Fréchet distance, {features}",
        value=value,
        low=low,
        high=high,
        n_real=len(level.real),
        n_generated=len(level.made),
        note=f"mean of {DRAWS} draws of {n} a side, SD over draws {spread:.2g}; real people of "
        f"other levels get {others:.3g}",
        anchors={"ceiling": float(draws(train, "ceiling").mean()), OTHERS: others},
        draws=[float(distance) for distance in found],
    )


def _interval(
    level: Level,
    x: FloatArray,
    y: FloatArray,
    n: int,
    value: float,
    generated: Evidence,
    study: Study,
) -> tuple[float, float]:
    """Return the interval of the mean over draws, subjects of both sides resampled."""
    resamples = min(study.resamples, RESAMPLES)
    if not resamples:
        return NAN, NAN
    rng = study.rng("fd_by_level", level.words, "bootstrap")
    counts = []
    for evidence, rows in ((study.hold, level.real), (generated, level.made)):
        ids = [evidence.volumes.ids[row] for row in rows]
        drawn = draw_counts(ids, resamples, rng).astype(np.int64)
        subsets = [
            rng.multivariate_hypergeometric(own, min(n, int(own.sum())), size=DRAWS_A_RESAMPLE)
            for own in drawn
        ]
        counts.append(np.concatenate(subsets).astype(np.float64))
    replicates = resampled_distances(x, y, *counts).reshape(resamples, -1).mean(1)
    low, high = centred_interval(value, replicates)
    return max(0.0, low), high


def _unjudged(level: Level) -> Score:
    sizes = f"TRAIN {len(level.train)}, HOLD {len(level.real)}, samples {len(level.made)}"
    reason = (
        f"{sizes}; {LEAST} are needed on each side"
        if level.smallest < LEAST
        else f"no other level of {level.column} has {LEAST} on each side"
    )
    return Score(
        key=f"fd_by_level/{level.words}",
        name=f"fd_by_level[{level.words},not judged]",
        metric="fd_by_level",
        features=None,
        label=f"{level.column} {level.name}: Fréchet distance",
        value=NAN,
        n_real=len(level.real),
        n_generated=len(level.made),
        reliable=False,
        note=f"not judged: {reason}",
    )
