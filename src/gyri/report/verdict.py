"""The report's one sentence: what was judged, which gates it passed, how it compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gyri.report.strip import badness, finite, place
from gyri.report.text import join, plural, words


def leading_scores(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the scores named in ``lead``, in that order."""
    by_name = {entry.get("name"): entry for entry in scores.get("scores") or []}
    return [by_name[name] for name in scores.get("lead") or [] if name in by_name]


def ordered_scores(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all scores, the leading ones first."""
    leading = leading_scores(scores)
    names = {entry.get("name") for entry in leading}
    return leading + [e for e in scores.get("scores") or [] if e.get("name") not in names]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How the leading scores stand against their anchors.

    Parameters
    ----------
    num_compared_real : scores whose place between ceiling and noise floor is known.
    num_as_real : of these, scores whose interval reaches the real-against-real ceiling.
    num_compared_linear : scores with a value and a PCA-Gaussian anchor.
    num_better_linear : of these, scores that are better than the PCA-Gaussian.
    """

    num_compared_real: int
    num_as_real: int
    num_compared_linear: int
    num_better_linear: int


def _reaches_ceiling(score: Mapping[str, Any]) -> bool:
    """Tell whether the value or an end of its interval is as good as the ceiling."""
    ends = [place(score.get(key), score) for key in ("value", "low", "high")]
    return any(end is not None and end <= 0 for end in ends)


def _beats_linear(score: Mapping[str, Any]) -> bool | None:
    """Tell whether the value is better than the PCA-Gaussian; None when either is missing."""
    value = finite(score.get("value"))
    linear = finite((score.get("anchors") or {}).get("pca_gaussian"))
    if value is None or linear is None:
        return None
    return badness(value, score) < badness(linear, score)


def compare(scores: Mapping[str, Any]) -> Comparison:
    """Count how many leading scores reach the ceiling and beat the PCA-Gaussian."""
    leading = leading_scores(scores) or ordered_scores(scores)
    placed = [score for score in leading if place(score.get("value"), score) is not None]
    against = [better for score in leading if (better := _beats_linear(score)) is not None]
    return Comparison(
        num_compared_real=len(placed),
        num_as_real=sum(_reaches_ceiling(score) for score in placed),
        num_compared_linear=len(against),
        num_better_linear=sum(against),
    )


def is_open(gate: Mapping[str, Any]) -> bool:
    """Tell whether a gate could not be checked, which is neither passed nor failed."""
    return not gate.get("passed") and finite(gate.get("share")) is None


def _gate_words(gates: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how many gates were passed and name those that were not."""
    if not gates:
        return "no gates were checked"

    def named(names: list[str]) -> str:
        return join([f"“{words(name).lower()}”" for name in names])

    left = [name for name, gate in gates.items() if is_open(gate)]
    failed = [name for name, gate in gates.items() if not gate.get("passed") and name not in left]
    unchecked = f"; {named(left)} could not be checked" if left else ""
    if not failed and not left:
        return f"it passes {'the only gate' if len(gates) == 1 else f'all {len(gates)} gates'}"
    passed = len(gates) - len(failed) - len(left)
    fails = f" and fails {named(failed)}" if failed else ""
    return f"it passes {passed} of {plural(len(gates), 'gate')}{fails}{unchecked}"


def lights(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the verdict of every family; empty for sheets of before there were families."""
    return list(scores.get("families") or [])


def _light_words(families: list[Mapping[str, Any]]) -> str:
    """Say which families have which light, for example "green in anatomy, red in privacy"."""
    parts = []
    for light in ("green", "amber", "red"):
        names = [str(f.get("family")) for f in families if f.get("light") == light]
        if names:
            parts.append(f"{light} in {join(names)}")
    unjudged = [str(f.get("family")) for f in families if f.get("light") == "grey"]
    return ", ".join(parts + ([f"{join(unjudged)} not judged"] if unjudged else []))


def verdict(scores: Mapping[str, Any], num_generated: int, num_hold: int) -> str:
    """Say in two short sentences what was judged and how it came out.

    Parameters
    ----------
    scores : the scores file.
    num_generated, num_hold : sizes of the synthetic set and of the set it is judged against.
    """
    judged = (
        f"This set of {plural(num_generated, 'synthetic brain')} was judged against "
        f"{plural(num_hold, 'real subject')} that the model never saw"
    )
    passed = _gate_words(scores.get("gates") or {})
    if families := lights(scores):
        return f"{judged}: {_light_words(families)}. {passed[:1].upper()}{passed[1:]}."
    text = f"{judged}: {passed}."
    found = compare(scores)
    parts = []
    if found.num_compared_real:
        parts.append(
            f"{found.num_as_real} of {found.num_compared_real} reach the real-against-real ceiling "
            "within their interval"
        )
    if found.num_compared_linear:
        parts.append(
            f"{found.num_better_linear} of {found.num_compared_linear} are better than a "
            "PCA-Gaussian"
        )
    return f"{text} Of the leading scores, {join(parts)}." if parts else text
