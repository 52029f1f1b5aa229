"""Diversity within each level of a categorical condition."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gyri.evaluation.levels import LEAST, categorical_columns, found_levels
from gyri.evaluation.metrics import Evidence, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.manifold import Rows
from gyri.evaluation.metrics.msssim import Likeness, delta_score
from gyri.registry import METRICS

PAIRS = 250


@METRICS.register("msssim_by_level")
class DiversityByLevel(Metric):
    """How much more alike the samples of a scanner, sex or tumour type are than its real people.

    Mean MS-SSIM of up to 250 pairs of the level's samples less that of HOLD's people of the level,
    best near 0: a model may follow its condition by making one brain for each level. The ceiling is
    what TRAIN's people of the level get. Levels need 10 volumes on each side.
    """

    name = "msssim_by_level"
    family = "diversity"
    reads_table = True
    needs_unseen = False
    min_generated = LEAST
    sees: ClassVar = {}
    blind_to = "how real a volume is, and whether the level is followed at all"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return a score for every level that all three sides have enough of."""
        scores = []
        for column in categorical_columns(generated, study):
            for level in found_levels(column, generated, study):
                if level.smallest < LEAST:
                    continue
                rng = study.rng("msssim", level.words)
                made = _within(generated, level.made, rng)
                real = _within(study.hold, level.real, rng)
                key = f"msssim_by_level/{level.words}"
                score = delta_score(key, made, real, generated, study, level.words)
                train = _within(study.train, level.train, rng)
                score.anchors = {"ceiling": train.mean - real.mean}
                scores.append(score)
        if not scores:
            raise Refusal(f"no level of a categorical condition has {LEAST} volumes on every side.")
        return scores


def _within(evidence: Evidence, rows: Rows, rng: np.random.Generator) -> Likeness:
    return Likeness.of(evidence.volumes.take(rows), PAIRS, rng)
