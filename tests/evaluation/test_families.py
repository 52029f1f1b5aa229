from __future__ import annotations

import pytest

from gyri.evaluation.families import FamilyVerdict, badness, reaches_ceiling, verdicts
from gyri.evaluation.metrics import Score

REAL = {"ceiling": 1.0, "noise": 90.0, "phase_random": 50.0, "mean_image": 30.0}


def score(value: float, low: float, high: float, metric: str = "kid", **rest) -> Score:
    rest.setdefault("anchors", dict(REAL))
    key = rest.pop("key", f"{metric}/{value}")
    return Score(key, f"{key}[n]", metric, None, "", value, low=low, high=high, **rest)


def light(family: str, scores: list[Score], gates=None, reasons=None) -> FamilyVerdict:
    return next(v for v in verdicts(scores, gates or {}, reasons or {}) if v.family == family)


def test_every_family_has_its_light():
    found = verdicts([], {}, {"kid": "NaN in s03"})
    assert [v.family for v in found] == [
        "fidelity", "diversity", "anatomy", "coherence", "conditioning", "privacy",
    ]  # fmt: skip
    assert {v.light for v in found} == {"grey"}
    assert found[0].reason == "Not judged: NaN in s03"
    assert "no score" in found[1].reason


@pytest.mark.parametrize(("good", "expected"), [(5, "green"), (4, "green"), (3, "amber")])
def test_four_fifths_must_reach_the_ceiling(good, expected):
    scores = [score(2.0, 0.5, 3.0)] * good + [score(3.0, 2.0, 4.0)] * (5 - good)
    found = light("fidelity", scores)
    assert found.light == expected
    assert found.reason.startswith(f"{good} of 5 scores reach real scans")


def test_what_is_no_better_than_the_mean_image_is_red():
    scores = [score(40.0, 30.0, 50.0), score(45.0, 30.0, 50.0), score(2.0, 0.5, 3.0)]
    found = light("fidelity", scores)
    assert found.light == "red"
    assert found.reason.startswith("No better than the mean image on 2 of the 3 scores")
    assert light("fidelity", scores[1:] + scores[2:]).light == "amber"


def test_an_anchor_that_a_score_cannot_tell_from_real_does_not_count():
    anchors = REAL | {"mean_image": 0.5}
    assert light("fidelity", [score(2.0, 0.5, 3.0, anchors=anchors)]).light == "green"


def test_an_anchor_that_shares_the_features_does_not_count():
    """Phase-random surrogates have the spectrum of real scans."""
    made = Score(
        "kid/spectrum-v1", "n", "kid", "spectrum-v1", "", 60.0, low=0.5, high=70.0, anchors=REAL
    )
    assert light("fidelity", [made]).light == "red"  # the mean image
    made.anchors = REAL | {"mean_image": 80.0}
    assert light("fidelity", [made]).light == "green"


def test_a_failed_gate_is_red_and_an_open_one_at_most_amber():
    scores = [score(0.99, 0.9, 1.0, "components", better="higher", anchors={"ceiling": 1.0})]
    gate = {"passed": True, "share": 1.0, "detail": "all"}
    assert light("anatomy", scores, {"components": gate}).light == "green"
    failed = gate | {"passed": False, "detail": "90 % of 10"}
    found = light("anatomy", scores, {"components": failed, "orientation": gate})
    assert found.light == "red"
    assert found.reason == "Gate “components” fails: 90 % of 10."
    assert found.gates == ["components", "orientation"]
    unknown = {"passed": False, "share": None, "detail": "not computed"}
    found = light("anatomy", scores, {"components": gate, "orientation": unknown})
    assert found.light == "amber"
    assert "“orientation” could not be checked" in found.reason


def test_unreliable_scores_are_listed_and_do_not_count():
    scores = [score(2.0, 0.5, 3.0), score(3.0, 2.0, 4.0, reliable=False)]
    found = light("fidelity", scores)
    assert found.light == "green"
    assert len(found.scores) == 2


def test_a_target_inside_the_interval_is_reached():
    near = score(0.1, -0.2, 0.4, "volumes", better="near", target=0.0, anchors={"ceiling": 0.05})
    assert reaches_ceiling(near)
    near.low = 0.06
    assert not reaches_ceiling(near)
    near.low = float("nan")
    assert reaches_ceiling(near) is None


def test_less_copying_than_real_subjects_is_no_fault():
    anchors = {"ceiling": 0.05, "train_copies": 1.0, "noise": 0.0}
    none = score(0.0, 0.0, 0.02, "nearest", better="near", target=0.05, anchors=anchors)
    assert badness(0.0, none) < badness(0.05, none) < badness(1.0, none)
    assert light("privacy", [none]).light == "green"
    much = score(1.0, 0.9, 1.0, "nearest", better="near", target=0.05, anchors=anchors)
    found = light("privacy", [much])
    assert found.light == "red"
    assert "copies of TRAIN on 1 of the 1" in found.reason


def test_metrics_that_are_not_known_here_are_left_out():
    assert not any(v.scores for v in verdicts([score(1.0, 0.0, 2.0, "kernel_distance")], {}, {}))
