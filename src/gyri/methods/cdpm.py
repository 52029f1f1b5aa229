"""Conditional diffusion over sets of slices: any slices of a volume given any others.

Peng et al., 2023, cDPM; after Harvey et al., 2022, arXiv:2205.11495 (flexible video diffusion). A
2D network sees a window of slices of one volume: some are observed and enter clean, the others are
noised and learned, ``x_t (1 - m) + x m``, with the mask m as a channel. Which are which is drawn
anew each time, so that one network can begin a volume, go on with it, and fill it. Volumes are
sampled a block of slices after another; each block runs through the whole sampler.

It works on whole volumes (the view ``volume``) and takes its slices out itself: a stack would hide
which channels are slices and which are modalities, and a view of single slices would take away what
belongs together. Noise, preconditioning and loss see the window alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.methods.denoising import SCORE_QUANTILES, Split
from gyri.registry import METHODS
from gyri.sampling.draw import SamplingConfig, last_levels
from gyri.sampling.guidance import classifier_free
from gyri.sampling.preconditioning import over_items
from gyri.sampling.samplers import Denoiser, clipped
from gyri.sampling.schedules import Level
from gyri.sampling.slice_sets import CHANCES, Block, Order, SliceSets, blocks, drawn_sets
from gyri.types import Batch, ItemSpec, Lift, Loss, Method, NetworkSpec, Progress, SampleRng
from gyri.views.base import PLANE_AXIS, Plane


@dataclass(frozen=True, kw_only=True)
class CDPMSampling(SamplingConfig):
    """How volumes are drawn; may be changed after training.

    See `gyri.sampling.draw.SamplingConfig` for what is not said here. `num_steps` are those of a
    block, and `items_per_call` counts slices.

    Parameters
    ----------
    order : ``hierarchical`` begins with slices spread over the volume and fills between them;
        ``autoregressive`` goes from the first slice to the last, as published, and drifts. See
        `gyri.sampling.slice_sets.blocks`.
    kept : the fewest slices that a block after the first is told of; None for half the window.
    """

    order: Order = "hierarchical"
    kept: int | None = None


@dataclass(frozen=True, kw_only=True)
class CDPMConfig(DDPMConfig):
    """Settings of `CDPM`; see `gyri.methods.ddpm.DDPMConfig` for what is not said here.

    Parameters
    ----------
    window : the most slices that the network sees together.
    plane : of the slices.
    absolute_position : tell each slice where it lies in the volume. Registered brains have a first
        and a last slice; without it, as published, only distances between slices are known.
    sampling : see `CDPMSampling`.
    """

    window: int = 16
    plane: Plane = "axial"
    absolute_position: bool = True
    sampling: CDPMSampling = field(default_factory=CDPMSampling)

    def __post_init__(self) -> None:
        """Refuse what slices of a window cannot have."""
        super().__post_init__()
        if self.window < 2 or not 1 <= self.kept < self.window:
            raise UsageError(
                f"method.window is {self.window} and sampling.kept {self.kept}; a window has 2 "
                "slices or more, and a block keeps at least one and fewer than the window has."
            )
        refused = {
            "prior": self.prior != "none",
            "residual": self.residual is not None,
            "penalties": bool(self.penalties),
            "sampling.classifier_scale": self.sampling.classifier_scale != 0,
            "sampling.shared_noise": self.sampling.shared_noise != 0,
        }
        if named := [name for name, given in refused.items() if given]:
            raise UsageError(
                f"{', '.join(named)}: these are of whole items, and cdpm sees some slices of one. "
                "Leave them out, or take the method ddpm."
            )

    @property
    def kept(self) -> int:
        """The fewest slices that a block after the first is told of."""
        return self.window // 2 if self.sampling.kept is None else self.sampling.kept


@METHODS.register("cdpm", CDPMConfig)
class CDPM(DDPM):
    """Diffusion of some slices of a volume given others (cDPM), block after block."""

    config: CDPMConfig

    @classmethod
    def network_specs(cls, config: DDPMConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The denoiser reads slices, which of them are targets, and the images given."""
        config = cast(CDPMConfig, config)
        if spec.dims != 3 or spec.items_per_volume != 1:
            raise UsageError(
                f"cdpm takes slices out of whole volumes; this view makes {spec.items_per_volume} "
                f"items of {'x'.join(map(str, spec.shape))} a volume. Take the view volume."
            )
        axis = PLANE_AXIS[config.plane]
        return {
            "denoiser": NetworkSpec(
                in_channels=spec.channels + 1 + sum(spec.context.values()),
                out_channels=spec.channels,
                shape=(*spec.shape[:axis], *spec.shape[axis + 1 :]),
                condition_size=spec.condition.size,
                position_size=int(config.absolute_position),
            )
        }

    @classmethod
    def default_networks(cls, config: Any) -> dict[str, str]:
        """A 2D U-Net with attention over the set."""
        return {"denoiser": "unet_slice_set"}

    def use(self, needs: Mapping[str, Any]) -> None:
        """Take nothing: a classifier knows whole items."""
        Method.use(self, needs)

    @property
    def _axis(self) -> int:
        """Of the slices in items (B, C, I, J, K)."""
        return 2 + PLANE_AXIS[self.config.plane]

    @property
    def _depth(self) -> int:
        return self.spec.shape[self._axis - 2]

    # --- the denoiser -------------------------------------------------------------------------

    def _asked_of(
        self,
        x: Tensor,
        sets: SliceSets,
        alpha: Tensor,
        sigma: Tensor,
        condition: Tensor,
        images: Tensor | None,
    ) -> tuple[Split, Tensor]:
        """Ask the network of slices (B, T, C, H, W), targets noised to `alpha`, `sigma` (B,).

        What comes back for observed slices means nothing.
        """
        split = self._split(x, alpha, sigma, None)
        clean = self._split(x, torch.ones_like(alpha), torch.zeros_like(sigma), None)
        target = sets.target[:, :, None, None, None]
        seen = torch.where(target, split.network_input, clean.network_input)
        parts = [seen, target.to(seen).expand_as(seen[:, :, :1])]
        if images is not None:
            parts.append(images)
        position: Tensor | None = None
        if self.config.absolute_position:
            position = (2 * sets.at / max(self._depth - 1, 1) - 1)[:, :, None]
        output = self.networks["denoiser"](
            torch.cat(parts, dim=2), split.noise_level, condition, sets.at, sets.valid, position
        )
        return split, output

    def _slices(self, items: Tensor) -> Tensor:
        """(B, C, I, J, K) -> all slices (B, depth, C, H, W), a view."""
        return items.movedim(self._axis, 1)

    def _taken(self, items: Tensor, index: Tensor) -> Tensor:
        """(B, C, I, J, K) and (B, T) -> slices (B, T, C, H, W)."""
        rows = torch.arange(len(items), device=items.device)[:, None]
        return self._slices(items)[rows, index]

    # --- training -----------------------------------------------------------------------------

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Mean over items of the weighted squared error of target slices."""
        alpha, sigma = self._draw_levels(rng)
        batch = replace(batch, condition=self._drop(batch.condition, rng))
        return Loss(self._set_errors(batch, alpha, sigma, rng).mean())

    def _set_errors(self, batch: Batch, alpha: Tensor, sigma: Tensor, rng: SampleRng) -> Tensor:
        """Mean squared error (B,) of the network's own target over a drawn set's target slices."""
        window = self.config.window
        sets = drawn_sets(rng.uniform((window, CHANCES)), self._depth, window)
        x = self._taken(batch.x, sets.at)
        x_noised = over_items(alpha, x) * x + over_items(sigma, x) * rng.normal(x.shape[1:])
        seen = torch.where(sets.target[:, :, None, None, None], x_noised, x)
        images = self._images(batch.context)
        given = None if images is None else self._taken(images, sets.at)
        split, output = self._asked_of(seen, sets, alpha, sigma, batch.condition, given)
        error = (output.float() - (x - split.base) / split.c_out).square().flatten(2).mean(2)
        error = (error * sets.target).sum(1) / sets.target.sum(1)
        weight = self._loss_weight(alpha, sigma)
        return error if weight is None else error * weight

    @torch.no_grad()
    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Loss (B,) averaged over fixed levels, `SCORE_QUANTILES` of those in training.

        Every level has a set of its own, drawn from the item's stream.
        """
        total = torch.zeros(len(batch), device=batch.x.device)
        for quantile in SCORE_QUANTILES:
            level = self._level_at(quantile)
            alpha = total.new_full((len(batch),), level.alpha)
            sigma = total.new_full((len(batch),), level.sigma)
            total += self._set_errors(batch, alpha, sigma, rng)
        return total / len(SCORE_QUANTILES)

    # --- use ----------------------------------------------------------------------------------

    @torch.no_grad()
    def sample_given(
        self, lift: Lift, condition: Tensor, context: Mapping[str, Tensor], rng: SampleRng
    ) -> Tensor:
        """Sample volumes (V, C, I, J, K), block after block; see `Denoising.sample`."""
        images = self._images(context)
        if images is not None and lift.lifts:
            images = lift.encode(images).x
        return lift.decode(self._drawn(self._levels(), lift, condition, images, None, rng))

    @torch.no_grad()
    def edit(
        self, lift: Lift, volumes: Tensor, condition: Tensor, strength: float, rng: SampleRng
    ) -> Tensor:
        """Noise `volumes` to one of the sampler's levels and sample from there, in blocks."""
        self._refuse_without_images()
        levels = last_levels(self._levels(), strength)
        if len(levels) == 1:
            return volumes
        clean = lift.encode(volumes).x
        return lift.decode(self._drawn(levels, lift, condition, None, clean, rng))

    def _drawn(
        self,
        levels: Sequence[Level],
        lift: Lift,
        condition: Tensor,
        images: Tensor | None,
        clean: Tensor | None,
        rng: SampleRng,
    ) -> Tensor:
        """Draw items (V, C, I, J, K) from noise, or from `clean` ones noised to the first level."""
        config, sampling = self.config, self.config.sampling
        items = condition.new_zeros(len(condition), self.spec.channels, *self.spec.shape)
        made = self._slices(items)
        # Items on another grid than the volume's are no intensities.
        whole = lift.volume_shape == (lift.item_channels, *lift.item_shape)
        bound = sampling.clip if whole else 0.0
        for block in blocks(self._depth, config.window, sampling.order, config.kept):
            targets = list(block.targets)
            x_noised = levels[0].sigma * rng.normal((len(targets), *made.shape[2:]))
            if clean is not None:
                x_noised = x_noised + levels[0].alpha * self._slices(clean)[:, targets]
            denoiser = clipped(self._denoiser(block, made, condition, images), bound)
            made[:, targets] = sampling.solver()(denoiser, x_noised, levels, rng)
        return items

    def _denoiser(
        self, block: Block, made: Tensor, condition: Tensor, images: Tensor | None
    ) -> Denoiser:
        """Return a denoiser of a block's targets (V, T, C, H, W), told of the slices in `made`."""
        known = made[:, list(block.observed)]
        index = torch.tensor([*block.targets, *block.observed], device=made.device)
        given = None if images is None else self._slices(images)[:, index]
        null = self.spec.condition.null(condition)
        scale = self.config.sampling.guidance_scale

        def denoiser(x_noised: Tensor, level: Level) -> Tensor:
            def conditional(x: Tensor, level: Level, condition: Tensor) -> Tensor:
                copies = len(x) // len(known)
                told = known.repeat(copies, 1, 1, 1, 1)
                beside = None if given is None else given.repeat(copies, 1, 1, 1, 1)
                rows = max(self.config.sampling.items_per_call // len(index), 1)
                return torch.cat(
                    [
                        self._denoised(
                            x[at : at + rows],
                            told[at : at + rows],
                            index,
                            level,
                            condition[at : at + rows],
                            None if beside is None else beside[at : at + rows],
                        )
                        for at in range(0, len(x), rows)
                    ]
                )

            return classifier_free(conditional, x_noised, level, condition, null, scale)

        return denoiser

    def _denoised(
        self,
        x_noised: Tensor,
        told: Tensor,
        index: Tensor,
        level: Level,
        condition: Tensor,
        images: Tensor | None,
    ) -> Tensor:
        """Return predicted clean targets (B, T, C, H, W), told observed slices (B, O, C, H, W)."""
        alpha = x_noised.new_full((len(x_noised),), level.alpha)
        sigma = x_noised.new_full((len(x_noised),), level.sigma)
        x_noised, alpha, sigma = self._canonical(x_noised, alpha, sigma)
        index = index.expand(len(x_noised), -1)
        count = x_noised.shape[1]
        target = torch.arange(index.shape[1], device=index.device).expand_as(index) < count
        sets = SliceSets(index, target, torch.ones_like(target))
        x = torch.cat([x_noised, told], dim=1)
        split, output = self._asked_of(x, sets, alpha, sigma, condition, images)
        return (split.base + split.c_out * output)[:, :count]
