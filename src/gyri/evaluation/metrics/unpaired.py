"""Peak signal-to-noise ratio between images that do not belong together: what it can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import draw_counts, mean_interval, percentile_interval
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

DATA_RANGE = 1.0
"""Volumes lie in [0, 1]; the range is declared and never inferred from images."""
LEAST_ERROR = 1e-10
"""Mean squared error of images that are equal: 100 dB."""

Images = NDArray[np.float32]


def psnr(squared_error: FloatArray, data_range: float = DATA_RANGE) -> FloatArray:
    """Return ``10 log10(L^2 / MSE)`` in dB of mean squared errors; equal images give 100 dB at L=1.

    Parameters
    ----------
    squared_error : mean over voxels.
    data_range : L, the declared width of the intensities: 1 for [0, 1], 2 for [-1, 1].
    """
    return np.asarray(10 * np.log10(data_range**2 / np.maximum(squared_error, LEAST_ERROR)))


def squared_errors(x: Images, y: Images, centre: Images) -> FloatArray:
    """Return (n, m) mean squared errors of all pairs of x (n, V) and y (m, V).

    Parameters
    ----------
    centre : (V,) image near both sets; it keeps the products small.
    """
    a, b = x - centre, y - centre
    level = np.add.outer(*(np.einsum("nv,nv->n", r, r, dtype=np.float64) for r in (a, b)))
    return np.asarray(np.maximum(level - 2.0 * (a @ b.T), 0.0) / x.shape[1])


def nearest_errors(errors: FloatArray, x: Images, y: Images) -> FloatArray:
    """Return (n,) mean squared error of each row of x and its nearest of y, from differences.

    Parameters
    ----------
    errors : (n, m) from `squared_errors`, too coarse for images that are almost equal.
    """
    pairs = zip(x, y[errors.argmin(1)])
    return np.array([float(np.mean((a - b) ** 2, dtype=np.float64)) for a, b in pairs])


def _rows(evidence: Evidence) -> Images:
    return evidence.volumes.volumes[:, 0].reshape(len(evidence), -1)


def _errors(evidence: Evidence, side: str, study: Study) -> FloatArray:
    """Return (n, m) mean squared errors with the subjects of a side; inf with oneself."""
    real = study.train if side == "TRAIN" else study.hold
    centre = study.once("unpaired/centre", lambda: _rows(study.train).mean(0))
    errors = squared_errors(_rows(evidence), _rows(real), centre)
    ids = np.asarray(evidence.volumes.ids), np.asarray(real.volumes.ids)
    return np.where(ids[0][:, None] == ids[1][None, :], np.inf, errors)


def gallery_size(study: Study) -> int:
    """Return the size to which both galleries are cut: a HOLD subject is not in its own.

    Raises
    ------
    Refusal
        If fewer than two subjects are left.
    """
    size = min(len(study.train), len(study.hold) - 1)
    if size < 2:
        raise Refusal(f"a gallery of {size} subjects is too small for a best match.")
    return size


def best_match(errors: FloatArray, evidence: Evidence, side: str, study: Study) -> FloatArray:
    """Return (N,) PSNR in dB of each volume with the nearest of a side's gallery.

    Parameters
    ----------
    errors : (N, m) with all subjects of the side.
    """
    real = study.train if side == "TRAIN" else study.hold
    drawn = study.rng("best_match", side).permutation(len(real))[: gallery_size(study)]
    gallery = np.sort(drawn)
    return psnr(nearest_errors(errors[:, gallery], _rows(evidence), _rows(real)[gallery]))


def _uncopied(study: Study) -> float:
    """Return what HOLD subjects, whom nobody copied, get with TRAIN's gallery."""
    found: float = study.once(
        "best_match/real",
        lambda: float(
            best_match(_errors(study.hold, "TRAIN", study), study.hold, "TRAIN", study).mean()
        ),
    )
    return found


