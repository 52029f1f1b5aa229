"""Mean of repeated scans of one session after rigid alignment.

OASIS averages three or four MPRAGEs of a session for their signal: D. S. Marcus et al., J. Cogn.
Neurosci. 19 (2007), "Image Processing". Here every repetition is aligned with the first by six
parameters that maximise the correlation, and the mean is taken on the first one's grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gyri.errors import DataError

if TYPE_CHECKING:
    import SimpleITK as sitk

SHRINK = (4, 2)
SIGMAS_MM = (2.0, 1.0)
SAMPLED = 0.25
"""Share of the voxels that the metric looks at."""
MAX_STEPS = 100

Volume = tuple[np.ndarray, np.ndarray]
"""Array (I, J, K) and affine (4, 4), millimetres."""


def average_runs(runs: Sequence[Volume], *, seed: int = 1) -> Volume:
    """Return the mean of `runs` on the grid of the first, float32.

    Parameters
    ----------
    runs : repetitions of one scan; the first is the target.
    seed : of the voxels that the metric looks at.
    """
    if not runs:
        raise DataError("There are no scans to average.")
    target, affine = runs[0]
    total = target.astype(np.float64)
    fixed = _image(*runs[0])
    for moving in runs[1:]:
        total += _aligned(fixed, _image(*moving), seed)
    return (total / len(runs)).astype(np.float32), affine


def _aligned(fixed: sitk.Image, moving: sitk.Image, seed: int) -> np.ndarray:
    """Return `moving` on the grid of `fixed`, (I, J, K)."""
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # the order of sums, and so the result, is the same everywhere
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLED, seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=MAX_STEPS, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK if min(fixed.GetSize()) >= 64 else (1, 1))
    method.SetSmoothingSigmasPerLevel(SIGMAS_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    start: Any = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method.SetInitialTransform(start, inPlace=False)
    transform = method.Execute(fixed, moving)
    resampled = sitk.Resample(moving, fixed, transform, sitk.sitkBSpline, 0.0)
    return sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)


def _image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Return a SimpleITK image; its world is LPS where NIfTI's is RAS."""
    import SimpleITK as sitk

    to_lps = np.diag([-1.0, -1.0, 1.0])
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), dtype=np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    image.SetDirection((to_lps @ affine[:3, :3] / spacing).ravel().tolist())
    return image
