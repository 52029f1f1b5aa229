"""Whether a sample is a training subject: nearest neighbours by masked correlation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import draw_counts, percentile_interval
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

COPY_PERCENTILE = 95.0
MASK_SHARE = 0.05
"""The brain is where TRAIN's mean exceeds this share of its largest value."""
PERMUTATIONS = 2000


def unit_rows(images: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return (N, V) in-mask voxels of (N, I, J, K) images, mean 0 and norm 1 a row.

    A constant image gives a row of zeros.
    """
    rows = images[:, mask].astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 1e-6)


def closer_share(to_train: FloatArray, to_hold: FloatArray) -> float:
    """Return the share of samples nearer to TRAIN than to HOLD; 0.5 for a generator that forgot.

    Parameters
    ----------
    to_train, to_hold : (N, n) similarities, equal n.
    """
    gap = to_train.max(1) - to_hold.max(1)
    return float((gap > 0).mean() + (gap == 0).mean() / 2)


def membership_p_value(
    to_train: FloatArray, to_hold: FloatArray, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Permute which subjects were trained on; return the p-value and the null's sd.

    Samples share their neighbours, so that the null of the share is wider than a binomial's.
    """
    pooled = np.concatenate([to_train, to_hold], axis=1)
    nearest = pooled.argmax(1)
    n = pooled.shape[1]
    member = np.zeros(n)
    member[: to_train.shape[1]] = 1.0
    observed = member[nearest].mean()
    order = rng.random((permutations, n)).argsort(1)
    shares = member[order][:, nearest].mean(1)
    return float((1 + (shares >= observed - 1e-12).sum()) / (permutations + 1)), float(shares.std())


def copy_threshold(hold_to_train: FloatArray) -> float:
    """Return the 95th percentile of unseen subjects' largest similarity to TRAIN (H, n).

    Weibull's plotting positions: another unseen subject exceeds it with probability 5 % whatever
    H, from 20 on.
    """
    return float(np.percentile(hold_to_train.max(1), COPY_PERCENTILE, method="weibull"))


@METRICS.register("nearest")
class Nearest(Metric):
    """Copy rate and closer-to-TRAIN share by masked voxel correlation, mirrored copies included.

    A copy rate of 5 % is what unseen subjects reach by definition; alarm where its interval,
    which resamples samples and HOLD, lies above. The share is 0.5 without memorisation; its
    p-value permutes membership of TRAIN and HOLD at equal size. Similarity is the correlation of
    intensities inside TRAIN's mean brain after TRAIN's mean image is subtracted, so that a smooth
    or average brain is not mistaken for a copy of everyone. Works from n = 2; blind to copies
    that are warped.
    """

    name = "nearest"
    sees: ClassVar = {"nearest/correlation": ("-noise",)}
    blind_to = "every fault of quality, and copies that are warped or of a part"
    family = "privacy"
    ceiling = "HOLD"
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return copy rate, closer-to-TRAIN share and mean nearest correlation."""
        if len(study.hold) < 5:
            raise Refusal(f"HOLD has {len(study.hold)} subjects; its percentile needs at least 5.")
        to_train, raw = self._similarity(generated, study)
        threshold = study.once(
            "nearest/threshold", lambda: copy_threshold(self._similarity(study.hold, study)[0])
        )
        nearest = to_train.max(1)
        copies = nearest > threshold
        low, high = self._copy_interval(nearest, generated, study)
        listed = [i for i, c in zip(generated.volumes.ids, copies) if c][:10]
        rate = Score(
            key="nearest/copy_rate",
            name=f"copy_rate[residual-correlation,hold-95,n={len(study.train)}/{len(copies)}]",
            metric="nearest",
            features=None,
            label="copy rate",
            value=float(copies.mean()),
            low=low,
            high=high,
            n_real=len(study.train),
            n_generated=len(copies),
            better="near",
            target=0.05,
            note=f"nearer to a training subject than r = {threshold:.3f}"
            + (f"; first of them: {', '.join(listed)}" if listed else ""),
        )
        return [rate, self._closer(generated, study), self._mean(raw, study)]

    def _copy_interval(
        self, nearest: FloatArray, generated: Evidence, study: Study
    ) -> tuple[float, float]:
        """Resample samples and HOLD: the threshold is an estimate, too."""
        if not study.resamples:
            return NAN, NAN
        rng = study.rng("nearest", "copies")
        held = self._towards(study.hold, "TRAIN", study).max(1)
        drawn = rng.integers(len(held), size=(study.resamples, len(held)))
        thresholds = np.percentile(held[drawn], COPY_PERCENTILE, axis=1, method="weibull")
        counts = draw_counts(generated.volumes.ids, study.resamples, rng)
        copied = nearest[None, :] > thresholds[:, None]
        return percentile_interval((counts * copied).sum(1) / counts.sum(1))

    def _closer(self, generated: Evidence, study: Study) -> Score:
        to_train, to_hold = self._equal_sides(generated, study)
        value = closer_share(to_train, to_hold)
        low = high = NAN
        p_value = None
        note = "0.5 without memorisation; interval from permuted membership"
        if study.resamples:
            rng = study.rng("nearest", "membership")
            p_value, sd = membership_p_value(to_train, to_hold, PERMUTATIONS, rng)
            low, high = max(0.0, value - 1.96 * sd), min(1.0, value + 1.96 * sd)
        return Score(
            key="nearest/closer",
            name=f"closer_to_train[residual-correlation,n={to_train.shape[1]}/{len(to_train)}]",
            metric="nearest",
            features=None,
            label="samples closer to TRAIN than to HOLD",
            value=value,
            low=low,
            high=high,
            n_real=to_train.shape[1],
            n_generated=len(to_train),
            better="near",
            target=0.5,
            note=note,
            p_value=p_value,
        )

    def _mean(self, raw: FloatArray, study: Study) -> Score:
        hold = study.once(
            "nearest/hold_raw", lambda: float(self._similarity(study.hold, study)[1].max(1).mean())
        )
        return Score(
            key="nearest/correlation",
            name=f"nearest_correlation[masked,n={len(study.train)}/{len(raw)}]",
            metric="nearest",
            features=None,
            label="correlation with the nearest training subject",
            value=float(raw.max(1).mean()),
            n_real=len(study.train),
            n_generated=len(raw),
            better="near",
            target=hold,
            note="of intensities; a privacy measure, not one of quality",
        )

    def _reference(self, study: Study) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        def build() -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
            mean = study.train.volumes.volumes[:, 0].mean(0)
            both = (mean + mean[::-1]) / 2
            return both > MASK_SHARE * both.max(), both

        result: tuple[NDArray[np.bool_], NDArray[np.float32]] = study.once(
            "nearest/reference", build
        )
        return result

    def _rows(self, evidence: Evidence, study: Study, *, residual: bool, flip: bool) -> np.ndarray:
        mask, mean = self._reference(study)
        images = evidence.volumes.volumes[:, 0]
        images = images[:, ::-1] if flip else images
        return unit_rows(images - mean if residual else images, mask)

    def _real_rows(self, side: str, study: Study, *, residual: bool, flip: bool) -> np.ndarray:
        evidence = study.train if side == "TRAIN" else study.hold
        rows: np.ndarray = study.once(
            f"nearest/{side}/{residual}/{flip}",
            lambda: self._rows(evidence, study, residual=residual, flip=flip),
        )
        return rows

    def _towards(
        self, evidence: Evidence, side: str, study: Study, *, residual: bool = True
    ) -> FloatArray:
        """Return (N, n) similarity to each real subject, mirrored or not, whichever is larger."""
        rows = self._rows(evidence, study, residual=residual, flip=False)
        both = [
            rows @ self._real_rows(side, study, residual=residual, flip=flip).T
            for flip in (False, True)
        ]
        return np.maximum(*both).astype(np.float64)

    def _similarity(self, evidence: Evidence, study: Study) -> tuple[FloatArray, FloatArray]:
        """Return similarity to TRAIN by residuals and by intensities."""
        return (
            self._towards(evidence, "TRAIN", study),
            self._towards(evidence, "TRAIN", study, residual=False),
        )

    def _equal_sides(self, generated: Evidence, study: Study) -> tuple[FloatArray, FloatArray]:
        to_train = self._towards(generated, "TRAIN", study)
        to_hold = self._towards(generated, "HOLD", study)
        # Where real subjects stand in for samples, nobody is his own neighbour.
        same = np.asarray(generated.volumes.ids)[:, None] == np.asarray(study.hold.volumes.ids)
        to_hold = np.where(same, -1.0, to_hold)
        n = min(to_train.shape[1], to_hold.shape[1])
        rng = study.rng("nearest", "sides")
        cut = [np.sort(rng.permutation(side.shape[1])[:n]) for side in (to_train, to_hold)]
        return to_train[:, cut[0]], to_hold[:, cut[1]]

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return the nearest training subject of every sample and the residuals' correlation."""
        residual = self._towards(generated, "TRAIN", study)
        ids = study.train.volumes.ids
        return {
            "nearest_id": [ids[index] for index in residual.argmax(1)],
            "nearest_correlation": [float(value) for value in residual.max(1)],
        }
