"""Conditioning fidelity: how far volumes show what they were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.synthetic import SWEEP_BASE
from gyri.evaluation.bootstrap import draw_counts, percentile_interval
from gyri.evaluation.estimators import SEEDS, Designs, Estimator, Views, fit_estimator
from gyri.evaluation.labels import Label, label, shared_columns
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

LEAST_TRAIN = 20
LEAST_JUDGED = 10
LEAST_LEVEL = 3
"""Fewest rows of a level among HOLD or the samples."""
CARICATURE = 1.1
HOLD_RESAMPLES = 1000
SURE_SHARE = 0.5


def squared_errors(estimates: FloatArray, labels: FloatArray) -> tuple[float, float]:
    """Return the mean squared error with own labels and with the labels of other rows.

    The second is the exact mean over all pairs of different rows, that is over all shuffles in
    which no row keeps its label.

    Parameters
    ----------
    estimates, labels : (N, c) with N >= 2.
    """
    between = ((estimates[:, None] - labels[None]) ** 2).sum(2)
    own = float(np.trace(between))
    n = len(labels)
    return own / n, float(between.sum() - own) / (n * (n - 1))


def response(estimates: FloatArray, labels: FloatArray, weights: FloatArray) -> FloatArray:
    """Return (R,) how much the estimates follow the labels: (E_shuffled - E) / label spread.

    Both errors are `squared_errors`, the spread is the mean squared distance between labels of
    different rows. Of a number this is the slope of the estimate over the label; of two levels it
    is Tjur's coefficient of discrimination (mean probability of a level where it is true less
    where it is not). 0: not at all; NaN where all labels are equal.

    Parameters
    ----------
    estimates, labels : (N, c).
    weights : (R, N), how often each row is drawn.
    """
    share = weights / weights.sum(1, keepdims=True)
    mean_label = share @ labels
    shared = share @ (estimates * labels).sum(1) - ((share @ estimates) * mean_label).sum(1)
    spread = share @ (labels**2).sum(1) - (mean_label**2).sum(1)
    return np.divide(shared, spread, out=np.full_like(spread, NAN), where=spread > 1e-12)


@dataclass(frozen=True)
class Ruler:
    """An estimator of one column and how well it does on HOLD.

    Parameters
    ----------
    estimates, labels : (seeds, n, c) and (n, c) of HOLD's rows with a known label.
    response : (seeds,) on HOLD.
    replicates : (seeds, resamples) of it, subjects of HOLD resampled.
    """

    estimator: Estimator
    estimates: FloatArray
    labels: FloatArray
    response: FloatArray
    replicates: FloatArray

    @property
    def sure(self) -> bool:
        """Whether HOLD's own response is known to better than half of its size."""
        low, _ = percentile_interval(self.replicates.ravel())
        return low > SURE_SHARE * float(self.response.mean())

    @property
    def label(self) -> Label:
        """What is estimated."""
        return self.estimator.label


def own_errors(label: Label, estimates: FloatArray, labels: FloatArray) -> FloatArray:
    """Return (n,) errors that a person can read, averaged over seeds.

    Of a number the absolute error in its unit; of levels 1 where the likeliest one is wrong.
    """
    if label.continuous:
        return np.asarray(np.abs(estimates - labels)[..., 0].mean(0))
    return np.asarray((estimates.argmax(2) != labels.argmax(1)).mean(0))


def _balance(label: Label, labels: FloatArray) -> FloatArray:
    """Weights (n,) under which every level counts the same."""
    if label.continuous:
        return np.ones(len(labels))
    return np.asarray(labels @ (1 / np.maximum(labels.sum(0), 1)))


def _subjects(table: pd.DataFrame, rows: np.ndarray) -> list[str]:
    """Ids that are drawn together: subjects, or the bases of a sweep."""
    known = table[SWEEP_BASE] if SWEEP_BASE in table else table.index.to_series()
    return [str(name) for name in known.iloc[rows]]


