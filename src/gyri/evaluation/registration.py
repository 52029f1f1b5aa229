"""How well a template was deformed to scans: likeness, folds, overlap of regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gyri.cohort.prepared import PreparedCohort, map_voxels
from gyri.evaluation.bootstrap import mean_interval
from gyri.evaluation.overlap import pairwise_dice
from gyri.evaluation.paired import Original
from gyri.nn.deformation import compose, jacobian_determinant, warp
from gyri.nn.local_correlation import local_correlation
from gyri.runtime.seeding import numpy_rng

WINDOW = 9
"""Side in voxels of the windows of ``local_correlation``."""


@dataclass(frozen=True)
class Registered:
    """One scan's registration in numbers.

    Parameters
    ----------
    measures : before and after, within the brains of scan and template: ``correlation``,
        ``local_correlation``, ``psnr`` (dB) and ``ssim``; of the deformation: ``folded`` (share of
        brain voxels with a Jacobian of 0 or less), ``min_jacobian``, ``sd_log_jacobian``,
        ``displacement_mm``, ``inverse_mm`` (how far there and back misses) and ``seconds``.
    """

    subject: str
    session: str
    split: str
    measures: dict[str, float]


def unit(volume: Tensor) -> np.ndarray:
    """Bring (I, J, K) from [-1, 1] to [0, 1]."""
    array: np.ndarray = ((volume + 1) / 2).clamp(0, 1).numpy().astype(np.float32)
    return array


def measure_registration(
    template: Tensor,
    scan: Tensor,
    u: Tensor,
    inverse: Tensor | None,
    spacing_mm: tuple[float, float, float],
) -> dict[str, float]:
    """Return the numbers that `Registered.measures` lists, but for the seconds.

    Parameters
    ----------
    template, scan : (1, I, J, K) in [-1, 1], -1 outside of the brain.
    u, inverse : displacements (3, I, J, K) in voxels.
    spacing_mm : of the grid.
    """
    warped = warp(template[None], u[None])[0]
    inside = (scan[0] > -1) | (template[0] > -1)
    original = Original.of(unit(scan[0]), spacing_mm, "a scan")
    measures: dict[str, float] = {}
    for when, moved in (("before", template), ("after", warped)):
        paired = original.compare(unit(moved[0]))
        both = torch.stack([moved[0][inside], scan[0][inside]])
        measures |= {
            f"correlation_{when}": float(torch.corrcoef(both)[0, 1]),
            f"local_correlation_{when}": float(
                local_correlation(moved[None], scan[None], WINDOW, inside[None, None])
            ),
            f"psnr_{when}": paired["psnr"],
            f"ssim_{when}": paired["ssim"],
        }
    brain = scan[0] > -1
    determinant = jacobian_determinant(u[None])[0][brain]
    spacing = torch.tensor(spacing_mm).view(3, 1, 1, 1)
    measures |= {
        "folded": float((determinant <= 0).float().mean()),
        "min_jacobian": float(determinant.min()),
        "sd_log_jacobian": float(determinant.clamp_min(1e-3).log().std()),
        "displacement_mm": float((u * spacing).norm(dim=0)[brain].mean()),
    }
    if inverse is not None:
        missed = compose(u[None], inverse[None])[0] * spacing
        measures["inverse_mm"] = float(missed.norm(dim=0)[brain].mean())
    return measures


class Regions:
    """Label maps brought to the template, where a cohort has them."""

    def __init__(self, cohort: PreparedCohort) -> None:
        self.cohort = cohort
        self.channels = [c for c in cohort.channels if c.kind == "label"]
        self.subjects: list[str] = []
        self.maps: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {
            channel.name: ([], []) for channel in self.channels
        }

    def take(self, row: Any, inverse: Tensor) -> None:
        """Warp a subject's labels to the template by nearest neighbour."""
        self.subjects.append(str(row.name))
        for channel in self.channels:
            path = self.cohort.path(str(row.name), row["session"], channel)
            labels = np.array(map_voxels(path, self.cohort.grid.shape))
            moved = warp(torch.from_numpy(labels).float()[None, None], inverse[None], "nearest")
            before, after = self.maps[channel.name]
            before.append(labels)
            after.append(moved[0, 0].numpy().astype(np.int16))

    def dice(self, bootstrap: int) -> dict[str, Any]:
        """Return the mean Dice between people before and after, by label channel."""
        found = {}
        for name, (before, after) in self.maps.items():
            if len(before) < 2:
                continue
            regions, first = pairwise_dice(before)
            _, then = pairwise_dice(after)
            found[name] = {
                "before": self._interval(np.nanmean(first, axis=1), bootstrap),
                "after": self._interval(np.nanmean(then, axis=1), bootstrap),
                "gain": self._interval(np.nanmean(then, 1) - np.nanmean(first, 1), bootstrap),
                "regions": {
                    str(region): {"before": float(a), "after": float(b)}
                    for region, a, b in zip(regions, np.nanmean(first, 0), np.nanmean(then, 0))
                },
            }
        return found

    def _interval(self, values: np.ndarray, bootstrap: int) -> dict[str, float]:
        low, high = mean_interval(values, self.subjects, bootstrap, numpy_rng(0, "overlap"))
        return {"value": float(values.mean()), "low": low, "high": high}


def summarise_registrations(
    registered: Sequence[Registered], dice: dict[str, Any], bootstrap: int
) -> dict[str, Any]:
    """Return means with intervals by split, and what holds for all."""
    splits: dict[str, Any] = {}
    for split in dict.fromkeys(one.split for one in registered):
        own = [one for one in registered if one.split == split]
        splits[split] = {"n": len(own)}
        for name in own[0].measures:
            values = np.array([one.measures[name] for one in own])
            low, high = mean_interval(
                values, [one.subject for one in own], bootstrap, numpy_rng(0, "registration")
            )
            splits[split][name] = {"value": float(values.mean()), "low": low, "high": high}
    seconds = [one.measures["seconds"] for one in registered]
    return {
        "n": len(registered),
        "seconds_per_scan": float(np.median(seconds)),
        "splits": splits,
        "dice": dice or None,
    }
