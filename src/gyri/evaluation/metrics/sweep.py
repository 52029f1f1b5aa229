"""Dose response and disentanglement: one condition is changed, everything else is held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.synthetic import SWEEP_BASE
from gyri.evaluation.bootstrap import draw_counts, mean_interval, percentile_interval
from gyri.evaluation.labels import levels, numbers, one_hot, shared_columns
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.volumes import TISSUES
from gyri.registry import METRICS

LEAST_BASES = 5
LEAST_VALUES = 3
"""Fewer values have no order to speak of."""
LEAST_HOLD = 20
LEAST_RESCANNED = 5
HOLD_RESAMPLES = 1000
ACQUISITION = ("scanner", "site")
"""Conditions of how a scan was made: changing them must leave the brain as it is."""
RESCAN_SD_ML = {
    2.0: {"brain_ml": 11.5, "gm_ml": 20.8, "wm_ml": 16.0, "csf_ml": 3.9, "central_csf_ml": 1.4},
    4.0: {"brain_ml": 12.4, "gm_ml": 26.3, "wm_ml": 20.7, "csf_ml": 5.4, "central_csf_ml": 0.6},
}
"""Within-subject standard deviation of `morph-v1` by spacing in mm: 11 young adults of OASIS-1
scanned twice within 90 days on one scanner. Their ventricles are small; large ones vary more."""


def base_taus(doses: FloatArray, volumes: FloatArray, bases: np.ndarray) -> FloatArray:
    """Return Kendall's tau-b of volume with dose within each base; NaN where either is constant.

    Parameters
    ----------
    doses, volumes : (N,).
    bases : (N,) which base a sample belongs to.
    """
    from scipy.stats import kendalltau

    return np.array(
        [
            kendalltau(doses[bases == base], volumes[bases == base]).statistic
            for base in np.unique(bases)
        ]
    )


def base_slopes(doses: FloatArray, volumes: FloatArray, bases: np.ndarray) -> FloatArray:
    """Return the least-squares slope of volume over dose within each base."""
    return np.array(
        [
            np.polyfit(doses[bases == base], volumes[bases == base], 1)[0]
            for base in np.unique(bases)
        ]
    )


def within_sd(volumes: FloatArray, groups: np.ndarray) -> tuple[float, FloatArray, FloatArray]:
    """Return the pooled standard deviation within groups, and its parts.

    Returns
    -------
    tuple
        The pooled value, (G,) sums of squares and (G,) degrees of freedom.
    """
    names, group = np.unique(groups, return_inverse=True)
    size = np.bincount(group)
    mean = np.bincount(group, volumes) / size
    squares = np.bincount(group, (volumes - mean[group]) ** 2, len(names)).astype(np.float64)
    freedom = (size - 1).astype(np.float64)
    total = float(freedom.sum())
    return float(np.sqrt(squares.sum() / total)) if total else NAN, squares, freedom


@dataclass(frozen=True)
class Swept:
    """A sweep as the table of samples tells it.

    Parameters
    ----------
    column : the only condition that differs within a base.
    continuous : whether it is a number.
    bases : (N,) names of the bases.
    """

    column: str
    continuous: bool
    bases: np.ndarray


def read_sweep(table: pd.DataFrame, real: pd.DataFrame) -> Swept:
    """Find which condition was swept.

    Raises
    ------
    Refusal
        If the table has no sweep, several conditions differ within a base, or TRAIN does not
        have the one that does.
    """
    if SWEEP_BASE not in table:
        raise Refusal(
            "The set is no sweep. Make one with `gyri sample RUN --sweep age=20:90:8` to see "
            "whether volumes follow a condition when nothing else changes."
        )
    bases = table[SWEEP_BASE].astype(str).to_numpy()
    text = table.drop(columns=SWEEP_BASE).astype(str)
    swept = [str(c) for c in text if (text[c].groupby(bases).nunique() > 1).any()]
    if len(swept) != 1:
        raise Refusal(
            f"{len(swept)} conditions differ within a base ({', '.join(swept) or 'none'}); a sweep "
            "changes exactly one."
        )
    known = shared_columns(table, real)
    if swept[0] not in known:
        raise Refusal(f"{swept[0]} was swept, which the table of real subjects does not have.")
    return Swept(swept[0], known[swept[0]], bases)


@METRICS.register("sweep")
class Sweep(Metric):
    """What a swept condition does to tissue volumes within each base.

    A number: the slope, best near HOLD's, and for tissues that change with it on HOLD Kendall's
    tau per base in HOLD's direction (higher is better, 1 is strictly monotone). HOLD's slope is
    that of a quadratic curve with the other conditions as covariates, over the swept values that
    lie in HOLD's range. Levels: the change of volumes between them, best near HOLD's; for scanner
    and site in scan-rescan standard deviations, too, where 1 is no more than scanning twice. That
    one is the segmenter's as well: a scanner's contrast moves the border it finds (four times the
    rescan error in grey matter of phantoms whose anatomy is the same), so read it beside HOLD's
    change. Needs five bases and, for tau, three values. Intervals resample bases.
    """

    name = "sweep"
    family = "conditioning"
    reads_table = True
    min_generated = 2 * LEAST_BASES
    blind_to = "Everything but five tissue volumes, and whether the bases themselves are plausible."

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the response of every tissue to the swept condition."""
        table = generated.volumes.table
        swept = read_sweep(table, study.train.volumes.table)
        num_bases = len(np.unique(swept.bases))
        if num_bases < LEAST_BASES:
            raise Refusal(
                f"The sweep has {num_bases} bases; at least {LEAST_BASES} are needed for an "
                f"interval. Sample again with --num {LEAST_BASES} or more."
            )
        if swept.continuous:
            return _dose_response(swept, generated, study)
        if swept.column not in ACQUISITION:
            return _level_effects(swept, generated, study)
        scores = [_disturbance(t, swept, generated, study) for t in TISSUES]
        try:
            return scores + _level_effects(swept, generated, study)
        except Refusal:  # HOLD has no such scanners; rescans still say what is too much
            return scores


