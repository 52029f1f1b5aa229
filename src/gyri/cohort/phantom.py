"""Phantom brains: MRI of people who do not exist, with anatomy that is known to the millilitre.

Each subject is the MNI152 template bent by its own diffeomorphism, with ventricles, cortex,
white matter and head of the volumes that its covariates and its own deviation ask for, seen by
one of four scanners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from gyri.cohort import phantom_anatomy as anatomy
from gyri.cohort.phantom_anatomy import sigmoid, solve_shift
from gyri.cohort.phantom_imaging import Contrast, acquire, contrast_of, scanner_of
from gyri.cohort.phantom_truth import draw_covariates, draw_volumes
from gyri.cohort.phantom_tumour import Tumour, place_tumour
from gyri.cohort.volumes import VolumeSet
from gyri.errors import UsageError
from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.types import Grid

FIELD_OF_VIEW_MM = (160.0, 192.0, 160.0)
SPACING_RANGE_MM = (1.0, 8.0)
DEFORMATION_MM = ((34.0, 1.4), (18.0, 1.0), (10.0, 0.6))
"""Node distance and standard deviation of each scale of a subject's velocity field, in mm."""
FOLDING = ((12.0, 0.4), (6.0, 0.7))
"""Node distance in mm and standard deviation, in log-odds, of a subject's own sulci."""
SHARPNESS = 2.2
"""Steepness of an individual's tissue borders against the template's average of 152 people."""


@dataclass
class PhantomSubject:
    """One subject as the scanner and as nature sees it.

    Parameters
    ----------
    images : modality -> (I, J, K) float32, 0 outside the brain mask.
    affine : (4, 4) voxel-to-world in mm, RAS+, no rotation.
    segmentation : (I, J, K) uint8 with 1 core, 2 oedema, 3 enhancing rim; None without tumour.
    volumes_ml : icv, brain, gm, wm, csf, ventricle and, with a tumour, core, oedema, rim; the
        integrals of the noise-free tissue probabilities.
    tissues : csf, gm, wm probabilities (3, I, J, K) float32 on the scan's grid, summing to the
        share of the voxel inside the brain mask.
    """

    images: dict[str, np.ndarray]
    affine: np.ndarray
    segmentation: np.ndarray | None
    volumes_ml: dict[str, float]
    tissues: np.ndarray = field(repr=False)


def phantom_grid(spacing_mm: float) -> Grid:
    """Return the grid of 160 x 192 x 160 mm around the brain at `spacing_mm` (1 to 8 mm).

    The number of voxels along each axis is even; the field of view is rounded up to it.
    """
    low, high = SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise UsageError(f"spacing_mm is {spacing_mm}; the phantom is made from {low} to {high}.")
    shape = [2 * int(np.ceil(extent / spacing_mm / 2 - 1e-9)) for extent in FIELD_OF_VIEW_MM]
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = anatomy.CENTRE_MM - (np.array(shape) - 1) / 2 * spacing_mm
    rows = tuple(tuple(float(x) for x in row) for row in affine)
    return Grid((shape[0], shape[1], shape[2]), rows)


def displacement(seed: int, ventricle_scale: float = 0.0) -> np.ndarray:
    """Displacement (3, *LATTICE_SHAPE) in mm of a subject's diffeomorphism.

    Parameters
    ----------
    seed : the subject's seed.
    ventricle_scale : amplitude of `phantom_anatomy.ventricle_push`.
    """
    rng = numpy_rng(seed, "deformation")
    velocity = ventricle_scale * anatomy.ventricle_push()
    for node_mm, sd_mm in DEFORMATION_MM:
        velocity = velocity + sd_mm * anatomy.smooth_noise(rng, 3, node_mm)
    return anatomy.integrate(velocity)


@dataclass
class _Points:
    """Points of the fine grid that may lie in the brain, and what is there.

    Parameters
    ----------
    index : (N,) flat indices into the fine grid of `shape`.
    position_mm : (3, N) world positions of the head scaled to the template's size.
    levels : (5, N) template levels, see `Template`.
    folding : (2, N) the subject's own shifts of the CSF and the white-matter level.
    scale : linear size of the head against the template.
    voxel_ml : volume of a fine voxel.
    """

    index: np.ndarray
    shape: tuple[int, int, int]
    position_mm: np.ndarray
    levels: np.ndarray
    folding: np.ndarray
    scale: float
    voxel_ml: float


