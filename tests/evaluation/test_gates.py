from __future__ import annotations

import pytest

from gyri.evaluation.features.morph import Morphometry
from gyri.evaluation.features.spectrum import Spectrum
from gyri.evaluation.gates import FAMILIES, gates
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


def effects(half_width: float, share: float) -> list[Score]:
    sizes = [
        Score(f"volumes/{t}/d", "", "volumes", None, "", d, low=d - half_width, high=d + half_width)
        for t, d in (("brain_ml", 0.05), ("gm_ml", -0.3))
    ]
    whole = Score("anatomy/small", "", "anatomy", None, "", share, n_real=90, n_generated=80)
    return [*sizes, whole]


def test_effects_must_be_small_and_known():
    assert gates(effects(0.28, 0.8), SETS, [])["small_effects"]["passed"]
    failed = gates(effects(0.28, 0.79), SETS, [])["small_effects"]
    assert not failed["passed"]
    assert "largest: gm_ml -0.30" in failed["detail"]
    few = gates(effects(0.4, 0.0), SETS, [])["small_effects"]
    assert few["share"] is None
    assert "n = 90 and 80" in few["detail"]


@pytest.mark.parametrize(
    ("key", "value", "n", "real", "passed"),
    [
        ("coherence", 0.94, 128, 0.99, True),
        ("coherence", 0.88, 128, 0.99, False),
        ("coherence", 0.88, 16, 0.99, True),  # two of 16 may be chance
        ("coherence", 0.89, 128, 0.93, True),  # real subjects reach little more
        ("anatomy/in_range", 0.95, 128, 0.97, True),
        ("anatomy/in_range", 0.90, 128, 0.97, False),
    ],
)
def test_bands_are_held_as_often_as_by_real_subjects(key, value, n, real, passed):
    anchors = {"ceiling": real}
    metric = key.split("/")[0]
    score = Score(key, "", metric, None, "", value, n_generated=n, anchors=anchors)
    name = {"coherence": "coherence", "anatomy/in_range": "brains_in_range"}[key]
    assert gates([score], SETS, [])[name]["passed"] is passed


def test_every_gate_belongs_to_a_family():
    assert set(gates([], SETS, [])) == set(FAMILIES)


def test_what_was_refused_does_not_pass():
    found = gates([], SETS, [Refused("nearest", None, "NaN in s03")])
    assert not any(gate["passed"] for gate in found.values())
    assert found["non_copying"]["detail"] == "NaN in s03"