@METRICS.register("conditioning")
class Conditioning(Metric):
    """Gain of every condition: how far volumes follow it, real scans being 1.

    gain = (E_shuffled - E_cond) / (E_shuffled - E_HOLD), squared errors of an estimator trained
    on TRAIN; each set is shuffled by itself and errors are in units of its labels' spread, so
    that a set made for other ages than HOLD's can be judged. 0: the condition is ignored; 1: as
    faithful as real scans; above 1.1: caricature. The estimator is linear in principal components
    of weight-free features or of the image at 8 mm, whichever cross-validates better on TRAIN;
    five seeds, each trained on other subjects. The interval covers samples, HOLD and seeds. Needs
    20 labelled TRAIN rows, 10 on either side, 3 of a level. A column that HOLD itself does not
    let the estimator find is listed without a value. Conditions that go together share their
    gain: a model that follows age alone gains on dementia, too (a sweep tells them apart).
    """

    name = "conditioning"
    family = "conditioning"
    reads_table = True
    ceiling = "HOLD"
    min_generated = LEAST_JUDGED
    blind_to = (
        "Quality: a blurred or repeated brain of the right age is right. A shift that all samples "
        "share, which the error shows and the gain does not."
    )

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return gain and error for every column that the samples and TRAIN share."""
        table = generated.volumes.table
        columns = shared_columns(table, study.train.volumes.table)
        if not columns:
            raise Refusal(
                "The set has no column that TRAIN has; it was not made for any condition that "
                "could be checked."
            )
        views = _designs(study)(generated)
        scores: list[Score] = []
        for column, continuous in columns.items():
            try:
                scores += self._judge(_ruler(column, continuous, study), views, generated, study)
            except Refusal as refusal:
                scores.append(_unjudged(column, generated, study, str(refusal)))
        return scores

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return every sample's estimated number, or the probability of the level asked for."""
        table = generated.volumes.table
        asked = shared_columns(table, study.train.volumes.table)
        if not asked:
            return {}
        views = _designs(study)(generated)
        columns: dict[str, list[Any]] = {}
        for column, continuous in asked.items():
            try:
                ruler = _ruler(column, continuous, study)
            except Refusal:
                continue
            found = ruler.estimator.estimate(views).mean(0)
            if not continuous:
                found = (found * ruler.label.encode(table)).sum(1, keepdims=True)
            name = f"{column}_{'estimated' if continuous else 'probability'}"
            columns[name] = [float(v) if np.isfinite(v) else None for v in found[:, 0]]
        return columns

    def _judge(self, ruler: Ruler, views: Views, generated: Evidence, study: Study) -> list[Score]:
        table = generated.volumes.table
        codes = ruler.label.encode(table)
        rows = np.flatnonzero(np.isfinite(codes).all(1))
        labels = codes[rows]
        _check("the samples", ruler.label, labels)
        estimates = ruler.estimator.estimate(views)[:, rows]
        ones = np.ones((1, len(rows)))
        gains = np.array([response(e, labels, ones)[0] for e in estimates]) / ruler.response
        errors, balance = own_errors(ruler.label, estimates, labels), _balance(ruler.label, labels)
        gain, error = float(gains.mean()), float(balance @ errors / balance.sum())
        low = high = error_low = error_high = NAN
        if study.resamples:
            rng = study.rng("conditioning", ruler.label.column)
            counts = draw_counts(_subjects(table, rows), study.resamples, rng)
            low, high = percentile_interval(_gain_replicates(ruler, estimates, labels, counts))
            with np.errstate(invalid="ignore"):
                drawn = (counts @ (balance * errors)) / (counts @ balance)
            error_low, error_high = percentile_interval(drawn)
        n = f"n={len(study.train)}/{len(ruler.labels)}/{len(rows)}"
        column, words = ruler.label.column, ruler.label.words
        common: dict[str, Any] = {
            "metric": self.name,
            "features": None,
            "n_real": len(ruler.labels),
            "n_generated": len(rows),
        }
        definition = f"{ruler.estimator.words},seeds={SEEDS},{n}"
        hold_error = _hold_error(ruler)
        return [
            Score(
                key=f"conditioning/{column}/gain",
                name=f"conditioning[{words},gain,{definition}]",
                label=f"{words}: gain of the condition",
                value=gain,
                low=low,
                high=high,
                better="near",
                target=1.0,
                reliable=ruler.sure,
                note=f"{_verdict(gain, low, high)}; {_about(ruler)}",
                **common,
            ),
            Score(
                key=f"conditioning/{column}/error",
                name=f"conditioning[{words},error,{definition}]",
                label=f"{words}: {_error_words(ruler.label)}",
                value=error,
                low=error_low,
                high=error_high,
                better="lower",
                note=f"{hold_error:.3g} on HOLD",
                **common,
            ),
        ]


def _designs(study: Study) -> Designs:
    found = study.once("conditioning/designs", lambda: Designs(study.train))
    assert isinstance(found, Designs)
    return found


def _ruler(column: str, continuous: bool, study: Study) -> Ruler:
    """Return the column's estimator, fitted once; refuses where HOLD cannot be estimated."""
    found = study.once(f"conditioning/column/{column}", lambda: _attempt(column, continuous, study))
    if isinstance(found, str):
        raise Refusal(found)
    assert isinstance(found, Ruler)
    return found


def _attempt(column: str, continuous: bool, study: Study) -> Ruler | str:
    """Return the ruler, or why there is none."""
    try:
        return _make_ruler(column, continuous, study)
    except Refusal as refusal:
        return str(refusal)