def _score(tissue: str, quantity: str, swept: Swept, label: str, n: int, **rest: Any) -> Score:
    num_bases = len(np.unique(swept.bases))
    return Score(
        key=f"sweep/{swept.column}/{tissue}/{quantity}",
        name=f"sweep[{swept.column},{tissue},{quantity},bases={num_bases},n={n}/{len(swept.bases)}]",
        metric="sweep",
        features=None,
        label=f"{swept.column} swept, {TISSUES[tissue]}: {label}",
        n_real=n,
        n_generated=len(swept.bases),
        **rest,
    )


def _dose_response(swept: Swept, generated: Evidence, study: Study) -> list[Score]:
    doses = numbers(generated.volumes.table[swept.column])
    hold = numbers(study.hold.volumes.table[swept.column])
    if np.isfinite(hold).sum() < LEAST_HOLD:
        raise Refusal(
            f"{swept.column} is known of {int(np.isfinite(hold).sum())} HOLD subjects; "
            f"{LEAST_HOLD} are needed for a slope."
        )
    inside = (doses >= np.nanmin(hold)) & (doses <= np.nanmax(hold))
    values = np.unique(doses[inside])
    if len(values) < 2:
        raise Refusal(
            f"Fewer than two swept values of {swept.column} lie in HOLD's range "
            f"({np.nanmin(hold):g} to {np.nanmax(hold):g})."
        )
    kept = Swept(swept.column, True, swept.bases[inside])
    scores: list[Score] = []
    for tissue in TISSUES:
        made = generated.morph[tissue][inside]
        real = _hold_slopes(tissue, swept, values, generated.volumes.table, study)
        low, high = percentile_interval(real[1:])
        scores.append(_slope(tissue, kept, doses[inside], made, (real[0], low, high), study))
        if len(values) >= LEAST_VALUES and not low <= 0 <= high:
            scores.append(_tau(tissue, kept, doses[inside], made, float(np.sign(real[0])), study))
    return scores


