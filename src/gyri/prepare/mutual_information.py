"""Descend on the mutual information between two images, one linear transform at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gyri.prepare.itk import to_itk

TOP_PERCENTILE = 99.5
HISTOGRAM_BINS = 32
SEED = 1
MAX_STEPS = 100


@dataclass(frozen=True)
class Match:
    """A transform and how well it fits.

    Parameters
    ----------
    information : mutual information in nats that the metric reached, higher is better.
    transform : SimpleITK transform from the fixed image's world to the moving one's.
    """

    information: float
    transform: Any


@dataclass(frozen=True)
class Pair:
    """Two SimpleITK images, and the part of the fixed one in which they are compared."""

    fixed: Any
    fixed_mask: Any
    moving: Any

    def smoothed(self, sigma_mm: float, shrink: int) -> Pair:
        """Return one level of the pyramid, made once for many descents.

        Parameters
        ----------
        sigma_mm : Gaussian over both images.
        shrink : every so manieth voxel of the fixed image is left along each axis.
        """
        import SimpleITK as sitk

        fixed = sitk.SmoothingRecursiveGaussian(self.fixed, sigma_mm)
        moving = sitk.SmoothingRecursiveGaussian(self.moving, sigma_mm)
        return Pair(sitk.Shrink(fixed, [shrink] * 3), self.fixed_mask, moving)

    def improved(
        self,
        transform: Any,
        *,
        step_mm: float,
        tolerance_mm: float,
        levels: Sequence[tuple[int, float]] = ((1, 0.0),),
        sampled: Sequence[float] = (1.0,),
    ) -> Match:
        """Descend from `transform`, which is left as it is.

        Parameters
        ----------
        step_mm, tolerance_mm : first and last length of a step.
        levels : (shrink factor, sigma in millimetres) of each level, coarse to fine.
        sampled : share of the fixed voxels that the metric sees at each level.

        Notes
        -----
        D. Mattes et al., "PET-CT image registration in the chest using free-form deformations",
        IEEE TMI 22, 120 (2003).
        """
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        # One piece of work: sums in another order would give other bits. (One thread alone still
        # cuts the work into pieces and adds them up in the order in which they end.)
        method.SetNumberOfWorkUnits(1)
        method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
        method.SetMetricFixedMask(self.fixed_mask)
        method.SetMetricSamplingStrategy(method.REGULAR)
        # ITK jitters its samples, by the clock unless it is told a seed.
        method.SetMetricSamplingPercentagePerLevel(list(sampled), SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(step_mm, tolerance_mm, MAX_STEPS, 0.5, 1e-6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([shrink for shrink, _ in levels])
        method.SetSmoothingSigmasPerLevel([sigma_mm for _, sigma_mm in levels])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        found = type(transform)(transform)
        method.SetInitialTransform(found, inPlace=True)
        method.Execute(self.fixed, self.moving)
        return Match(-float(method.GetMetricValue()), found)


def capped(volume: np.ndarray) -> np.ndarray:
    """Return (I, J, K) with its brightest half per cent cut off: vessels widen the histogram."""
    return np.minimum(volume, np.percentile(volume, TOP_PERCENTILE))


def averaged_to(volume: np.ndarray, affine: np.ndarray, work_mm: float) -> Any:
    """Return (I, J, K) as a SimpleITK image whose voxels are averaged to at most `work_mm`."""
    import SimpleITK as sitk

    spacing_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    factors = np.maximum(1, np.floor(work_mm / spacing_mm + 1e-3)).astype(int).tolist()
    return sitk.BinShrink(to_itk(volume, affine), factors)


def mask_image(mask: np.ndarray, affine: np.ndarray) -> Any:
    """Return (I, J, K) bool as a SimpleITK mask."""
    import SimpleITK as sitk

    return sitk.Cast(to_itk(mask, affine), sitk.sitkUInt8)