def _make_ruler(column: str, continuous: bool, study: Study) -> Ruler:
    train, hold = study.train.volumes, study.hold.volumes
    asked = label(column, continuous, train.table)
    if asked is None:
        raise Refusal(f"TRAIN holds too few different values of {column} to learn it from.")
    codes = asked.encode(train.table)
    known = int(np.isfinite(codes).all(1).sum())
    if known < LEAST_TRAIN:
        raise Refusal(f"{column} is known of {known} TRAIN rows; {LEAST_TRAIN} are needed.")
    held = asked.encode(hold.table)
    rows = np.flatnonzero(np.isfinite(held).all(1))
    labels = held[rows]
    _check("HOLD", asked, labels)
    estimator = fit_estimator(asked, _designs(study), codes, train.ids, study.seed)
    views = study.once("conditioning/HOLD", lambda: _designs(study)(study.hold))
    estimates = estimator.estimate(views)[:, rows]
    rng = study.rng("conditioning", "HOLD", column)
    counts = draw_counts(_subjects(hold.table, rows), HOLD_RESAMPLES, rng)
    replicates = np.stack([response(e, labels, counts) for e in estimates])
    value = np.array([response(e, labels, np.ones((1, len(rows))))[0] for e in estimates])
    ruler = Ruler(estimator, estimates, labels, value, replicates)
    if percentile_interval(replicates.ravel())[0] <= 0:
        own, shuffled = _mean_errors(ruler)
        raise Refusal(
            f"{asked.words} cannot be estimated from HOLD itself (squared error {own:.3g}, "
            f"{shuffled:.3g} with shuffled labels; 95 % interval of the difference holds 0), so "
            "nothing can be said of the samples."
        )
    return ruler


def _check(whose: str, asked: Label, labels: FloatArray) -> None:
    """Refuse rows that are too few or all alike."""
    if len(labels) < LEAST_JUDGED:
        raise Refusal(
            f"{asked.column} is known of {len(labels)} of {whose}; {LEAST_JUDGED} are needed."
        )
    if asked.continuous and np.ptp(labels) == 0:
        raise Refusal(f"{asked.column} is the same for all of {whose}; ask for different values.")
    counts = labels.sum(0)
    if not asked.continuous and (counts >= LEAST_LEVEL).sum() < 2:
        found = ", ".join(f"{name} {int(n)}" for name, n in zip(asked.levels, counts))
        raise Refusal(
            f"{asked.words} has fewer than two levels with {LEAST_LEVEL} rows in {whose} ({found})."
        )


def _gain_replicates(
    ruler: Ruler, estimates: FloatArray, labels: FloatArray, counts: FloatArray
) -> FloatArray:
    """Gains of resamples of the samples, each against one of HOLD and with one seed's estimator."""
    found = np.stack([response(e, labels, counts) for e in estimates])
    draw = np.arange(len(counts))
    seed = draw % SEEDS
    return np.asarray(found[seed, draw] / ruler.replicates[seed, draw % HOLD_RESAMPLES])


def _mean_errors(ruler: Ruler) -> tuple[float, float]:
    pairs = np.array([squared_errors(e, ruler.labels) for e in ruler.estimates])
    own, shuffled = pairs.mean(0)
    return float(own), float(shuffled)


def _hold_error(ruler: Ruler) -> float:
    balance = _balance(ruler.label, ruler.labels)
    errors = own_errors(ruler.label, ruler.estimates, ruler.labels)
    return float(balance @ errors / balance.sum())


def _error_words(asked: Label) -> str:
    if asked.continuous:
        return "mean absolute error of the estimate"
    return "share misjudged by the estimator, levels balanced"


def _about(ruler: Ruler) -> str:
    """How good the estimator is on HOLD."""
    if ruler.label.continuous:
        guess = float(np.abs(ruler.labels - np.median(ruler.labels)).mean())
        chance = f"{guess:.3g} by guessing the median"
    else:
        chance = f"{1 - 1 / len(ruler.label.levels):.2f} by chance"
    return f"estimator's error on HOLD {_hold_error(ruler):.3g} ({chance})"


def _verdict(gain: float, low: float, high: float) -> str:
    if gain > CARICATURE:
        return "caricature" if not low <= 1 else f"above {CARICATURE}, but the interval holds 1"
    if low <= 0 <= high:
        return "no sign that the condition is followed"
    return "0 ignores the condition, 1 is as faithful as real scans"


def _unjudged(column: str, generated: Evidence, study: Study, reason: str) -> Score:
    return Score(
        key=f"conditioning/{column}/gain",
        name=f"conditioning[{column},gain,not judged]",
        metric="conditioning",
        features=None,
        label=f"{column}: gain of the condition",
        value=NAN,
        n_real=len(study.hold),
        n_generated=len(generated),
        better="near",
        target=1.0,
        reliable=False,
        note=f"not judged: {reason}",
    )