def _slope(
    tissue: str,
    swept: Swept,
    doses: FloatArray,
    made: FloatArray,
    real: tuple[float, float, float],
    study: Study,
) -> Score:
    found = base_slopes(doses, made, swept.bases)
    value, rng = float(found.mean()), study.rng("sweep", tissue, "slope")
    low, high = mean_interval(found, list(map(str, range(len(found)))), study.resamples, rng)
    known = int(np.isfinite(numbers(study.hold.volumes.table[swept.column])).sum())
    apart = "" if not low > real[2] and not high < real[1] else "; the intervals do not overlap"
    return _score(
        tissue,
        "slope",
        swept,
        f"change per unit of {swept.column}",
        known,
        value=value,
        low=low,
        high=high,
        better="near",
        target=real[0],
        unit="ml",
        note=f"HOLD {real[0]:.3g} ml (95 % {real[1]:.3g} to {real[2]:.3g}){apart}",
    )


def _tau(
    tissue: str, swept: Swept, doses: FloatArray, made: FloatArray, sign: float, study: Study
) -> Score:
    # A base whose volume does not change at all does not follow the condition.
    found = np.nan_to_num(sign * base_taus(doses, made, swept.bases))
    rng = study.rng("sweep", tissue, "tau")
    low, high = mean_interval(found, list(map(str, range(len(found)))), study.resamples, rng)
    known = int(np.isfinite(numbers(study.hold.volumes.table[swept.column])).sum())
    return _score(
        tissue,
        "tau",
        swept,
        f"Kendall's tau in HOLD's direction ({'grows' if sign > 0 else 'shrinks'})",
        known,
        value=float(found.mean()),
        low=low,
        high=high,
        better="higher",
        note=f"mean over bases; lowest {found.min():.2f}, above 0 in {(found > 0).mean():.0%}",
    )


def _covariates(swept: Swept, asked: pd.DataFrame, study: Study) -> list[FloatArray]:
    """Other conditions as columns (N,) of HOLD, those that every HOLD subject has."""
    table = study.hold.volumes.table
    found: list[FloatArray] = []
    for name, continuous in shared_columns(asked, table).items():
        if name == swept.column:
            continue
        if continuous:
            column = numbers(table[name])[:, None]
        else:
            known = levels(table[name])
            column = one_hot(known, sorted({level for level in known if level})[1:])
        if column.shape[1] and np.isfinite(column).all() and np.ptp(column) > 0:
            found += list(column.T)
    return found


def _hold_slopes(
    tissue: str, swept: Swept, values: FloatArray, asked: pd.DataFrame, study: Study
) -> FloatArray:
    """Slope over `values` of HOLD's curve; the estimate first, then resamples of subjects."""
    doses = numbers(study.hold.volumes.table[swept.column])
    rows = np.isfinite(doses)
    centre, scale = doses[rows].mean(), doses[rows].std()
    z = (doses - centre) / scale
    design = np.stack([np.ones_like(z), z, z**2, *_covariates(swept, asked, study)], axis=1)
    x = (values - centre) / scale
    curve = np.stack([x, x**2], axis=1)
    slope = np.polyfit(values, curve, 1)[0]
    coefficients = _fits(design[rows], study.hold.morph[tissue][rows], rows, tissue, study)
    return np.asarray(coefficients[:, 1:3] @ slope)


def _fits(
    design: FloatArray, volumes: FloatArray, rows: np.ndarray, tissue: str, study: Study
) -> FloatArray:
    """Least squares of (n, p); returns (1 + resamples, p), the estimate first."""
    ids = list(np.asarray(study.hold.volumes.ids)[rows])
    drawn = draw_counts(ids, HOLD_RESAMPLES, study.rng("sweep", "HOLD", tissue))
    counts = np.concatenate([np.ones((1, len(ids))), drawn])
    gram = np.einsum("rn,np,nq->rpq", counts, design, design, optimize=True)
    moment = (counts * volumes) @ design
    # A resample may lose a level and with it a direction; the pseudo-inverse leaves it at 0.
    return np.asarray((np.linalg.pinv(gram) @ moment[..., None])[..., 0])