def _best_score(
    name: str, side: str, errors: FloatArray, note: str, generated: Evidence, study: Study
) -> Score:
    best = best_match(errors, generated, side, study)
    real, size = _uncopied(study), gallery_size(study)
    low, high = mean_interval(
        best, generated.volumes.ids, study.resamples, study.rng("best_match", side, "bootstrap")
    )
    return Score(
        key=f"{name}/best_{side.lower()}" if name == "unpaired_psnr" else name,
        name=f"best_match[{side},psnr,L=1,gallery={size},n={len(best)}]",
        metric=name,
        features=None,
        label=f"PSNR with the nearest of {size} {side} subjects",
        value=float(best.mean()),
        low=low,
        high=high,
        n_real=size,
        n_generated=len(best),
        better="near",
        target=real,
        unit="dB",
        reliable=side == "TRAIN",
        note=f"{note}; HOLD subjects have {real:.2f} dB with {size} of TRAIN",
    )


@METRICS.register("unpaired_psnr")
class UnpairedPsnr(Metric):
    """PSNR of generated volumes and HOLD volumes that have nothing to do with each other.

    Discouraged: printed because papers print it. Higher is not better. Two independent draws have
    an expected squared error of 2 sigma^2, the mean image has sigma^2: it wins by 3.01 dB over
    every real subject. Best near what TRAIN subjects get (the target); a result whose interval
    lies above is marked suspicious: an average, or smooth. Beside the mean over all pairs the best
    match among HOLD, an aid to read coverage; it grows with the gallery, whose size is in the
    name. Full grid, so that the empty background raises both. Never counts in a verdict. Works
    from two samples; the interval resamples subjects of both sets.
    """

    name = "unpaired_psnr"
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "unpaired_psnr*": ("-noise", "-rotation", "-bias_field"),
    }
    blind_to = "collapse, repeated slices and copying; it rewards blur and the mean image"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the mean over all pairs of a sample and a HOLD subject, and the best match."""
        errors = _errors(generated, "HOLD", study)
        note = "discouraged, an aid to read coverage"
        return [
            self._mean(errors, generated, study),
            _best_score("unpaired_psnr", "HOLD", errors, note, generated, study),
        ]

    def _mean(self, errors: FloatArray, generated: Evidence, study: Study) -> Score:
        real = study.once(
            "unpaired/real", lambda: float(_decibels(_errors(study.train, "HOLD", study)).mean())
        )
        decibels = _decibels(errors)
        value = float(decibels.mean())
        low, high = self._interval(decibels, generated, study)
        note = f"discouraged, higher is not better; TRAIN subjects have {real:.2f} dB"
        if low > real:
            note = f"suspicious: above real subjects by {value - real:.2f} dB; {note}"
        return Score(
            key="unpaired_psnr",
            name=f"unpaired_psnr[L=1,full,n={len(study.hold)}/{len(generated)}]",
            metric="unpaired_psnr",
            features=None,
            label="PSNR of unrelated volumes (discouraged)",
            value=value,
            low=low,
            high=high,
            n_real=len(study.hold),
            n_generated=len(generated),
            better="near",
            target=real,
            unit="dB",
            reliable=False,
            note=note,
        )

    def _interval(
        self, decibels: FloatArray, generated: Evidence, study: Study
    ) -> tuple[float, float]:
        if not study.resamples:
            return NAN, NAN
        rng = study.rng("unpaired_psnr")
        made = draw_counts(generated.volumes.ids, study.resamples, rng)
        held = draw_counts(study.hold.volumes.ids, study.resamples, rng)
        total = ((made @ decibels) * held).sum(1)
        return percentile_interval(total / (made.sum(1) * held.sum(1)))


def _decibels(errors: FloatArray) -> FloatArray:
    """PSNR of every pair; a pair of one subject gets the mean of the others."""
    known = np.isfinite(errors)
    decibels = psnr(np.where(known, errors, 1.0))
    return np.where(known, decibels, decibels[known].mean())


@METRICS.register("best_match")
class BestMatch(Metric):
    """PSNR of every sample with its nearest TRAIN subject: large means copying.

    Best near what HOLD subjects, whom nobody copied, get with the same gallery. The gallery's
    size is in the name: the value grows with it. Full grid; works from two samples. The copy rate
    of ``nearest`` is sharper; this one needs no mask and no threshold.
    """

    name = "best_match"
    family = "privacy"
    ceiling = "HOLD"
    needs_unseen = False
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "best_match": ("-noise", "-rotation", "-bias_field"),
    }
    blind_to = "copies that were warped, shifted or rescaled; smooth samples match everyone"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the mean best match with TRAIN."""
        errors = _errors(generated, "TRAIN", study)
        note = "large means copying"
        return [_best_score("best_match", "TRAIN", errors, note, generated, study)]
