"""A picture of what the units of a generator do to a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gyri.dissection import Dissected
from gyri.report.figures import Spacing, Window, colour, display_window, slice_image
from gyri.style_walk import shown
from gyri.views.base import PLANE_AXIS, Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SHOWN = 4
NUM_UNITS_SHOWN = 2
INCHES = 1.5
TEXT = "#d8dde3"
ORANGE, BLUE = (217, 118, 43), (90, 170, 235)
OPACITY = 0.6


def dissection_figure(
    found: Dissected, intensity: int, spacing_mm: Spacing, plane: Plane
) -> Figure:
    """Draw samples with their label, where units are high, and what setting the units does.

    Shown are the samples with most of the label, in the slice that has most of it; what was set
    high, in the slice with most of its place.

    Parameters
    ----------
    intensity : the channel inside the model that is shown.
    plane : of the slices.
    """
    from matplotlib.figure import Figure

    axis = PLANE_AXIS[plane]
    sizes = found.label.reshape(len(found.label), -1).sum(1)
    columns = np.argsort(-sizes, kind="stable")[:NUM_SHOWN]
    rows = _dissection_rows(found, intensity)
    size = (INCHES * len(columns), INCHES * 1.1 * len(rows))
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    axes_of = figure.subplots(len(rows), len(columns), squeeze=False)
    window = display_window(rows[0].image)
    for axes, row in zip(axes_of, rows):
        for place, k in zip(axes, columns):
            layers = [(mask[k], paint) for mask, paint in row.layers]
            cut = most_of(row.cut[k], axis)
            pixels = painted(row.image[k], layers, plane, cut, spacing_mm, window)
            place.imshow(pixels, interpolation="bilinear")
            place.set_axis_off()
            place.set_title(" ", fontsize=7, pad=2)
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 7}
        label = axes[0].annotate(row.name, (0, 1), (0, 3), color=TEXT, **above)
        label.set_in_layout(False)
    return figure


@dataclass(frozen=True)
class _Row:
    """A row of the picture: volumes (V, I, J, K), painted masks, and whose slice is shown."""

    name: str
    image: np.ndarray
    layers: list[tuple[np.ndarray, tuple[int, int, int]]]
    cut: np.ndarray


def _dissection_rows(found: Dissected, intensity: int) -> list[_Row]:
    samples, label = shown(found.samples, intensity), found.label
    rows = [_Row("the label", samples, [(label, ORANGE)], label)]
    for k, unit in enumerate(found.units[:NUM_UNITS_SHOWN]):
        rows.append(_Row(f"unit {unit} is high", samples, [(found.high[:, k], BLUE)], label))
    without, with_units = found.ablation, found.insertion
    rows.append(
        _Row(
            "units at 0",
            shown(without.volumes, intensity),
            [(without.label, ORANGE)],
            label,
        )
    )
    rows.append(
        _Row(
            "units high at the blue place",
            shown(with_units.volumes, intensity),
            [(found.place, BLUE), (with_units.label, ORANGE)],
            found.place,
        )
    )
    return rows


def most_of(mask: np.ndarray, axis: int) -> float:
    """Return where along an axis a mask (I, J, K) has most voxels, 0 to 1; the middle if none."""
    counts = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return (int(counts.argmax()) + 0.5) / len(counts) if counts.any() else 0.5


def painted(
    volume: np.ndarray,
    layers: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    plane: Plane,
    position: float,
    spacing_mm: Spacing,
    window: Window,
) -> np.ndarray:
    """Return a slice in gray with masks (I, J, K) painted over it in their colours, uint8 RGB."""
    gray = colour(slice_image(volume, plane, spacing_mm, position=position), window)
    pixels = np.repeat(gray[..., None], 3, axis=-1).astype(float)
    for mask, paint in layers:
        over = slice_image(mask.astype(np.float32), plane, spacing_mm, position=position) > 0.5
        pixels[over] = (1 - OPACITY) * pixels[over] + OPACITY * np.array(paint)
    return pixels.round().astype(np.uint8)
