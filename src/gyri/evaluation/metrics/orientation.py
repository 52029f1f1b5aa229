"""Whether a brain is the right way round."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import share_interval
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Score, Study
from gyri.registry import METRICS

LARGEST_CUBE = 48
LATERALITY_SHARE = 0.99

Pose = tuple[tuple[int, ...], tuple[bool, ...]]
POSES: tuple[Pose, ...] = tuple(
    (axes, flips) for axes in permutations((0, 1, 2)) for flips in product((False, True), repeat=3)
)
"""The 48 permutations and flips of three axes; the first is the identity."""
MIRROR = POSES.index(((0, 1, 2), (True, False, False)))


def to_cube(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pool (N, I, J, K) images to at most 48 voxels an axis and pad them to a centred cube."""
    step = max(1, -(-max(images.shape[1:]) // LARGEST_CUBE))
    sizes = [n // step for n in images.shape[1:]]
    cut = images[:, : sizes[0] * step, : sizes[1] * step, : sizes[2] * step]
    blocks = cut.reshape(len(cut), sizes[0], step, sizes[1], step, sizes[2], step)
    pooled = blocks.mean((2, 4, 6))
    # An even difference on every axis keeps the padding, and so every flip, centred.
    side = max(sizes) + (1 if len({n % 2 for n in sizes}) > 1 else 0)
    margins = [(0, 0), *(((side - n) // 2, side - n - (side - n) // 2) for n in sizes)]
    return np.pad(pooled, margins)


def pose(cube: NDArray[np.float32], which: Pose) -> NDArray[np.float32]:
    """Return a cube with its axes permuted, then flipped."""
    axes, flips = which
    turned = cube.transpose(axes)
    return np.asarray(np.flip(turned, tuple(axis for axis in range(3) if flips[axis])))


def pose_correlations(images: NDArray[np.float32], mean: NDArray[np.float32]) -> FloatArray:
    """Return (N, 48) correlations of images with the mean image in every pose.

    Parameters
    ----------
    images : (N, I, J, K).
    mean : (I, J, K) mean of correctly oriented images.
    """
    template = to_cube(mean[None])[0]
    turned = np.stack([pose(template, which).ravel() for which in POSES])
    rows = to_cube(images).reshape(len(images), -1)
    return _unit(rows) @ _unit(turned).T


def _unit(rows: NDArray[np.float32]) -> FloatArray:
    centred = rows.astype(np.float64) - rows.mean(1, keepdims=True, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-9)


def upright(correlations: FloatArray) -> NDArray[np.bool_]:
    """Say of (N, 48) correlations whether the identity or its left-right mirror is the best."""
    own = np.maximum(correlations[:, 0], correlations[:, MIRROR])
    return np.asarray((own > 0) & (own >= correlations.max(1)))


@METRICS.register("orientation")
class Orientation(Metric):
    """Share of volumes whose best pose, of 48, is RAS or its left-right mirror.

    Higher is better, gate at 99 %. The pose is the one in which TRAIN's mean image correlates
    most with the volume. Left and right are so alike that they are reported on their own, and
    mean something only where nearly all of HOLD is told apart. Works from one volume; noise in a
    brain's outline passes, for the outline is upright.
    """

    name = "orientation"
    family = "anatomy"
    ceiling = "HOLD"
    min_generated = 1
    counts_failures = True
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the share upright and the share with left on the left."""
        correlations = self._correlations(generated, study)
        right = upright(correlations)
        low, high = share_interval(int(right.sum()), len(right))
        n = f"n={len(study.train)}/{len(right)}"
        left = correlations[:, 0] > correlations[:, MIRROR]
        left_low, left_high = share_interval(int(left.sum()), len(left))
        hold = study.once("orientation/hold", lambda: self._correlations(study.hold, study))
        separable = float((hold[:, 0] > hold[:, MIRROR]).mean())
        known = separable >= LATERALITY_SHARE
        return [
            Score(
                key="orientation",
                name=f"orientation[48-poses,{n}]",
                metric="orientation",
                features=None,
                label="volumes the right way up",
                value=float(right.mean()),
                low=low,
                high=high,
                n_real=len(study.train),
                n_generated=len(right),
                better="higher",
                note="left and right not distinguished",
            ),
            Score(
                key="orientation/left_right",
                name=f"left_right[mean-image,{n}]",
                metric="orientation",
                features=None,
                label="volumes with left on the left",
                value=float(left.mean()),
                low=left_low,
                high=left_high,
                n_real=len(study.train),
                n_generated=len(left),
                better="higher" if known else "near",
                target=None if known else separable,
                reliable=known,
                note=f"HOLD: {separable:.0%}" + ("" if known else "; too few to tell sides apart"),
            ),
        ]

    def _correlations(self, evidence: Evidence, study: Study) -> FloatArray:
        mean = study.once("mean", lambda: study.train.volumes.volumes[:, 0].mean(0))
        return pose_correlations(evidence.volumes.volumes[:, 0], mean)

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[bool]]:
        """Return whether each sample is upright."""
        return {"orientation_ok": [bool(v) for v in upright(self._correlations(generated, study))]}
