"""A picture and a table of reconstructions beside their originals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gyri.report.figures import Spacing, colour, display_window, tile
from gyri.views.base import Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gyri.evaluation.paired import PairedScore
    from gyri.latent_walk import Walk

DIFFERENCE = 0.25
"""Differences of this size and more are drawn in the last colour."""
INCHES = 1.5


def reconstruction_figure(
    original: np.ndarray, arms: Mapping[str, np.ndarray], spacing_mm: Spacing, title: str
) -> Figure:
    """Draw an original, each reconstruction and its difference from the original, in three planes.

    Parameters
    ----------
    original : (I, J, K) in [0, 1].
    arms : name -> (I, J, K).
    title : above the picture.

    Returns
    -------
    matplotlib.figure.Figure
        On black; turn it into a file with `gyri.report.figures.png`.
    """
    from matplotlib.figure import Figure

    window = display_window(original)
    columns = [("original", colour(tile(original, spacing_mm), window))]
    for name, volume in arms.items():
        gap = tile(volume - original, spacing_mm)
        columns += [
            (name, colour(tile(volume, spacing_mm), window)),
            ("minus the original", colour(gap, (-DIFFERENCE, DIFFERENCE), "difference")),
        ]
    rows, width = columns[0][1].shape[:2]
    size = (INCHES * len(columns), INCHES * rows / width + 0.5)
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    figure.suptitle(
        f"{title}. Differences from -{DIFFERENCE:g} (blue) to {DIFFERENCE:g} (orange)",
        color="#d8dde3",
        fontsize=8,
    )
    axes = figure.subplots(1, len(columns), squeeze=False, gridspec_kw={"wspace": 0.02})[0]
    for axis, (name, pixels) in zip(axes, columns):
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        axis.set_axis_off()
        axis.set_title(name, color="#d8dde3", fontsize=8, pad=4)
    return figure


def walk_figure(
    walks: Sequence[Walk], spacing_mm: Spacing, title: str, plane: Plane = "axial"
) -> Figure:
    """Draw walks through a code: a row each, a mid-slice at every stop."""
    from matplotlib.figure import Figure

    columns = max(len(walk.stops) for walk in walks)
    size = (INCHES * columns * 0.8, INCHES * len(walks) + 0.5)
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    figure.suptitle(title, color="#d8dde3", fontsize=8)
    grid = figure.subplots(len(walks), columns, squeeze=False)
    for axes, walk in zip(grid, walks):
        window = display_window(walk.volumes)
        for axis in axes:
            axis.set_axis_off()
        for axis, stop, volume in zip(axes, walk.stops, walk.volumes):
            pixels = colour(tile(volume, spacing_mm, planes=(plane,)), window)
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
            axis.set_title(f"\n{stop}", color="#d8dde3", fontsize=7, pad=2)
        # On the line above the stops; however long, it moves nothing.
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 7}
        label = axes[0].annotate(walk.label, (0, 1), (0, 12), color="#d8dde3", **above)
        label.set_in_layout(False)
    return figure


def paired_table(scores: Sequence[PairedScore]) -> str:
    """Return a plain table: a row an arm and channel, a column a metric, means and intervals."""
    metrics = list(dict.fromkeys(score.metric for score in scores))
    heads = {s.metric: " ".join(filter(None, (s.metric.upper(), s.unit))) for s in scores}
    cells = {(s.channel, s.arm, s.metric): s for s in scores}
    several = len({score.channel for score in scores}) > 1
    lines = [f"{'':28}" + "".join(f"{heads[metric]:26}" for metric in metrics)]
    for channel, arm in dict.fromkeys((score.channel, score.arm) for score in scores):
        row = [cells[channel, arm, metric] for metric in metrics]
        name = ("  " if row[0].anchor else "") + arm + (f", {channel}" if several else "")
        values = [f"{s.value:.4g} [{s.low:.4g}, {s.high:.4g}]" for s in row]
        lines.append(f"{name:28}" + "".join(f"{value:26}" for value in values))
    return "\n".join(line.rstrip() for line in lines)
