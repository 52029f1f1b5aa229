"""SyN: symmetric diffeomorphic registration of one pair of volumes, by dipy.

B. B. Avants et al., "Symmetric diffeomorphic image registration with cross-correlation", Medical
Image Analysis 12, 26 (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gyri.errors import UnavailableError

SILENT = 0
"""dipy's `VerbosityLevels.NONE`."""


def syn(
    static: np.ndarray,
    moving: np.ndarray,
    affine: np.ndarray,
    *,
    iterations: Sequence[int],
    radius: int,
    smoothness: float,
) -> Any:
    """Return dipy's map from the world of `static` to that of `moving`.

    Parameters
    ----------
    static, moving : (I, J, K) float32 on one grid, in [0, 1].
    affine : (4, 4) of the grid.
    iterations : updates at each level, coarse to fine, each level twice as fine; the last is full.
    radius : of the window in which intensities are correlated, in voxels.
    smoothness : sigma of the Gaussian that smooths each update, in voxels.

    Raises
    ------
    UnavailableError
        dipy is not installed.
    """
    try:
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
        from dipy.align.metrics import CCMetric
    except ImportError:
        raise UnavailableError(
            "SyN needs dipy, which is not installed. Install it with `pip install dipy`, or leave "
            "the step nonlinear or the method syn out."
        ) from None
    metric = CCMetric(3, sigma_diff=smoothness, radius=radius)
    registration = SymmetricDiffeomorphicRegistration(metric, level_iters=list(iterations))
    registration.verbosity = SILENT
    return registration.optimize(static, moving, static_grid2world=affine, moving_grid2world=affine)


def syn_displacements(mapping: Any, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the displacement of a map and of its inverse, (3, I, J, K) in voxels.

    The first warps `moving` to `static` as `gyri.nn.deformation.warp` does, the second the other
    way.
    """
    spacing = np.asarray(spacing_mm, np.float32)
    there, back = (
        np.moveaxis(np.asarray(field, np.float32) / spacing, -1, 0)
        for field in (mapping.get_forward_field(), mapping.get_backward_field())
    )
    return np.ascontiguousarray(there), np.ascontiguousarray(back)