def _head_scale(u: np.ndarray, icv_ml: float) -> float:
    """Linear scale that gives the bent template about the wanted intracranial volume."""
    source = anatomy.template(2.0)
    moved = anatomy.lattice_points_mm() + torch.from_numpy(u.reshape(3, -1).T)
    inside = sigmoid(source.sample(moved)[0] / (anatomy.LATTICE_MM / 4)).sum()
    return float((icv_ml * 1000 / (inside * anatomy.LATTICE_MM**3)) ** (1 / 3))


def _sample_points(grid: Grid, supersampling: int, seed: int, volumes: dict[str, float]) -> _Points:
    spacing_mm = grid.spacing_mm[0]
    fine_mm = spacing_mm / supersampling
    rough_scale = (volumes["icv"] / anatomy.template_icv_ml()) ** (1 / 3)
    u = displacement(seed, anatomy.ventricle_amplitude(volumes["ventricle"] / rough_scale**3))
    scale = _head_scale(u, volumes["icv"])

    shape = tuple(n * supersampling for n in grid.shape)
    axes = [  # world positions of the fine grid, scaled to the template's head
        (np.arange(n) - (n - 1) / 2) * fine_mm / scale + centre
        for n, centre in zip(shape, anatomy.CENTRE_MM, strict=True)
    ]
    rng = numpy_rng(seed, "folding")
    folding = sum(sd * anatomy.smooth_noise(rng, 2, node_mm) for node_mm, sd in FOLDING)
    lattice = np.concatenate([u, folding])
    fields = anatomy.spline_upsample(lattice, [anatomy.to_nodes(x, a) for a, x in enumerate(axes)])

    near = anatomy.near_brain(axes)
    index = np.flatnonzero(near)
    fields = fields.reshape(5, -1)[:, index]
    ijk = np.unravel_index(index, shape)
    position = np.stack([a[i] for a, i in zip(axes, ijk, strict=True)]).astype(np.float32)
    moved = torch.from_numpy(np.ascontiguousarray((position + fields[:3]).T))
    levels = anatomy.template(fine_mm).sample(moved)
    return _Points(
        index,
        (shape[0], shape[1], shape[2]),
        position,
        levels,
        fields[3:],
        scale,
        fine_mm**3 / 1000,
    )


def _solve_tissues(points: _Points, volumes: dict[str, float]) -> np.ndarray:
    """Return csf, gm, wm, brain-mask and ventricle probabilities (5, N) that fill `volumes`."""
    brain_level, ventricle_level, csf_level, white_level, _ = points.levels
    wanted = {name: ml / points.voxel_ml for name, ml in volumes.items()}
    everywhere = np.ones_like(brain_level)

    def fill(level: np.ndarray, weight: np.ndarray, target: float) -> np.ndarray:
        return sigmoid(level + np.float32(solve_shift(level, weight, target)))

    brain = fill(brain_level / anatomy.WALL_MM, everywhere, wanted["icv"])
    ventricle = fill(ventricle_level / anatomy.WALL_MM, brain, wanted["ventricle"])
    rest = brain * (1 - ventricle)
    outer = fill(
        SHARPNESS * (csf_level + points.folding[0]), rest, wanted["csf"] - wanted["ventricle"]
    )
    matter = (1 - ventricle) * (1 - outer)
    white = fill(SHARPNESS * (white_level + points.folding[1]), brain * matter, wanted["wm"])
    return np.stack([1 - matter, matter * (1 - white), matter * white, brain, ventricle])


def _signal(tissues: np.ndarray, texture: np.ndarray, contrast: Contrast) -> np.ndarray:
    csf, grey, white = tissues[:3]
    signal = contrast.csf * csf + contrast.grey * grey + contrast.white * white
    return signal + contrast.texture * texture * (1 - csf)


