"""The phantom's anatomy: one template brain, bent, aged and cut to volumes that are known.

The template is the MNI152 (T1, grey- and white-matter maps) that nilearn ships. It is kept as
*levels*: signed distances and log-odds whose zero is a surface. Moving a surface is then adding
a number to a level, and the number that makes a tissue fill a wanted volume is the root of a
monotone function. So every volume is met by construction, whatever the deformation did before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import grid_sample

from gyri.errors import DataError

CENTRE_MM = np.array([0.0, -17.0, 5.0])
"""Centre of the template brain's bounding box in MNI millimetres; centre of every grid."""

LATTICE_MM = 6.0
_LATTICE_HALF_MM = np.array([96.0, 114.0, 96.0])
LATTICE_SHAPE = tuple(int(n) for n in 2 * _LATTICE_HALF_MM / LATTICE_MM + 1)
_LATTICE_ORIGIN_MM = CENTRE_MM - _LATTICE_HALF_MM

VENTRICLE_SEEDS_MM = ((20, -40, 10), (-20, -40, 10))
"""Points inside the template's left and right lateral ventricles."""
VENTRICLE_REACH_MM = 25.0
_PADDING_MM = 10
_ODDS_FLOOR = 0.02


@dataclass(frozen=True)
class Template:
    """The template brain as levels on a regular grid.

    Parameters
    ----------
    levels : (1, 5, I, J, K) float32: signed distance to the brain mask and to the lateral
        ventricles (mm, positive inside), log-odds of CSF outside the ventricles, log-odds of
        white against grey matter, and what the T1 shows beyond its three tissues.
    origin_mm : world position of voxel (0, 0, 0).
    spacing_mm : isotropic.
    """

    levels: torch.Tensor
    origin_mm: np.ndarray
    spacing_mm: float

    def sample(self, points_mm: torch.Tensor) -> np.ndarray:
        """Return the levels (5, N) at `points_mm` (N, 3), trilinear, the border continued."""
        return _sample(self.levels, points_mm, self.origin_mm, self.spacing_mm)


def _sample(
    fields: torch.Tensor, points_mm: torch.Tensor, origin_mm: np.ndarray, spacing_mm: float
) -> np.ndarray:
    """Sample (1, C, I, J, K) at (N, 3) points; returns (C, N)."""
    last = torch.tensor(fields.shape[2:], dtype=torch.float32) - 1
    origin = torch.from_numpy(origin_mm.astype(np.float32))
    unit = (points_mm - origin) * (2 / (spacing_mm * last)) - 1
    grid = unit.flip(-1)[None, None, None]
    out = grid_sample(fields, grid, align_corners=True, padding_mode="border")
    return out[0, :, 0, 0].numpy()


