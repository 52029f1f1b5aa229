"""What a few principal components of TRAIN keep of a volume: a linear model's answer.

A model of the coefficients takes seconds to train, and `gyri.views.detail` lets another begin from
what they make instead of from noise alone.

Components found with a subject lean towards that subject, and sampling never meets such knowledge.
So the subjects of a split are dealt to folds, and a resident volume is seen through the components
of the other folds, turned to lie as near as they can to those of all. What is sampled would lean
towards TRAIN by the components of all themselves, so that they are found in smoothed volumes and
their mirror images: of unseen people these explain as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gyri.errors import UsageError
from gyri.nn.gaussian import LowRankGaussian
from gyri.registry import VIEWS
from gyri.types import FWHM_PER_SIGMA, Grid, Items, SampleRng
from gyri.views.base import PLANE_AXIS, View, Volumes, subjects
from gyri.views.kept import Kept

LEFT_RIGHT = 2 + PLANE_AXIS["sagittal"]
"""Dimension of (N, C, I, J, K) from left to right."""


@dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """Settings of the low-rank view.

    Parameters
    ----------
    components : directions that are kept; fewer than the subjects outside a fold.
    num_folds : of cross-fitting, at least 2.
    fwhm_mm : full width at half maximum of the smoothing of volumes that components are found in;
        0 for none.
    mirror : find components in the volumes' mirror images, too (left and right).
    """

    components: int = 40
    num_folds: int = 5
    fwhm_mm: float = 24.0
    mirror: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.components < 1 or self.num_folds < 2 or self.fwhm_mm < 0:
            raise UsageError(
                f"components is {self.components}, num_folds {self.num_folds} and fwhm_mm "
                f"{self.fwhm_mm:g}; they are at least 1, 2 and 0."
            )


@VIEWS.register("low_rank", LowRankConfig)
class LowRankView(View):
    """Coefficients of a volume on principal components of TRAIN, (components, 1, 1, 1).

    They are centred and divided by their spread over held-out subjects. The components are made of
    TRAIN and part of every checkpoint.
    """

    kind = "lossy"
    lifts = False
    alone = "coefficients follow no image. Leave it out."

    def __init__(self, config: LowRankConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = config.components
        self.item_shape = (1, 1, 1)
        voxels = channels * grid.shape[0] * grid.shape[1] * grid.shape[2]
        empty = LowRankGaussian(
            torch.zeros(voxels),
            torch.zeros(voxels, config.components),
            torch.ones(config.components),
        )
        self.state = {"spread": torch.ones(config.components), **empty.tensors("all")}
        for fold in range(config.num_folds):
            self.state |= empty.tensors(f"fold{fold}")
        self._kept = Kept(self._held_out)

    def fit(self, volumes: Volumes) -> None:
        """Find the components of all subjects and of all but each fold.

        Raises
        ------
        UsageError
            If the subjects outside a fold span too few directions.
        """
        num, folds = volumes.shape[0], self.config.num_folds
        kept = num - -(-num // folds)
        if self.config.components > kept - 1:
            raise UsageError(
                f"view.components is {self.config.components}; {num} TRAIN subjects without one "
                f"of {folds} folds span {kept - 1} directions. Set it to {max(kept // 2, 1)} or "
                "less."
            )
        rows = torch.arange(num)
        flat = torch.cat([self._flat(volumes, rows[row : row + 1]) for row in range(num)])
        smooth = self._smoothed(flat)
        everyone = self._found(flat, smooth)
        self.state = everyone.tensors("all")
        for fold in range(folds):
            others = (rows % folds != fold).to(flat.device)
            own = self._found(flat[others], smooth[others])
            self.state |= _turned(own, everyone).tensors(f"fold{fold}")
        self.state["spread"] = self._kept.of(volumes, rows).square().mean(0).sqrt()

    def _smoothed(self, flat: Tensor) -> Tensor:
        """Return the volumes (N, d) after a Gaussian filter, (N, d)."""
        width = self.config.fwhm_mm / FWHM_PER_SIGMA
        if not width:
            return flat
        sd = [width / spacing for spacing in self.grid.spacing_mm]
        volumes = flat.unflatten(1, self.volume_shape).cpu().numpy()
        smooth = [[gaussian_filter(x, sd, mode="nearest") for x in volume] for volume in volumes]
        return torch.from_numpy(np.asarray(smooth)).to(flat).flatten(1)

    def _found(self, flat: Tensor, smooth: Tensor) -> LowRankGaussian:
        """Return the mean of volumes (N, d) and the components of what their smoothed ones show."""
        shown = smooth - smooth.mean(0)
        if self.config.mirror:
            turned = shown.unflatten(1, self.volume_shape).flip(LEFT_RIGHT).flatten(1)
            shown = torch.cat([shown, turned])
        return replace(LowRankGaussian.fit(shown, self.config.components), mean=flat.mean(0))

    def _flat(self, volumes: Volumes, rows: Tensor) -> Tensor:
        # Channels that the recipe gives come after those that the view makes.
        return volumes[rows][:, : self.volume_shape[0]].flatten(1)

    def _gaussian(self, name: str) -> LowRankGaussian:
        return LowRankGaussian.from_tensors(self.state, name)

    def _others(self, volumes: Volumes, rows: Tensor) -> list[LowRankGaussian]:
        """Return, for each of the volumes, the Gaussian that was fitted without its fold."""
        folds = subjects(volumes, rows) % self.config.num_folds
        return [self._gaussian(f"fold{fold}") for fold in folds.tolist()]

    def _held_out(self, volumes: Volumes, rows: Tensor) -> Tensor:
        """Coefficients (B, components) on the components of the other folds."""
        others = self._others(volumes, rows)
        parts = [g.project(x[None]) for g, x in zip(others, self._flat(volumes, rows))]
        return torch.cat(parts)

    def kept(self, volumes: Volumes, row: int) -> Tensor:
        """Return what the components of the other folds keep of a volume."""
        found = self._kept.of(volumes, torch.tensor([row]))
        (others,) = self._others(volumes, torch.tensor([row]))
        return others.expand(found).unflatten(1, self.volume_shape)

    def items_of(self, volumes: Volumes, row: int) -> Items:
        """Return the coefficients that the other folds' components give."""
        return self._items(self._kept.of(volumes, torch.tensor([row])))

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Return the coefficients that the other folds' components give."""
        return self._items(self._kept.of(volumes, rows))

    def encode(self, volumes: Tensor) -> Items:
        """Return the coefficients of anybody's volumes, with the components of all of TRAIN."""
        everyone = torch.arange(len(volumes))
        return self._items(self._gaussian("all").project(self._flat(volumes, everyone)))

    def _items(self, coefficients: Tensor) -> Items:
        return Items((coefficients / self.state["spread"])[:, :, None, None, None])

    def decode(self, items: Tensor) -> Tensor:
        """Return the volumes that coefficients stand for."""
        flat = self._gaussian("all").expand(items.flatten(1) * self.state["spread"])
        return flat.unflatten(1, self.volume_shape)


def _turned(gaussian: LowRankGaussian, like: LowRankGaussian) -> LowRankGaussian:
    """Rotate a Gaussian's directions among themselves towards another's (Procrustes)."""
    u, _, v = torch.linalg.svd((gaussian.basis.T @ like.basis).double())
    return replace(gaussian, basis=gaussian.basis @ (u @ v).to(gaussian.basis))
