"""StyleGAN2 with adaptive augmentation, for slices and volumes.

Karras et al., 2020, arXiv:1912.04958 (lazy R1, path length) and arXiv:2006.06676 (ADA); R1 of
Mescheder et al., 2018, arXiv:1801.04406; top-k of Sinha et al., 2020, arXiv:2002.06224; feature
quantisation of Zhao et al., 2020, arXiv:2004.02088.

A fake takes condition and position of a real item, which is a draw from the data's marginal as
published. In the discriminator's phase it shares the batch with that item; the loss being a sum of
a term of reals and one of fakes, its mean is the same. Of a path length's running mean the one
before the step is used, so that items do not depend on each other. A gradient that is not finite
stops training instead of being replaced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gyri.capabilities import StyleStage
from gyri.errors import UsageError
from gyri.methods.latent_gan import LatentConfig, LatentGAN
from gyri.methods.r3gan import squared_norm
from gyri.methods.top_k import TopKConfig, top_k_weights
from gyri.nn.adaptive_augment import ADAConfig, augmented
from gyri.nn.quantise import Quantised, perplexity
from gyri.registry import METHODS
from gyri.sampling.latent import decode_latents, draw_latents, of_items
from gyri.types import (
    Batch,
    ItemSpec,
    Lift,
    Loss,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)

REFERENCE_BATCH = 32
"""Of the rule for gamma."""
CENTRE_CODES = 64
"""Codes whose mean w is the centre of truncation of a condition."""
CALIBRATION_ITEMS = 64
ADAM_BETAS = (0.0, 0.99)
STYLED = ("map", "synthesise", "style_stages", "num_layers", "noise_size", "w_average")
"""Members of a `StyleGenerator`."""


@dataclass(frozen=True, kw_only=True)
class StyleGAN2Config(LatentConfig):
    """Settings of `StyleGAN2`; the defaults are StyleGAN2-ADA's without its augmentation.

    See `gyri.methods.latent_gan.LatentConfig` for ``z_per`` and ``items_per_call``. Forms of the
    networks, attention and feature quantisation are settings of the networks.

    Parameters
    ----------
    latent_size : length of z.
    lr : of Adam with betas (0, 0.99), for both networks; corrected for lazy regularisation.
    gamma : weight of R1, none for `scaled_gamma` of the item's shape at a batch of 32. Sweep it in
        factors of 4; 0 switches R1 off.
    r1_every : steps between two of R1, which then counts that much more.
    path_weight : of the path length penalty, 0 switches it off.
    path_every : steps between two of it, which then counts that much more.
    path_shrink : one of so many items of a batch takes part in it.
    path_decay : share of a step's mean in the running mean of path lengths.
    style_mixing : probability that the layers of an item behind a random one follow another z.
    w_decay : weight of the past in the running mean of w.
    ema_half_life_images : of the generator's average; 0 for none.
    ema_ramp : the half-life is at most this share of the images seen; 0 for no ramp.
    commitment : weight of the distance to the codes, where the discriminator has codebooks.
    ada : adaptive augmentation, see `gyri.nn.adaptive_augment.ADAConfig`; none by default.
    top_k : see `gyri.methods.top_k.TopKConfig`; none by default.
    truncation : share of the way from the mean w to its own that an item's w keeps in sampling.
    truncation_centre : ``condition``, the mean w of the item's own condition and position, so that
        these stay what they are, or ``all``, the running mean over all, as published.
    sampling_noise : ``random`` maps of each item's own, the same ``constant`` ones for every item,
        or ``none``.
    """

    latent_size: int = 512
    lr: float = 2.5e-3
    gamma: float | None = None
    r1_every: int = 16
    path_weight: float = 2.0
    path_every: int = 4
    path_shrink: int = 2
    path_decay: float = 0.01
    style_mixing: float = 0.9
    w_decay: float = 0.995
    ema_half_life_images: float = 10_000.0
    ema_ramp: float = 0.05
    commitment: float = 0.25
    ada: ADAConfig | None = None
    top_k: TopKConfig | None = None
    truncation: float = 1.0
    truncation_centre: Literal["condition", "all"] = "condition"
    sampling_noise: Literal["random", "constant", "none"] = "random"

    def __post_init__(self) -> None:
        """Refuse intervals of less than a step and probabilities that are none."""
        if min(self.r1_every, self.path_every, self.path_shrink) < 1:
            raise UsageError(
                f"r1_every={self.r1_every}, path_every={self.path_every} and "
                f"path_shrink={self.path_shrink}; each is 1 or more. Switch R1 off with gamma=0 "
                "and the path length with path_weight=0."
            )
        if not 0 <= self.style_mixing <= 1:
            raise UsageError(f"style_mixing is {self.style_mixing:g}; expected 0 to 1.")


class StyleGenerator(Protocol):
    """What the method asks of a generator besides being one."""

    num_layers: int
    noise_size: int
    w_average: Tensor

    def map(self, z: Tensor, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """Return w (B, W)."""
        ...

    def style_stages(self) -> tuple[StyleStage, ...]:
        """Return the stages, the smallest grid first."""
        ...

    def synthesise(
        self, w: Tensor, noise: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Return items of w (B, W) or (B, num_layers, W), noise (B, noise_size) and images."""
        ...


