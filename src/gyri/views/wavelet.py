"""The eight Haar bands of a volume as channels on half the grid.

Friedrich et al., 2024, arXiv:2402.19043 (WDM). A network of the bands reads and writes every voxel
at an eighth of the cost, and nothing is lost.

Which scale the bands have decides what a model of them learns first. The transform is orthonormal,
so that without a scale white noise on a volume is white noise on its bands and back: the view
lifts, at every level of noise the coarse band is made out before the fine ones, as in the volume
itself, and a model that is told its own error (``ddpm`` with ``prior: gaussian`` or ``edm``)
weighs voxels alike. With unit variance in each band, noise hides all bands at once, and the fine
ones, seven eighths of the coefficients and mostly texture, have to be guessed together with the
coarse one: at a small budget such brains have a right outline and noise inside. Scaled bands are no
linear image of a volume's white noise, so that then the bands themselves are sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.nn.haar import haar, half_shape, inverse_haar
from gyri.registry import VIEWS
from gyri.types import ConditionLayout, Grid, Items, ItemSpec
from gyri.views.base import View, Volumes

PUBLISHED_LOW_GAIN = 1 / 3
"""Factor of the low band in the published trainer; the others keep theirs."""


@dataclass(frozen=True, kw_only=True)
class WaveletConfig:
    """Settings of the wavelet view.

    Parameters
    ----------
    scale : ``none`` leaves the orthonormal bands as they are. ``band`` divides each by its standard
        deviation over TRAIN. ``published`` divides the low band by 3, which brings constant volumes
        to about their own intensity.
    cap : with ``band``, how many times more than the band with the largest deviation another may
        be amplified; without a bound, bands that hold noise alone would count as much as anatomy.
    """

    scale: Literal["none", "band", "published"] = "none"
    cap: float = 20.0

    def __post_init__(self) -> None:
        """Refuse a cap that would shrink."""
        if self.cap < 1:
            raise UsageError(
                f"view.cap is {self.cap:g}; it is how many times a faint band may be amplified, at "
                "least 1."
            )


@VIEWS.register("wavelet", WaveletConfig)
class WaveletView(View):
    """Haar bands on half the grid, (8 C, I/2, J/2, K/2): low band first, the last axis fastest."""

    kind = "lossy"  # to rounding

    def __init__(self, config: WaveletConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = 8 * channels
        self.item_shape = half_shape(grid.shape)
        self.lifts = config.scale == "none"
        if not self.lifts:
            gain = torch.ones(channels, 8)
            if config.scale == "published":
                gain[:, 0] = PUBLISHED_LOW_GAIN
            self.state = {"gain": gain.reshape(-1, 1, 1, 1)}

    def item_spec(
        self,
        condition: ConditionLayout,
        num_train: int,
        context: Mapping[str, int] | None = None,
    ) -> ItemSpec:
        """Describe the bands to a method."""
        if context and not self.lifts:
            raise UsageError(
                f"data.context gives {', '.join(context)}, and view.scale is {self.config.scale}: "
                "scaled bands are sampled without a volume to cut images with. Set scale to none."
            )
        return super().item_spec(condition, num_train, context)

    def fit(self, volumes: Volumes) -> None:
        """Measure each band's spread over TRAIN."""
        if self.config.scale != "band":
            return
        total = torch.zeros(2, self.item_channels, dtype=torch.float64)
        for row in range(volumes.shape[0]):
            bands = haar(volumes[row : row + 1])[0].flatten(1).double().cpu()
            total += torch.stack([bands.mean(1), bands.square().mean(1)])
        mean, square = total / volumes.shape[0]
        std = (square - mean**2).clamp_min(0).sqrt()
        gain = 1 / std.clamp_min(float(std.max()) / self.config.cap)
        self.state = {"gain": gain.float().reshape(-1, 1, 1, 1).to(self.state["gain"].device)}

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> (V, 8 C, I/2, J/2, K/2); a channel's bands stay together."""
        bands = haar(volumes)
        return Items(bands if self.lifts else bands * self.state["gain"])

    def decode(self, items: Tensor) -> Tensor:
        """Inverse of `encode`."""
        bands = items if self.lifts else items / self.state["gain"]
        return inverse_haar(bands, self.grid.shape)

    def bounded(self, items: Tensor, bound: float) -> Tensor:
        """Bring the volumes of clean items into ``[-bound, bound]``, as published."""
        return self.encode(self.decode(items).clamp(-bound, bound)).x
