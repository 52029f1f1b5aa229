"""Small pictures of scans, each with outlines that the reader can switch on and off.

The picture is a compressed gray image; outlines are SVG paths in millimetres above it, so that
they stay sharp, can be hidden by the page's style alone, and one drawing of the template serves
all subjects of a common grid.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gyri.report.faces import Cut
from gyri.report.figures import Spacing, Window, colour, slice_image
from gyri.views.base import PLANE_AXIS

GAP_MM = 3.0
PIXELS_MM = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
QUALITY = 82
_SMOOTH_VOXELS = 0.6
_FEWEST_POINTS = 8
"""Shorter outlines are specks of one or two voxels."""


@dataclass(frozen=True)
class Placed:
    """A slice and its place in a picture, from its upper left corner, in millimetres."""

    cut: Cut
    left_mm: float
    top_mm: float
    width_mm: float
    height_mm: float


@dataclass(frozen=True)
class Layout:
    """Slices below each other, centred.

    Parameters
    ----------
    parts : the slices in order.
    width_mm, height_mm : size of the picture.
    """

    parts: tuple[Placed, ...]
    width_mm: float
    height_mm: float


@dataclass(frozen=True)
class Picture:
    """A drawn scan.

    Parameters
    ----------
    source : data URI of the image.
    width_mm, height_mm : its size; the unit of `outline`.
    outline : SVG path data.
    """

    source: str
    width_mm: float
    height_mm: float
    outline: str


def arrange(cuts: Sequence[Cut], shape: Sequence[int], spacing_mm: Spacing) -> Layout:
    """Place the slices of a volume of `shape` below each other."""
    sizes = []
    for cut in cuts:
        across, up = (a for a in range(3) if a != PLANE_AXIS[cut.plane])
        sizes.append((shape[across] * spacing_mm[across], shape[up] * spacing_mm[up]))
    width = max(size[0] for size in sizes)
    parts, top = [], 0.0
    for cut, (own_width, own_height) in zip(cuts, sizes):
        parts.append(Placed(cut, (width - own_width) / 2, top, own_width, own_height))
        top += own_height + GAP_MM
    return Layout(tuple(parts), width, top - GAP_MM)


def draw(
    volume: np.ndarray,
    spacing_mm: Spacing,
    layout: Layout,
    *,
    window: Window,
    pixel_mm: float,
) -> np.ndarray:
    """Draw the slices of `layout`; returns uint8 (rows, columns)."""
    rows, columns = (round(mm / pixel_mm) for mm in (layout.height_mm, layout.width_mm))
    canvas = np.zeros((rows, columns), np.uint8)
    for part in layout.parts:
        position = (part.cut.index + 0.5) / volume.shape[PLANE_AXIS[part.cut.plane]]
        image = slice_image(
            volume, part.cut.plane, spacing_mm, position=position, pixel_mm=pixel_mm
        )
        top, left = round(part.top_mm / pixel_mm), round(part.left_mm / pixel_mm)
        room = canvas[top : top + image.shape[0], left : left + image.shape[1]]
        room[:] = colour(image, window)[: room.shape[0], : room.shape[1]]
    return canvas


def outline(field: np.ndarray, spacing_mm: Spacing, layout: Layout, *, level: float = 0.5) -> str:
    """Return where a field crosses a level as SVG path data in the millimetres of `layout`.

    Parameters
    ----------
    field : (I, J, K), a mask or values.
    level : 0.5 draws the border of a mask.
    """
    from contourpy import contour_generator
    from scipy.ndimage import gaussian_filter

    pieces = []
    for part in layout.parts:
        axis = PLANE_AXIS[part.cut.plane]
        across, up = (a for a in range(3) if a != axis)
        image = np.take(field, part.cut.index, axis=axis).astype(np.float32).T[::-1]
        # A border of zeros closes contours at the image's edge.
        smooth = gaussian_filter(np.pad(image, 1), _SMOOTH_VOXELS)
        for found in contour_generator(z=smooth).lines(level):
            line = np.asarray(found)
            if len(line) < _FEWEST_POINTS:
                continue
            x = part.left_mm + (line[:, 0] - 0.5) * spacing_mm[across]
            y = part.top_mm + (line[:, 1] - 0.5) * spacing_mm[up]
            pieces.append(_path(np.stack([x, y], axis=1)))
    return "".join(pieces)


def _path(points: np.ndarray) -> str:
    """Write points (N, 2) as one SVG path in whole and tenth steps relative to each other."""
    tenths = np.round(points * 10).astype(int)
    moves = np.diff(tenths, axis=0)
    first = f"M{tenths[0, 0] / 10:g} {tenths[0, 1] / 10:g}l"
    return first + " ".join(f"{dx / 10:g} {dy / 10:g}" for dx, dy in moves if dx or dy)


def picture(
    volume: np.ndarray,
    mask: np.ndarray,
    spacing_mm: Spacing,
    layout: Layout,
    *,
    window: Window,
    most_bytes: int,
) -> Picture:
    """Draw a scan at the finest pixel size whose file has at most `most_bytes`.

    Parameters
    ----------
    volume, mask : (I, J, K) values, and what is outlined.
    spacing_mm : voxel size along I, J, K.
    layout : which slices, where.
    window : values drawn black and white.
    most_bytes : of the compressed image; the coarsest pixel size is taken where none fits.
    """
    data = b""
    for pixel_mm in PIXELS_MM:
        data = _webp(draw(volume, spacing_mm, layout, window=window, pixel_mm=pixel_mm))
        if len(data) <= most_bytes:
            break
    source = "data:image/webp;base64," + base64.b64encode(data).decode()
    path = outline(mask, spacing_mm, layout)
    return Picture(source, layout.width_mm, layout.height_mm, path)


def _webp(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="webp", quality=QUALITY, method=4)
    return buffer.getvalue()
