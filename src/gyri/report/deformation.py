"""Pictures of deformations: checkerboards, warped lattices, local volume, the way in steps.

A displacement u is (3, I, J, K) in voxels, its components in the order of the axes, and pulls
back: ``warped(p) = template(p + u(p))`` for a voxel p of the scan. Slices are cut and shown as by
`gyri.report.figures.slice_image`. Pictures hold no letters, so that they can be shown at any size;
`deformation_strip` alone has titles.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gyri.report.figures import (
    PLANES,
    Spacing,
    Window,
    colour,
    display_window,
    png,
    slice_image,
    tile,
)
from gyri.report.sections import Context, picture
from gyri.views.base import PLANE_AXIS, Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATTICE_MM = 12.0
"""From one line of a lattice to the next."""
LINE_PX = 1.4
LINE = np.array([104.0, 200.0, 255.0])
DIMMED = 0.75
"""Of an image's brightness that is left under a lattice or under colours."""

LIMIT = 1.0
"""Of log2 local volume: half and double are drawn in the last colours."""
SHRUNK, GROWN = np.array([70.0, 150.0, 255.0]), np.array([255.0, 140.0, 40.0])
OPACITY = 0.9
FOLD = np.array([255.0, 30.0, 40.0])

STOPS = (4, 3, 5, 2, 1)
"""Parts into which the way in a strip is cut, the first into which its steps can be dealt."""
GIF_BYTES = 700_000
FRAME_MS, REST_MS = 110, 700
_GIF_GRAYS = 64
_GIF_PIXELS_MM = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
_BAR_PX = 4
_GAP_PX = 3
_TEXT = "#d8dde3"


