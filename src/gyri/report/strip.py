"""Where a score lies between its anchors: one number line, drawn small.

The line runs from the *ceiling* (real against real, left) to the *noise floor* (right). With a
score's badness b and r = (b(value) - b(ceiling)) / (b(noise) - b(ceiling)), a value is drawn at
asinh(r / c) / asinh(1 / c), where c is the least positive r of the cheap anchors: linear up to the
nearest of them, logarithmic beyond it. A kernel distance may differ by a factor of 100,000
between real and noise, and all that good models differ by would vanish on a linear line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from gyri.report.text import number

ANCHORS: dict[str, str] = {
    "ceiling": "Real ceiling",
    "train_copies": "TRAIN copies",
    "pca_gaussian": "PCA-Gaussian",
    "blurred": "Blurred real",
    "mean_image": "Mean image",
    "phase_random": "Phase-random",
    "noise": "Noise floor",
}
"""Names of the anchors of the scores file and what they are called in a table, best first."""

_WIDTH, _HEIGHT = 176.0, 26.0
_LEFT, _RIGHT = 22.0, 166.0
_LEAST, _MOST = -0.12, 1.04
_CHEAP = ("pca_gaussian", "blurred", "mean_image", "phase_random")
_DEFAULT_SCALE, _LEAST_SCALE = 0.1, 1e-6


def finite(value: Any) -> float | None:
    """Return `value` as a float, or None when it is missing or not finite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def badness(value: float, score: Mapping[str, Any]) -> float:
    """Turn a value into a number that is smaller for better values, by the score's `better`."""
    match score.get("better"):
        case "higher":
            return -value
        case "near":
            anchors = score.get("anchors") or {}
            target = finite(score.get("target"))
            if target is None:
                target = finite(anchors.get("ceiling"))
            return abs(value - (target or 0.0))
        case _:
            return value


def relative(value: Any, score: Mapping[str, Any]) -> float | None:
    """Badness of `value` in units of the way from the ceiling to the noise floor.

    Returns
    -------
    float or None
        None when the value, the ceiling or the noise floor is missing, or when noise scores as
        well as real subjects do.
    """
    anchors = score.get("anchors") or {}
    ceiling, noise = finite(anchors.get("ceiling")), finite(anchors.get("noise"))
    known = finite(value)
    if known is None or ceiling is None or noise is None:
        return None
    span = badness(noise, score) - badness(ceiling, score)
    return (badness(known, score) - badness(ceiling, score)) / span if span > 0 else None


def place(value: Any, score: Mapping[str, Any]) -> float | None:
    """Place of `value` on the line: 0 at the ceiling, 1 at the noise floor, below 0 if better.

    Returns
    -------
    float or None
        None where `relative` is None.
    """
    r = relative(value, score)
    if r is None:
        return None
    anchors = score.get("anchors") or {}
    cheap = (relative(anchors.get(name), score) for name in _CHEAP)
    scale = min((c for c in cheap if c is not None and c > _LEAST_SCALE), default=_DEFAULT_SCALE)
    return math.asinh(r / scale) / math.asinh(1 / scale)


def _why_not(score: Mapping[str, Any]) -> str:
    """Say why a score has no place on a line."""
    anchors = score.get("anchors") or {}
    if finite(score.get("value")) is None:
        return "no value"
    if finite(anchors.get("ceiling")) is None or finite(anchors.get("noise")) is None:
        return "no anchors"
    return "noise scores as well"


def _interval_places(score: Mapping[str, Any]) -> tuple[float, float] | None:
    """Places of the better and the worse end of the score's interval."""
    low, high = finite(score.get("low")), finite(score.get("high"))
    if low is None or high is None:
        return None
    target = finite(score.get("target"))
    inside = score.get("better") == "near" and target is not None and low < target < high
    found = [place(end, score) for end in ((low, high, target) if inside else (low, high))]
    ends = [end for end in found if end is not None]
    return (min(ends), max(ends)) if ends else None


def _x(where: float) -> float:
    """Horizontal position of a place; what lies off the line is drawn at its end."""
    clipped = min(max(where, _LEAST), _MOST)
    return _LEFT + clipped * (_RIGHT - _LEFT)


def _mark(where: float, unreliable: bool) -> str:
    """Draw the value: a dot, hollow when unreliable, an arrow when it lies off the line."""
    x, y = _x(where), _HEIGHT / 2
    if where < _LEAST or where > _MOST:
        step = 7 if where > _MOST else -7
        return (
            f'<path class="value" d="M{x - step / 2:.1f} {y - 4.5}L{x + step / 2:.1f} {y}'
            f'L{x - step / 2:.1f} {y + 4.5}Z"/>'
        )
    kind = "value hollow" if unreliable else "value"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="4.2"/>'


def anchor_strip_svg(score: Mapping[str, Any]) -> Markup:
    """Draw a score between its anchors as an inline SVG that follows the page's colours.

    Parameters
    ----------
    score : one entry of ``scores["scores"]``; any of its values may be None or NaN.

    Returns
    -------
    Markup
        ``<svg>`` with classes ``line``, ``anchor``, ``interval`` and ``value``, or a dash with
        the reason when there is nothing to draw.
    """
    where = place(score.get("value"), score)
    anchors = score.get("anchors") or {}
    if where is None:
        return Markup(f'<span class="nothing">{_why_not(score)}</span>')
    y = _HEIGHT / 2
    parts = [f'<line class="line" x1="{_x(0):.1f}" y1="{y}" x2="{_x(1):.1f}" y2="{y}"/>']
    told = []
    for name, label in ANCHORS.items():
        spot = place(anchors.get(name), score)
        if spot is None:
            continue
        told.append(f"{label} {number(anchors[name])}")
        half = 7 if name in ("ceiling", "noise") else 4
        parts.append(
            f'<line class="anchor {name}" x1="{_x(spot):.1f}" y1="{y - half}" '
            f'x2="{_x(spot):.1f}" y2="{y + half}"><title>{escape(told[-1])}</title></line>'
        )
    ends = _interval_places(score)
    if ends is not None:
        left, right = _x(ends[0]), _x(ends[1])
        parts.append(
            f'<rect class="interval" x="{left:.1f}" y="{y - 2.5}" '
            f'width="{max(right - left, 1.0):.1f}" height="5" rx="2.5"/>'
        )
    parts.append(_mark(where, score.get("reliable") is False))
    spoken = f"Value {number(score.get('value'))} on a line from real to noise. {'; '.join(told)}."
    return Markup(
        f'<svg class="strip" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(spoken)}">{"".join(parts)}</svg>'
    )
