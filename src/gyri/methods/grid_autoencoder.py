"""What autoencoders whose code is a small grid share: range, borders, patches, an adversary.

Rombach et al., 2022, arXiv:2112.10752. Errors of voxels are averaged over an item, so that weights
mean the same on every grid. No perceptual loss is offered: the published ones look at slices with
networks of photographs, whose weights are no part of gyri. The discriminator is PatchGAN's (Isola
et al., 2017, arXiv:1611.07004) with the least squares of Mao et al., 2017, arXiv:1611.04076.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.errors import UsageError
from gyri.types import (
    Batch,
    ItemSpec,
    Loss,
    Method,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)


@dataclass(frozen=True, kw_only=True)
class GridAutoencoderConfig:
    """Settings of every `GridAutoencoder`.

    Parameters
    ----------
    reconstruction : error of a voxel, ``l1`` or ``mse``; averaged over an item.
    reconstruction_weight : of it.
    adversarial : weight of the discriminator's opinion, 0 for no discriminator.
    adversarial_start : share of the horizon before which there is none.
    patch : train on boxes of that size, cut anywhere from an item; where an axis of the item is
        shorter, all of it. None trains on whole items.
    unit_range : the networks see and make intensities in [0, 1], as published, not in [-1, 1].
    optimiser, discriminator_optimiser : see `OptimiserConfig`.
    ema_half_life_images : half-life of the moving average of the weights that are used after
        training, 0 for none; in the beginning it is at most `ema_ramp` times the images seen.
    """

    reconstruction: Literal["l1", "mse"] = "l1"
    reconstruction_weight: float = 1.0
    adversarial: float = 0.0
    adversarial_start: float = 0.3
    patch: tuple[int, ...] | None = None
    unit_range: bool = False
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(lr=1e-4, clip_norm=1.0)
    )
    discriminator_optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(lr=2e-4, betas=(0.5, 0.999))
    )
    ema_half_life_images: float = 0.0
    ema_ramp: float = 0.05

    def __post_init__(self) -> None:
        """Refuse weights below 0 and a share that is none."""
        if min(self.adversarial, self.reconstruction_weight) < 0:
            raise UsageError(
                f"adversarial is {self.adversarial:g} and reconstruction_weight "
                f"{self.reconstruction_weight:g}; weights are at least 0."
            )
        if not 0 <= self.adversarial_start <= 1:
            raise UsageError(
                f"adversarial_start is {self.adversarial_start:g}; it is a share from 0 to 1."
            )


class GridNetwork(Protocol):
    """What every such method asks of its autoencoder; how it encodes is the family's."""

    factor: int
    latent_channels: int

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, C', *S') -> (B, C, *S' factor)."""
        ...


class Coded(NamedTuple):
    """What the loss needs to know of the code of items.

    Parameters
    ----------
    z : (B, C', *S') that is decoded.
    penalty : (B,), weighted.
    logs : means over the batch.
    statistics : for `Method.after_step`.
    """

    z: Tensor
    penalty: Tensor
    logs: dict[str, Tensor]
    statistics: dict[str, Tensor]


def per_item(values: Tensor) -> Tensor:
    """Return the mean (B,) over everything but the items."""
    return values.flatten(1).mean(1)


def padded(x: Tensor, factor: int) -> Tensor:
    """Repeat the last voxels of (B, C, *S) until every axis is a multiple of `factor`."""
    short = [-size % factor for size in x.shape[2:]]
    if not any(short):
        return x
    return functional.pad(x, [n for size in reversed(short) for n in (0, size)], mode="replicate")


def cropped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `padded`: (B, C, *S) -> (B, C, *shape)."""
    inside: tuple[Any, ...] = (..., *(slice(size) for size in shape))
    return x[inside]


class GridAutoencoder(Method):
    """An encoder to a small grid of codes and a decoder; see the module.

    Subclasses write `_coded`, `_encoded` and `_decodable`. It follows no conditions: the models of
    its codes do.
    """

    config: Any

    def __init__(
        self, config: GridAutoencoderConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        phases = [Phase("autoencoder", ("autoencoder",), "autoencoder")]
        self.optimisers = {"autoencoder": config.optimiser}
        if config.adversarial:
            phases.append(Phase("discriminator", ("discriminator",), "discriminator"))
            self.optimisers["discriminator"] = config.discriminator_optimiser
        self.phases = tuple(phases)

    @classmethod
    def network_specs(cls, config: Any, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The autoencoder turns items into items; the discriminator sees what is trained on."""
        if spec.condition.size:
            raise UsageError(
                "An autoencoder to a grid of codes follows no conditions. Leave `conditions` out, "
                "and name them in the recipe of the model of its codes."
            )
        if config.patch is not None and len(config.patch) != spec.dims:
            raise UsageError(
                f"patch has {len(config.patch)} axes and items have {spec.dims}. Give one size an "
                "axis."
            )
        specs = {"autoencoder": NetworkSpec(spec.channels, spec.channels, spec.shape)}
        if config.adversarial:
            specs["discriminator"] = NetworkSpec(spec.channels, 0, _trained_shape(config, spec))
        return specs

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the autoencoder's average; the discriminator has none."""
        if network != "autoencoder" or self.config.ema_half_life_images == 0:
            return None
        ramped = self.config.ema_ramp * progress.images_seen
        return max(min(self.config.ema_half_life_images, ramped), 1e-8)

    def private_refusal(self) -> str | None:
        """Refused: it is of use to a recipe that needs it, and such are refused themselves."""
        return "what stands on an autoencoder cannot be trained privately"

    # --- what a family says -------------------------------------------------------------------

    def _coded(self, seen: Tensor, rng: SampleRng) -> Coded:
        """Return the codes with which the network is trained."""
        raise NotImplementedError

    def _encoded(self, seen: Tensor) -> Tensor:
        """Return codes (B, C', *S') without noise, where they are continuous."""
        raise NotImplementedError

    def _decodable(self, z: Tensor) -> Tensor:
        """Return codes (B, C', *S') as the decoder takes them."""
        return z

    # --- codes --------------------------------------------------------------------------------

    @property
    def _grid_network(self) -> GridNetwork:
        return cast(GridNetwork, self.networks["autoencoder"])

    @property
    def factor(self) -> int:
        """Voxels of an item along each axis for one of its code."""
        return self._grid_network.factor

    @property
    def latent_channels(self) -> int:
        """Channels of the code."""
        return self._grid_network.latent_channels

    def latents(self, x: Tensor) -> Tensor:
        """Return codes (B, C', *S') of items (B, C, *S) in [-1, 1], without noise.

        ``S' = ceil(S / factor)``: borders are repeated where `factor` does not divide an axis.
        """
        return self._encoded(self._seen(x))

    def from_latents(self, z: Tensor) -> Tensor:
        """Return (B, C, *S' factor) in [-1, 1] of codes (B, C', *S') on any grid."""
        return self._unseen(self._grid_network.decode(self._decodable(z)))

    def _seen(self, x: Tensor) -> Tensor:
        """Bring items to the range and grid of the networks."""
        x = padded(x, self.factor)
        return (x + 1) / 2 if self.config.unit_range else x

    def _unseen(self, x: Tensor) -> Tensor:
        x = x.float()
        return 2 * x - 1 if self.config.unit_range else x

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Encode and decode items, without noise."""
        rebuilt = self.from_latents(self.latents(batch.x))
        return cropped(rebuilt, tuple(batch.x.shape[2:]))

    @torch.no_grad()
    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return the error (B,) of the reconstruction without noise."""
        return self._error(batch.x, self.reconstruct(batch))

    # --- training -----------------------------------------------------------------------------

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the loss of the autoencoder or of the discriminator."""
        begun = progress.fraction >= self.config.adversarial_start
        if phase == "discriminator":
            return self._discriminator_loss(batch, rng) if begun else self._no_opinion()
        x = self._cut(batch.x, rng)
        rebuilt, coded = self._rebuilt(x, rng)
        error = self._error(x, rebuilt)
        each = self.config.reconstruction_weight * error + coded.penalty
        logs = {"reconstruction": error.mean().detach(), **coded.logs}
        if self.config.adversarial and begun:
            adversarial = per_item((self._realness(rebuilt) - 1).square())
            each = each + self.config.adversarial * adversarial
            logs["adversarial"] = adversarial.mean().detach()
        return Loss(each.mean(), logs, coded.statistics)

    def _cut(self, x: Tensor, rng: SampleRng) -> Tensor:
        """Cut a box from each item where the recipe trains on boxes."""
        if self.config.patch is None:
            return x
        size = _trained_shape(self.config, self.spec)
        room = torch.tensor([have - want + 1 for have, want in zip(x.shape[2:], size)])
        first = (rng.uniform((len(size),)).cpu() * room).long()
        boxes = [
            item[(slice(None), *(slice(a, a + n) for a, n in zip(start, size)))]
            for item, start in zip(x, first.tolist())
        ]
        return torch.stack(boxes)

    def _rebuilt(self, x: Tensor, rng: SampleRng) -> tuple[Tensor, Coded]:
        coded = self._coded(self._seen(x), rng)
        made = self._unseen(self._grid_network.decode(coded.z))
        return cropped(made, tuple(x.shape[2:])), coded

    def _error(self, x: Tensor, rebuilt: Tensor) -> Tensor:
        """Error (B,) in the range that the networks see."""
        residual = (x - rebuilt) / (2 if self.config.unit_range else 1)
        return per_item(residual.abs() if self.config.reconstruction == "l1" else residual.square())

    def _realness(self, x: Tensor) -> Tensor:
        """What the discriminator says of the patches of items in [-1, 1], (B, 1, *patches)."""
        return self.networks["discriminator"](x).float()

    def _discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        x = self._cut(batch.x, rng)
        with torch.no_grad():
            rebuilt, _ = self._rebuilt(x, rng)
        real = per_item((self._realness(x) - 1).square()) / 2
        fake = per_item(self._realness(rebuilt).square()) / 2
        logs = {"real": real.mean().detach(), "fake": fake.mean().detach()}
        return Loss((real + fake).mean(), logs)

    def _no_opinion(self) -> Loss:
        """A loss of nothing, before the discriminator's time: weights stay where they are."""
        nothing = [0 * p.sum() for p in self.networks["discriminator"].parameters()]
        return Loss(torch.stack(nothing).sum())


def _trained_shape(config: GridAutoencoderConfig, spec: ItemSpec) -> tuple[int, ...]:
    """Return the shape of what one item gives to training."""
    if config.patch is None:
        return spec.shape
    return tuple(min(want, have) for want, have in zip(config.patch, spec.shape))
