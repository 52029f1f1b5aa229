"""Pictures of what each preparation step makes of a scan, before and after it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from gyri.prepare.itk import resampled
from gyri.prepare.preview import Previewed, Stage
from gyri.prepare.resample import FOREGROUND, covering_grid
from gyri.report.faces import middle_cuts
from gyri.report.figures import Spacing, display_window, slice_image
from gyri.views.base import PLANE_AXIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILTED = 1e-3
GAP_MM = 6.0
MAX_MM = 230.0
"""Longer fields of view are drawn as far as this from their middle."""

ROW_INCHES = 1.7
LABEL_INCHES = 2.3
PICTURE_INCHES = 5.2
TEXT = "#d8dde3"
FAINT = "#8b95a1"
FAULT = "#ff9d76"
FACT_CHARACTERS = 34
FACT_LINES = 6


def stages_figure(preview: Previewed, *, allow_faces: bool = False) -> Figure:
    """Draw one row a step: the scan in three planes before it and after it.

    Upright scans are drawn as they are stored, tilted ones as they lie in the world; the slices
    go through the middle of the foreground, and all are to one scale.

    Parameters
    ----------
    preview : what the steps make of one scan.
    allow_faces : picture whole heads. Otherwise stages that show one are left out and named.

    Returns
    -------
    matplotlib.figure.Figure
        On black; turn it into a file with `gyri.report.figures.png`.
    """
    from matplotlib.figure import Figure

    pairs = list(zip(preview.stages, preview.stages[1:]))
    shown = [pair for pair in pairs if allow_faces or not pair[1].shows_face]
    hidden = [after.step for _, after in pairs if after.shows_face and not allow_faces]
    height = ROW_INCHES * max(len(shown), 1) + 0.9
    width = LABEL_INCHES + 2 * PICTURE_INCHES
    figure = Figure(figsize=(width, height), facecolor="black")
    figure.text(0.01, 1 - 0.28 / height, preview.session.label, color="white", fontsize=12)
    for column, name in enumerate(("before", "after") if shown else ()):
        left = (LABEL_INCHES + column * PICTURE_INCHES) / width
        figure.text(left, 1 - 0.4 / height, name, color=FAINT, fontsize=9)
    for number, (before, after) in enumerate(shown):
        bottom = 1 - (0.5 + (number + 1) * ROW_INCHES) / height
        figure.text(0.01, bottom + 1.45 / height, after.step, color="white", fontsize=10, va="top")
        figure.text(
            0.01, bottom + 1.22 / height, _facts(after.facts), color=FAINT, fontsize=6, va="top"
        )
        for column, stage in enumerate((before, after)):
            left = (LABEL_INCHES + column * PICTURE_INCHES) / width
            box = (left, bottom, PICTURE_INCHES / width * 0.99, (ROW_INCHES - 0.08) / height)
            axes = figure.add_axes(box)
            _draw_stage(axes, stage, hide=stage.shows_face and not allow_faces)
    closing = []
    if hidden:
        closing.append(f"Not pictured, as a face could be recognised: {', '.join(hidden)}.")
    if preview.fault:
        closing.append(f"Refused: {preview.fault}")
    figure.text(
        0.01, 0.02, textwrap.fill(" ".join(closing), 150),
        color=FAULT if preview.fault else TEXT, fontsize=7,
    )  # fmt: skip
    return figure


def _draw_stage(axes: Axes, stage: Stage, *, hide: bool) -> None:
    axes.set_facecolor("black")
    axes.set_axis_off()
    axes.set_xlim(0, 3 * MAX_MM + 2 * GAP_MM)
    axes.set_ylim(0, MAX_MM)
    axes.set_aspect("equal")
    if hide:
        axes.text(
            1.5 * MAX_MM, MAX_MM / 2, "a whole head: not pictured", color=FAINT, fontsize=8,
            ha="center",
        )  # fmt: skip
        return
    volume, mask, spacing = _upright(stage)
    window = display_window(volume)
    for place, cut in enumerate(middle_cuts(mask)):
        axis = PLANE_AXIS[cut.plane]
        position = (cut.index + 0.5) / volume.shape[axis]
        image = slice_image(volume, cut.plane, spacing, position=position)
        across, up = (volume.shape[a] * spacing[a] for a in range(3) if a != axis)
        x = place * (MAX_MM + GAP_MM) + MAX_MM / 2
        axes.imshow(
            image, cmap="gray", vmin=window[0], vmax=window[1], interpolation="bilinear",
            extent=(x - across / 2, x + across / 2, (MAX_MM - up) / 2, (MAX_MM + up) / 2),
            clip_on=True,
        )  # fmt: skip
    axes.set_xlim(0, 3 * MAX_MM + 2 * GAP_MM)
    axes.set_ylim(0, MAX_MM)
    size = "x".join(map(str, stage.scan.shape))
    fine = "x".join(f"{mm:.3g}" for mm in stage.scan.spacing_mm)
    axes.text(
        2, 2, f"{size} at {fine} mm, values {volume.min():.4g} to {volume.max():.4g}",
        color=TEXT, fontsize=6,
    )  # fmt: skip


def _upright(stage: Stage) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Return the first intensities, the foreground and the spacing, along the axes drawn."""
    scan = stage.scan
    index = next(i for i, channel in enumerate(scan.channels) if channel.kind != "label")
    volume, support = scan.image[index], scan.foreground
    spacing = scan.spacing_mm
    unit = np.abs(scan.affine[:3, :3] / spacing)
    if np.abs(unit - np.rint(unit)).max() > TILTED:
        fine = float(spacing.min())
        shape, affine = covering_grid(scan.affine, scan.shape, fine)
        volume, support = (resampled(v, scan.affine, affine, shape) for v in (volume, support))
        spacing = np.full(3, fine)
    mask = support >= FOREGROUND
    return volume, mask if mask.any() else np.ones_like(mask), tuple(spacing.tolist())


def _facts(facts: dict[str, Any]) -> str:
    """Write what a step noted, as far as there is room."""
    said = "; ".join(f"{key} {_short(v)}" for key, v in facts.items() if key != "step")
    lines = textwrap.wrap(said.replace("_", " "), FACT_CHARACTERS)
    return "\n".join(lines[:FACT_LINES] + (["..."] if len(lines) > FACT_LINES else []))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(_short(inner) for inner in value)
    return str(value)
