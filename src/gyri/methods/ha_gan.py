"""HA-GAN: volumes at full resolution, trained on a slab and a coarse image of the whole at once.

Sun et al., 2022, arXiv:2008.01910. A trunk makes coarse features of the whole item; one head makes
of them a coarse image, another the item at full resolution, in training a slab of it alone. Slabs
are of the last axis of an item: of a volume (I, J, K) that is K, foot to head, and they are stacks
of axial slices. Two encoders learn to invert the heads and never move them, as published.

Mended beside what `gyri.networks.ha_gan` says: a slab begins at a multiple of `scale`, so that real
and generated slabs are of the same place; the coarse image of a real item is its average over
cubes, not every fourth voxel; the generator has an average over steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from gyri.errors import UsageError
from gyri.methods.latent_gan import ClassicGANConfig
from gyri.networks.ha_gan import HALO
from gyri.nn.layers import POOLS
from gyri.registry import METHODS
from gyri.sampling.latent import decode_latents, draw_latents
from gyri.types import (
    Batch,
    ConditionLayout,
    ItemSpec,
    Lift,
    Loss,
    Method,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)

DISCRIMINATORS = ("slab_discriminator", "low_discriminator")
ENCODERS = ("slab_encoder", "code_encoder")
GENERATORS = ("trunk", "low_head", "high_head")
SLABS = 8
"""Published slabs are an eighth of the last axis."""


@dataclass(frozen=True, kw_only=True)
class HAGANConfig(ClassicGANConfig):
    """Settings of `HAGAN`; the defaults are the published ones. See `ClassicGANConfig`.

    Parameters
    ----------
    lr : of generator and encoders.
    discriminator_lr : of the discriminators.
    scale : voxels of an item along an axis of a voxel of the coarse features.
    feature_channels : of the coarse features.
    slab : voxels of a slab along the last axis, a multiple of `scale` and a divisor of that axis;
        none for an eighth of it.
    condition : how discriminators judge the condition: by ``projection``, or, as published, by an
        ``auxiliary`` classifier that reads it off the item.
    auxiliary_weight : of the auxiliary error in the generator's loss; the discriminators' has 1.
    encoder_every : steps between two updates of the encoders, which change no sample.
    slab_in_sampling : voxels of the last axis that a sample is made of at once, by crops that
        overlap; none for all. Bounds memory and changes no result.
    """

    latent_size: int = 1024
    betas: tuple[float, float] = (0.0, 0.999)
    lr: float = 1e-4
    discriminator_lr: float = 4e-4
    scale: int = 4
    feature_channels: int = 64
    slab: int | None = None
    condition: Literal["projection", "auxiliary"] = "projection"
    auxiliary_weight: float = 0.1
    encoder_every: int = 1
    slab_in_sampling: int | None = None

    def __post_init__(self) -> None:
        """Refuse encoders that are never due."""
        if self.encoder_every < 1:
            raise UsageError(
                f"encoder_every is {self.encoder_every}; it counts steps and is at least 1."
            )

    def slab_of(self, shape: tuple[int, ...]) -> int:
        """Return the thickness of a slab of items of `shape`.

        Raises
        ------
        UsageError
            If items have no whole coarse features, or slabs of that thickness do not fill them.
        """
        depth, slab = shape[-1], self.slab or shape[-1] // SLABS
        if any(size % self.scale for size in shape):
            raise UsageError(
                f"Items of shape {shape} have no coarse image at scale {self.scale}: every axis "
                "must be a multiple of it. Prepare another grid, or set method.scale to 2."
            )
        for name, thickness in (("slab", slab), ("slab_in_sampling", self.slab_in_sampling)):
            if thickness is not None and (
                thickness < 1 or thickness % self.scale or depth % thickness
            ):
                good = [n for n in range(self.scale, depth + 1, self.scale) if depth % n == 0]
                raise UsageError(
                    f"{name} is {thickness} of the {depth} voxels of the last axis; it must be a "
                    f"multiple of the scale, {self.scale}, and a divisor of the axis. Set "
                    f"method.{name} to one of {', '.join(map(str, good))}."
                )
        return slab


def rows_from(x: Tensor, start: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cut rows of the last axis, at a place of its own for every item.

    Parameters
    ----------
    x : (B, C, *S, K).
    start : (B,) int64, the first row; rows outside 0 to K-1 are copies of the border.
    count : rows to cut.

    Returns
    -------
    tuple[Tensor, Tensor]
        (B, C, *S, count), and (B, count), whether each row lies inside.
    """
    rows = start[:, None] + torch.arange(count, device=x.device)
    inside = (rows >= 0) & (rows < x.shape[-1])
    index = rows.clamp(0, x.shape[-1] - 1).reshape(len(x), *[1] * (x.ndim - 2), count)
    return x.gather(-1, index.expand(*x.shape[:-1], count)), inside


