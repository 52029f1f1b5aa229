"""What is wrong with a generated set, and which metrics that stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.features.extraction import volume_hashes
from gyri.evaluation.metrics import Metric

RANGE_PERCENTILES = (0.1, 99.9)
LOW_TOLERANCE = 0.25
"""Largest shift of the low end, as a share of TRAIN's range."""
LARGEST_RATIO = 4.0
"""Largest ratio of the ranges; blur and weak contrast stay well below."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a generated set."""

    kind: Literal["grid", "range", "not finite", "reference"]
    reason: str

    def stops(self, metric: Metric) -> bool:
        """Say whether `metric` cannot be computed."""
        return {
            "grid": metric.same_grid,
            "range": metric.reads_intensities,
            "not finite": not metric.counts_failures,
            "reference": metric.needs_unseen,
        }[self.kind]


def find_faults(generated: VolumeSet, train: VolumeSet, hold_hashes: list[str]) -> list[Fault]:
    """Return the faults of `generated`.

    Parameters
    ----------
    hold_hashes : hashes of HOLD's voxels.
    """
    checks = (
        grid_fault(generated, train),
        range_fault(generated, train),
        finite_fault(generated),
        reference_fault(generated, hold_hashes),
    )
    return [fault for fault in checks if fault]


def grid_fault(generated: VolumeSet, train: VolumeSet) -> Fault | None:
    """Compare shapes and spacings."""
    same_spacing = np.allclose(generated.grid.spacing_mm, train.grid.spacing_mm, atol=1e-3)
    if generated.volumes.shape[2:] == train.volumes.shape[2:] and same_spacing:
        return None
    return Fault(
        "grid",
        f"generated volumes are {generated.volumes.shape[2:]} at {generated.grid.spacing_mm} mm, "
        f"the real ones {train.volumes.shape[2:]} at {train.grid.spacing_mm} mm; resample one.",
    )


def _range(volumes: np.ndarray) -> tuple[float, float]:
    flat = volumes[:, 0].reshape(-1)
    sample = flat[:: max(1, flat.size // 2_000_000)]
    low, high = np.percentile(sample[np.isfinite(sample)], RANGE_PERCENTILES)
    return float(low), float(high)


def range_fault(generated: VolumeSet, train: VolumeSet) -> Fault | None:
    """Compare intensity ranges: [-1, 1] or [0, 255] against [0, 1] is found, blur is not."""
    if not np.isfinite(generated.volumes).any():
        return None
    made, real = _range(generated.volumes), _range(train.volumes)
    width = max(real[1] - real[0], 1e-12)
    ratio = max((made[1] - made[0]) / width, 1e-12)
    shifted = abs(made[0] - real[0]) > LOW_TOLERANCE * width
    if not shifted and 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
        return None
    return Fault(
        "range",
        f"generated intensities lie in [{made[0]:.3g}, {made[1]:.3g}], real ones in "
        f"[{real[0]:.3g}, {real[1]:.3g}] (0.1 to 99.9 percentile); bring both to [0, 1].",
    )


def finite_fault(generated: VolumeSet) -> Fault | None:
    """Name the volumes that hold NaN or Inf."""
    failed = ~np.isfinite(generated.volumes).all(axis=(1, 2, 3, 4))
    if not failed.any():
        return None
    names = ", ".join(np.asarray(generated.ids)[failed][:5])
    return Fault(
        "not finite",
        f"{int(failed.sum())} of {len(generated)} generated volumes hold NaN or Inf ({names}); "
        "they count as failed samples and are not left out.",
    )


def reference_fault(generated: VolumeSet, hold_hashes: list[str]) -> Fault | None:
    """Find HOLD volumes among the generated ones."""
    known = set(hold_hashes)
    rows = [row for row, name in enumerate(volume_hashes(generated)) if name in known]
    if not rows:
        return None
    names = ", ".join(generated.ids[row] for row in rows[:5])
    return Fault(
        "reference",
        f"{len(rows)} of {len(generated)} generated volumes are HOLD volumes voxel by voxel "
        f"({names}); a set cannot be judged against itself.",
    )
