"""What every model of noised items shares, whatever its process: diffusion and flow.

The network is trained on noised items and never sees a volume; sampling lifts it to volumes
(`gyri.sampling.lifted`). A family says which levels it draws, and what of a clean item is known
before the network has spoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.sampling.draw import (
    Classifier,
    DrawingConfig,
    Given,
    draw_volumes,
    edit_volumes,
    guided,
    last_levels,
)
from gyri.sampling.lifted import ItemDenoiser
from gyri.sampling.preconditioning import over_items
from gyri.sampling.schedules import Level
from gyri.types import (
    Batch,
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

SCORE_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where in the distribution of training levels `Denoising.score` asks the network."""


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """Settings of every `Denoising` method.

    Parameters
    ----------
    residual : image of ``data.context``, or one that the view gives, from which items are told
        apart: what is noised and learned is the item minus that image, which has as many channels.
    penalties : weight of each of the view's penalties on predicted clean items, by its name. An
        item counts by ``alpha**2 / (alpha**2 + sigma**2)``, for predictions from noise are blurred.
    condition_dropout : probability that a column is made missing in training, for each column and
        once more for all together.
    optimiser : of the denoiser.
    ema_half_life_images : half-life of the moving average of the weights that sampling uses, 0 for
        none; in the beginning it is at most `ema_ramp` times the images seen.
    """

    residual: str | None = None
    penalties: Mapping[str, float] = field(default_factory=dict)
    condition_dropout: float = 0.1
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(lr=2e-4, warmup_steps=100, clip_norm=1.0)
    )
    ema_half_life_images: float = 20_000
    ema_ramp: float = 0.05


class Split(NamedTuple):
    """A denoiser as ``base + c_out F(network_input, noise_level)``.

    `base` and `network_input` are shaped as items, `c_out` broadcasts to them; `noise_level` (B,).
    """

    base: Tensor
    c_out: Tensor
    network_input: Tensor
    noise_level: Tensor


