"""Pass or fail, from the scores."""

from __future__ import annotations

from typing import Any

from gyri.evaluation.features import FeatureSet
from gyri.evaluation.metrics import Score
from gyri.evaluation.scores import Refused

ORIENTATION_SHARE = 0.99
COMPONENTS_SHARE = 0.99
BEATEN = ("noise", "phase_random", "mean_image")
COVERAGE_SHARE = 0.5

Gate = dict[str, Any]


def gates(
    scores: list[Score], feature_sets: dict[str, FeatureSet], refused: list[Refused]
) -> dict[str, Gate]:
    """Return every gate as ``{"passed", "share", "detail"}``.

    A gate whose scores were refused does not pass.
    """
    by_key = {score.key: score for score in scores}
    reasons = {entry.metric: entry.reason for entry in refused}
    return {
        "orientation": _share(by_key.get("orientation"), ORIENTATION_SHARE, reasons, "orientation"),
        "components": _share(by_key.get("components"), COMPONENTS_SHARE, reasons, "components"),
        "non_copying": _non_copying(by_key, reasons),
        "beats_anchors": _beats_anchors(scores, feature_sets, reasons),
        "coverage_half_of_real": _coverage(scores, reasons),
    }


def _unknown(reasons: dict[str, str], metric: str) -> Gate:
    return {"passed": False, "share": None, "detail": reasons.get(metric, "not computed")}


def _share(score: Score | None, least: float, reasons: dict[str, str], metric: str) -> Gate:
    if score is None:
        return _unknown(reasons, metric)
    return {
        "passed": score.value >= least,
        "share": score.value,
        "detail": f"{score.value:.1%} of {score.n_generated} volumes, at least {least:.0%} needed",
    }


def _non_copying(by_key: dict[str, Score], reasons: dict[str, str]) -> Gate:
    """No alarm: the copy rate's interval reaches down to 5 %, the closer share's to 0.5."""
    rate, closer = by_key.get("nearest/copy_rate"), by_key.get("nearest/closer")
    if rate is None or closer is None:
        return _unknown(reasons, "nearest")
    copying = rate.low > 0.05
    remembering = closer.low > 0.5
    return {
        "passed": not (copying or remembering),
        "share": rate.value,
        "detail": f"copy rate {rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%}; 5 % expected), "
        f"closer to TRAIN than to HOLD {closer.value:.0%} (50 % expected, p = "
        f"{closer.p_value if closer.p_value is None else round(closer.p_value, 3)})",
    }


def _beats_anchors(
    scores: list[Score], feature_sets: dict[str, FeatureSet], reasons: dict[str, str]
) -> Gate:
    """Kernel distance below noise, phase-random surrogates and the mean image, where they count."""
    compared = [
        (score, anchor)
        for score in scores
        if score.metric == "kid" and score.features
        for anchor in BEATEN
        if anchor in score.anchors and anchor not in feature_sets[score.features].blind_to
    ]
    if not compared:
        return _unknown(reasons, "kid")
    lost = [(s, anchor) for s, anchor in compared if not s.value < s.anchors[anchor]]
    detail = ", ".join(f"{anchor} on {s.features}" for s, anchor in lost)
    return {
        "passed": not lost,
        "share": 1 - len(lost) / len(compared),
        "detail": f"kernel distance not below {detail}" if lost else "kernel distance below all",
    }


def _coverage(scores: list[Score], reasons: dict[str, str]) -> Gate:
    """At least half of the coverage that real subjects reach, on every feature set."""
    compared = [s for s in scores if s.key.startswith("coverage/") and "ceiling" in s.anchors]
    if not compared:
        return _unknown(reasons, "prdc")
    shares = {s.features: s.value / max(s.anchors["ceiling"], 1e-12) for s in compared}
    return {
        "passed": min(shares.values()) >= COVERAGE_SHARE,
        "share": min(shares.values()),
        "detail": "; ".join(f"{name}: {share:.0%} of real" for name, share in shares.items()),
    }
