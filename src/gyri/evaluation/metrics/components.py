"""One brain, or pieces of one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gyri.evaluation.bootstrap import share_interval
from gyri.evaluation.metrics import Evidence, Metric, Score, Study
from gyri.registry import METRICS

LEAST_SHARE = 0.99


@METRICS.register("components")
class Components(Metric):
    """Share of volumes whose brightest piece holds at least 99 % of the thresholded voxels.

    Higher is better, in [0, 1]. An empty volume fails. The threshold follows each volume's own
    histogram, so that the range of intensities does not matter. Wilson interval; works from one
    volume. Blind to what is inside the piece.
    """

    name = "components"
    sees: ClassVar = {"components": ("-noise",)}
    blind_to = "what is inside the piece, its shape and its place"
    family = "anatomy"
    ceiling = "HOLD"
    min_generated = 1
    same_grid = False
    reads_intensities = False
    counts_failures = True
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the share."""
        single = self._single(generated)
        low, high = share_interval(int(single.sum()), len(single))
        return [
            Score(
                key="components",
                name=f"components[largest>=0.99,n={len(single)}]",
                metric="components",
                features=None,
                label="volumes with a single brain",
                value=float(single.mean()),
                low=low,
                high=high,
                n_real=len(study.hold),
                n_generated=len(single),
                better="higher",
            )
        ]

    def _single(self, evidence: Evidence) -> np.ndarray:
        return (evidence.quality[:, 1] >= LEAST_SHARE) & ~evidence.failed

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return pieces and whether there is one brain."""
        return {
            "components": [int(v) for v in generated.quality[:, 0]],
            "one_component": [bool(v) for v in self._single(generated)],
        }