def auxiliary_error(layout: ConditionLayout, guessed: Tensor, condition: Tensor) -> Tensor:
    """Sum, over columns that are known, of cross-entropy (levels) or half the square (numbers).

    Parameters
    ----------
    guessed, condition : (B, D).

    Returns
    -------
    Tensor
        (B,); nothing for what is missing.
    """
    total = guessed.new_zeros(len(guessed))
    for start, stop in layout.slices:
        guess, value = guessed[:, start:stop], condition[:, start:stop]
        if stop - start > 1:
            error = cross_entropy(guess, value.argmax(1), reduction="none")
        else:
            error = (guess - value)[:, 0].square() / 2
        total = total + (1 - condition[:, stop]) * error
    return total


@METHODS.register("ha_gan", HAGANConfig)
class HAGAN(Method):
    """HA-GAN: full resolution on a slab, the whole at a coarse one; slabs of axial slices.

    Weak at few scans: its authors ask for 3000, below which it soon repeats itself. Nothing but the
    coarse image sees two slabs at once, so that fine structure need not agree between far slabs.
    """

    config: HAGANConfig
    phases = (
        Phase("discriminator", DISCRIMINATORS, "discriminator"),
        Phase("generator", GENERATORS, "generator"),
        *(Phase(encoder, (encoder,), encoder) for encoder in ENCODERS),
    )

    def __init__(self, config: HAGANConfig, spec: ItemSpec, networks: dict[str, nn.Module]) -> None:
        super().__init__(config, spec, networks)
        slow = OptimiserConfig(lr=config.lr, betas=config.betas, final_lr=config.final_lr)
        self.optimisers = dict.fromkeys(("generator", *ENCODERS), slow)
        self.optimisers["discriminator"] = OptimiserConfig(
            lr=config.discriminator_lr, betas=config.betas, final_lr=config.final_lr
        )
        for name in ("high_head", "slab_encoder"):
            scale = networks[name].scale
            if scale != config.scale:
                raise UsageError(
                    f"method.scale is {config.scale} and networks.{name} changes the grid by "
                    f"{scale}. A network with n widths changes it by 2**(n + 1)."
                )
        self.phases = tuple(
            replace(phase, every=config.encoder_every if phase.name in ENCODERS else 1)
            for phase in self.phases
        )
        self.slab_rows = config.slab_of(spec.shape) // config.scale
        self.rows = spec.shape[-1] // config.scale

    @classmethod
    def network_specs(cls, config: HAGANConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """Trunk and heads, a discriminator and an encoder for slabs and for the coarse whole."""
        slab = (*spec.shape[:-1], config.slab_of(spec.shape))
        low = tuple(size // config.scale for size in spec.shape)
        channels, wide = spec.channels, config.feature_channels
        conditions, positions = spec.condition.size, spec.position_size
        judged, verdicts = (
            (conditions, 1) if config.condition == "projection" else (0, 1 + conditions)
        )
        return {
            "trunk": NetworkSpec(0, wide, low, conditions, positions, config.latent_size),
            "low_head": NetworkSpec(wide, channels, low),
            "high_head": NetworkSpec(wide, channels, slab),
            "slab_discriminator": NetworkSpec(channels, 0, slab, judged, positions + 1, verdicts),
            "low_discriminator": NetworkSpec(channels, 0, low, judged, positions, verdicts),
            "slab_encoder": NetworkSpec(channels, wide, slab),
            "code_encoder": NetworkSpec(wide, 0, low, conditions, positions, config.latent_size),
        }

    @classmethod
    def default_networks(cls, config: HAGANConfig) -> dict[str, str]:
        """The networks of the paper; the encoder of codes is a common one."""
        return {
            "trunk": "ha_gan_trunk",
            "low_head": "ha_gan_low_head",
            "high_head": "ha_gan_high_head",
            "slab_discriminator": "ha_gan_discriminator",
            "low_discriminator": "ha_gan_discriminator",
            "slab_encoder": "ha_gan_slab_encoder",
            "code_encoder": "conv_encoder",
        }

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the averages of generator and encoders; discriminators have none."""
        return None if network in DISCRIMINATORS else self.config.ema_half_life_images or None

    def coarse(self, x: Tensor) -> Tensor:
        """Return items (B, C, *S) averaged over cubes of `scale` voxels."""
        return POOLS[x.ndim - 2](self.config.scale)(x)

    def slab(self, x: Tensor, start: Tensor) -> Tensor:
        """Return the slab of items (B, C, *S) that begins at row `start` (B,) of the features."""
        scale = self.config.scale
        return rows_from(x, start * scale, self.slab_rows * scale)[0]

    def starts(self, rng: SampleRng) -> Tensor:
        """Draw where each item's slab begins, (B,) int64 in rows of the features."""
        last = self.rows - self.slab_rows
        return (rng.uniform() * (last + 1)).long().clamp_max(last)

    def made(self, features: Tensor, start: Tensor, rows: int) -> Tensor:
        """Make `rows` rows of features (B, W, *S) at full resolution, from row `start` (B,) on."""
        crop, inside = rows_from(features, start - HALO, rows + 2 * HALO)
        return self.networks["high_head"](crop, inside).float()

    def _features(self, z: Tensor, batch: Batch) -> Tensor:
        return self.networks["trunk"](z, batch.condition, batch.position)

    def _pair(self, z: Tensor, batch: Batch, start: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slabs and the coarse images that the generator makes of z (B, L)."""
        features = self._features(z, batch)
        slab = self.made(features, start, self.slab_rows)
        return slab, self.networks["low_head"](features).float()

    def _real(self, batch: Batch, start: Tensor) -> tuple[Tensor, Tensor]:
        x = batch.x.float()
        return self.slab(x, start), self.coarse(x)

    def _verdicts(self, pair: tuple[Tensor, Tensor], batch: Batch, start: Tensor) -> Tensor:
        """Return the mean of what both discriminators say (B, 1 + D), the logit first."""
        place = (start / max(self.rows - self.slab_rows, 1))[:, None]
        at_slab = place if batch.position is None else torch.cat([batch.position, place], dim=1)
        given = batch.condition[:, : 0 if self.config.condition == "auxiliary" else None]
        slab, low = pair
        of_slab = self.networks["slab_discriminator"](slab, given, at_slab)
        of_low = self.networks["low_discriminator"](low, given, batch.position)
        return (of_slab.float() + of_low.float()) / 2

    def _auxiliary(self, verdicts: Tensor, batch: Batch) -> Tensor:
        """Return the error (B,) of the auxiliary classifiers, 0 where there are none."""
        if self.config.condition == "projection":
            return verdicts.new_zeros(len(batch))
        return auxiliary_error(self.spec.condition, verdicts[:, 1:], batch.condition)

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the loss of a phase; the loop keeps all networks but the phase's as they are."""
        losses = {
            "discriminator": self._discriminator_loss,
            "generator": self._generator_loss,
            "slab_encoder": self._slab_encoder_loss,
            "code_encoder": self._code_encoder_loss,
        }
        return losses[phase](batch, rng)

    def _discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``-ln D(x) - ln(1 - D(fake))``, real and fake of one place; the auxiliary of reals."""
        start = self.starts(rng)
        with torch.no_grad():
            fake = self._pair(rng.normal((self.config.latent_size,)), batch, start)
        of_real = self._verdicts(self._real(batch, start), batch, start)
        logits_real, logits_fake = of_real[:, 0], self._verdicts(fake, batch, start)[:, 0]
        auxiliary = self._auxiliary(of_real, batch)
        return Loss(
            (softplus(-logits_real) + softplus(logits_fake) + auxiliary).mean(),
            {
                "logits_real": logits_real.mean().detach(),
                "logits_fake": logits_fake.mean().detach(),
                "auxiliary": auxiliary.mean().detach(),
            },
        )

    def _generator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``-ln D(fake)``, and the auxiliary error of fakes that carry the batch's labels."""
        start = self.starts(rng)
        pair = self._pair(rng.normal((self.config.latent_size,)), batch, start)
        verdicts = self._verdicts(pair, batch, start)
        adversarial = softplus(-verdicts[:, 0])
        auxiliary = self._auxiliary(verdicts, batch)
        return Loss(
            (adversarial + self.config.auxiliary_weight * auxiliary).mean(),
            {
                "adversarial": adversarial.mean().detach(),
                "auxiliary": auxiliary.mean().detach(),
            },
        )

    def _slab_encoder_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``|G^H(E^H(slab)) - slab|``, a mean over voxels; the slab is taken as a whole item."""
        slab = self.slab(batch.x.float(), self.starts(rng))
        features = self.networks["slab_encoder"](slab)
        rebuilt = self.made(features, features.new_zeros(len(slab)).long(), self.slab_rows)
        return Loss((rebuilt - slab).abs().mean())

    def _encoded(self, batch: Batch) -> Tensor:
        """Return the codes (B, L) of features that the other encoder finds slab by slab."""
        slabs = batch.x.float().split(self.slab_rows * self.config.scale, dim=-1)
        with torch.no_grad():
            features = torch.cat([self.networks["slab_encoder"](slab) for slab in slabs], dim=-1)
        return self.networks["code_encoder"](features, batch.condition, batch.position).float()

    def _code_encoder_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``(|slab - rebuilt| + |coarse - rebuilt|) / 2``, both means over voxels."""
        start = self.starts(rng)
        slab, low = self._pair(self._encoded(batch), batch, start)
        real_slab, real_low = self._real(batch, start)
        of_slab, of_low = (slab - real_slab).abs().mean(), (low - real_low).abs().mean()
        logs = {"slab": of_slab.detach(), "low": of_low.detach()}
        return Loss((of_slab + of_low) / 2, logs)

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tensor:
        """Return the code (B, L) of each item."""
        return self._encoded(batch)

    @torch.no_grad()
    def decode(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return whole items (B, C, *S) of codes (B, L), `slab_in_sampling` voxels at a time."""
        features = self.networks["trunk"](z, condition, position)
        rows = (self.config.slab_in_sampling or self.spec.shape[-1]) // self.config.scale
        start = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        slabs = [self.made(features, start + at, rows) for at in range(0, self.rows, rows)]
        return torch.cat(slabs, dim=-1)

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        """Decode the code of each item."""
        return self.decode(self._encoded(batch), batch.condition, batch.position)

    @torch.no_grad()
    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Sample whole volumes (V, C, I, J, K).

        Parameters
        ----------
        lift : how items sit in a volume; also says where they lie.
        condition : (V, D).
        rng : one stream a volume; draws its z or those of its items.
        """
        config = self.config
        z = draw_latents(rng, config.latent_size, self.spec.items_per_volume, config.z_per)
        return decode_latents(self.decode, z, lift, condition, config.items_per_call)
