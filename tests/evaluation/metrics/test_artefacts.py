from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.artefacts import Artefacts, hole_volumes


def scores(judge, evidence):
    return {score.key: score for score in Artefacts().scores(evidence, judge.study)}


def test_what_foreground_encloses_in_a_slice_is_a_hole():
    images = np.zeros((3, 9, 9, 4), np.float32)
    images[:, 1:8, 1:8] = 1.0
    images[1, 3:5, 3:6, 2] = 0.0
    images[2, 1:5, 3:5, 2] = 0.0  # open to the outside
    brain = np.ones((9, 9, 4), bool)
    np.testing.assert_allclose(hole_volumes(images, brain, 0.5), [0.0, 3.0, 0.0])
    brain[3] = False
    np.testing.assert_allclose(hole_volumes(images, brain, 0.5), [0.0, 1.5, 0.0])


def test_holes_are_counted_against_those_of_train(judge, cohort, changed):
    whole = scores(judge, judge.evidence(cohort["generated"]))["artefacts/holes"]
    assert whole.value <= 0.25
    volumes = cohort["generated"].volumes.copy()
    middle = tuple(size // 2 for size in volumes.shape[2:])
    i, j, k = (slice(place - 3, place + 4) for place in middle)
    volumes[:8, :, i, j, k] = 0.0
    evidence = judge.evidence(changed(volumes))
    holed = scores(judge, evidence)["artefacts/holes"]
    assert holed.value >= 0.5
    assert holed.low < holed.value < holed.high
    assert min(Artefacts().samples(evidence, judge.study)["holes_ml"][:8]) > 0


def test_signal_outside_of_everybody_is_measured_in_units_of_the_brain(judge, cohort, changed):
    empty = (judge.study.train.volumes.volumes[:, 0] <= 0).all(0)
    volumes = cohort["generated"].volumes.copy()
    clean = scores(judge, judge.evidence(cohort["generated"]))["artefacts/outside"]
    volumes[:, 0, empty] = 0.2
    haze = scores(judge, judge.evidence(changed(volumes)))["artefacts/outside"]
    assert clean.value < 0.02
    assert 0.15 < haze.value < 1.0
    assert haze.low <= haze.value <= haze.high


def test_a_cohort_without_background_is_refused(judge, cohort, monkeypatch):
    monkeypatch.setitem(
        judge.study.fitted, "artefacts/empty", np.zeros(cohort["TRAIN"].volumes.shape[2:], bool)
    )
    with pytest.raises(Refusal, match="background in all of TRAIN"):
        Artefacts().scores(judge.evidence(cohort["generated"]), judge.study)
