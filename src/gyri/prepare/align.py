"""Find the affine map from the template's world to a scan's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gyri.prepare.itk import matrix_of, to_itk
from gyri.prepare.scan import bounding_box
from gyri.prepare.template import Template

RIM_MM = 4.0
"""The metric sees the brain and this much around it: skull, but not the scalp, whose bright ring
is easily taken for the cortex. Brains are finished without it: how much of the fluid around them
a stripped scan keeps says nothing about their place."""

BRAIN_BELOW_SCALP_MM = 12.0
UPPER_HEAD_MM = 120.0
TOP_PERCENTILE = 99.5
NATIVE_SCALE = 0.9
"""Adults' brains measure about nine tenths of the MNI152 template along each axis."""

WORK_MM = 2.0
"""Finer scans are averaged to at most this, the template's spacing; brains are finished on all
their voxels."""

FINALISTS = 3
HISTOGRAM_BINS = 32
SEED = 1


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


@dataclass(frozen=True)
class _Problem:
    fixed: Any
    fixed_mask: Any
    moving: Any
    centre_mm: np.ndarray

    def improved(
        self,
        transform: Any,
        *,
        levels: Sequence[tuple[int, float]],
        step_mm: float,
        tolerance_mm: float,
        sampled: Sequence[float],
    ) -> tuple[float, Any]:
        """Descend from `transform`; returns (mutual information, transform)."""
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        # One thread: the order of a sum, and so the result, must not depend on the machine.
        method.SetNumberOfThreads(1)
        method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
        method.SetMetricFixedMask(self.fixed_mask)
        method.SetMetricSamplingStrategy(method.REGULAR)
        # ITK jitters its samples, by the clock unless it is told a seed.
        method.SetMetricSamplingPercentagePerLevel(list(sampled), SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(step_mm, tolerance_mm, 100, 0.5, 1e-6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([shrink for shrink, _ in levels])
        method.SetSmoothingSigmasPerLevel([sigma_mm for _, sigma_mm in levels])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetInitialTransform(transform, inPlace=True)
        method.Execute(self.fixed, self.moving)
        return -float(method.GetMetricValue()), transform


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

    Parameters
    ----------
    volume, affine : (I, J, K) values and (4, 4) voxel to world, without shear.
    foreground : (I, J, K) bool, the head or the brain.
    whole_head : whether `foreground` is a head, which is placed by its top.
    rigid : allow rotation and translation only.

    Notes
    -----
    D. Mattes et al., "PET-CT image registration in the chest using free-form deformations",
    IEEE TMI 22, 120 (2003).
    """
    problem = _problem(template, volume, affine, rim_mm=RIM_MM, work_mm=WORK_MM)
    template_box = bounding_box(template.mask)
    goal = _to_world(template_box.mean(axis=1), template.affine)
    scale = 1.0 if rigid else NATIVE_SCALE
    if whole_head:
        top_mm = _to_world(template_box[:, 1], template.affine)[2]
        offset = _below_the_scalp(foreground, affine, goal, top_mm, scale)
        offsets = [offset, offset - [0, 0, 15]]
        tilts_deg = [0.0, 15.0]
    else:
        offsets = [_to_world(bounding_box(foreground).mean(axis=1), affine) - goal]
        tilts_deg = [0.0, 15.0, -15.0]
    found = [
        problem.improved(
            _start(problem.centre_mm, offset, tilt, scale, rigid),
            levels=[(4, 4.0)], step_mm=2.0, tolerance_mm=0.02, sampled=[1.0],
        )
        for offset in offsets
        for tilt in tilts_deg
    ]  # fmt: skip
    finalists = sorted(found, key=lambda one: -one[0])[:FINALISTS]
    if not rigid:
        finalists = [
            problem.improved(
                _freed(transform), levels=[(4, 4.0)], step_mm=1.0, tolerance_mm=0.01, sampled=[1.0]
            )
            for _, transform in finalists
        ]
    _, best = max(finalists, key=lambda one: one[0])
    last = problem if whole_head else _problem(template, volume, affine, rim_mm=0.0, work_mm=0.0)
    information, best = last.improved(
        best, levels=[(2, 2.0), (1, 1.0)], step_mm=1.0, tolerance_mm=0.005, sampled=[0.6, 0.2]
    )
    return Alignment(matrix_of(best), information)


def _problem(
    template: Template, volume: np.ndarray, affine: np.ndarray, rim_mm: float, work_mm: float
) -> _Problem:
    import SimpleITK as sitk
    from scipy.ndimage import distance_transform_edt

    spacing_mm = np.sqrt((template.affine[:3, :3] ** 2).sum(axis=0))
    near = distance_transform_edt(~template.mask, sampling=spacing_mm) <= rim_mm
    fixed_mask = sitk.Cast(to_itk(near, template.affine), sitk.sitkUInt8)
    capped = np.minimum(volume, np.percentile(volume, TOP_PERCENTILE))
    scan_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    factors = np.maximum(1, np.floor(work_mm / scan_mm + 1e-3)).astype(int).tolist()
    return _Problem(
        to_itk(template.image, template.affine),
        fixed_mask,
        sitk.BinShrink(to_itk(capped, affine), factors),
        template.centre_mm,
    )


def _to_world(index: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ index + affine[:3, 3]


def _below_the_scalp(
    head: np.ndarray, affine: np.ndarray, goal: np.ndarray, top_mm: float, scale: float
) -> np.ndarray:
    """Return (3,) the shift that puts the template under the top of a head, necks aside."""
    points = np.argwhere(head) @ affine[:3, :3].T + affine[:3, 3]
    top = np.percentile(points[:, 2], 99.95)
    upper = points[points[:, 2] > top - UPPER_HEAD_MM]
    middle = np.percentile(upper, [1, 99], axis=0).mean(axis=0)
    height = top - BRAIN_BELOW_SCALP_MM - scale * (top_mm - goal[2])
    return np.array([middle[0], middle[1], height]) - goal


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


def _freed(similarity: Any) -> Any:
    """Return a similarity as an affine transform around the same centre."""
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetCenter(similarity.GetCenter())
    transform.SetMatrix(similarity.GetMatrix())
    transform.SetTranslation(similarity.GetTranslation())
    return transform


def moved(affine: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Return a scan's (4, 4) voxel-to-world matrix in the template's world."""
    return np.linalg.solve(alignment.matrix, affine)
