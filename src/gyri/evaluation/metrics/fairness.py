"""Fairness: how good the set is for every group of people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gyri.evaluation.bootstrap import centred_interval, draw_counts, percentile_interval
from gyri.evaluation.effects import cohens_d, weighted_d
from gyri.evaluation.labels import levels, numbers, shared_columns
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.kernel import cubic_kernel, plain_distance, weighted_distances
from gyri.evaluation.metrics.manifold import NEIGHBOURS, SUBSETS, Points, Rows, coverage_null
from gyri.evaluation.metrics.volumes import TISSUES
from gyri.registry import METRICS

GROUPED = ("sex", "age", "scanner", "site")
VOLUMES = ("brain_ml", "gm_ml", "central_csf_ml")
FEATURES = ("morph-v1", "radiomics-v1", "spectrum-v1")
LEAST = NEIGHBOURS + 2
RANKED = 30
"""Groups smaller than this on either side are shown but not compared."""


@dataclass(frozen=True)
class Group:
    """People of one kind in HOLD and among the samples.

    Parameters
    ----------
    column : what they share, for example ``sex``.
    level : its value, ``F``, ``70-79``.
    real, made : rows of HOLD and of the samples.
    """

    column: str
    level: str
    real: Rows
    made: Rows

    @property
    def ranked(self) -> bool:
        """Whether both sides are large enough to compare the group with others."""
        return min(len(self.real), len(self.made)) >= RANKED


@dataclass(frozen=True)
class Measured:
    """One quantity of one group with its resamples."""

    group: Group
    value: float
    low: float
    high: float
    replicates: FloatArray


def group_levels(table: pd.DataFrame, column: str) -> list[str | None]:
    """Return the level of every row; ages become decades, ``70-79``."""
    if column != "age":
        return levels(table[column])
    decades = [None if np.isnan(age) else int(age // 10) * 10 for age in numbers(table[column])]
    return [None if start is None else f"{start}-{start + 9}" for start in decades]


def groups(generated: pd.DataFrame, hold: pd.DataFrame) -> list[Group]:
    """Return the groups with at least seven rows on both sides."""
    found = []
    shared = shared_columns(generated, hold)
    for column in [name for name in GROUPED if name in shared]:
        real, made = (np.array(group_levels(t, column), object) for t in (hold, generated))
        for level in sorted({level for level in made if level}):
            rows = [np.flatnonzero(side == level) for side in (real, made)]
            if min(map(len, rows)) >= LEAST:
                found.append(Group(column, str(level), *rows))
    return found


@METRICS.register("fairness")
class Fairness(Metric):
    """Kernel distance, coverage and volume effect sizes of each sex, age decade and scanner.

    Each group of samples is held to the same group of HOLD, on all weight-free features beside
    each other: kernel distance (lower is better, 0 for equal distributions), coverage (higher is
    better; read beside its expectation, which depends on n), Cohen's d of brain, grey matter and
    ventricles (best at 0). Groups need seven on either side; below 30 they are not ranked. The
    gap is the worst ranked group less the best one, 0 where all fare alike; with more than two
    groups the extremes are chosen after the fact and its interval is too narrow: read it beside
    the ceiling's.
    Intervals resample subjects; those of coverage hold samples and balls fixed. Sees who is
    served worse, not why: a group that is rare in TRAIN usually is.
    """

    name = "fairness"
    family = "conditioning"
    reads_table = True
    min_generated = LEAST
    blind_to = "Groups that the table does not name, and crossings such as old women."

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return five scores a group and two gaps a column."""
        found = groups(generated.volumes.table, study.hold.volumes.table)
        if not found:
            raise Refusal(
                f"No group by {', '.join(GROUPED)} has {LEAST} samples and {LEAST} HOLD subjects; "
                "make more samples with the conditions of HOLD."
            )
        distances = _kernel_distances(found, generated, study)
        coverages = [_coverage(group, found, generated, study) for group in found]
        scores = [_distance_score(measured) for measured in distances]
        scores += [_coverage_score(measured, found) for measured in coverages]
        scores += [_volume_score(g, t, generated, study) for g in found for t in VOLUMES]
        for column in dict.fromkeys(group.column for group in found):
            scores += _gaps(column, "kid", distances, 1.0)
            scores += _gaps(column, "coverage", coverages, -1.0)
        return scores


def _joined(evidence: Evidence) -> FloatArray:
    return np.concatenate([evidence.features[n] for n in FEATURES if n in evidence.features], 1)


def _counts(group: Group, what: str, generated: Evidence, study: Study) -> list[FloatArray]:
    """How often rows of the group are drawn, (R, n) of HOLD and (R, m) of the samples."""
    rng = study.rng("fairness", what, group.column, group.level)
    sides = ((study.hold, group.real), (generated, group.made))
    return [
        draw_counts([e.volumes.ids[row] for row in rows], study.resamples, rng) for e, rows in sides
    ]


def _kernel_distances(found: list[Group], generated: Evidence, study: Study) -> list[Measured]:
    x, y = _joined(study.hold), _joined(generated)
    pooled = np.concatenate([x, y])
    kernel = cubic_kernel(pooled, pooled)
    measured = []
    for group in found:
        rows = np.concatenate([group.real, len(x) + group.made])
        own, n = kernel[np.ix_(rows, rows)], len(group.real)
        value = plain_distance(own, n)
        low = high = NAN
        replicates = np.zeros(0)
        if study.resamples:
            counts = _counts(group, "kid", generated, study)
            replicates = weighted_distances(own, n, *counts)
            low, high = centred_interval(value, replicates)
        measured.append(Measured(group, value, low, high, replicates))
    return measured