@runtime_checkable
class Quantising(Protocol):
    """What the method asks of a discriminator that has codebooks."""

    def judge(self, x: Tensor, condition: Tensor, position: Tensor | None = None) -> Any:
        """Return logits (B,), commitment (B,) and codes by stage."""
        ...

    def start_codes(self, x: Tensor) -> None:
        """Take the first codes from real items."""
        ...

    def update_codes(self, name: str, counts: Tensor, sums: Tensor) -> None:
        """Move a stage's codes."""
        ...


def scaled_gamma(shape: tuple[int, ...]) -> float:
    """StyleGAN2-ADA's rule ``0.0002 voxels / batch``, at a batch of 32."""
    return 0.0002 * math.prod(shape) / REFERENCE_BATCH


def mixed(w: Tensor, other: Tensor, cut: Tensor) -> Tensor:
    """Give each item `w` (B, L, W) up to a layer, from `cut` (B,) on `other` (B, L, W)."""
    layer = torch.arange(w.shape[1], device=w.device)
    return torch.where((layer < cut[:, None])[..., None], w, other)


def path_lengths(items: Tensor, w: Tensor, direction: Tensor) -> Tensor:
    """Return how far items (B, C, *S) move along a direction with w (B, L, W); (B,).

    ``sqrt(mean over layers |d(items . direction) / dw|^2)``, differentiable.
    """
    scaled = direction / math.sqrt(math.prod(items.shape[2:]))
    (slope,) = torch.autograd.grad((items * scaled).sum(), w, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


@METHODS.register("stylegan2", StyleGAN2Config)
class StyleGAN2(LatentGAN):
    """StyleGAN2 in 2D and 3D: logistic loss, lazy R1 and path length, ADA, top-k, codebooks."""

    config: StyleGAN2Config

    def __init__(
        self, config: StyleGAN2Config, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        if missing := [name for name in STYLED if not hasattr(networks["generator"], name)]:
            raise UsageError(
                "StyleGAN2 needs a generator that maps z to w and makes items of w; "
                f"{type(networks['generator']).__name__} has no {', '.join(missing)}. Name "
                "`stylegan2_generator` under networks.generator."
            )
        self.gamma = scaled_gamma(spec.shape) if config.gamma is None else config.gamma
        self.phases = self._phases()
        self.optimisers = {
            "discriminator": self._adam(config.r1_every if self.gamma else 0),
            "generator": self._adam(config.path_every if config.path_weight else 0),
        }
        groups = [getattr(networks["discriminator"], "group", 1)]
        if config.path_weight:
            groups.append(config.path_shrink)
        if config.top_k is not None:
            groups.append(config.top_k.group)
            if config.top_k.column is not None:
                spec.condition.levels(config.top_k.column, "Top-k ranks within levels of one")
        self.group = math.lcm(*groups)
        self.state = {"path_mean": torch.tensor(0.0)}
        if config.ada is not None:
            self.state |= config.ada.initial()

    @classmethod
    def default_networks(cls, config: StyleGAN2Config) -> dict[str, str]:
        """The networks of the paper."""
        return {"generator": "stylegan2_generator", "discriminator": "stylegan2_discriminator"}

    @classmethod
    def network_specs(cls, config: StyleGAN2Config, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """Both networks see the images that are given."""
        given = sum(spec.context.values())
        specs = super().network_specs(config, spec)
        return {name: replace(own, context_channels=given) for name, own in specs.items()}

    def _phases(self) -> tuple[Phase, ...]:
        config, own = self.config, {phase.name: phase for phase in LatentGAN.phases}
        phases = [own["discriminator"]]
        if self.gamma:
            phases.append(Phase("r1", ("discriminator",), "discriminator", config.r1_every))
        phases.append(own["generator"])
        if config.path_weight:
            phases.append(Phase("path", ("generator",), "generator", config.path_every))
        return tuple(phases)

    def _adam(self, every: int) -> OptimiserConfig:
        """Adam that takes one step more in `every`, slowed so that it goes as far."""
        ratio = every / (every + 1) if every else 1.0
        first, second = ADAM_BETAS
        betas = (first**ratio, second**ratio)
        return OptimiserConfig(lr=self.config.lr * ratio, betas=betas, eps=1e-8)

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life of the generator's average; the discriminator has none."""
        config = self.config
        if network != "generator" or config.ema_half_life_images == 0:
            return None
        ramp = config.ema_ramp * progress.images_seen if config.ema_ramp else math.inf
        return max(min(config.ema_half_life_images, ramp), 1e-8)

    @property
    def _generator(self) -> StyleGenerator:
        return cast(StyleGenerator, self.networks["generator"])

    def calibrate(self, items: Tensor, context: Mapping[str, Tensor] | None = None) -> None:
        """Take the first codes from features of TRAIN items, if there are codebooks."""
        discriminator = self.networks["discriminator"]
        if isinstance(discriminator, Quantising):
            few = items[:CALIBRATION_ITEMS]
            given = sum(self.spec.context.values())
            empty = few.new_full((len(few), given, *few.shape[2:]), -1.0)
            discriminator.start_codes(torch.cat([few, empty], dim=1))

    def styles(self, batch: Batch, rng: SampleRng) -> tuple[Tensor, Tensor]:
        """Draw styles of the batch's conditions: w (B, L, W) after mixing, and w (B, W) before."""
        generator, size = self._generator, self.config.latent_size
        z, other = rng.normal((2, size)).unbind(1)
        draws = rng.uniform((2,))
        w = generator.map(z, batch.condition, batch.position)
        layers = w[:, None].expand(-1, generator.num_layers, -1)
        if self.config.style_mixing == 0:
            return layers, w
        cut = 1 + (draws[:, 0] * (generator.num_layers - 1)).long()
        whole = draws[:, 1] >= self.config.style_mixing
        cut = torch.where(whole, generator.num_layers, cut)
        second = generator.map(other, batch.condition, batch.position)[:, None]
        return mixed(layers, second.expand_as(layers), cut), w

    def _noise(self, rng: SampleRng) -> Tensor:
        return rng.normal((self._generator.noise_size,))

    def _fake(self, w: Tensor, noise: Tensor, batch: Batch) -> Tensor:
        """Make items (B, C, *S) float32 that follow the images of the batch, if it has any."""
        given = list(batch.context.values())
        context = torch.cat(given, dim=1) if given else None
        return self._generator.synthesise(w, noise, context).float()

    def _judged(
        self, x: Tensor, batch: Batch, rng: SampleRng
    ) -> tuple[Tensor, Tensor, dict[str, Quantised]]:
        """Augment; return logits (B,), commitment (B,) and codes of the discriminator.

        Images that are given move with the items.
        """
        ada, discriminator = self.config.ada, self.networks["discriminator"]
        own = x.shape[1]
        x = torch.cat([x, *batch.context.values()], dim=1)
        if ada is not None:
            x = augmented(x, ada.augmentation, float(self.state["ada_p"]), rng, own)
        if isinstance(discriminator, Quantising):
            found = discriminator.judge(x, batch.condition, batch.position)
            return found.logits.float(), found.commitment, found.codes
        logits = discriminator(x, batch.condition, batch.position).float()
        return logits, torch.zeros_like(logits), {}

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Return the loss of one of the phases: discriminator, r1, generator, path."""
        if phase == "discriminator":
            return self._discriminator_loss(batch, rng)
        if phase == "generator":
            return self._generator_loss(batch, progress, rng)
        return self._r1(batch, rng) if phase == "r1" else self._path(batch, rng)

    def _discriminator_loss(self, batch: Batch, rng: SampleRng) -> Loss:
        """``softplus(-D(x)) + softplus(D(fake))``."""
        with torch.no_grad():
            layers, _ = self.styles(batch, rng)
            fake = self._fake(layers, self._noise(rng), batch)
        logits_real, committed_real, codes_real = self._judged(batch.x.float(), batch, rng)
        logits_fake, committed_fake, codes_fake = self._judged(fake, batch, rng)
        adversarial = softplus(-logits_real) + softplus(logits_fake)
        commitment = committed_real + committed_fake
        total = (adversarial + self.config.commitment * commitment).mean()
        logs = {
            "adversarial": adversarial.mean().detach(),
            "logits_real": logits_real.mean().detach(),
            "logits_fake": logits_fake.mean().detach(),
        }
        signs = logits_real.detach().sign()
        statistics = {"signs": torch.stack([signs.sum(), signs.new_tensor(len(signs))])}
        if "ada_p" in self.state:
            logs["ada_p"] = self.state["ada_p"]
        for name, real in codes_real.items():
            counts = real.counts + codes_fake[name].counts
            logs[f"perplexity_{name}"] = perplexity(counts)
            statistics[f"counts_{name}"] = counts
            statistics[f"sums_{name}"] = real.sums + codes_fake[name].sums
        if codes_real:
            logs["commitment"] = commitment.mean().detach()
        return Loss(total, logs, statistics)

    def _r1(self, batch: Batch, rng: SampleRng) -> Loss:
        """``gamma / 2 |dD(x) / dx|^2``, with respect to items before augmentation."""
        real = batch.x.detach().float().requires_grad_()
        logits, _, _ = self._judged(real, batch, rng)
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        r1 = squared_norm(slope).mean()
        return Loss(self.gamma / 2 * r1 * self.config.r1_every, {"r1": r1.detach()})

    def _generator_loss(self, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """``softplus(-D(fake))``, of the most realistic fakes where `top_k` says so."""
        layers, w = self.styles(batch, rng)
        fake = self._fake(layers, self._noise(rng), batch)
        logits, commitment, _ = self._judged(fake, batch, rng)
        each = softplus(-logits)
        weights = self._weights(logits, batch, progress)
        total = (weights * (each + self.config.commitment * commitment)).sum()
        of_w = torch.cat([w.detach().float().sum(0), w.new_tensor([float(len(w))]).float()])
        return Loss(total, {"adversarial": each.mean().detach()}, {"w": of_w})

    def _weights(self, logits: Tensor, batch: Batch, progress: Progress) -> Tensor:
        """Return the weight (B,) of each fake in the generator's loss."""
        top_k, spec = self.config.top_k, self.spec
        if top_k is None:
            return torch.full_like(logits, 1 / len(logits))
        levels: Tensor | None = None
        if top_k.column is not None:
            start, stop = spec.condition.slices[top_k.column]
            # The missing bit behind the levels is a level of its own.
            levels = batch.condition[:, start : stop + 1].argmax(1)
        epochs = progress.images_seen / max(spec.num_train * spec.items_per_volume, 1)
        return top_k_weights(logits, levels, top_k.share(epochs), top_k.group)

    def _path(self, batch: Batch, rng: SampleRng) -> Loss:
        """``(a - mean)^2`` of the path lengths a, for one in `path_shrink` items."""
        config = self.config
        few = slice(None, None, config.path_shrink)
        layers, _ = self.styles(batch, rng)
        noise = self._noise(rng)[few]
        direction = rng.normal((self.spec.channels, *self.spec.shape))[few]
        w = layers[few]
        lengths = path_lengths(self._fake(w, noise, batch[few]), w, direction)
        penalty = (lengths - self.state["path_mean"]).square().mean()
        total = config.path_weight * config.path_every * penalty
        found = lengths.detach()
        statistics = {"lengths": torch.stack([found.sum(), found.new_tensor(len(found))])}
        return Loss(total, {"penalty": penalty.detach(), "length": found.mean()}, statistics)

    @torch.no_grad()
    def after_step(self, phase: str, statistics: dict[str, Tensor]) -> None:
        """Move what is averaged: w, path lengths, codes, and ADA's p."""
        config = self.config
        if phase == "generator":
            total = statistics["w"]
            self._generator.w_average.lerp_(total[:-1] / total[-1], 1 - config.w_decay)
        if phase == "path":
            total, count = statistics["lengths"]
            mean = self.state["path_mean"]
            self.state["path_mean"] = mean.lerp(total / count, config.path_decay)
        if phase != "discriminator":
            return
        if config.ada is not None:
            self.state |= config.ada.moved(self.state, statistics["signs"])
        discriminator = self.networks["discriminator"]
        if isinstance(discriminator, Quantising):
            for key, counts in statistics.items():
                if key.startswith("counts_"):
                    name = key.removeprefix("counts_")
                    discriminator.update_codes(name, counts, statistics[f"sums_{name}"])

    @torch.no_grad()
    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Sample volumes (V, C, I, J, K).

        Parameters
        ----------
        lift : how items sit in a volume; also says where they lie.
        condition : (V, D).
        rng : one stream a volume; draws its z and noise or those of its items.

        Raises
        ------
        UsageError
            If the method was trained with images to follow.
        """
        if self.spec.context:
            raise UsageError(
                f"This model makes images that follow {', '.join(self.spec.context)}; give a "
                "prepared cohort to take them from."
            )
        return self.sample_given(lift, condition, {}, rng)

    @torch.no_grad()
    def sample_given(
        self, lift: Lift, condition: Tensor, context: Mapping[str, Tensor], rng: SampleRng
    ) -> Tensor:
        """Sample volumes that follow the images `context` (V, C', I, J, K); see `sample`."""
        config, generator, items = self.config, self._generator, self.spec.items_per_volume
        z = draw_latents(rng, config.latent_size, items, config.z_per)
        if config.sampling_noise == "random":
            z = torch.cat([z, draw_latents(rng, generator.noise_size, items, "item")], dim=1)
        images = [context[name] for name in self.spec.context]
        given = torch.cat(images, dim=1) if images else None
        return decode_latents(self._decoded, z, lift, condition, config.items_per_call, given)

    def _decoded(
        self,
        code: Tensor,
        condition: Tensor,
        position: Tensor | None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Make items of z and, where noise is random, the noise behind it."""
        generator, size = self._generator, self.config.latent_size
        z, noise = code[:, :size], code[:, size:]
        w = self._truncated(z, condition, position)
        if self.config.sampling_noise == "none":
            noise = z.new_zeros(len(z), generator.noise_size)
        constant = self.config.sampling_noise == "constant"
        return generator.synthesise(w, None if constant else noise, context)

    def _truncated(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return w (B, W) of z, drawn towards the centre."""
        w, share = self._generator.map(z, condition, position), self.config.truncation
        if share == 1:
            return w
        if self.config.truncation_centre == "all":
            return self._generator.w_average.lerp(w, share)
        return self._mean_w(condition, position).lerp(w, share)

    def _mean_w(self, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return the mean w (B, W) of each item's condition and position."""
        num = CENTRE_CODES
        # The same codes for every item: points of a quadrature, no randomness.
        codes = torch.randn(
            num, self.config.latent_size, generator=torch.Generator().manual_seed(0)
        ).to(condition)
        repeated = None if position is None else position.repeat_interleave(num, dim=0)
        w = self._generator.map(
            codes.repeat(len(condition), 1), condition.repeat_interleave(num, dim=0), repeated
        )
        return w.unflatten(0, (-1, num)).mean(1)

    def style_stages(self) -> tuple[StyleStage, ...]:
        """Return the generator's stages, the smallest grid first."""
        return self._generator.style_stages()

    @torch.no_grad()
    def styles_of(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Return the styles (V * items, L, W) of what `sample` makes of the same streams."""
        config, items = self.config, self.spec.items_per_volume
        z = draw_latents(rng, config.latent_size, items, config.z_per)
        return self._layers(self._truncated(z, *of_items(lift, condition, items)))

    @torch.no_grad()
    def mean_styles(self, lift: Lift, condition: Tensor) -> Tensor:
        """Return the mean styles (V * items, L, W) of conditions (V, D)."""
        return self._layers(self._mean_w(*of_items(lift, condition, self.spec.items_per_volume)))

    def _layers(self, w: Tensor) -> Tensor:
        return w[:, None].repeat(1, self._generator.num_layers, 1)

    def from_styles(self, styles: Tensor) -> Tensor:
        """Return items (B, C, *S) of styles (B, L, W), the noise being none or the constant one."""
        noise: Tensor | None = None
        if self.config.sampling_noise == "none":
            noise = styles.new_zeros(len(styles), self._generator.noise_size)
        return self._generator.synthesise(styles, noise)
