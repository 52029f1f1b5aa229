from __future__ import annotations

import pytest

from gyri.evaluation.features.morph import Morphometry
from gyri.evaluation.features.spectrum import Spectrum
from gyri.evaluation.gates import gates
from gyri.evaluation.metrics import Score
from gyri.evaluation.scores import Refused

SETS = {"morph-v1": Morphometry(), "spectrum-v1": Spectrum()}


def kid(value: float, features: str = "morph-v1", **anchors: float) -> Score:
    return Score(f"kid/{features}", "", "kid", features, "", value, anchors=anchors)


def nearest(rate_low: float, closer_low: float) -> list[Score]:
    return [
        Score("nearest/copy_rate", "", "nearest", None, "", 0.1, low=rate_low, high=0.3),
        Score("nearest/closer", "", "nearest", None, "", 0.5, low=closer_low, p_value=0.4),
    ]


@pytest.mark.parametrize(("share", "passed"), [(0.99, True), (0.98, False)])
def test_share_gates(share, passed):
    scores = [Score(k, "", k, None, "", share) for k in ("orientation", "components")]
    found = gates(scores, SETS, [])
    assert found["orientation"]["passed"] is passed
    assert found["components"]["passed"] is passed


@pytest.mark.parametrize(
    ("rate_low", "closer_low", "passed"),
    [(0.02, 0.4, True), (0.06, 0.4, False), (0.02, 0.51, False)],
)
def test_copying(rate_low, closer_low, passed):
    assert gates(nearest(rate_low, closer_low), SETS, [])["non_copying"]["passed"] is passed


def test_anchors_must_be_beaten_where_the_features_can_tell():
    real = {"noise": 9.0, "phase_random": 5.0, "mean_image": 3.0}
    assert gates([kid(2.0, **real)], SETS, [])["beats_anchors"]["passed"]
    lost = gates([kid(4.0, **real)], SETS, [])["beats_anchors"]
    assert not lost["passed"]
    assert "mean_image on morph-v1" in lost["detail"]
    assert lost["share"] == pytest.approx(2 / 3)
    blind = kid(2.0, "spectrum-v1", noise=9.0, phase_random=0.1, mean_image=3.0)
    assert gates([blind], SETS, [])["beats_anchors"]["passed"]


@pytest.mark.parametrize(("value", "passed"), [(0.5, True), (0.4, False)])
def test_coverage_is_compared_with_the_ceiling(value, passed):
    score = Score("coverage/morph-v1", "", "prdc", "morph-v1", "", value, anchors={"ceiling": 0.95})
    assert gates([score], SETS, [])["coverage_half_of_real"]["passed"] is passed


def test_what_was_refused_does_not_pass():
    found = gates([], SETS, [Refused("nearest", None, "NaN in s03")])
    assert not any(gate["passed"] for gate in found.values())
    assert found["non_copying"]["detail"] == "NaN in s03"
