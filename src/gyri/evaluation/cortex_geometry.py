"""Geometry of the cortical sheet on a coarse grid: areas, envelopes, and thickness by Laplace.

Nothing here reads a label. A volume comes as its *tissue position*, a number that rises from
0 (CSF or outside) over 1 (grey matter) to 2 (white matter) and lies between where a voxel is mixed.
The pial surface is where it passes 0.5 and the white surface where it passes 1.5; both are found
between voxels, so that a sheet as thin as a voxel still has two sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Field = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]

PIAL_LEVEL, WHITE_LEVEL = 0.5, 1.5
# One of each pair of opposite directions among the 26 neighbours.
LINES = tuple(
    (i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)
)
SPHERE_POINTS = 40_000
LAPLACE_SWEEPS = 40
"""Jacobi steps from the intensities' own profile: 0.01 from the solution in a 6 mm shell."""
LENGTH_SWEEPS = 10
CLOSEST = 0.02
"""Least distance between a voxel and a surface, in voxels: keeps the equations well scaled."""
FLAT = 1e-3
"""Rise of the potential per millimetre below which no field line runs."""
PIAL, WHITE = -2, -1
"""Rows of a ribbon's neighbours beyond a surface; they count from an array's end."""
DISTANCE_STEPS = 32_000
"""Squared distances are integers of 16 bits up to twice this."""
SPREAD_MM = 2.0
"""Distance over which the density that finds the white banks falls to 1 / e."""
SPREAD_SWEEPS = 20
MEETING_COSINE = 0.0
"""Fronts meet where their directions differ by more than the angle of this cosine."""


@lru_cache(maxsize=8)
def line_shares(spacing_mm: Spacing) -> FloatArray:
    """Return (13,) shares of all directions that are nearest to each of the grid's `LINES`."""
    steps = np.array(LINES) * np.array(spacing_mm)
    units = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    index = np.arange(SPHERE_POINTS) + 0.5
    height = 1 - 2 * index / SPHERE_POINTS
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    nearest = np.abs(points @ units.T).argmax(1)
    return np.bincount(nearest, minlength=len(LINES)) / SPHERE_POINTS


def surface_area(inside: BoolArray, spacing_mm: Spacing, where: BoolArray | None = None) -> float:
    """Return the area of a body's surface in square millimetres by Crofton's formula.

    A surface of area S in a volume V is met S / (2 V) times a millimetre by random lines; the lines
    are the grid's 13 directions, weighted by the share of all directions that each stands for
    (Lehmann and Legland 2012). A sphere of ten voxels' radius comes out to 2 %.

    Parameters
    ----------
    inside : (I, J, K); beyond the grid is outside.
    spacing_mm : along I, J, K.
    where : (I, J, K) part of the grid whose surface counts; None counts all.
    """
    padded = np.pad(inside, 1)
    counted = None if where is None else np.pad(where, 1, mode="edge")
    total = 0.0
    for line, share in zip(LINES, line_shares(spacing_mm)):
        here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(line, padded.shape))
        there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(line, padded.shape))
        crossed = padded[here] ^ padded[there]
        if counted is not None:
            crossed &= counted[here]
        length = float(np.linalg.norm(np.multiply(line, spacing_mm)))
        total += share * np.count_nonzero(crossed) / length
    return 2.0 * total * float(np.prod(spacing_mm))


def level_area(
    field: Field, levels: Iterable[float], spacing_mm: Spacing, where: BoolArray | None = None
) -> float:
    """Return the mean area in square millimetres of the sets where `field` exceeds each level.

    Averaging over levels around the one that is meant lets a fold count that is narrower than a
    voxel and so never reaches the level itself (coarea formula).
    """
    return float(np.mean([surface_area(field > level, spacing_mm, where) for level in levels]))


def capped_distance(inside: BoolArray, spacing_mm: Spacing, reach_mm: float) -> Field:
    """Return the distance in millimetres to the nearest voxel of a body, capped at `reach_mm`.

    Squared distances separate: one pass an axis takes the least over all shifts within reach.
    They are kept as integers in steps of reach^2 / 32000, twice as fast as float32.
    """
    per_mm2 = DISTANCE_STEPS / reach_mm**2
    squared = np.where(inside, np.uint16(0), np.uint16(DISTANCE_STEPS))
    for axis, step in enumerate(spacing_mm):
        moved = np.moveaxis(squared, axis, 0)
        out = moved.copy()
        for shift in range(1, min(int(reach_mm / step), len(moved) - 1) + 1):
            cost = np.uint16(round((shift * step) ** 2 * per_mm2))
            np.minimum(out[shift:], moved[:-shift] + cost, out=out[shift:])
            np.minimum(out[:-shift], moved[shift:] + cost, out=out[:-shift])
        squared = np.moveaxis(out, 0, axis)
    return np.sqrt(squared.astype(np.float32) / np.float32(per_mm2))


