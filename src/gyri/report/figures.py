"""Pictures of volumes: slices, mosaics, real beside synthetic, nearest pairs, previews.

Volumes are (I, J, K), RAS+, in [0, 1]. The display is neurological: the left of the brain is on
the left of axial and coronal pictures; anterior is up in axial ones and to the right in sagittal
ones. Pixels are isotropic: an anisotropic grid is resampled before it is drawn.

Figures are built on `matplotlib.figure.Figure` itself, never through pyplot, so that nothing
global (backend, current figure, rcParams) changes in the caller's process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gyri.errors import UsageError, nearest
from gyri.views.base import PLANE_AXIS, Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
Spacing = tuple[float, float, float]
Window = tuple[float, float]

_DIFFERENCE_COLOURS = ("#9ad7ff", "#2f7fc1", "#000000", "#d9762b", "#ffe3b0")
_GAP_PX = 2
_INCHES_PER_ROW = 1.25


def slice_image(
    volume: np.ndarray,
    plane: Plane,
    spacing_mm: Spacing,
    *,
    position: float = 0.5,
    pixel_mm: float | None = None,
) -> np.ndarray:
    """Cut one slice as it is looked at, with isotropic pixels.

    Parameters
    ----------
    volume : (I, J, K), RAS+.
    plane : ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    spacing_mm : voxel size along I, J, K.
    position : place of the slice along its axis, 0 (left, posterior, inferior) to 1.
    pixel_mm : size of a pixel; the finest in-plane spacing by default.

    Returns
    -------
    np.ndarray
        (rows, columns), row 0 on top.

    Raises
    ------
    UsageError
        If there is no such plane.
    """
    if plane not in PLANE_AXIS:
        raise UsageError(
            f"There is no plane {plane!r}; choose from {', '.join(PLANES)}.{nearest(plane, PLANES)}"
        )
    from scipy.ndimage import zoom

    axis = PLANE_AXIS[plane]
    index = min(int(position * volume.shape[axis]), volume.shape[axis] - 1)
    image = np.take(volume, index, axis=axis).astype(np.float32)
    in_plane = [size for other, size in enumerate(spacing_mm) if other != axis]
    factors = [size / (pixel_mm or min(in_plane)) for size in in_plane]
    if max(abs(factor - 1) for factor in factors) > 1e-3:
        low, high = float(image.min()), float(image.max())
        image = zoom(image, factors, order=3, mode="nearest", grid_mode=True).clip(low, high)
    return image.T[::-1]


def tile(
    volume: np.ndarray,
    spacing_mm: Spacing,
    *,
    planes: Sequence[Plane] = PLANES,
    pixel_mm: float | None = None,
    side_by_side: bool = False,
) -> np.ndarray:
    """Glue the mid-slices of `planes` into one image, background 0.

    Parameters
    ----------
    volume : (I, J, K), RAS+.
    spacing_mm : voxel size along I, J, K.
    planes : the planes in order.
    pixel_mm : size of a pixel; the finest spacing by default.
    side_by_side : place the planes in a row instead of a column.

    Returns
    -------
    np.ndarray
        (rows, columns) with the values of the volume.
    """
    pixel_mm = pixel_mm or min(spacing_mm)
    images = [slice_image(volume, plane, spacing_mm, pixel_mm=pixel_mm) for plane in planes]
    return _glue(images, axis=1 if side_by_side else 0)


def _glue(images: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Concatenate images along `axis`, each centred on a common size across it."""
    across = 1 - axis
    size = max(image.shape[across] for image in images)
    parts = []
    for image in images:
        spare = size - image.shape[across]
        margins = [(0, 0), (0, 0)]
        margins[across] = (spare // 2, spare - spare // 2)
        margins[axis] = (0, _GAP_PX if image is not images[-1] else 0)
        parts.append(np.pad(image, margins))
    return np.concatenate(parts, axis=axis)


def display_window(volumes: np.ndarray) -> Window:
    """Intensity window that suits `volumes`: from 0 to their 99.8th percentile above 0."""
    inside = volumes[volumes > 0]
    high = float(np.percentile(inside, 99.8)) if inside.size else 1.0
    return 0.0, high if high > 0 else 1.0


def colour(image: np.ndarray, window: Window = (0.0, 1.0), colours: str = "gray") -> np.ndarray:
    """Map values to pixels.

    Parameters
    ----------
    image : (rows, columns).
    window : values drawn as the first and the last colour; values outside are clipped.
    colours : ``"gray"``, ``"difference"`` (blue below, black at the centre, orange above) or
        the name of a matplotlib colour map.

    Returns
    -------
    np.ndarray
        uint8, (rows, columns) for gray, else (rows, columns, 3). Non-finite values become 0.
    """
    low, high = window
    scaled = np.nan_to_num((np.asarray(image, float) - low) / max(high - low, 1e-12), nan=0.0)
    scaled = scaled.clip(0, 1)
    if colours == "gray":
        return np.round(scaled * 255).astype(np.uint8)
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    chosen = (
        LinearSegmentedColormap.from_list("difference", list(_DIFFERENCE_COLOURS), N=257)
        if colours == "difference"
        else matplotlib.colormaps[colours]
    )
    return np.round(chosen(scaled)[..., :3] * 255).astype(np.uint8)


def png(drawing: Figure | np.ndarray, *, dpi: int = 150) -> bytes:
    """Encode a figure, or pixels from `colour`, as PNG."""
    buffer = io.BytesIO()
    if isinstance(drawing, np.ndarray):
        from PIL import Image

        Image.fromarray(drawing).save(buffer, format="png", optimize=True)
    else:
        drawing.savefig(
            buffer, format="png", dpi=dpi, facecolor=drawing.get_facecolor(), bbox_inches="tight"
        )
    return buffer.getvalue()


def _draw_mosaic(
    figure: FigureBase,
    volumes: Sequence[np.ndarray],
    spacing_mm: Spacing,
    planes: Sequence[Plane],
    labels: Sequence[str],
    window: Window,
) -> None:
    """Draw one column a volume and one row a plane on `figure`."""
    axes = figure.subplots(1, len(volumes), squeeze=False, gridspec_kw={"wspace": 0.02})[0]
    for column, (axis, volume) in enumerate(zip(axes, volumes)):
        axis.imshow(
            tile(volume, spacing_mm, planes=planes),
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            interpolation="bicubic",
        )
        axis.set_axis_off()
        if column < len(labels):
            axis.set_title(labels[column], color="#d8dde3", fontsize=8, pad=4)


def _black_figure(num_columns: int, num_rows: int) -> Figure:
    """Return an empty black figure for a grid of brains."""
    from matplotlib.figure import Figure

    size = (max(num_columns, 1) * _INCHES_PER_ROW, max(num_rows, 1) * _INCHES_PER_ROW)
    return Figure(figsize=size, facecolor="black", layout="constrained")


def mosaic(
    volumes: Sequence[np.ndarray],
    *,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    planes: Sequence[Plane] = PLANES,
    labels: Sequence[str] = (),
    window: Window | None = None,
) -> Figure:
    """Draw mid-slices on black: one column a volume, one row a plane.

    Parameters
    ----------
    volumes : each (I, J, K), RAS+, all on one grid.
    spacing_mm : voxel size along I, J, K.
    planes : the rows.
    labels : a title for each column, as many as are known.
    window : common intensity window; `display_window` of all volumes by default.

    Returns
    -------
    matplotlib.figure.Figure
        Turn it into a file with `png`.

    Raises
    ------
    UsageError
        If there is no volume.
    """
    if not len(volumes):
        raise UsageError("mosaic got no volumes; give at least one (I, J, K) array.")
    figure = _black_figure(len(volumes), len(planes))
    window = window or display_window(np.stack(volumes))
    _draw_mosaic(figure, volumes, spacing_mm, planes, labels, window)
    return figure


def real_beside_synthetic(
    synthetic: Sequence[np.ndarray],
    real: Sequence[np.ndarray],
    *,
    spacing_mm: Spacing,
    planes: Sequence[Plane] = PLANES,
    synthetic_labels: Sequence[str] = (),
    real_labels: Sequence[str] = (),
) -> Figure:
    """Draw rows of synthetic volumes above rows of real ones in the window of the real ones.

    Parameters
    ----------
    synthetic, real : each (I, J, K), RAS+, all on one grid.
    spacing_mm : voxel size along I, J, K.
    planes : rows of each half.
    synthetic_labels, real_labels : titles of the columns.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UsageError
        If one half is empty.
    """
    if not len(synthetic) or not len(real):
        raise UsageError(
            f"real_beside_synthetic got {len(synthetic)} synthetic and {len(real)} real volumes; "
            "give at least one of each."
        )
    window = display_window(np.stack(real))
    figure = _black_figure(max(len(synthetic), len(real)), 2 * len(planes) + 1)
    halves = figure.subfigures(2, 1, squeeze=False, hspace=0.02)[:, 0]
    for half, name, volumes, labels in (
        (halves[0], "Synthetic", synthetic, synthetic_labels),
        (halves[1], "Real", real, real_labels),
    ):
        half.set_facecolor("black")
        half.suptitle(name, color="white", fontsize=11, x=0.01, ha="left")
        _draw_mosaic(half, volumes, spacing_mm, planes, labels, window)
    return figure


def nearest_pairs(
    samples: Sequence[np.ndarray],
    neighbours: Sequence[np.ndarray],
    *,
    spacing_mm: Spacing,
    window: Window,
    difference_range: float = 0.5,
    planes: Sequence[Plane] = PLANES,
    pixel_mm: float | None = None,
) -> list[np.ndarray]:
    """Draw each sample, its nearest training volume and sample minus neighbour side by side.

    Parameters
    ----------
    samples, neighbours : each (I, J, K), RAS+; pairs in order.
    spacing_mm : voxel size along I, J, K.
    window : intensity window of sample and neighbour.
    difference_range : the difference is drawn from minus to plus this value.
    planes : rows.
    pixel_mm : size of a pixel; the finest spacing by default.

    Returns
    -------
    list of np.ndarray
        One (rows, columns, 3) uint8 image a pair.
    """
    drawn = []
    for sample, neighbour in zip(samples, neighbours, strict=True):
        columns = [
            np.repeat(colour(image, window)[..., None], 3, axis=-1)
            for image in (
                tile(volume, spacing_mm, planes=planes, pixel_mm=pixel_mm)
                for volume in (sample, neighbour)
            )
        ]
        difference = tile(sample - neighbour, spacing_mm, planes=planes, pixel_mm=pixel_mm)
        columns.append(colour(difference, (-difference_range, difference_range), "difference"))
        gap = np.zeros((len(columns[0]), _GAP_PX, 3), np.uint8)
        drawn.append(np.concatenate([columns[0], gap, columns[1], gap, columns[2]], axis=1))
    return drawn


def preview(
    volumes: np.ndarray,
    *,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    max_volumes: int = 8,
    window: Window = (0.0, 1.0),
) -> bytes:
    """Draw the first volumes of a batch as one small PNG, in three planes.

    Parameters
    ----------
    volumes : (N, C, I, J, K) in [0, 1], RAS+; every channel gets its own rows.
    spacing_mm : voxel size along I, J, K.
    max_volumes : volumes drawn.
    window : common intensity window.

    Returns
    -------
    bytes
        PNG, gray.

    Raises
    ------
    UsageError
        If `volumes` is not (N, C, I, J, K) with N > 0.
    """
    volumes = np.asarray(volumes, dtype=np.float32)
    if volumes.ndim != 5 or not len(volumes):
        raise UsageError(
            f"preview got an array of shape {volumes.shape}; give (N, C, I, J, K) with N > 0."
        )
    rows = [
        _glue([tile(volume, spacing_mm) for volume in volumes[:max_volumes, channel]], axis=1)
        for channel in range(volumes.shape[1])
    ]
    return png(colour(_glue(rows, axis=0), window))
