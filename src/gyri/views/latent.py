"""A volume as the small grid of codes that a trained autoencoder gives it: latent diffusion.

Rombach et al., 2022, arXiv:2112.10752. What the autoencoder cannot rebuild, no model of its codes
can make: its reconstruction of TRAIN is measured before anything is trained on them, goes into
``run.json`` and may be held to a floor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gyri.capabilities import LatentAutoencoder
from gyri.errors import UsageError
from gyri.nn.tiles import in_tiles
from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import Trained, View, Volumes, foreground
from gyri.views.kept import Kept

AUTOENCODER = "autoencoder"
GATE_VOLUMES = 8
"""TRAIN volumes, evenly spaced, whose reconstruction is measured."""
DATA_RANGE = 2.0
"""Width of the intensities' range as networks see them, [-1, 1]."""
LEAST_ERROR = 1e-10
SSIM_VOXELS = 7
"""Side of the box in which SSIM compares."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Settings of the latent view.

    Parameters
    ----------
    channels, factor : of the autoencoder's code: its channels, and the voxels of a volume along an
        axis for one of its code. A method is built before the autoencoder is trained, so they are
        named here too.
    min_psnr, min_ssim : the lowest reconstruction with which training goes on: PSNR in dB for a
        range of 1, and SSIM, both inside the heads of `GATE_VOLUMES` TRAIN volumes; None for any.
    decode_tile : side in voxels of the code of the pieces that are decoded, 0 for the whole at
        once. Decoding a whole volume takes the most memory of all that sampling does. Group norms
        of a decoder see a piece then, which changes what it makes a little.
    tile_overlap : voxels of the code that two pieces share.
    """

    channels: int = 4
    factor: int = 4
    min_psnr: float | None = None
    min_ssim: float | None = None
    decode_tile: int = 0
    tile_overlap: int = 4

    def __post_init__(self) -> None:
        """Refuse codes of nothing and pieces that do not advance."""
        if self.channels < 1 or self.factor < 1:
            raise UsageError(
                f"view.channels is {self.channels} and view.factor {self.factor}; both are those "
                "of the autoencoder's code and at least 1."
            )
        if self.decode_tile and not 0 <= self.tile_overlap < self.decode_tile:
            raise UsageError(
                f"view.tile_overlap is {self.tile_overlap} and view.decode_tile "
                f"{self.decode_tile}; pieces must be longer than what they share."
            )