def envelope_depth(
    body: BoolArray, spacing_mm: Spacing, radius_mm: float, deepest_mm: float
) -> Field:
    """Return the depth in millimetres below a body's envelope; negative outside.

    The envelope is the closing by a ball (Schaer et al. 2008): what a ball of `radius_mm` that
    rolls over the body cannot reach. Depth is measured to the rolling ball, up to `deepest_mm`.

    Parameters
    ----------
    body : (I, J, K); the grid is extended as far as the ball needs.
    """
    margin = [int(np.ceil(radius_mm / step)) + 1 for step in spacing_mm]
    padded = np.pad(body, [(m, m) for m in margin])
    free = capped_distance(padded, spacing_mm, radius_mm + max(spacing_mm)) > radius_mm
    depth = capped_distance(free, spacing_mm, radius_mm + deepest_mm) - np.float32(radius_mm)
    return np.ascontiguousarray(depth[tuple(slice(m, -m) for m in margin)])


def transition_width(
    field: Field, level: float, half_band: float, spacing_mm: Spacing, where: BoolArray
) -> float:
    """Return how many millimetres one unit of `field` takes where it passes `level`.

    One over the mean size of the gradient (central differences) over voxels within `half_band`
    of the level: blur widens it, whatever the folds. A sharp step has two voxels; 0 where no
    voxel is in the band.
    """
    band = where & (np.abs(field - level) < half_band)
    if not band.any() or min(field.shape) < 2:
        return 0.0
    rise = np.zeros(int(band.sum()), np.float32)
    for axis, step in enumerate(spacing_mm):
        rise += np.gradient(field, step, axis=axis)[band] ** 2
    mean = float(np.sqrt(rise).mean())
    return 1.0 / mean if mean > 0 else 0.0


