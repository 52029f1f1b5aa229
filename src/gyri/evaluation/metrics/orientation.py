"""Whether a brain is the right way round."""

from __future__ import annotations

from itertools import permutations, product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import share_interval
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Score, Study
from gyri.registry import METRICS

LARGEST_CUBE = 48
SIDE_CUBE = 24
SIDE_RIDGE = 0.1
LATERALITY_SHARE = 0.99

Pose = tuple[tuple[int, ...], tuple[bool, ...]]
POSES: tuple[Pose, ...] = tuple(
    (axes, flips) for axes in permutations((0, 1, 2)) for flips in product((False, True), repeat=3)
)
"""The 48 permutations and flips of three axes; the first is the identity."""
MIRROR = POSES.index(((0, 1, 2), (True, False, False)))


def to_cube(images: NDArray[np.float32], largest: int = LARGEST_CUBE) -> NDArray[np.float32]:
    """Pool (N, I, J, K) images to at most `largest` voxels an axis, padded to a centred cube."""
    step = max(1, -(-max(images.shape[1:]) // largest))
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


class SideModel:
    """Tells left from right by what the two halves of TRAIN's brains do not share.

    A ridge regression on the antisymmetric part of the image, its difference from its mirror
    image, which TRAIN has with one sign and mirrored TRAIN with the other.

    Parameters
    ----------
    images : (N, I, J, K) of TRAIN.
    """

    def __init__(self, images: NDArray[np.float32]) -> None:
        rows = self._antisymmetric(images)
        gram = rows @ rows.T
        ridge = SIDE_RIDGE * np.trace(gram) / len(gram) + 1e-12
        self.weights = rows.T @ np.linalg.solve(
            gram + ridge * np.eye(len(gram)), np.ones(len(gram))
        )

    @staticmethod
    def _antisymmetric(images: NDArray[np.float32]) -> FloatArray:
        cubes = to_cube(images, SIDE_CUBE)
        return _unit((cubes - cubes[:, ::-1]).reshape(len(cubes), -1))

    def sides(self, images: NDArray[np.float32]) -> FloatArray:
        """Return (N,) scores, above 0 where left is on the left; a mirrored image negates it."""
        return np.asarray(self._antisymmetric(images) @ self.weights)


@METRICS.register("orientation")
class Orientation(Metric):
    """Share of volumes whose best pose, of 48, is RAS or its left-right mirror.

    Higher is better, gate at 99 %. The pose is the one in which TRAIN's mean image correlates
    most with the volume. Left and right are so alike that a regression on their difference tells
    them apart; they are reported on their own, and mean something only where nearly all of HOLD
    is told apart. Works from one volume.
    """

    name = "orientation"
    family = "anatomy"
    ceiling = "HOLD"
    min_generated = 1
    counts_failures = True
    needs_unseen = False
    sees: ClassVar = {
        "orientation": ("-rotation",),
        "orientation/left_right": ("-left_right_flip",),
    }
    blind_to = (
        "rotations below 45 degrees, and what is inside an upright outline: noise in it passes"
    )

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the share upright and the share with left on the left."""
        correlations = self._correlations(generated, study)
        right = upright(correlations)
        low, high = share_interval(int(right.sum()), len(right))
        n = f"n={len(study.train)}/{len(right)}"
        left = self._left(generated, study)
        left_low, left_high = share_interval(int(left.sum()), len(left))
        separable = float(
            study.once("orientation/hold", lambda: self._left(study.hold, study)).mean()
        )
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
                name=f"left_right[antisymmetric-ridge,{n}]",
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

    def _left(self, evidence: Evidence, study: Study) -> NDArray[np.bool_]:
        model: SideModel = study.once(
            "orientation/sides", lambda: SideModel(study.train.volumes.volumes[:, 0])
        )
        return model.sides(evidence.volumes.volumes[:, 0]) > 0

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[bool]]:
        """Return whether each sample is upright."""
        return {"orientation_ok": [bool(v) for v in upright(self._correlations(generated, study))]}
