"""Warp registered brains into the MNI152 template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.itk import resampled
from gyri.prepare.point_spread import as_seen_by
from gyri.prepare.resample import FOREGROUND, covering_grid
from gyri.prepare.scan import PreparedScan
from gyri.prepare.syn import syn
from gyri.prepare.template import SPACING_MM, Template, mni152
from gyri.registry import STEPS

MIN_OVERLAP = 0.7
"""Dice of brain and template: registered brains reach 0.9, brains elsewhere in the world do not."""


@dataclass(frozen=True, kw_only=True)
class NonlinearConfig:
    """Symmetric diffeomorphic registration, and the grid it ends on.

    Parameters
    ----------
    spacing_mm : isotropic voxel size of the result.
    through_mm : a place in the world where a voxel's centre lies, as in `resample`; None takes
        the template's own grid to this spacing.
    iterations : updates at each level, coarse to fine; the last level has voxels of 2 mm.
    radius : of the window in which intensities are correlated, in voxels.
    smoothness : sigma of the Gaussian that smooths each update, in voxels.
    """

    spacing_mm: float = 2.0
    through_mm: tuple[float, float, float] | None = None
    iterations: tuple[int, ...] = (25, 15, 5)
    radius: int = 2
    smoothness: float = 2.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.spacing_mm <= 16:
            raise UsageError(f"spacing_mm is {self.spacing_mm}; expected 0.1 to 16 mm.")
        if not self.iterations or min(self.iterations) < 0 or sum(self.iterations) < 1:
            raise UsageError(
                f"iterations is {self.iterations}; expected updates at each of one or more levels."
            )
        if self.radius < 1 or self.smoothness <= 0:
            raise UsageError(
                f"radius is {self.radius} and smoothness {self.smoothness}; expected both above 0."
            )


@STEPS.register("nonlinear", NonlinearConfig)
def nonlinear(scan: PreparedScan, config: NonlinearConfig) -> PreparedScan:
    """Warp a registered brain into MNI152 by SyN, and resample it onto an upright grid.

    Put it after `register`, in the place of `resample`: the affine map, the warp and the new grid
    are one interpolation of the scan's own voxels, linear for intensities and nearest for labels.
    The first channel that holds intensities is registered and the others follow. The grid covers
    the template's box, 13 mm or more around its brain; what lies outside is left out.

    Raises
    ------
    DataError
        The brain does not lie on the template, or the warp folds.
    UnavailableError
        dipy is not installed.

    Notes
    -----
    B. B. Avants et al., "Symmetric diffeomorphic image registration with cross-correlation",
    Medical Image Analysis 12, 26 (2008).
    """
    template = mni152()
    support = resampled(scan.foreground, scan.affine, template.affine, _triple(template.mask))
    overlap = _dice(support >= FOREGROUND, template.mask)
    if overlap < MIN_OVERLAP:
        raise DataError(
            f"The brain covers the template with a Dice of {overlap:.2f}, expected at least "
            f"{MIN_OVERLAP}. Put register before nonlinear."
        )
    index = next(i for i, channel in enumerate(scan.channels) if channel.kind != "label")
    brain = as_seen_by(scan.image[index] * (scan.foreground >= FOREGROUND), scan.affine, SPACING_MM)
    moving = resampled(brain, scan.affine, template.affine, _triple(template.mask))
    mapping = _diffeomorphism(template, moving, config)
    jacobian = jacobian_determinant(mapping, template)[template.mask]
    if jacobian.min() <= 0:
        raise DataError(
            f"The warp folds: its Jacobian goes down to {jacobian.min():.3f}, expected above 0. "
            "Raise nonlinear.smoothness, or look at the scan."
        )
    shape, affine = covering_grid(
        template.affine, _triple(template.mask), config.spacing_mm, config.through_mm
    )
    volumes = [
        _warped(volume, scan.affine, mapping, shape, affine, nearest=True)
        if channel.kind == "label"
        else _warped(
            as_seen_by(volume, scan.affine, config.spacing_mm), scan.affine, mapping, shape, affine
        )
        for volume, channel in zip(scan.image, scan.channels)
    ]
    blurred = as_seen_by(scan.foreground, scan.affine, config.spacing_mm)
    foreground = _warped(blurred, scan.affine, mapping, shape, affine)
    facts = {
        "template": "MNI152NLin2009aSym",
        "spacing_mm": config.spacing_mm,
        "iterations": list(config.iterations),
        "radius": config.radius,
        "smoothness": config.smoothness,
        "jacobian_range": np.round([jacobian.min(), jacobian.max()], 3).tolist(),
    }
    return scan.after(
        "nonlinear",
        facts,
        image=np.stack(volumes),
        affine=affine,
        foreground=np.clip(foreground, 0, 1),
    )


def _diffeomorphism(template: Template, moving: np.ndarray, config: NonlinearConfig) -> Any:
    """Return dipy's map from the template's world to the registered scan's."""
    scaled = moving / max(float(np.percentile(moving[template.mask], 99)), 1e-6)
    return syn(
        template.image,
        np.clip(scaled, 0, 1).astype(np.float32),
        template.affine,
        iterations=config.iterations,
        radius=config.radius,
        smoothness=config.smoothness,
    )


def jacobian_determinant(mapping: Any, template: Template) -> np.ndarray:
    """Return (I, J, K) local volume of a map over that of the template's voxels."""
    # The field is in millimetres along the world's axes, which are the template's.
    field = mapping.get_forward_field()
    gradient = np.stack(
        [np.stack(np.gradient(field[..., axis], SPACING_MM), axis=-1) for axis in range(3)],
        axis=-2,
    )
    return np.linalg.det(gradient + np.eye(3))


def _warped(
    volume: np.ndarray,
    volume_affine: np.ndarray,
    mapping: Any,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    *,
    nearest: bool = False,
) -> np.ndarray:
    warped = mapping.transform(
        np.ascontiguousarray(volume, dtype=np.float32),
        interpolation="nearest" if nearest else "linear",
        image_world2grid=np.linalg.inv(volume_affine),
        out_shape=shape,
        out_grid2world=affine,
    )
    return np.asarray(warped, dtype=np.float32)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _triple(volume: np.ndarray) -> tuple[int, int, int]:
    return volume.shape[0], volume.shape[1], volume.shape[2]
