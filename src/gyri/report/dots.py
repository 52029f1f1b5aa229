"""Charts of single scans: where each lies among the others, and who the subjects are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gyri.report.charts import PALETTE, panel
from gyri.runtime.seeding import numpy_rng

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMES = 5
_MOST_BINS = 24


def measure_dots(
    values: np.ndarray,
    odd: np.ndarray,
    names: list[str],
    quantity: str,
    limits: tuple[float, float],
) -> Figure:
    """Draw one dot a scan, the outliers in colour and the limits beyond which scans are ones.

    Parameters
    ----------
    values : (N,) the measure of each scan.
    odd : (N,) bool, the scans that are outliers in this measure; the farthest five are named.
    names : N names of the scans.
    quantity : name of the axis with its unit.
    limits : lowest and highest usual value; one that is not finite is not drawn.
    """
    figure, axes = panel(3.7, 1.45)
    height = numpy_rng(0, "report", quantity).uniform(-0.5, 0.5, len(values))
    middle = float(np.median(values))
    far = [row for row in np.argsort(-np.abs(values - middle)) if odd[row]][:_MOST_NAMES]
    # Names of neighbours would cover each other at random heights.
    height[far] = np.linspace(-0.7, 0.7, _MOST_NAMES)[: len(far)]
    axes.plot(
        values[~odd], height[~odd], "o", color=PALETTE["hold"], markersize=3.2, alpha=0.4, mew=0
    )
    axes.plot(values[odd], height[odd], "o", color=PALETTE["synthetic"], markersize=5, mew=0)
    for limit in limits:
        if np.isfinite(limit):
            axes.axvline(limit, color=PALETTE["muted"], linewidth=1, linestyle="--")
    axes.plot([middle], [0], "|", color=PALETTE["ink"], markersize=30, mew=1.5)
    for row in far:
        left = values[row] > middle  # Names run towards the middle, inside the panel.
        axes.annotate(
            names[row],
            (values[row], height[row]),
            xytext=(-5 if left else 5, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=7.5,
            color=PALETTE["ink"],
        )
    axes.set_ylim(-0.85, 0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(quantity, fontsize=8.5, color=PALETTE["muted"])
    return figure


def age_histogram(years: np.ndarray, sex: np.ndarray | None) -> Figure:
    """Draw how many subjects are of what age, women and men on top of each other.

    Parameters
    ----------
    years : (N,) ages, NaN where missing.
    sex : (N,) upper-case words, ``"F..."`` and ``"M..."``; others count as unknown. None draws
        one colour.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = panel(5.4, 2.3)
    known = years[np.isfinite(years)]
    low, high = np.floor(known.min() / 5) * 5, np.ceil((known.max() + 1e-9) / 5) * 5
    width = 5 if (high - low) / 5 <= _MOST_BINS else 10
    edges = np.arange(low, high + width, width)
    groups = {"": np.ones(len(years), bool)}
    if sex is not None:
        first = np.array([str(word)[:1] for word in sex])
        groups = {
            "women": first == "F",
            "men": first == "M",
            "unknown": ~np.isin(first, ["F", "M"]),
        }
    floor = np.zeros(len(edges) - 1)
    colours = {"women": "synthetic", "men": "hold", "unknown": "train", "": "hold"}
    for name, chosen in groups.items():
        counts, _ = np.histogram(years[chosen & np.isfinite(years)], edges)
        if counts.any():
            axes.bar(
                edges[:-1], counts, width * 0.92, floor, align="edge",
                color=PALETTE[colours[name]], alpha=0.85, label=name, linewidth=0,
            )  # fmt: skip
            floor += counts
    if sex is not None:
        axes.legend(frameon=False, fontsize=8, labelcolor=PALETTE["muted"], handlelength=1)
    axes.set_xlabel("age (years)", fontsize=8.5, color=PALETTE["muted"])
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure
