"""Maximum mean discrepancy of coarse images, without features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gyri.evaluation.distances import squared_distances
from gyri.evaluation.features.sliced import COARSE, brain_support, coarse_rows
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Score, Study
from gyri.evaluation.metrics.kernel import estimate
from gyri.evaluation.metrics.rbf import median_width, rbf_kernel
from gyri.registry import METRICS


@METRICS.register("mmd_image")
class ImageDistance(Metric):
    """MMD with a Gaussian kernel on 32^3 masked downsamples, the width frozen by real subjects.

    Lower is better, 0 for equal distributions; negative values are legal. What papers call "image
    MMD" is often a linear kernel on raw voxels, which sees means alone and rewards collapse: the
    two must not be compared. Sees layout, contrast and collapse; blind to detail below a cell.
    Works from two samples.
    """

    name = "mmd_image"
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mmd_image": ("+bias_field", "+rotation", "+repetition", "+mode_dropping"),
    }
    blind_to = "texture, noise and blur below a cell of the 32^3 grid"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the distance."""
        hold = study.once("mmd_image/hold", lambda: self._rows(study.hold, study))
        width = study.once(
            "mmd_image/width", lambda: median_width(hold, self._rows(study.train, study))
        )
        pooled = np.concatenate([hold, self._rows(generated, study)])
        kernel = rbf_kernel(squared_distances(pooled, pooled), width)
        value, low, high, p_value = estimate(kernel, generated, study, "mmd_image")
        n = f"n={len(hold)}/{len(generated)}"
        return [
            Score(
                key="mmd_image",
                name=f"mmd_image[{COARSE}^3,masked,rbf,sigma2=median-hold-train,{n}]",
                metric="mmd_image",
                features=None,
                label="Gaussian kernel distance of coarse images",
                value=value,
                low=low,
                high=high,
                n_real=len(hold),
                n_generated=len(generated),
                target=0.0,
                note=f"sigma^2 = {width:.4g}; no linear kernel: not the MMD of MRIAnatEval",
                p_value=p_value,
            )
        ]

    def _rows(self, evidence: Evidence, study: Study) -> FloatArray:
        mask = study.once(
            "mmd_image/mask", lambda: brain_support(study.train.volumes.volumes[:, 0])
        )
        return coarse_rows(evidence.volumes.volumes[:, 0], mask).astype(np.float64)
