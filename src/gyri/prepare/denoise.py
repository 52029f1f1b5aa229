"""Take noise away and leave edges."""

from __future__ import annotations

from dataclasses import dataclass

from gyri.errors import UsageError
from gyri.prepare.itk import to_array, to_itk
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class DenoiseConfig:
    """Curvature flow.

    Parameters
    ----------
    iterations : time steps; more is smoother.
    time_step : length of one, at most 0.0625 for a stable flow in three dimensions.
    """

    iterations: int = 5
    time_step: float = 0.0625

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 0 < self.time_step <= 0.0625:
            raise UsageError(
                f"iterations is {self.iterations} and time_step {self.time_step}; expected at "
                "least 1 and a step above 0 up to 0.0625."
            )


@STEPS.register("denoise", DenoiseConfig)
def denoise(scan: PreparedScan, config: DenoiseConfig) -> PreparedScan:
    """Smooth each intensity channel along its contours; what is exactly 0 stays 0.

    Notes
    -----
    J. A. Sethian, "Level Set Methods and Fast Marching Methods", 1999, chapter 16.
    """
    import SimpleITK as sitk

    image = scan.image.copy()
    for index, channel in enumerate(scan.channels):
        if channel.kind == "label":
            continue
        flowed = sitk.CurvatureFlow(
            to_itk(scan.image[index], scan.affine), config.time_step, config.iterations
        )
        image[index] = to_array(flowed) * (scan.image[index] != 0)
    facts = {"iterations": config.iterations, "time_step": config.time_step}
    return scan.after("denoise", facts, image=image)
