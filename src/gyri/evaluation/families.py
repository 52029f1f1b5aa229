"""One light a family of metrics: what its scores and gates say together, in a sentence.

Green: at least 80 % of the scores reach real against real within their interval, and every gate
of the family passes. Red: a gate fails, or a set whose fault is known (noise, phase-random
surrogates, the mean image; copies of TRAIN where it is privacy) does at least as well on half of
the scores that can tell it from real scans. Amber: between. Grey: nothing could be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gyri.evaluation import gates
from gyri.evaluation.metrics import Family, Score, family_of
from gyri.registry import FEATURES

REAL_SHARE = 0.8
BEATEN_SHARE = 0.5
FAULTY = ("noise", "phase_random", "mean_image")
FAULTY_PRIVACY = ("train_copies",)
"""Noise keeps every secret: privacy is measured against copies."""
ANCHOR_WORDS = {
    "noise": "noise",
    "phase_random": "phase-random surrogates",
    "mean_image": "the mean image",
    "train_copies": "copies of TRAIN",
}

Light = Literal["green", "amber", "red", "grey"]


@dataclass(frozen=True)
class FamilyVerdict:
    """The light of one family.

    Parameters
    ----------
    light : green, amber, red, or grey where nothing could be judged.
    reason : one sentence, why.
    scores : names of the family's scores.
    gates : names of the family's gates.
    """

    family: str
    light: Light
    reason: str
    scores: list[str]
    gates: list[str]


def badness(value: float, score: Score) -> float:
    """Return a number that is smaller for better values of `score`.

    Where a value should be near its target (the ceiling where there is none), it is the distance
    from it; in privacy only towards the value that copies of TRAIN get.
    """
    if score.better != "near":
        return -value if score.better == "higher" else value
    target = score.target if score.target is not None else score.anchors.get("ceiling", 0.0)
    copies = score.anchors.get("train_copies")
    if family_of(score.metric) == "privacy" and copies is not None:
        return (value - target) * float(np.sign(copies - target))
    return abs(value - target)


def reaches_ceiling(score: Score) -> bool | None:
    """Say whether the interval holds a value as good as real scans get; None where unknown."""
    ceiling = score.anchors.get("ceiling")
    if ceiling is None or not np.isfinite([score.low, score.high]).all():
        return None
    ends = [score.value, score.low, score.high]
    if score.target is not None and score.low < score.target < score.high:
        ends.append(score.target)
    return min(badness(end, score) for end in ends) <= badness(ceiling, score)


def _better_than(score: Score, anchor: str) -> bool | None:
    """Say whether the score is better than an anchor's; None where it cannot tell it from real."""
    value, ceiling = score.anchors.get(anchor), score.anchors.get("ceiling")
    if value is None or ceiling is None or badness(value, score) <= badness(ceiling, score):
        return None
    features = score.features or ""
    if features in FEATURES and anchor in FEATURES[features].component.blind_to:
        return None
    return badness(score.value, score) < badness(value, score)


def verdicts(
    scores: Sequence[Score],
    found_gates: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
) -> list[FamilyVerdict]:
    """Return the verdict of every family.

    Parameters
    ----------
    scores : of one sheet; those that are not reliable do not count.
    found_gates : of the same sheet, by name.
    reasons : why metrics were refused, by name.
    """
    return [_verdict(family, scores, found_gates, reasons) for family in get_args(Family)]


def _verdict(
    family: Family,
    scores: Sequence[Score],
    found_gates: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
) -> FamilyVerdict:
    own = [s for s in scores if family_of(s.metric) == family]
    counted = [s for s in own if s.reliable and np.isfinite(s.value)]
    names = [name for name in found_gates if gates.FAMILIES.get(name) == family]
    light, reason = _light(family, counted, {name: found_gates[name] for name in names})
    if light == "grey":
        refused = [r for metric, r in reasons.items() if family_of(metric) == family]
        reason = f"Not judged: {refused[0]}" if refused else reason
    return FamilyVerdict(family, light, reason, [s.name for s in own], names)


def _light(
    family: Family, counted: list[Score], own_gates: Mapping[str, Mapping[str, Any]]
) -> tuple[Light, str]:
    failed = [n for n, g in own_gates.items() if not g.get("passed") and g.get("share") is not None]
    if failed:
        name = failed[0]
        more = f" {len(failed) - 1} more gates fail." if len(failed) > 1 else ""
        return "red", f"Gate “{_words(name)}” fails: {own_gates[name].get('detail')}.{more}"
    reached = [found for s in counted if (found := reaches_ceiling(s)) is not None]
    if not reached:
        return "grey", "Not judged: no score of this family has an interval and a real ceiling."
    beaten = []
    for anchor in FAULTY_PRIVACY if family == "privacy" else FAULTY:
        told = [found for s in counted if (found := _better_than(s, anchor)) is not None]
        if told and sum(told) <= BEATEN_SHARE * len(told):
            return "red", (
                f"No better than {ANCHOR_WORDS[anchor]} on {len(told) - sum(told)} of the "
                f"{len(told)} scores that tell it from real scans."
            )
        if told:
            beaten.append(ANCHOR_WORDS[anchor])
    counts = f"{sum(reached)} of {len(reached)} scores reach real scans within their interval"
    unknown = [name for name, gate in own_gates.items() if not gate.get("passed")]
    if unknown:
        return "amber", f"{counts}; gate “{_words(unknown[0])}” could not be checked."
    if sum(reached) >= REAL_SHARE * len(reached):
        return "green", f"{counts}{'; every gate passes' if own_gates else ''}."
    return "amber", f"{counts}{'; better than ' + _and(beaten) if beaten else ''}."


def _words(name: str) -> str:
    return name.replace("_", " ")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