def checkerboard(
    a: np.ndarray,
    b: np.ndarray,
    spacing_mm: Spacing,
    plane: Plane,
    squares: int = 8,
    *,
    position: float = 0.5,
    pixel_mm: float | None = None,
) -> np.ndarray:
    """Draw one slice with squares of two volumes in turn; edges go on where they fit.

    Parameters
    ----------
    a, b : (I, J, K), each shown in its own `display_window`, so that seams show places and not
        brightness; the upper left square is of `a`.
    spacing_mm : voxel size along I, J, K.
    plane : of the slice.
    squares : along the picture's longer side.
    position, pixel_mm : see `gyri.report.figures.slice_image`.

    Returns
    -------
    np.ndarray
        (rows, columns) uint8.
    """
    one, other = (
        colour(
            slice_image(v, plane, spacing_mm, position=position, pixel_mm=pixel_mm),
            display_window(v),
        )
        for v in (a, b)
    )
    side = max(one.shape) / squares
    row, column = np.indices(one.shape)
    return np.where((row // side + column // side) % 2 == 0, one, other)


def grid_picture(
    u: np.ndarray,
    spacing_mm: Spacing,
    plane: Plane,
    *,
    under: np.ndarray | None = None,
    lattice_mm: float = LATTICE_MM,
    position: float = 0.5,
    pixel_mm: float | None = None,
) -> np.ndarray:
    """Draw a lattice that was straight on the template and went with it.

    Lines are where the template's lattice planes meet the slice: ``p + u(p)`` of an in-plane
    component is a whole number of `lattice_mm`. They are wide apart where the template grew on its
    way to the scan, and close where it shrank.

    Parameters
    ----------
    u : displacement (3, I, J, K), voxels.
    spacing_mm : voxel size along I, J, K.
    plane : of the slice.
    under : the warped template (I, J, K); black without.
    lattice_mm : from line to line on the template.
    position, pixel_mm : see `gyri.report.figures.slice_image`.

    Returns
    -------
    np.ndarray
        (rows, columns, 3) uint8.
    """
    pixels = _rgb(under, u.shape[1:], plane, spacing_mm, position, pixel_mm) * DIMMED
    ink = np.zeros(pixels.shape[:2])
    for place in _read_at(u, plane, spacing_mm, position, pixel_mm):
        along = np.hypot(*np.gradient(place))  # mm of the template a pixel
        away = np.abs(place - lattice_mm * np.round(place / lattice_mm))
        away_px = away / np.maximum(along, 1e-6)
        ink = np.maximum(ink, (LINE_PX / 2 + 0.5 - away_px).clip(0, 1))
    pixels += ink[..., None] * (LINE - pixels)
    return pixels.round().astype(np.uint8)


def _read_at(
    u: np.ndarray,
    plane: Plane,
    spacing_mm: Spacing,
    position: float,
    pixel_mm: float | None,
) -> list[np.ndarray]:
    """Return where each pixel reads the template along both in-plane axes, mm from its centre."""
    across, up = (axis for axis in range(3) if axis != PLANE_AXIS[plane])
    places = []
    for axis in (across, up):
        shift = slice_image(u[axis], plane, spacing_mm, position=position, pixel_mm=pixel_mm)
        rows, columns = shift.shape
        # From the left, or from below: row 0 is on top.
        along = np.arange(columns) if axis == across else np.arange(rows)[::-1, None]
        size = columns if axis == across else rows
        voxels = u.shape[1 + axis]
        own = (along + 0.5) * voxels / size - voxels / 2
        places.append((own + shift) * spacing_mm[axis])
    return places


def jacobian_picture(
    determinant: np.ndarray,
    spacing_mm: Spacing,
    plane: Plane,
    *,
    under: np.ndarray | None = None,
    limit: float = LIMIT,
    position: float = 0.5,
    pixel_mm: float | None = None,
) -> np.ndarray:
    """Draw how much the template grew (orange) or shrank (blue) on its way to the scan.

    Parameters
    ----------
    determinant : (I, J, K) of ``id + u``. It says how much template one voxel of the scan reads:
        2 where the template shrank to half, 0 or less where the deformation folds (red).
    spacing_mm : voxel size along I, J, K.
    plane : of the slice.
    under : what shines through where the volume stays, for instance the scan (I, J, K); where it
        is 0 nothing is painted but folds.
    limit : log2 of the growth drawn in the last colour.
    position, pixel_mm : see `gyri.report.figures.slice_image`.

    Returns
    -------
    np.ndarray
        (rows, columns, 3) uint8.
    """
    growth = -np.log2(np.maximum(determinant, 2.0 ** (-2 * limit)))
    cut = slice_image(growth, plane, spacing_mm, position=position, pixel_mm=pixel_mm)
    folds = slice_image(
        (determinant <= 0).astype(np.float32), plane, spacing_mm,
        position=position, pixel_mm=pixel_mm,
    )  # fmt: skip
    pixels = _rgb(under, determinant.shape, plane, spacing_mm, position, pixel_mm)
    inside: np.ndarray | float = 1.0
    if under is not None:
        mask = (under > 0).astype(np.float32)
        inside = slice_image(mask, plane, spacing_mm, position=position, pixel_mm=pixel_mm)
    pixels = _painted(pixels * DIMMED, cut / limit, inside)
    pixels[folds > 0.5] = FOLD
    return pixels.round().astype(np.uint8)


def jacobian_key(columns: int = 160, rows: int = 12) -> np.ndarray:
    """Return the colours of `jacobian_picture` from half the volume to double, uint8 RGB."""
    gray = np.full((rows, columns, 3), 160.0 * DIMMED)
    return _painted(gray, np.tile(np.linspace(-1, 1, columns), (rows, 1))).round().astype(np.uint8)


def _painted(
    pixels: np.ndarray, growth: np.ndarray, inside: np.ndarray | float = 1.0
) -> np.ndarray:
    """Paint growth (rows, columns) from -1 to 1 over pixels (rows, columns, 3)."""
    share = OPACITY * np.abs(growth).clip(0, 1) * inside
    paint = np.where(growth[..., None] < 0, SHRUNK, GROWN)
    painted: np.ndarray = pixels + share[..., None] * (paint - pixels)
    return painted


def _rgb(
    volume: np.ndarray | None,
    shape: tuple[int, ...],
    plane: Plane,
    spacing_mm: Spacing,
    position: float,
    pixel_mm: float | None,
) -> np.ndarray:
    """Cut a slice of a volume, or of nothing, as float RGB from 0 to 255."""
    given = np.zeros(shape, np.float32) if volume is None else volume
    cut = slice_image(given, plane, spacing_mm, position=position, pixel_mm=pixel_mm)
    return np.repeat(colour(cut, display_window(given))[..., None], 3, axis=-1).astype(float)


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures (rows, columns) or (rows, columns, 3) below each other, centred on black."""
    width = max(image.shape[1] for image in images)
    parts = []
    for image in images:
        spare = width - image.shape[1]
        margins = [(0, _GAP_PX), (spare // 2, spare - spare // 2), (0, 0)]
        parts.append(np.pad(image, margins[: image.ndim]))
    return np.concatenate(parts)[:-_GAP_PX]


def deformation_strip(
    steps: np.ndarray,
    spacing_mm: Spacing,
    *,
    scan: np.ndarray | None = None,
    planes: Sequence[Plane] = ("axial", "coronal"),
) -> Figure:
    """Draw the way of the template to a scan, a column a stop, a row a plane.

    Parameters
    ----------
    steps : (n, I, J, K), the template deformed by eta from 0 to 1 in even steps, two or more; a
        few of them are drawn.
    spacing_mm : voxel size along I, J, K.
    scan : (I, J, K), drawn last.
    planes : the rows.

    Returns
    -------
    matplotlib.figure.Figure
        On black; turn it into a file with `gyri.report.figures.png`.
    """
    from matplotlib.figure import Figure

    last = len(steps) - 1
    parts = next(parts for parts in STOPS if last % parts == 0)
    rows = range(0, len(steps), last // parts)
    columns = [(f"{100 * row / last:.0f} %", steps[row]) for row in rows]
    columns[0] = ("template", columns[0][1])
    window = display_window(steps)
    drawn = [(name, volume, window) for name, volume in columns]
    if scan is not None:
        drawn.append(("the scan", scan, display_window(scan)))
    tiles = [colour(tile(v, spacing_mm, planes=planes, pixel_mm=1.0), w) for _, v, w in drawn]
    height, width = tiles[0].shape
    inches = 9.0 / len(tiles)
    size = (9.0, inches * height / width + 0.35)
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    grid = figure.subplots(1, len(tiles), squeeze=False, gridspec_kw={"wspace": 0.02})[0]
    for axes, (name, _, _), pixels in zip(grid, drawn, tiles):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        axes.set_axis_off()
        axes.set_title(name, color=_TEXT, fontsize=10, pad=4)
    return figure


def deformation_gif(steps: np.ndarray, spacing_mm: Spacing, path: Path | None = None) -> bytes:
    """Animate the way from the template to the scan and back, in three planes side by side.

    Parameters
    ----------
    steps : (n, I, J, K), the template deformed by eta from 0 to 1; two or more.
    spacing_mm : voxel size along I, J, K.
    path : where to write it too.

    Returns
    -------
    bytes
        A GIF that goes on for ever, of at most `GIF_BYTES`: pixels are made larger until it is.
        The bar at the bottom is as long as eta.
    """
    window = display_window(steps)
    data = b""
    for pixel_mm in _GIF_PIXELS_MM:
        data = _encode([_frame(v, spacing_mm, pixel_mm, window) for v in steps])
        if len(data) <= GIF_BYTES:
            break
    if path is not None:
        path.write_bytes(data)
    return data


def _frame(volume: np.ndarray, spacing_mm: Spacing, pixel_mm: float, window: Window) -> np.ndarray:
    flat = tile(volume, spacing_mm, planes=PLANES, pixel_mm=pixel_mm, side_by_side=True)
    step = 256 // _GIF_GRAYS  # Fewer grays pack better, and nobody sees it in motion.
    return colour(flat, window) // step * step


def _encode(forth: Sequence[np.ndarray]) -> bytes:
    """Encode frames there and back, uint8 (rows, columns) each, with a bar below."""
    from PIL import Image

    frames = []
    for k, frame in enumerate(forth):
        bar = np.zeros((_BAR_PX, frame.shape[1]), np.uint8)
        bar[1:, : round(frame.shape[1] * k / max(len(forth) - 1, 1))] = 160
        frames.append(Image.fromarray(np.concatenate([frame, bar])))
    frames += frames[-2:0:-1]
    rests = (0, len(forth) - 1)
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format="gif", save_all=True, append_images=frames[1:], loop=0, optimize=True,
        duration=[REST_MS if k in rests else FRAME_MS for k in range(len(frames))],
    )  # fmt: skip
    return buffer.getvalue()


def deformation_section(
    steps: np.ndarray,
    spacing_mm: Spacing,
    name: str,
    scan: np.ndarray | None = None,
) -> Context:
    """Describe the way to one volume for a page: the strip, the animation and its first frame.

    Parameters
    ----------
    steps : (n, I, J, K), see `deformation_strip`.
    spacing_mm : voxel size along I, J, K.
    name : whose it is, for those who see no pictures.
    scan : (I, J, K), for the strip.
    """
    still = colour(
        tile(steps[0], spacing_mm, pixel_mm=1.0, side_by_side=True), display_window(steps)
    )
    moving = base64.b64encode(deformation_gif(steps, spacing_mm)).decode()
    alt = f"The template on its way to {name}"
    strip = png(deformation_strip(steps, spacing_mm, scan=scan))
    animated = picture(still, f"{alt} and back, animated, in three planes.")
    return {
        "strip": picture(strip, f"{alt}, in steps."),
        "still": animated["src"],
        "animated": {**animated, "src": f"data:image/gif;base64,{moving}"},
    }