def _level_effects(swept: Swept, generated: Evidence, study: Study) -> list[Score]:
    """Mean change of every later level against the first, within bases and on HOLD."""
    made_levels = np.array(levels(generated.volumes.table[swept.column]), object)
    hold_levels = levels(study.hold.volumes.table[swept.column])
    order = sorted({str(level) for level in made_levels})
    counts = {level: hold_levels.count(level) for level in order}
    usable = [level for level in order if counts[level] >= LEAST_BASES]
    if len(usable) < 2:
        raise Refusal(
            f"HOLD has fewer than two of the swept levels of {swept.column} with {LEAST_BASES} "
            f"subjects ({', '.join(f'{k} {v}' for k, v in counts.items())})."
        )
    codes = one_hot(hold_levels, usable)
    rows = np.asarray(np.isfinite(codes).all(1))
    covariates = _covariates(swept, generated.volumes.table, study)
    design = np.column_stack([np.ones(len(codes)), codes[:, 1:], *covariates])[rows]
    scores = []
    for tissue in TISSUES:
        fits = _fits(design, study.hold.morph[tissue][rows], rows, tissue, study)
        for place, level in enumerate(usable[1:], start=1):
            low, high = percentile_interval(fits[1:, place])
            change = _changes(generated.morph[tissue], made_levels, swept.bases, usable[0], level)
            rng = study.rng("sweep", tissue, level)
            ids = list(map(str, range(len(change))))
            ends = mean_interval(change, ids, study.resamples, rng)
            scores.append(
                _score(
                    tissue,
                    f"{usable[0]}-{level}",
                    swept,
                    f"change from {usable[0]} to {level}",
                    int(rows.sum()),
                    value=float(change.mean()),
                    low=ends[0],
                    high=ends[1],
                    better="near",
                    target=float(fits[0, place]),
                    unit="ml",
                    note=f"HOLD {fits[0, place]:.3g} ml (95 % {low:.3g} to {high:.3g})",
                )
            )
    return scores


def _changes(
    volumes: FloatArray, found: np.ndarray, bases: np.ndarray, first: str, second: str
) -> FloatArray:
    """Volume at `second` less that at `first`, one value a base that has both."""
    frame = pd.DataFrame({"base": bases, "level": found.astype(str), "ml": volumes})
    wide = frame.pivot_table(index="base", columns="level", values="ml")
    return np.asarray((wide[second] - wide[first]).dropna(), np.float64)


def rescan_sd(tissue: str, study: Study) -> tuple[float, str]:
    """Return the scan-rescan standard deviation in ml and where it was measured.

    The repeated sessions of the real sets where five subjects have some; else OASIS-1's at the
    nearest spacing, up to 6 mm; else HOLD's standard deviation between subjects.
    """
    ids = np.array([*study.train.volumes.ids, *study.hold.volumes.ids])
    volumes = np.concatenate([study.train.morph[tissue], study.hold.morph[tissue]])
    sd, _, freedom = within_sd(volumes, ids)
    if (freedom > 0).sum() >= LEAST_RESCANNED:
        return sd, f"scan-rescan sd of {int((freedom > 0).sum())} subjects of this cohort"
    spacing = float(np.mean(study.hold.volumes.grid.spacing_mm))
    if spacing <= 6:
        nearest = min(RESCAN_SD_ML, key=lambda known: abs(known - spacing))
        return RESCAN_SD_ML[nearest][tissue], f"scan-rescan sd of OASIS-1 at {nearest:g} mm"
    between = float(study.hold.morph[tissue].std(ddof=1))
    return between, "sd between HOLD subjects: scan-rescan error is not known at this spacing"


def _disturbance(tissue: str, swept: Swept, generated: Evidence, study: Study) -> Score:
    """Change within bases in scan-rescan standard deviations."""
    error, source = rescan_sd(tissue, study)
    sd, squares, freedom = within_sd(generated.morph[tissue], swept.bases)
    low = high = NAN
    if study.resamples:
        ids = list(map(str, range(len(squares))))
        counts = draw_counts(ids, study.resamples, study.rng("sweep", tissue, "change"))
        low, high = percentile_interval(np.sqrt((counts @ squares) / (counts @ freedom)) / error)
    beyond = "; more than scanning twice changes" if low > 1 else ""
    return _score(
        tissue,
        "change",
        swept,
        "change within a base over scan-rescan error",
        len(study.hold),
        value=sd / error if error > 0 else NAN,
        low=low,
        high=high,
        better="lower",
        note=f"{sd:.3g} ml against {error:.3g} ml, the {source}{beyond}",
    )
