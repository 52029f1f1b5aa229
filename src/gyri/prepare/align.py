"""Find the linear map from the template's world to a scan's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gyri.prepare.itk import matrix_of, to_itk
from gyri.prepare.mutual_information import Match, Pair, averaged_to, capped, mask_image
from gyri.prepare.scan import bounding_box
from gyri.prepare.template import Template

RIM_MM = 4.0
"""The metric sees the brain and this much around it: skull, but not the scalp, whose bright ring
is easily taken for the cortex. Brains are finished without it: how much of the fluid around them
a stripped scan keeps says nothing about their place."""

BRAIN_BELOW_SCALP_MM = 12.0
UPPER_HEAD_MM = 120.0

START_SCALES = (0.9, 1.0)
"""Adults' brains measure about nine tenths of the MNI152 template along each axis."""

HEAD_DROPS_MM = (0.0, -10.0, -20.0)
"""Hair, caps and noise above the scalp put the top of a head too high."""

HEAD_TILTS_DEG = (0.0, 15.0)
"""Heads lie in the scanner as the template does, or with the chin up."""

BRAIN_TILTS_DEG = (0.0, 15.0, -15.0)

WORK_MM = 2.0
"""Finer scans are averaged to at most this, the template's spacing; brains are finished on all
their voxels."""

COARSE_SIGMA_MM = 4.0
COARSE_SHRINK = 4
FINALISTS = 3
SAME_BASIN_MM = 3.0


@dataclass(frozen=True)
class Alignment:
    """A linear map and how well it fits.

    Parameters
    ----------
    matrix : (4, 4), template's world to scan's world, millimetres.
    information : mutual information in nats that the metric reached, higher is better.
    """

    matrix: np.ndarray
    information: float


def align(
    template: Template,
    volume: np.ndarray,
    affine: np.ndarray,
    foreground: np.ndarray,
    *,
    whole_head: bool,
    rigid: bool = False,
) -> Alignment:
    """Align a template to a scan by mutual information, coarse to fine, from several starts.

    All starts are improved at the coarsest level; the best of each basin go on.

    Parameters
    ----------
    volume, affine : (I, J, K) values and (4, 4) voxel to world, without shear.
    foreground : (I, J, K) bool, the head or the brain.
    whole_head : whether `foreground` is a head, which is placed by its top.
    rigid : allow rotation and translation only.
    """
    pair = _pair(template, volume, affine, rim_mm=RIM_MM, work_mm=WORK_MM)
    coarse = pair.smoothed(COARSE_SIGMA_MM, COARSE_SHRINK)
    found = [
        coarse.improved(start, step_mm=2.0, tolerance_mm=0.05)
        for start in _starts(template, affine, foreground, whole_head=whole_head, rigid=rigid)
    ]
    finalists = _distinct(found, template)[:FINALISTS]
    if not rigid:
        # A descent may also leave its basin: what it started from stays in the race.
        finalists += [
            coarse.improved(_freed(match.transform), step_mm=0.5, tolerance_mm=0.01)
            for match in finalists
        ]
    best = max(finalists, key=lambda match: match.information)
    last = pair if whole_head else _pair(template, volume, affine, rim_mm=0.0, work_mm=0.0)
    start = best.transform if rigid else _freed(best.transform)
    final = last.improved(
        start, levels=[(2, 2.0), (1, 1.0)], step_mm=0.5, tolerance_mm=0.005, sampled=[0.6, 0.2]
    )
    return Alignment(matrix_of(final.transform), final.information)


def _pair(
    template: Template, volume: np.ndarray, affine: np.ndarray, rim_mm: float, work_mm: float
) -> Pair:
    from scipy.ndimage import distance_transform_edt

    spacing_mm = np.sqrt((template.affine[:3, :3] ** 2).sum(axis=0))
    near = distance_transform_edt(~template.mask, sampling=spacing_mm) <= rim_mm
    return Pair(
        to_itk(template.image, template.affine),
        mask_image(near, template.affine),
        averaged_to(capped(volume), affine, work_mm),
    )


def _starts(
    template: Template,
    affine: np.ndarray,
    foreground: np.ndarray,
    *,
    whole_head: bool,
    rigid: bool,
) -> list[Any]:
    """Return the transforms that are tried."""
    box = bounding_box(template.mask)
    goal = _to_world(box.mean(axis=1), template.affine)
    top_mm = _to_world(box[:, 1], template.affine)[2]
    middle = _to_world(bounding_box(foreground).mean(axis=1), affine)
    starts = []
    for scale in (1.0,) if rigid else START_SCALES:
        if whole_head:
            under = _below_the_scalp(foreground, affine, scale * (top_mm - goal[2]))
            centres = [under + np.array([0, 0, drop_mm]) for drop_mm in HEAD_DROPS_MM]
            tilts_deg: Sequence[float] = HEAD_TILTS_DEG
        else:
            centres, tilts_deg = [middle], BRAIN_TILTS_DEG
        starts += [
            _start(template.centre_mm, centre - goal, tilt_deg, scale, rigid)
            for centre, tilt_deg in product(centres, tilts_deg)
        ]
    return starts


def _to_world(index: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ index + affine[:3, 3]


def _below_the_scalp(head: np.ndarray, affine: np.ndarray, half_height_mm: float) -> np.ndarray:
    """Return (3,) where the middle of a brain lies under the top of a head, necks aside."""
    points = np.argwhere(head) @ affine[:3, :3].T + affine[:3, 3]
    top = np.percentile(points[:, 2], 99.95)
    upper = points[points[:, 2] > top - UPPER_HEAD_MM]
    middle = np.percentile(upper, [1, 99], axis=0).mean(axis=0)
    return np.array([middle[0], middle[1], top - BRAIN_BELOW_SCALP_MM - half_height_mm])


def _start(
    centre_mm: np.ndarray, offset: np.ndarray, tilt_deg: float, scale: float, rigid: bool
) -> Any:
    import SimpleITK as sitk

    transform: Any = sitk.VersorRigid3DTransform() if rigid else sitk.Similarity3DTransform()
    transform.SetCenter(centre_mm.tolist())
    transform.SetRotation((1, 0, 0), float(np.deg2rad(tilt_deg)))
    if not rigid:
        transform.SetScale(scale)
    transform.SetTranslation(offset.tolist())
    return transform


def _distinct(found: Sequence[Match], template: Template) -> list[Match]:
    """Return the best match of each basin, best first."""
    corners = np.array(list(product(*bounding_box(template.mask))), dtype=float)
    points = corners @ template.affine[:3, :3].T + template.affine[:3, 3]
    kept: list[Match] = []
    places: list[np.ndarray] = []
    for match in sorted(found, key=lambda one: -one.information):
        matrix = matrix_of(match.transform)
        place = points @ matrix[:3, :3].T + matrix[:3, 3]
        gaps_mm = [np.linalg.norm(place - other, axis=1).mean() for other in places]
        if all(gap_mm > SAME_BASIN_MM for gap_mm in gaps_mm):
            kept.append(match)
            places.append(place)
    return kept


def _freed(linear: Any) -> Any:
    """Return a linear transform as an affine one around the same centre."""
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetCenter(linear.GetCenter())
    transform.SetMatrix(linear.GetMatrix())
    transform.SetTranslation(linear.GetTranslation())
    return transform


def moved(affine: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Return a scan's (4, 4) voxel-to-world matrix in the template's world."""
    return np.linalg.solve(alignment.matrix, affine)
