from __future__ import annotations

import numpy as np

from gyri.evaluation.metrics.coherence import Coherence


def test_white_noise_is_seen_by_the_spectrum_beside_it(judge, cohort, changed):
    volumes = cohort["generated"].volumes
    noisy = volumes + 0.1 * np.random.default_rng(3).standard_normal(volumes.shape)
    scores = {
        s.key: s.value
        for s in Coherence().scores(judge.evidence(changed(noisy.clip(0, 1))), judge.study)
    }
    assert scores["coherence/spectrum"] == 0.0


def test_most_unseen_phantoms_are_coherent(judge, cohort):
    generated = judge.evidence(cohort["generated"])
    scores = {s.key: s for s in Coherence().scores(generated, judge.study)}
    assert scores["coherence"].value >= 0.75
    assert len(Coherence().samples(generated, judge.study)["coherent"]) == len(generated)