@VIEWS.register("latent", LatentConfig)
class LatentView(View):
    """The codes that a trained autoencoder gives a volume, each channel of unit variance.

    Needs a trained ``autoencoder`` of volumes. Codes are its means, without noise; those of a
    codebook are taken before quantisation and quantised where they are decoded.
    """

    kind = "lossy"
    lifts = False
    alone = "codes of an autoencoder follow no image. Leave it out, or take the volume view."
    needs: ClassVar[tuple[str, ...]] = (AUTOENCODER,)

    def __init__(self, config: LatentConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = config.channels
        self.item_shape = tuple(-(-n // config.factor) for n in grid.shape)
        one_a_channel = (config.channels, 1, 1, 1)
        self.state = {"mean": torch.zeros(one_a_channel), "std": torch.ones(one_a_channel)}
        self._kept = Kept(lambda volumes, rows: self.latents(volumes[rows]))

    def use(self, needs: Mapping[str, Trained]) -> None:
        """Take the autoencoder."""
        method, view = needs[AUTOENCODER].method, needs[AUTOENCODER].view
        if not isinstance(method, LatentAutoencoder):
            raise UsageError(
                f"needs.autoencoder is a {type(method).__name__}, which has no grid of codes. Name "
                "a recipe or a run of autoencoder_kl or vqgan."
            )
        if (view.item_channels, *view.item_shape) != self.volume_shape:
            raise UsageError(
                f"needs.autoencoder encodes items of {(view.item_channels, *view.item_shape)}, and "
                f"volumes are {self.volume_shape}. Train it with the volume view on this grid."
            )
        config = self.config
        if (method.latent_channels, method.factor) != (config.channels, config.factor):
            raise UsageError(
                f"The autoencoder's code has {method.latent_channels} channels and factor "
                f"{method.factor}; view.channels is {config.channels} and view.factor "
                f"{config.factor}. Set them to the former."
            )
        self._autoencoder = method

    @property
    def autoencoder(self) -> LatentAutoencoder:
        """The trained autoencoder."""
        if not hasattr(self, "_autoencoder"):
            raise UsageError(
                "The view latent needs an autoencoder. Add `needs: {autoencoder: RECIPE or RUN}` "
                "to the recipe."
            )
        return self._autoencoder

    @torch.no_grad()
    def latents(self, volumes: Tensor) -> Tensor:
        """Return the autoencoder's codes (V, *item) of volumes, not standardised."""
        # One by one: rounding in a convolution depends on how many go through it together.
        return torch.cat([self.autoencoder.latents(volume[None]) for volume in volumes])

    def fit(self, volumes: Volumes) -> None:
        """Measure mean and spread of each channel over TRAIN, and what is lost.

        Raises
        ------
        UsageError
            If the autoencoder rebuilds TRAIN worse than the recipe allows.
        """
        sums = torch.zeros(2, self.item_channels, dtype=torch.float64)
        for row in range(volumes.shape[0]):
            z = self._kept.of(volumes, torch.tensor([row]))[0].flatten(1).double().cpu()
            sums += torch.stack([z.sum(1), z.square().sum(1)])
        mean, square = sums / (volumes.shape[0] * math.prod(self.item_shape))
        std = (square - mean.square()).clamp_min(0).sqrt()
        if dead := (std < 1e-6).nonzero()[:, 0].tolist():
            raise UsageError(
                f"Channels {dead} of the autoencoder's code are the same everywhere. Train it "
                "longer, or with fewer channels."
            )
        device = volumes[torch.tensor([0])].device
        self.state = {
            name: values.float()[:, None, None, None].to(device)
            for name, values in (("mean", mean), ("std", std))
        }
        self._measure(volumes)

    def _measure(self, volumes: Volumes) -> None:
        """Rebuild some TRAIN volumes; refuse to go on where that fails."""
        count = min(GATE_VOLUMES, volumes.shape[0])
        rows = torch.linspace(0, volumes.shape[0] - 1, count).round().long()
        scores = torch.tensor([self._rebuilt_score(volumes, row[None]) for row in rows])
        psnr, ssim = scores.mean(0).tolist()
        self.facts = {"reconstruction_psnr": psnr, "reconstruction_ssim": ssim, "of": float(count)}
        _log.info("the autoencoder rebuilds TRAIN with PSNR %.2f dB, SSIM %.3f", psnr, ssim)
        floors = {"psnr": (psnr, self.config.min_psnr), "ssim": (ssim, self.config.min_ssim)}
        for name, (found, floor) in floors.items():
            if floor is not None and found < floor:
                raise UsageError(
                    f"The autoencoder rebuilds TRAIN with PSNR {psnr:.2f} dB and SSIM {ssim:.3f}; "
                    f"view.min_{name} is {floor:g}. Nothing made of its codes can be better: train "
                    "it longer, give it more channels or a smaller factor, or lower the limit."
                )

    def _rebuilt_score(self, volumes: Volumes, row: Tensor) -> tuple[float, float]:
        """PSNR for a range of 1 and SSIM of the volume `row` (1,), inside its head."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        volume = volumes[row]
        rebuilt = self.decode(self._scaled(self._kept.of(volumes, row)))
        inside = foreground(volume[0]).expand_as(volume[0])[None]
        error = float((volume - rebuilt)[inside].square().mean()) / DATA_RANGE**2
        # A box: the Gaussian of 11 voxels takes seconds a volume on a CPU.
        found = structural_similarity_index_measure(
            rebuilt,
            volume,
            gaussian_kernel=False,
            kernel_size=SSIM_VOXELS,
            data_range=DATA_RANGE,
            return_full_image=True,
        )
        return -10 * math.log10(max(error, LEAST_ERROR)), float(found[1][inside].mean())

    def _scaled(self, latents: Tensor) -> Tensor:
        return (latents - self.state["mean"]) / self.state["std"]

    def encode(self, volumes: Tensor) -> Items:
        """Return the standardised codes of volumes."""
        return Items(self._scaled(self.latents(volumes)))

    def items_of(self, volumes: Volumes, row: int) -> Items:
        """Return what `encode` does, encoded once a volume."""
        return Items(self._scaled(self._kept.of(volumes, torch.tensor([row]))))

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Return what `encode` does, encoded once a volume."""
        return Items(self._scaled(self._kept.of(volumes, rows)))

    @torch.no_grad()
    def decode(self, items: Tensor) -> Tensor:
        """Decode standardised codes, one volume at a time."""
        config = self.config
        inside: tuple[Any, ...] = (..., *(slice(size) for size in self.grid.shape))
        latents = items * self.state["std"] + self.state["mean"]
        make = self.autoencoder.from_latents
        tile = config.decode_tile or max(self.item_shape)
        return torch.cat(
            [
                in_tiles(make, z[None], tile, config.tile_overlap, config.factor)[inside]
                for z in latents
            ]
        )
