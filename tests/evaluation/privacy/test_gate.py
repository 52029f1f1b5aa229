from __future__ import annotations

import pytest

from gyri.evaluation.privacy.audit import Audit
from gyri.evaluation.privacy.controls import Control
from gyri.evaluation.privacy.gate import decide
from gyri.evaluation.privacy.membership import Membership
from gyri.evaluation.privacy.pairs import Pair

FLAGGED = Pair("syn0001", "sub7", 0.9, 0.0, True)
NEAR = Pair("syn0002", "sub8", 0.4, 0.3, False)
GOOD = [Control(name, True, 1, 20, "fine") for name in ("negative", "positive", "canary")]


def audit(*pairs: Pair, alarms: tuple[str, ...] = ()) -> Audit:
    return Audit([], list(alarms), list(pairs), {})


def test_a_clean_audit_passes():
    gate = decide(audit(NEAR), GOOD, Membership(0.5, 0.4, 0.6, 0.01, 0.9, 50, 40), {})
    assert gate.passed
    assert gate.reasons == []


def test_a_flagged_pair_must_be_looked_at():
    gate = decide(audit(FLAGGED, NEAR), GOOD, None, {})
    assert not gate.passed
    assert gate.unreviewed == [FLAGGED]
    assert "syn0001 and sub7" in gate.reasons[0]
    assert decide(audit(FLAGGED), GOOD, None, {("syn0001", "sub7"): "distinct"}).passed
    copied = decide(audit(FLAGGED), GOOD, None, {("syn0001", "sub7"): "copy"})
    assert "reviewed as copies (syn0001 and sub7)" in copied.reasons[0]


def test_a_review_does_not_lift_an_alarm():
    gate = decide(audit(FLAGGED, alarms=("copies",)), GOOD, None, {("syn0001", "sub7"): "distinct"})
    assert gate.reasons == ["Alarm: copies."]


@pytest.mark.parametrize("name", ["negative", "positive", "canary"])
def test_every_control_must_pass(name):
    controls = [c for c in GOOD if c.name != name] + [Control(name, False, 9, 20, "9 of 20")]
    gate = decide(audit(), controls, None, {})
    assert not gate.passed
    assert "9 of 20" in gate.reasons[0]


def test_a_model_that_tells_members_apart_fails():
    gate = decide(audit(), GOOD, Membership(0.8, 0.7, 0.9, 0.2, 0.0, 50, 40), {})
    assert "area under the curve 0.80" in gate.reasons[0]