def _signed_distance(inside: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Signed distance to the surface of `inside` in mm, positive inside."""
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(inside, spacing_mm)
    return (distance - distance_transform_edt(~inside, spacing_mm)).astype(np.float32)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, _ODDS_FLOOR, 1 - _ODDS_FLOOR)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def _inpaint(field: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """Continue `field` from where it is `known` by normalised convolution."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(known.astype(np.float32), sigma)
    return gaussian_filter(field * known, sigma) / np.maximum(weight, 1e-6)


def _ventricles(csf: np.ndarray, origin_mm: np.ndarray) -> np.ndarray:
    """Return the lateral ventricles: the CSF connected to the two seed points."""
    from scipy.ndimage import label

    components, _ = label(csf > 0.5)
    seeds = [tuple((np.array(s) - origin_mm).astype(int)) for s in VENTRICLE_SEEDS_MM]
    names = {int(components[seed]) for seed in seeds} - {0}
    if not names:
        raise DataError(
            "The MNI152 tissue maps of this nilearn have no CSF at the lateral ventricles "
            f"({VENTRICLE_SEEDS_MM} mm). The phantom needs nilearn >= 0.11 with its own templates."
        )
    return np.isin(components, list(names))


@lru_cache(maxsize=1)
def _template_1mm() -> Template:
    from nilearn import datasets
    from scipy.ndimage import gaussian_filter, zoom

    loaders = (
        datasets.load_mni152_template,
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
    )
    images = [load(resolution=1) for load in loaders]
    t1, grey, white = (
        np.pad(image.get_fdata(dtype=np.float32)[18:181, 18:219, :165], _PADDING_MM)
        for image in images
    )
    origin_mm = images[0].affine[:3, 3] + [18, 18, 0] - _PADDING_MM
    csf = 1 - grey - white
    coarse = _signed_distance(t1[::2, ::2, ::2] > 0, 2.0)
    factors = [n / m for n, m in zip(t1.shape, coarse.shape, strict=True)]
    brain_level = gaussian_filter(zoom(coarse, factors, order=1), 1.0)

    box = _box(t1.shape, origin_mm, low=(-42, -62, -22), high=(43, 46, 37))
    ventricles = np.zeros(t1.shape, bool)
    ventricles[box] = _ventricles(csf[box], origin_mm + [axis.start for axis in box])
    margin = int(VENTRICLE_REACH_MM)
    near = tuple(slice(axis.start - margin, axis.stop + margin) for axis in box)
    ventricle_level = np.full(t1.shape, -VENTRICLE_REACH_MM, np.float32)
    distance = gaussian_filter(_signed_distance(ventricles[near], 1.0), 0.7)
    ventricle_level[near] = np.maximum(distance, -VENTRICLE_REACH_MM)

    # The border of the ventricles is a rim of mixed voxels that the maps call grey matter: it is
    # filled from the tissue around it, so that a moved wall uncovers white matter.
    rim = ventricle_level[near] > -2.5
    inner = {
        "csf": _log_odds(csf),
        "white": _log_odds(white / (grey + white + 0.05)),
        "texture": (t1 - (0.28 * csf + 0.66 * grey + 0.88 * white)) * (grey + white) * (t1 > 0),
    }
    for field in inner.values():
        filled = _inpaint(field[near], ~rim, 2.0)
        field[near] = np.where(rim, filled, field[near])
    levels = np.stack([brain_level, ventricle_level, *inner.values()]).astype(np.float32)
    return Template(torch.from_numpy(levels)[None], origin_mm, 1.0)


def _box(
    shape: tuple[int, ...], origin_mm: np.ndarray, low: tuple[int, ...], high: tuple[int, ...]
) -> tuple[slice, ...]:
    """Voxels of a 1 mm grid between two corners in mm."""
    starts = np.array(low) - origin_mm.astype(int)
    stops = np.array(high) - origin_mm.astype(int)
    return tuple(
        slice(max(int(a), 0), min(int(b), n)) for a, b, n in zip(starts, stops, shape, strict=True)
    )


@lru_cache(maxsize=1)
def _template_2mm() -> Template:
    from scipy.ndimage import gaussian_filter

    fine = _template_1mm()
    levels = [gaussian_filter(level, 0.6)[::2, ::2, ::2] for level in fine.levels[0].numpy()]
    return Template(torch.from_numpy(np.stack(levels))[None], fine.origin_mm, 2.0)


def template(spacing_mm: float) -> Template:
    """Return the template to sample at `spacing_mm`; made once a process (about a second)."""
    return _template_1mm() if spacing_mm < 1.75 else _template_2mm()


def lattice_points_mm() -> torch.Tensor:
    """World positions of the lattice nodes, (N, 3) float32."""
    axes = [
        torch.arange(n, dtype=torch.float32) * LATTICE_MM + float(start)
        for n, start in zip(LATTICE_SHAPE, _LATTICE_ORIGIN_MM, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def _spline_taps(position: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights (4, M) of the cubic B-spline at `position` in units of nodes."""
    base = np.floor(position)
    t = position - base
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    )
    index = np.clip(base + np.arange(-1, 3)[:, None], 0, num_nodes - 1).astype(int)
    return index, (weights / 6).astype(np.float32)


def spline_upsample(nodes: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    """Evaluate cubic B-splines on a regular grid.

    Parameters
    ----------
    nodes : (C, I, J, K) coefficients.
    positions : for each axis the grid's positions in units of nodes; the border is continued.

    Returns
    -------
    (C, len(positions[0]), len(positions[1]), len(positions[2])) float32.
    """
    out = nodes.astype(np.float32)
    # Last axis first: the large products then run over the first axis, in whole planes.
    for axis in (3, 2, 1):
        index, weights = _spline_taps(positions[axis - 1], out.shape[axis])
        shape = [1] * 4
        shape[axis] = -1
        terms = (out.take(i, axis=axis) * w.reshape(shape) for i, w in zip(index, weights))
        out = np.asarray(sum(terms))
    return out


def smooth_noise(rng: np.random.Generator, channels: int, node_mm: float) -> np.ndarray:
    """Unit-variance smooth noise (C, *LATTICE_SHAPE) with a B-spline node every `node_mm`."""
    shape = [int(np.ceil((n - 1) * LATTICE_MM / node_mm)) + 4 for n in LATTICE_SHAPE]
    nodes = rng.standard_normal((channels, *shape))
    positions = [np.arange(n) * LATTICE_MM / node_mm + 1 for n in LATTICE_SHAPE]
    # The variance of a cubic B-spline of white noise, averaged over a cell, is 151/315 an axis.
    return spline_upsample(nodes, positions) * (315 / 151) ** 1.5


def integrate(velocity_mm: np.ndarray, squarings: int = 5) -> np.ndarray:
    """Displacement of the flow of a stationary velocity field, by scaling and squaring.

    Parameters
    ----------
    velocity_mm : (3, *LATTICE_SHAPE), mm per unit time.
    squarings : the flow is composed of ``2 ** squarings`` equal steps.

    Returns
    -------
    (3, *LATTICE_SHAPE) float32: u with ``exp(v)(x) = x + u(x)`` (Arsigny et al. 2006).
    """
    points = lattice_points_mm()
    u = torch.from_numpy(velocity_mm.astype(np.float32) / 2**squarings)
    for _ in range(squarings):
        moved = points + u.reshape(3, -1).T
        further = _sample(u[None], moved, _LATTICE_ORIGIN_MM, LATTICE_MM)
        u = u + torch.from_numpy(further).reshape(u.shape)
    return u.numpy()


@lru_cache(maxsize=1)
def ventricle_push() -> np.ndarray:
    """Velocity (3, *LATTICE_SHAPE) that widens the ventricles by about 1 mm a unit.

    It points into the ventricle and fades with the distance from its wall, so that tissue is
    pushed aside, not overwritten.
    """
    from scipy.ndimage import gaussian_filter

    level = _template_2mm().levels[0, 1].numpy()
    toward = np.stack(np.gradient(gaussian_filter(level, 1.5), 2.0))
    field = torch.from_numpy((toward * np.exp(-np.abs(level) / 12.0)).astype(np.float32))
    source = _template_2mm()
    push = _sample(field[None], lattice_points_mm(), source.origin_mm, source.spacing_mm)
    return push.reshape(3, *LATTICE_SHAPE)


@lru_cache(maxsize=1)
def _ventricle_curve() -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes of `ventricle_push` and the ventricle volumes in ml that they give."""
    amplitudes = np.linspace(-3.0, 21.0, 13)
    source = _template_2mm()
    axes = [np.arange(0, n - 1, 0.5) for n in LATTICE_SHAPE]
    volumes = []
    for amplitude in amplitudes:
        u = spline_upsample(integrate(amplitude * ventricle_push()), axes)
        points = np.stack(np.meshgrid(*axes, indexing="ij")) * LATTICE_MM
        points = points + _LATTICE_ORIGIN_MM[:, None, None, None] + u
        moved = torch.from_numpy(points.reshape(3, -1).T.astype(np.float32))
        level = source.sample(moved)[1]
        volumes.append(sigmoid(level / WALL_MM).sum() * (LATTICE_MM / 2) ** 3 / 1000)
    return np.array(volumes), amplitudes


WALL_MM = 0.5
"""Softness of the brain's and the ventricles' surfaces."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function, safe for large arguments."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def solve_shift(
    level: np.ndarray, weight: np.ndarray, target: float, num_bins: int = 1024
) -> float:
    """Find b with ``sum(weight * sigmoid(level + b)) == target``.

    The sum is taken over bins of `level`, each at its mean: exact to second order in the width.

    Raises
    ------
    DataError
        If the target is not between 0 and the sum of the weights.
    """
    total = float(weight.sum(dtype=np.float64))
    if not 0 < target < total:
        raise DataError(
            f"A tissue should fill {target:.1f} of {total:.1f} voxels, which no surface can. "
            "Give the phantom's subject a larger eTIV or a smaller tissue volume."
        )
    low, high = float(level.min()), float(level.max())
    index = ((level - low) * ((num_bins - 1) / max(high - low, 1e-6))).astype(np.int32)
    mass = np.bincount(index, weight, num_bins)
    mean = np.bincount(index, weight * level, num_bins) / np.maximum(mass, 1e-12)
    mean, mass = mean[mass > 0], mass[mass > 0]
    return _bisect(lambda b: float(mass @ sigmoid(mean + b)) - target, -high - 40, -low + 40)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return 0.5 * (low + high)


def to_nodes(positions_mm: np.ndarray, axis: int) -> np.ndarray:
    """Turn world positions along `axis` into units of lattice nodes."""
    return (positions_mm - _LATTICE_ORIGIN_MM[axis]) / LATTICE_MM


def ventricle_amplitude(volume_ml: float) -> float:
    """Amplitude of `ventricle_push` that gives the template about this ventricle volume."""
    volumes, amplitudes = _ventricle_curve()
    return float(np.interp(volume_ml, volumes, amplitudes))


@lru_cache(maxsize=1)
def template_icv_ml() -> float:
    """Intracranial volume of the template."""
    source = _template_2mm()
    return float((source.levels[0, 0] > 0).sum()) * source.spacing_mm**3 / 1000


def near_brain(axes_mm: list[np.ndarray], reach_mm: float = 14.0) -> np.ndarray:
    """Which points of a regular grid may lie in the brain after a deformation."""
    source = _template_2mm()
    level = source.levels[0, 0].numpy()
    nearest = [
        np.clip(np.rint((x - o) / source.spacing_mm), 0, n - 1).astype(int)
        for x, o, n in zip(axes_mm, source.origin_mm, level.shape, strict=True)
    ]
    return level[np.ix_(*nearest)] > -reach_mm