class Denoising(Method):
    """A network that predicts clean items from noised ones; see the module.

    Subclasses write `_split`, `_canonical`, `_draw_levels`, `_level_at` and `_levels`.
    """

    config: Any
    phases = (Phase("denoise", ("denoiser",), "denoiser"),)

    def __init__(
        self, config: DenoisingConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        self.optimisers = {"denoiser": config.optimiser}
        self.state = {"data_mean": torch.tensor(0.0), "data_std": torch.tensor(0.5)}
        self.classifier: Classifier | None = None

    @classmethod
    def network_specs(cls, config: Any, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The denoiser reads noised items and the images given beside them."""
        _refuse_other_residual(config.residual, spec)
        return {
            "denoiser": NetworkSpec(
                in_channels=spec.channels + sum(spec.context.values()),
                out_channels=spec.channels,
                shape=spec.shape,
                condition_size=spec.condition.size,
                position_size=spec.position_size,
            )
        }

    @classmethod
    def default_networks(cls, config: Any) -> dict[str, str]:
        """ADM's U-Net."""
        return {"denoiser": "unet"}

    def calibrate(self, items: Tensor, context: Mapping[str, Tensor] | None = None) -> None:
        """Measure the mean and spread of what is noised: items, or their residuals."""
        diffused = self._diffused(items, context or {})
        self.state["data_mean"] = diffused.mean(dtype=torch.float64).float()
        self.state["data_std"] = diffused.std()

    def private_refusal(self) -> str | None:
        """Nothing refuses it: the loss is a mean over items."""
        return None

    def use(self, needs: Mapping[str, Any]) -> None:
        """Take the ``classifier`` for classifier guidance."""
        unknown = set(needs) - {"classifier"}
        if unknown:
            raise UsageError(
                f"{type(self).__name__} needs at most a classifier; got "
                f"{', '.join(sorted(unknown))}."
            )
        self.classifier = needs.get("classifier")
        if self.classifier is not None and self.config.residual is not None:
            raise UsageError(
                f"A classifier knows noised items, and residual {self.config.residual} noises "
                "differences. Leave out one of them."
            )

    def ema_half_life(self, network: str, progress: Progress) -> float | None:
        """Half-life with its ramp; None where the recipe sets 0."""
        if self.config.ema_half_life_images == 0:
            return None
        ramped = self.config.ema_ramp * progress.images_seen
        return max(min(self.config.ema_half_life_images, ramped), 1e-8)

    # --- what a family says -------------------------------------------------------------------

    def _split(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor, subject: Tensor | None
    ) -> Split:
        """Split the denoiser into what is known and what the network adds.

        Parameters
        ----------
        x_noised : (B, C, *S) at levels `alpha`, `sigma` (B,) of the family's own process.
        subject : (B,) TRAIN rows, None for nobody known.
        """
        raise NotImplementedError

    def _canonical(
        self, x_noised: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scale a noised item of any process to the one that the network was trained on."""
        raise NotImplementedError

    def _draw_levels(self, rng: SampleRng) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` (B,) of a training batch."""
        raise NotImplementedError

    def _level_at(self, quantile: float) -> Level:
        """Return the level at a quantile of those in training."""
        raise NotImplementedError

    def _levels(self) -> list[Level]:
        """Return the sampler's levels, from noise to clean."""
        raise NotImplementedError

    def _loss_weight(self, alpha: Tensor, sigma: Tensor) -> Tensor | None:
        """Weight (B,) of the squared error of F; None for all alike."""
        return None

    # --- the denoiser -------------------------------------------------------------------------

    def denoise(
        self,
        x_noised: Tensor,
        level: Level,
        condition: Tensor,
        position: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Return the predicted clean items, or their residuals where these are learned.

        Parameters
        ----------
        x_noised : (B, C, *S), ``alpha x + sigma eps`` of any process.
        level : its ``alpha`` and ``sigma``.
        condition : (B, D).
        position : (B, P) or None.
        images : (B, C', *S) given beside them, in the order of the recipe; None for none.
        """
        alpha = x_noised.new_full((len(x_noised),), level.alpha)
        sigma = x_noised.new_full((len(x_noised),), level.sigma)
        split = self._split(*self._canonical(x_noised, alpha, sigma), None)
        return split.base + split.c_out * self._output(split, condition, position, images)

    def _output(
        self, split: Split, condition: Tensor, position: Tensor | None, images: Tensor | None
    ) -> Tensor:
        x = split.network_input
        if images is not None:
            x = torch.cat([x, images], dim=1)
        return self.networks["denoiser"](x, split.noise_level, condition, position)

    def _images(self, context: Mapping[str, Tensor]) -> Tensor | None:
        """Put the given images (B, C', ...) together in the order of the recipe."""
        if not self.spec.context:
            return None
        return torch.cat([context[name] for name in self.spec.context], dim=1)

    def _diffused(self, x: Tensor, context: Mapping[str, Tensor]) -> Tensor:
        """Return what is noised of clean items or volumes."""
        return x if self.config.residual is None else x - context[self.config.residual]

    # --- training -----------------------------------------------------------------------------

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Mean over items of the weighted squared error; every draw is from the item's stream."""
        alpha, sigma = self._draw_levels(rng)
        eps = rng.normal(batch.x.shape[1:])
        batch = replace(batch, condition=self._drop(batch.condition, rng))
        batch, eps = self._paired(batch, eps, rng)
        split, output = self._asked(batch, alpha, sigma, eps, batch.subject)
        total = self._errors(batch, alpha, sigma, split, output).mean()
        if not self.config.penalties:
            return Loss(total)
        logs = self._penalties(batch, alpha, sigma, split, output)
        weights = self.config.penalties
        total = total + sum(weights[name] * penalty for name, penalty in logs.items())
        return Loss(total, {name: penalty.detach() for name, penalty in logs.items()})

    def _paired(self, batch: Batch, eps: Tensor, rng: SampleRng) -> tuple[Batch, Tensor]:
        """Say which noise goes with which clean item; by default as they were drawn."""
        return batch, eps

    def _drop(self, condition: Tensor, rng: SampleRng) -> Tensor:
        columns = len(self.spec.condition.slices)
        if columns == 0:
            return condition
        gone = rng.uniform((columns + 1,)) < self.config.condition_dropout
        return self.spec.condition.drop(condition, gone[:, :columns] | gone[:, columns:])

    def _asked(
        self, batch: Batch, alpha: Tensor, sigma: Tensor, eps: Tensor, subject: Tensor | None
    ) -> tuple[Split, Tensor]:
        """Noise the batch with `eps` and ask the network."""
        x = self._diffused(batch.x, batch.context)
        x_noised = over_items(alpha, x) * x + over_items(sigma, x) * eps
        split = self._split(x_noised, alpha, sigma, subject)
        images = self._images(batch.context)
        return split, self._output(split, batch.condition, batch.position, images)

    def _errors(
        self, batch: Batch, alpha: Tensor, sigma: Tensor, split: Split, output: Tensor
    ) -> Tensor:
        """Mean squared error (B,) of the network's own target, weighted."""
        x = self._diffused(batch.x, batch.context)
        # c_out is 0 where nothing is to be predicted; there base is x.
        free = (split.c_out != 0).expand_as(x)
        target = torch.where(free, (x - split.base) / split.c_out, 0.0)
        error = ((output.float() - target) * free).square().flatten(1).sum(1)
        error = error / free[0].sum()
        weight = self._loss_weight(alpha, sigma)
        return error if weight is None else error * weight

    def _penalties(
        self, batch: Batch, alpha: Tensor, sigma: Tensor, split: Split, output: Tensor
    ) -> dict[str, Tensor]:
        """Return the view's penalties on predicted clean items by name, means over items."""
        clean = split.base + split.c_out * output.float()
        if self.config.residual is not None:
            clean = clean + batch.context[self.config.residual]
        found = {} if self.penalise is None else self.penalise(clean)
        if unknown := [name for name in self.config.penalties if name not in found]:
            raise UsageError(
                f"method.penalties names {', '.join(unknown)}, and this view's penalties are: "
                f"{', '.join(found) or 'none'}. Choose among them, or leave penalties out."
            )
        trust = alpha**2 / (alpha**2 + sigma**2)
        return {name: (trust * found[name]).mean() for name in self.config.penalties}

    # --- use ----------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Denoising loss (B,) averaged over fixed levels, `SCORE_QUANTILES` of those in training.

        A TRAIN subject is scored as anyone else would be, with a prior of all subjects.
        """
        total = torch.zeros(len(batch), device=batch.x.device)
        for quantile in SCORE_QUANTILES:
            level = self._level_at(quantile)
            alpha = total.new_full((len(batch),), level.alpha)
            sigma = total.new_full((len(batch),), level.sigma)
            eps = rng.normal(batch.x.shape[1:])
            asked = self._asked(batch, alpha, sigma, eps, None)
            total += self._errors(batch, alpha, sigma, *asked)
        return total / len(SCORE_QUANTILES)

    def _guided(self) -> ItemDenoiser:
        config: DrawingConfig = self.config.sampling
        return guided(self.denoise, self.spec.condition, config, self.classifier)

    @torch.no_grad()
    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Sample volumes (V, C, I, J, K), all items of a volume jointly.

        Parameters
        ----------
        lift : how items sit in a volume.
        condition : (V, D).
        rng : one stream a volume; draws the first noise and the sampler's own.

        Raises
        ------
        UsageError
            If the method was trained with images to follow.
        """
        self._refuse_without_images()
        return self.sample_given(lift, condition, {}, rng)

    @torch.no_grad()
    def sample_given(
        self, lift: Lift, condition: Tensor, context: Mapping[str, Tensor], rng: SampleRng
    ) -> Tensor:
        """Sample volumes that follow images; see `sample`.

        Parameters
        ----------
        context : (V, C', I, J, K) by name; (V, C', *S) on the items' grid where the view does not
            lift, for then it cannot cut them.
        """
        residual = self.config.residual
        given = Given(self._images(context), None if residual is None else context[residual])
        config = self.config.sampling
        return draw_volumes(self._guided(), lift, condition, self._levels(), config, rng, given)

    @torch.no_grad()
    def edit(
        self, lift: Lift, volumes: Tensor, condition: Tensor, strength: float, rng: SampleRng
    ) -> Tensor:
        """Noise `volumes` to one of the sampler's levels and sample from there (`edit_volumes`).

        Parameters
        ----------
        volumes : (V, C, I, J, K) in [-1, 1].
        condition : (V, D).
        strength : share of the sampler's steps, see `last_levels`.
        rng : one stream a volume.

        Raises
        ------
        UsageError
            If the method was trained with images to follow.
        """
        self._refuse_without_images()
        levels, config = last_levels(self._levels(), strength), self.config.sampling
        return edit_volumes(self._guided(), lift, volumes, condition, levels, config, rng)

    def _refuse_without_images(self) -> None:
        if self.spec.context:
            raise UsageError(
                f"This model makes images that follow {', '.join(self.spec.context)}; give a "
                "prepared cohort to take them from. Editing takes none."
            )


def _refuse_other_residual(residual: str | None, spec: ItemSpec) -> None:
    """Raise `UsageError` where no image of as many channels as an item has that name."""
    if residual is None:
        return
    known = ", ".join(f"{name} ({count})" for name, count in spec.context.items()) or "none"
    if spec.context.get(residual) != spec.channels:
        raise UsageError(
            f"method.residual is {residual!r}: items have {spec.channels} channels, and an image "
            f"of as many must be given by that name. Given are (with their channels): {known}. "
            "Name it under data.context, or take a view that gives it."
        )