def _to_grid(values: np.ndarray, points: _Points, supersampling: int) -> np.ndarray:
    """Scatter (C, N) to the fine grid and average blocks; returns (C, I, J, K) float32."""
    fine = np.zeros((len(values), int(np.prod(points.shape))), np.float32)
    fine[:, points.index] = values
    s = supersampling
    i, j, k = (n // s for n in points.shape)
    return fine.reshape(-1, i, s, j, s, k, s).mean((2, 4, 6))


def make_subject(
    row: pd.Series,
    seed: int,
    spacing_mm: float = 4.0,
    modalities: Sequence[str] = ("T1w",),
    tumour: bool = False,
) -> PhantomSubject:
    """Make one subject.

    Parameters
    ----------
    row : its covariates: ``age``, ``sex``, ``etiv``, and perhaps ``cdr`` and ``scanner``
        (default the first). See `draw_covariates`.
    seed : the subject's seed. Anatomy and tumour follow from seed and row and are the same at
        every spacing, up to resolution; the noise is that of the spacing.
    spacing_mm : isotropic voxel size, 1 to 8. From 3 mm on the anatomy is computed at half the
        spacing and averaged.
    modalities : any of T1w, T1c, T2w, FLAIR.
    tumour : put a tumour in.
    """
    contrasts = {name: contrast_of(name) for name in modalities}
    scanner = scanner_of(row.get("scanner", "A"))
    grid = phantom_grid(spacing_mm)
    supersampling = 2 if spacing_mm >= 3 else 1
    wanted = draw_volumes(row, seed)
    points = _sample_points(grid, supersampling, seed, wanted)
    tissues = _solve_tissues(points, wanted)
    volumes_ml = _measure(tissues, points)
    parts: Tumour | None = None
    if tumour:
        parts = place_tumour(points.position_mm, points.scale, tissues, seed)
        volumes_ml |= {
            name: float(part.sum(dtype=np.float64)) * points.voxel_ml
            for name, part in zip(("core", "oedema", "rim"), parts.shares, strict=True)
        }

    layers = [tissues[:3] * tissues[3], tissues[3:4]]
    for contrast in contrasts.values():
        signal = _signal(tissues, points.levels[4], contrast)
        layers.append((parts.paint(signal, contrast) if parts else signal)[None])
    if parts:
        layers.append(parts.shares)
    maps = _to_grid(np.concatenate(layers), points, supersampling)
    brain_mask = maps[3] > 0.5
    images = {
        name: acquire(
            maps[4 + i],
            brain_mask,
            scanner,
            numpy_rng(seed, "acquisition", name, str(spacing_mm)),
            spacing_mm,
        )
        for i, name in enumerate(contrasts)
    }
    segmentation = parts.label(maps[-3:], brain_mask) if parts else None
    return PhantomSubject(images, np.array(grid.affine), segmentation, volumes_ml, maps[:3])


def _measure(tissues: np.ndarray, points: _Points) -> dict[str, float]:
    """Integrate the tissue probabilities, in ml."""
    inside = tissues[[0, 1, 2, 4]] * tissues[3]
    csf, gm, wm, ventricle = (inside.sum(1, dtype=np.float64) * points.voxel_ml).tolist()
    measured = {"icv": csf + gm + wm, "brain": gm + wm, "gm": gm, "wm": wm, "csf": csf}
    return measured | {"ventricle": ventricle}


def subject_seed(seed: int, label: str) -> int:
    """Seed of the subject `label` in the cohort of `seed`."""
    return derive_seed("phantom", seed, label)


def phantom_volumes(
    num: int,
    seed: int,
    spacing_mm: float = 8.0,
    *,
    modalities: Sequence[str] = ("T1w",),
    num_scanners: int = 2,
    missing: float = 0.05,
) -> VolumeSet:
    """Make a phantom cohort in memory, scaled as prepared scans are.

    Each image is divided by its 99.5th percentile inside the brain and cut at 1.

    Returns
    -------
    VolumeSet
        Volumes (num, C, I, J, K) float32 in [0, 1] on `phantom_grid`; the table of
        `draw_covariates`.
    """
    table = draw_covariates(num, seed, num_scanners=num_scanners, missing=missing)
    grid = phantom_grid(spacing_mm)
    volumes = np.empty((num, len(modalities), *grid.shape), np.float32)
    for i, (label, row) in enumerate(table.iterrows()):
        subject = make_subject(row, subject_seed(seed, str(label)), spacing_mm, modalities)
        for c, image in enumerate(subject.images.values()):
            top = np.percentile(image[image > 0], 99.5)
            volumes[i, c] = np.minimum(image / top, 1.0)
    return VolumeSet("phantom", volumes, table, grid, tuple(modalities))