def _common_size(group: Group, found: list[Group]) -> int:
    """Rows a side on which coverage is measured: the same for all ranked groups of a column."""
    own = min(len(group.real), len(group.made))
    ranked = [g for g in found if g.column == group.column and g.ranked]
    return min(min(len(g.real), len(g.made)) for g in ranked) if group.ranked else own


def _coverage(group: Group, found: list[Group], generated: Evidence, study: Study) -> Measured:
    """Coverage of HOLD's people of the group, averaged over seeded subsets of equal size."""
    points = Points.of(_joined(study.hold)[group.real], _joined(generated)[group.made])
    sizes = len(group.real), len(group.made)
    total, seen = np.zeros(sizes[0]), np.zeros(sizes[0])
    rng = study.rng("fairness", "subsets", group.column, group.level)
    for real, made in _subsets(*sizes, _common_size(group, found), rng):
        total[real] += points.take(real, made).per_sample()["coverage"]
        seen[real] += 1
    low = high = NAN
    replicates = np.zeros(0)
    if study.resamples:
        counts = _counts(group, "coverage", generated, study)[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = (counts @ total) / (counts @ seen)
        low, high = percentile_interval(replicates)
    return Measured(group, float(total.sum() / seen.sum()), low, high, replicates)


def _subsets(
    num_real: int, num_made: int, size: int, rng: np.random.Generator
) -> list[tuple[Rows, Rows]]:
    """Return pairs of `size` row indices, several where either side is cut."""
    rounds = 1 if num_real == num_made == size else SUBSETS
    return [
        (np.sort(rng.permutation(num_real)[:size]), np.sort(rng.permutation(num_made)[:size]))
        for _ in range(rounds)
    ]


def _score(group: Group, quantity: str, label: str, note: str, **rest: Any) -> Score:
    n = f"n={len(group.real)}/{len(group.made)}"
    doubt = "" if group.ranked else f"fewer than {RANKED} on a side: no ranking"
    return Score(
        key=f"fairness/{group.column}/{group.level}/{quantity}",
        name=f"fairness[{group.column}={group.level},{quantity},{n}]",
        metric="fairness",
        features=None,
        label=f"{group.column} {group.level}: {label}",
        n_real=len(group.real),
        n_generated=len(group.made),
        reliable=group.ranked,
        note="; ".join(part for part in (note, doubt) if part),
        **rest,
    )


def _distance_score(measured: Measured) -> Score:
    return _score(
        measured.group,
        "kid",
        "kernel distance",
        "unbiased; negative values are legal",
        value=measured.value,
        low=measured.low,
        high=measured.high,
        target=0.0,
    )


def _coverage_score(measured: Measured, found: list[Group]) -> Score:
    size = _common_size(measured.group, found)
    return _score(
        measured.group,
        "coverage",
        "coverage",
        f"expected {coverage_null(size):.2f} for a perfect generator ({size} a side)",
        value=measured.value,
        low=measured.low,
        high=measured.high,
        better="higher",
    )


def _volume_score(group: Group, tissue: str, generated: Evidence, study: Study) -> Score:
    real, made = study.hold.morph[tissue][group.real], generated.morph[tissue][group.made]
    d = cohens_d(real, made)
    low = high = NAN
    if study.resamples and np.isfinite(d):
        counts = _counts(group, tissue, generated, study)
        low, high = percentile_interval(weighted_d(real, made, *counts))
    return _score(
        group,
        f"{tissue}/d",
        f"{TISSUES[tissue]}, effect size (Cohen's d)",
        "",
        value=d,
        low=low,
        high=high,
        better="near",
        target=0.0,
    )


def _gaps(column: str, quantity: str, measured: list[Measured], sign: float) -> list[Score]:
    """Worst less best ranked group; none where fewer than two can be ranked."""
    ranked = [m for m in measured if m.group.column == column and m.group.ranked]
    if len(ranked) < 2:
        return []
    worst, best = (pick(ranked, key=lambda m: sign * m.value) for pick in (max, min))
    value = sign * (worst.value - best.value)
    low = high = NAN
    if worst.replicates.size:
        low, high = centred_interval(value, sign * (worst.replicates - best.replicates))
    names = "/".join(m.group.level for m in ranked)
    words = {"kid": "kernel distance", "coverage": "coverage"}[quantity]
    n = [sum(len(m.group.real) for m in ranked), sum(len(m.group.made) for m in ranked)]
    return [
        Score(
            key=f"fairness/{column}/gap/{quantity}",
            name=f"fairness[{column},gap,{quantity},{names},n={n[0]}/{n[1]}]",
            metric="fairness",
            features=None,
            label=f"{column}: gap in {words} between worst and best group",
            value=value,
            low=low,
            high=high,
            n_real=n[0],
            n_generated=n[1],
            better="lower",
            note=f"worst {worst.group.level} ({worst.value:.3g}), best {best.group.level} "
            f"({best.value:.3g}), {len(ranked)} groups ranked"
            + ("; extremes of several groups" if len(ranked) > 2 else ""),
        )
    ]
