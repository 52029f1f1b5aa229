"""Whether every spatial frequency holds as much power as in real volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import centred_interval, draw_counts, share_interval
from gyri.evaluation.features.spectrum import NUM_BANDS, band_edges
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

FEATURE_SET = "spectrum-v1"
HALF_NYQUIST = 0.25
"""Cycles per voxel; Nyquist's frequency is 0.5."""
BAND_PERCENTILE = 99.0


def log_ratios(generated: FloatArray, hold: FloatArray) -> FloatArray:
    """Return the mean log-power of `generated` (N, bands) minus HOLD's (n, bands), a band each.

    Natural logarithm of the ratio of geometric mean powers: 0 for equal power, ln 2 for twice.
    """
    return np.asarray(generated.mean(0) - hold.mean(0))


def spreads(hold: FloatArray) -> FloatArray:
    """Return (bands,) standard deviations of HOLD's subjects, ddof 1; never 0."""
    return np.asarray(np.maximum(hold.std(0, ddof=1), 1e-9))


def farthest(bands: FloatArray, hold: FloatArray) -> FloatArray:
    """Return (N,) each volume's largest deviation from HOLD's mean, in HOLD sds."""
    return np.asarray((np.abs(bands - hold.mean(0)) / spreads(hold)).max(1))


def held_out_farthest(hold: FloatArray) -> FloatArray:
    """Return (n,) the largest deviation of each HOLD subject from the others, in their sds."""
    n = len(hold)
    keep = ~np.eye(n, dtype=bool)
    return np.array([farthest(hold[row][None], hold[keep[row]])[0] for row in range(n)])


@METRICS.register("power")
class Power(Metric):
    """Power spectrum against HOLD: largest deviation of a band, slope, share of volumes inside.

    Deviations are of the mean log-power of a band from HOLD's, in HOLD sds, up to half of
    Nyquist's frequency (anatomy) and up to Nyquist's (noise, blur, checkerboards); lower is
    better, not 0 at finite n. The slope is the difference of the mean spectral slopes. A volume
    is inside if none of its bands lies farther out than HOLD's subjects do: the band is
    simultaneous, 99 % of subjects left out of it are inside. Radial averages over the whole grid:
    blind to phase and to direction, so surrogates of random phase score as real ones.
    """

    name = "power"
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "power/half": ("+noise", "+bias_field"),
        "power/nyquist": ("+blur", "+noise", "+bias_field"),
        "power/inside": ("-blur", "-noise"),
        "power/slope": ("+blur", "-noise"),
    }
    blind_to = "where anything is: volumes of random phase with real amplitudes pass"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return both deviations, the slope's difference and the share inside."""
        made, hold = _features(generated), _features(study.hold)
        grid = generated.volumes.grid
        upper = band_edges(grid.shape)[1:]
        counts = self._counts(generated, study)
        return [
            self._deviation("half", upper <= HALF_NYQUIST, made, hold, counts, upper, study),
            self._deviation("nyquist", upper <= 0.5 + 1e-9, made, hold, counts, upper, study),
            self._slope(made, hold, counts),
            self._inside(made, hold, study),
        ]

    def _counts(self, generated: Evidence, study: Study) -> tuple[FloatArray, FloatArray] | None:
        if not study.resamples:
            return None
        rng = study.rng("power")
        both = [
            draw_counts(evidence.volumes.ids, study.resamples, rng)
            for evidence in (generated, study.hold)
        ]
        made, held = (counts / counts.sum(1, keepdims=True) for counts in both)
        return made, held

    def _deviation(
        self,
        name: str,
        used: NDArray[np.bool_],
        made: FloatArray,
        hold: FloatArray,
        counts: tuple[FloatArray, FloatArray] | None,
        upper: FloatArray,
        study: Study,
    ) -> Score:
        bands = np.flatnonzero(used)
        sd = spreads(hold[:, bands])
        ratio = log_ratios(made[:, bands], hold[:, bands])
        value = float(np.abs(ratio / sd).max())
        low = high = NAN
        if counts is not None:
            means = counts[0] @ made[:, bands] - counts[1] @ hold[:, bands]
            low, high = centred_interval(value, np.abs(means / sd).max(1))
        worst = int(np.abs(ratio / sd).argmax())
        words = "half of Nyquist" if name == "half" else "Nyquist"
        return Score(
            key=f"power/{name}",
            name=f"power[{FEATURE_SET},max-band,{name},n={len(hold)}/{len(made)}]",
            metric="power",
            features=FEATURE_SET,
            label=f"largest deviation of power up to {words}",
            value=value,
            low=max(0.0, low) if np.isfinite(low) else low,
            high=high,
            n_real=len(hold),
            n_generated=len(made),
            unit="HOLD sd",
            note=f"below {upper[bands[worst]]:.2f} cycles a voxel: {np.exp(ratio[worst]):.3g} "
            "times HOLD's power",
        )

    def _slope(
        self, made: FloatArray, hold: FloatArray, counts: tuple[FloatArray, FloatArray] | None
    ) -> Score:
        value = float(made[:, -1].mean() - hold[:, -1].mean())
        low = high = NAN
        if counts is not None:
            replicates = counts[0] @ made[:, -1] - counts[1] @ hold[:, -1]
            low, high = centred_interval(value, replicates)
        return Score(
            key="power/slope",
            name=f"power_slope[{FEATURE_SET},n={len(hold)}/{len(made)}]",
            metric="power",
            features=FEATURE_SET,
            label="spectral slope minus HOLD's",
            value=value,
            low=low,
            high=high,
            n_real=len(hold),
            n_generated=len(made),
            better="near",
            target=0.0,
            note=f"HOLD's slope is {hold[:, -1].mean():.2f}; above 0: too smooth, below: too rough",
        )

    def _inside(self, made: FloatArray, hold: FloatArray, study: Study) -> Score:
        inside = self._passed(made, hold, study)
        low, high = share_interval(int(inside.sum()), len(inside))
        return Score(
            key="power/inside",
            name=f"power_inside[{FEATURE_SET},hold-99,n={len(hold)}/{len(made)}]",
            metric="power",
            features=FEATURE_SET,
            label="volumes with the power of real ones in every band",
            value=float(inside.mean()),
            low=low,
            high=high,
            n_real=len(hold),
            n_generated=len(inside),
            better="higher",
            note="99 % of unseen real subjects are expected inside",
        )

    def _passed(self, made: FloatArray, hold: FloatArray, study: Study) -> NDArray[np.bool_]:
        bands = hold[:, :NUM_BANDS]
        limit = study.once(
            "power/limit",
            lambda: float(
                np.percentile(held_out_farthest(bands), BAND_PERCENTILE, method="weibull")
            ),
        )
        return np.asarray(farthest(made[:, :NUM_BANDS], bands) <= limit)

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return whether each sample's power is real in every band."""
        if FEATURE_SET not in generated.raw:
            return {}
        inside = self._passed(_features(generated), _features(study.hold), study)
        return {"power_inside": [bool(value) for value in inside & ~generated.failed]}


def _features(evidence: Evidence) -> FloatArray:
    if FEATURE_SET not in evidence.raw:
        raise Refusal(f"{FEATURE_SET} was not measured; name it among the feature sets.")
    return evidence.raw[FEATURE_SET]
