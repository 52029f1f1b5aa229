"""Holes inside the brain, and signal where nobody has any: faults of generators of slices."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from gyri.evaluation.bootstrap import mean_interval, share_interval
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

DARK = 0.1
"""Of a volume's brightness: below is background."""
BRIGHT_PERCENTILE = 75
TRAIN_PERCENTILE = 99
"""A hole is large if it exceeds those of so many per cent of TRAIN's volumes."""


def brightness(images: NDArray[np.float32]) -> FloatArray:
    """Return the upper quartile of each image's voxels above 0, (N,); 0 for an empty one."""
    found = [image[image > 0] for image in images]
    return np.array([np.percentile(v, BRIGHT_PERCENTILE) if v.size else 0.0 for v in found])


def hole_volumes(
    images: NDArray[np.float32], brain: NDArray[np.bool_], voxel_ml: float
) -> FloatArray:
    """Return the volume of background that foreground encloses within axial slices, ml, (N,).

    Parameters
    ----------
    images : (N, I, J, K), not negative.
    brain : (I, J, K), where a hole counts; a ring around a brain encloses much that is no hole.
    """
    level = DARK * brightness(images)
    solid = images > level[:, None, None, None]
    filled = [
        sum(int((binary_fill_holes(s) & ~s & b).sum()) for s, b in zip(*planes, strict=True))
        for planes in ((np.moveaxis(one, 2, 0), np.moveaxis(brain, 2, 0)) for one in solid)
    ]
    return np.array(filled, float) * voxel_ml


@METRICS.register("artefacts")
class Artefacts(Metric):
    """Volumes with a hole in a slice, and signal outside of where any TRAIN subject has some.

    ``artefacts/holes`` is the share of volumes with more enclosed background, where half of TRAIN
    has brain, than 99 % of TRAIN (Wilson interval). ``artefacts/outside`` is the mean intensity of
    voxels that are background in all of TRAIN, over the volume's own brightness (bootstrap over
    subjects); it is refused where there is no such voxel. Lower is better.
    """

    name = "artefacts"
    sees: ClassVar = {"artefacts/outside": ("+noise",)}
    blind_to = "holes that reach the brain's surface, and ventricles of the wrong size"
    family = "anatomy"
    ceiling = "HOLD"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return both scores."""
        shared: dict[str, Any] = {
            "metric": self.name,
            "features": None,
            "n_real": len(study.train),
            "n_generated": len(generated),
            "better": "lower",
        }
        large = self._holes(generated, study) > self._largest(study)
        low, high = share_interval(int(large.sum()), len(large))
        n = f"n={len(study.train)}/{len(generated)}"
        holes = Score(
            key="artefacts/holes",
            name=f"artefacts[holes>p{TRAIN_PERCENTILE}-train,{n}]",
            label="volumes with a hole",
            value=float(large.mean()),
            low=low,
            high=high,
            **shared,
        )
        outside = self._outside(generated, study)
        low, high = mean_interval(
            outside, generated.volumes.ids, study.resamples, study.rng("artefacts", "outside")
        )
        return [
            holes,
            Score(
                key="artefacts/outside",
                name=f"artefacts[outside-train,{n}]",
                label="signal where nobody has any, of the brain's",
                value=float(outside.mean()),
                low=low,
                high=high,
                **shared,
            ),
        ]

    def _holes(self, evidence: Evidence, study: Study) -> FloatArray:
        train = study.train.volumes.volumes[:, 0]
        brain = study.once("artefacts/brain", lambda: (train > 0).mean(0) >= 0.5)
        voxel_ml = float(np.prod(evidence.volumes.grid.spacing_mm)) / 1000
        return hole_volumes(evidence.volumes.volumes[:, 0], brain, voxel_ml)

    def _largest(self, study: Study) -> float:
        return float(
            study.once(
                "artefacts/largest",
                lambda: np.percentile(self._holes(study.train, study), TRAIN_PERCENTILE),
            )
        )

    def _outside(self, generated: Evidence, study: Study) -> FloatArray:
        empty = study.once(
            "artefacts/empty", lambda: (study.train.volumes.volumes[:, 0] <= 0).all(0)
        )
        if not empty.any():
            raise Refusal("No voxel is background in all of TRAIN.")
        images = generated.volumes.volumes[:, 0]
        return images[:, empty].mean(1) / np.maximum(brightness(images), 1e-6)

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return each volume's enclosed background in ml."""
        return {"holes_ml": [float(v) for v in self._holes(generated, study)]}
