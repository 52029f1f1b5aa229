"""Pass or fail, from the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gyri.evaluation.features import FeatureSet
from gyri.evaluation.metrics import Family, Score, family_of

if TYPE_CHECKING:
    from gyri.evaluation.scores import Refused

ORIENTATION_SHARE = 0.99
COMPONENTS_SHARE = 0.99
BEATEN = ("noise", "phase_random", "mean_image")
COVERAGE_SHARE = 0.5
SMALL_SHARE = 0.8
RESOLVED_D = 0.3
"""Half the interval of an effect size of 0 at about n = 85 on both sides."""
COHERENT_SHARE = 0.95

Gate = dict[str, Any]

FAMILIES: dict[str, Family] = {
    "orientation": "anatomy",
    "components": "anatomy",
    "small_effects": "anatomy",
    "brains_in_range": "anatomy",
    "coherence": "coherence",
    "non_copying": "privacy",
    "beats_anchors": "fidelity",
    "coverage_half_of_real": "diversity",
}
"""The question that each gate helps to answer."""


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
        "small_effects": _small_effects(scores, reasons),
        "brains_in_range": _as_often_as_real(by_key, "anatomy/in_range", 1.0, reasons),
        "coherence": _as_often_as_real(by_key, "coherence", COHERENT_SHARE, reasons),
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


def _small_effects(scores: list[Score], reasons: dict[str, str]) -> Gate:
    """Anatomy's effect sizes are small, and known well enough to say so, for 80 % of them.

    Left open where n is so small that a perfect generator would often fail: the intervals of
    single effects must not be wider than `RESOLVED_D` on each side.
    """
    small = next((s for s in scores if s.key == "anatomy/small"), None)
    sizes = [s for s in scores if s.key.endswith("/d") and family_of(s.metric) == "anatomy"]
    widths = [(s.high - s.low) / 2 for s in sizes if np.isfinite(s.high - s.low)]
    if small is None or not widths:
        return _unknown(reasons, "anatomy")
    width = float(np.median(widths))
    if width > RESOLVED_D:
        return {
            "passed": False,
            "share": None,
            "detail": f"n = {small.n_real} and {small.n_generated} know an effect size only to "
            f"{width:.2f} on each side; {RESOLVED_D} is needed to call it small",
        }
    largest = sorted(sizes, key=lambda s: -abs(s.value))[:3]
    named = ", ".join(f"{s.key.split('/')[-2]} {s.value:+.2f}" for s in largest)
    return {
        "passed": bool(small.value >= SMALL_SHARE),
        "share": small.value,
        "detail": f"{small.value:.0%} of the effect sizes are small, at least {SMALL_SHARE:.0%} "
        f"needed; largest: {named}",
    }


def _as_often_as_real(
    by_key: dict[str, Score], key: str, most: float, reasons: dict[str, str]
) -> Gate:
    """The share of volumes reaches `most`, or the share that real subjects reach.

    Real subjects violate a band by its definition. What is asked for is no more violations than
    theirs, give or take the sampling error of two shares of this n.
    """
    score = by_key.get(key)
    if score is None or "ceiling" not in score.anchors:
        return _unknown(reasons, key.split("/")[0])
    n, real = score.n_generated, score.anchors["ceiling"]
    likely = (n * real + 1) / (n + 2)
    error = 1.96 * float(np.sqrt(2 * likely * (1 - likely) / n))
    needed = min(most, real) - error
    return {
        "passed": bool(score.value >= needed),
        "share": score.value,
        "detail": f"{score.value:.1%} of {n} volumes, at least {needed:.1%} needed; real subjects "
        f"reach {real:.1%}, the sampling error is {error:.1%}",
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
        if score.metric == "kid" and score.features and score.reliable
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
    compared = [
        s for s in scores if s.key.startswith("coverage/") and s.reliable and "ceiling" in s.anchors
    ]
    if not compared:
        return _unknown(reasons, "prdc")
    shares = {s.features: s.value / max(s.anchors["ceiling"], 1e-12) for s in compared}
    return {
        "passed": min(shares.values()) >= COVERAGE_SHARE,
        "share": min(shares.values()),
        "detail": "; ".join(f"{name}: {share:.0%} of real" for name, share in shares.items()),
    }
