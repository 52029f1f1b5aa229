"""Even out the slow change of brightness that the receiving coil leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.itk import to_array, to_itk
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class BiasFieldConfig:
    """N4.

    Parameters
    ----------
    work_mm : the field is estimated on voxels of about this size; it is smooth.
    levels : times the spline's knots are doubled, from one knot interval of the whole scan.
    iterations : at most, at each level.
    """

    work_mm: float = 4.0
    levels: int = 4
    iterations: int = 50

    def __post_init__(self) -> None:
        if self.work_mm <= 0 or self.levels < 1 or self.iterations < 1:
            raise UsageError(
                f"work_mm is {self.work_mm}, levels {self.levels} and iterations "
                f"{self.iterations}; expected all above 0."
            )


@STEPS.register("bias_field", BiasFieldConfig)
def bias_field(scan: PreparedScan, config: BiasFieldConfig) -> PreparedScan:
    """Divide each intensity channel by its N4 bias field, estimated in the foreground.

    The field's geometric mean over the foreground is 1, so that brightness stays what it is.

    Raises
    ------
    DataError
        No positive voxel is foreground.

    Notes
    -----
    N. J. Tustison et al., "N4ITK: improved N3 bias correction", IEEE TMI 29, 1310 (2010).
    """
    mask = scan.foreground >= FOREGROUND
    shrink = [max(1, round(config.work_mm / mm)) for mm in scan.spacing_mm.tolist()]
    image, ranges = scan.image.copy(), {}
    for index, channel in enumerate(scan.channels):
        if channel.kind == "label":
            continue
        volume = scan.image[index]
        inside = mask & (volume > 0)
        if not inside.any():
            raise DataError(f"No voxel of {channel.name} is brighter than 0. Look at the scan.")
        field = _field(volume, inside, scan.affine, shrink, config)
        field /= np.exp(np.log(field[inside]).mean())
        image[index] = volume / field
        low, high = np.percentile(field[inside], [1, 99])
        ranges[channel.name] = [round(float(low), 4), round(float(high), 4)]
    return scan.after("bias_field", {"shrink": shrink, "field_1_to_99": ranges}, image=image)


def _field(
    volume: np.ndarray,
    inside: np.ndarray,
    affine: np.ndarray,
    shrink: list[int],
    config: BiasFieldConfig,
) -> np.ndarray:
    import SimpleITK as sitk

    image = to_itk(volume, affine)
    mask = sitk.Cast(to_itk(inside, affine), sitk.sitkUInt8)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    # One thread: sums in another order would give other voxels on another machine.
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations([config.iterations] * config.levels)
    n4.Execute(sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink))
    return np.exp(to_array(n4.GetLogBiasFieldAsImage(image)))