class Ribbon:
    """The voxels between the white and the pial surface, with their distances to both.

    Parameters
    ----------
    position : (I, J, K) tissue position; beyond the grid lies 0.
    spacing_mm : along I, J, K.

    Attributes
    ----------
    voxels : (n,) flat indices into `position`.
    neighbours : (3, 2, n) rows of the neighbours before and behind along each axis; `PIAL` or
        `WHITE` beyond a surface.
    distances : (3, 2, n) in millimetres to the neighbour, or to the surface before it.
    """

    def __init__(self, position: Field, spacing_mm: Spacing) -> None:
        padded = np.pad(position, 1)
        flat = padded.ravel()
        places = np.flatnonzero((flat > PIAL_LEVEL) & (flat < WHITE_LEVEL))
        self.voxels = np.flatnonzero((position > PIAL_LEVEL) & (position < WHITE_LEVEL))
        row = np.where(flat <= PIAL_LEVEL, np.int32(PIAL), np.int32(WHITE))
        row[places] = np.arange(len(places), dtype=np.int32)
        self.position = flat[places]
        self.neighbours = np.empty((3, 2, len(places)), np.int32)
        self.distances = np.empty((3, 2, len(places)), np.float32)
        strides = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
        for axis, (stride, step) in enumerate(zip(strides, spacing_mm)):
            for side, sign in enumerate((-1, 1)):
                there = places + sign * stride
                other = row[there]
                self.neighbours[axis, side] = other
                self.distances[axis, side] = step * self._share(flat[there], other)

    def __len__(self) -> int:
        return len(self.voxels)

    def _share(self, there: Field, other: NDArray[np.int32]) -> Field:
        """Return the share of the way to a neighbour at which the surface lies; 1 if none does."""
        level = np.where(other == PIAL, np.float32(PIAL_LEVEL), np.float32(WHITE_LEVEL))
        rise = np.where(other < 0, there - self.position, 1)
        return np.where(other < 0, np.clip((level - self.position) / rise, CLOSEST, 1), 1)

    def close_sulci(self, spacing_mm: Spacing) -> FloatArray:
        """Part banks that touch: put the pial surface where fronts from two white banks meet.

        Neighbours whose ways from the white surface run against each other, by more than a right
        angle, get a surface between them.

        Returns
        -------
        (n,) area in square millimetres of new surface behind each voxel, both banks counted.
        """
        way = self._white_distance()
        slope = self._slope(way)
        norm = np.maximum(np.sqrt((slope**2).sum(0)), FLAT)
        area = np.zeros(len(self))
        for axis, step in enumerate(spacing_mm):
            here = np.flatnonzero(self.neighbours[axis, 1] >= 0)
            there = self.neighbours[axis, 1, here]
            p, q = slope[:, here], slope[:, there]
            meet = (p[axis] > 0) & (q[axis] < 0)
            meet &= (p * q).sum(0) < MEETING_COSINE * norm[here] * norm[there]
            here, there, p, q = here[meet], there[meet], p[:, meet], q[:, meet]
            rise, fall = p[axis], -q[axis]
            share = (way[there] - way[here] + fall * step) / ((rise + fall) * step)
            share = np.clip(share, CLOSEST, 1 - CLOSEST)
            self.neighbours[axis, 1, here] = self.neighbours[axis, 0, there] = PIAL
            self.distances[axis, 1, here] = step * share
            self.distances[axis, 0, there] = step * (1 - share)
            sheet = p / norm[here] - q / norm[there]
            lean = sheet[axis] / np.sqrt((sheet**2).sum(0))
            area[here] += 2 * lean * float(np.prod(spacing_mm)) / step
        return area

    def _white_distance(self) -> Field:
        """Return (n,) distance in mm from the white surface, up to a factor; it grows to pial.

        Minus the logarithm of a density that spreads from the white surface and decays on its way
        (Varadhan 1967); none at the pial surface.
        """
        matrix, white, _ = self._diffusion(1.0 / SPREAD_MM**2)
        value = white.copy()
        for _ in range(SPREAD_SWEEPS):
            value = matrix @ value + white
        return np.asarray(-SPREAD_MM * np.log(np.maximum(value, 1e-9)), np.float32)

    def _slope(self, way: Field) -> Field:
        """Return (3, n) rise of `way` along each axis from where it comes; 0 at a double source."""
        # Rows PIAL = -2 and WHITE = -1 count from the end.
        padded = np.concatenate([way, np.array([np.inf, 0.0], np.float32)])
        rise = (way - padded[self.neighbours]) / self.distances
        forward, backward = rise[:, 0], rise[:, 1]
        return np.where(
            forward >= backward, np.maximum(forward, 0), -np.maximum(backward, 0)
        ).astype(np.float32)

    def _diffusion(self, decay: float) -> tuple[Any, Field, Field]:
        """Return one Jacobi step of diffusion: matrix, and what white and pial surface bring.

        Second differences with unequal arms (Shortley and Weller 1938), so that the surfaces are
        met where they lie between voxels.
        """
        arms = self.distances
        weight = 2.0 / (arms * arms.sum(1, keepdims=True))
        weight /= weight.sum((0, 1)) + np.float32(decay)
        white, pial = (
            np.where(self.neighbours == kind, weight, 0).sum((0, 1)) for kind in (WHITE, PIAL)
        )
        return self._matrix(weight.reshape(6, -1), self.neighbours.reshape(6, -1)), white, pial

    def potential(self, sweeps: int = LAPLACE_SWEEPS) -> Field:
        """Return (n,) Laplace's potential: 0 on the white surface, 1 on the pial one."""
        matrix, _, pial = self._diffusion(0.0)
        value = WHITE_LEVEL - self.position
        for _ in range(sweeps):
            value = matrix @ value + pial
        return np.asarray(value, np.float32)

    def tangent(self, potential: Field) -> Field:
        """Return (3, n) unit vectors from white to pial; zeros where the potential is flat."""
        padded = np.concatenate([potential, np.array([1.0, 0.0], np.float32)])
        gradient = np.empty((3, len(self)), np.float32)
        for axis in range(3):
            (a, b), (before, behind) = self.distances[axis], padded[self.neighbours[axis]]
            rise = (behind - potential) * a / b + (potential - before) * b / a
            gradient[axis] = rise / (a + b)
        norm = np.sqrt((gradient**2).sum(0))
        return np.where(norm > FLAT, gradient / np.maximum(norm, FLAT), 0)

    def length(self, tangent: Field, sweeps: int = LENGTH_SWEEPS) -> Field:
        """Return (n,) length in mm of the field line against `tangent`, up to the surface.

        Yezzi and Prince (2003): the length rises by one a millimetre along the tangent, upwind
        differences; exact for parallel surfaces whatever their orientation. Each sweep reaches
        one voxel further: longer lines come out short.
        """
        side = (tangent < 0).astype(np.intp)[:, None]
        other = np.take_along_axis(self.neighbours, side, 1)[:, 0]
        weight = np.abs(tangent) / np.take_along_axis(self.distances, side, 1)[:, 0]
        total = np.maximum(weight.sum(0), 1e-6)
        matrix = self._matrix(weight / total, other)
        constant = 1 / total
        value = np.zeros(len(self), np.float32)
        for _ in range(sweeps):
            value = matrix @ value + constant
        return np.asarray(value, np.float32)

    def thickness(self, cap_mm: float) -> Field:
        """Return (n,) length in mm of the field line through each voxel, from white to pial.

        At most `cap_mm`; NaN where no line runs, as in grey islands inside white matter.
        """
        tangent = self.tangent(self.potential())
        both = np.minimum(self.length(tangent) + self.length(-tangent), np.float32(cap_mm))
        return np.where(tangent.any(0), both, np.float32(np.nan))

    def _matrix(self, weight: Field, column: NDArray[np.int32]) -> Any:
        """Return the sparse (n, n) matrix of `weight` (m, n) in `column` (m, n); below 0 none."""
        from scipy import sparse

        count, n = weight.shape
        inside = column >= 0
        data = np.where(inside, weight, 0).T.ravel()
        index = np.where(inside, column, 0).T.ravel()
        start = np.arange(0, count * n + 1, count, dtype=np.int32)
        return sparse.csr_matrix((data, index, start), shape=(n, n))
