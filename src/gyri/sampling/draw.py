"""Drawing volumes with any model of clean items: guidance, lifting, clipping, sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.sampling.guidance import classifier_free, classifier_guided
from gyri.sampling.lifted import Bounding, ItemDenoiser, Space, lifted, space_of
from gyri.sampling.samplers import Churn, Denoiser, Sampler, SamplerName, clipped, make_sampler
from gyri.sampling.schedules import Level
from gyri.types import ConditionLayout, Lift, SampleRng


@dataclass(frozen=True, kw_only=True)
class DrawingConfig:
    """What every iterative sampler is told; may be changed after training.

    Parameters
    ----------
    sampler : its name, in a subclass one of a few.
    num_steps : calls of the denoiser, without Heun's second ones.
    guidance_scale : classifier-free guidance; 1 is the plain conditional model, 0 unconditional.
    classifier_scale : classifier guidance; needs ``classifier`` in the recipe.
    clip : bound of the predicted volume, 0 for none. Of views that do not lift, those whose items
        are no intensities (fields) do not use it.
    shared_noise : share of the first noise's variance, in [0, 1), that all slices of a volume have
        in common; each slice's noise is as white as before. For the slice view and a sampler that
        adds no noise.
    items_per_call : most items the network sees at once; bounds memory.
    """

    sampler: str
    num_steps: int = 25
    guidance_scale: float = 1.0
    classifier_scale: float = 0.0
    clip: float = 1.0
    shared_noise: float = 0.0
    items_per_call: int = 64

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.items_per_call < 1 or self.num_steps < 1:
            raise UsageError(
                f"sampling.num_steps is {self.num_steps} and items_per_call "
                f"{self.items_per_call}; both must be at least 1."
            )
        if not 0 <= self.shared_noise < 1:
            raise UsageError(
                f"sampling.shared_noise is {self.shared_noise:g}; it is a share of variance, at "
                "least 0 and below 1."
            )

    def solver(self) -> Sampler:
        """Return the sampler that these settings name."""
        raise NotImplementedError

    @property
    def network_calls(self) -> int:
        """Calls of the network for a sample; guidance asks twice each time.

        Heun's sampler calls twice a step, and once at the last.
        """
        calls = 2 * self.num_steps - 1 if self.sampler == "heun" else self.num_steps
        return calls if self.guidance_scale in (0.0, 1.0) else 2 * calls


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(DrawingConfig):
    """How volumes are drawn from a trained diffusion; may be changed after training.

    See `DrawingConfig` for what is not said here.

    Parameters
    ----------
    sampler : ``dpmpp_2m`` (15 to 25 steps), ``ddim``, ``ancestral``, ``heun``, ``euler``.
    eta : randomness of ``ddim``.
    churn, churn_min, churn_max, churn_noise : see `gyri.sampling.samplers.Churn`.
    spacing : ``karras`` spends steps on fine detail too; ``trailing`` takes evenly spaced steps of
        the training schedule from its last on, ``leading`` such that end at its first, as published
        with many latent diffusions. EDM has no schedule and knows ``karras`` alone.
    sigma_min, sigma_max, rho : ends and curvature of ``karras``, in units of the intensities. Large
        smooth volumes can be made out at more noise than pictures: raise `sigma_max`.
    """

    sampler: SamplerName = "dpmpp_2m"
    eta: float = 0.0
    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = float("inf")
    churn_noise: float = 1.0
    spacing: Literal["karras", "trailing", "leading"] = "karras"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Refuse settings that the sampler does not have."""
        super().__post_init__()
        self.solver()
        if self.shared_noise and (self.sampler == "ancestral" or self.eta or self.churn):
            raise UsageError(
                f"sampling.shared_noise is {self.shared_noise:g}, and the sampler "
                f"({self.sampler}, eta {self.eta:g}, churn {self.churn:g}) adds noise that slices "
                "do not share, which undoes it. Take dpmpp_2m, ddim with eta 0, or heun or euler "
                "without churn; or set shared_noise to 0."
            )

    def solver(self) -> Sampler:
        """Return the sampler that these settings name."""
        return make_sampler(self.sampler, self.eta, self.noise)

    @property
    def noise(self) -> Churn:
        """Settings of the churn as one."""
        return Churn(
            amount=self.churn,
            sigma_min=self.churn_min,
            sigma_max=self.churn_max,
            noise=self.churn_noise,
        )


class Classifier(Protocol):
    """What classifier guidance needs; the method ``noised_classifier`` is one."""

    def target(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> class (B,) and whether it is known (B,)."""
        ...

    def log_prob(
        self, x_noised: Tensor, level: Level, target: Tensor, position: Tensor | None
    ) -> Tensor:
        """Return ``log p(target | x_noised)`` (B,)."""
        ...


def guided(
    denoise: ItemDenoiser,
    layout: ConditionLayout,
    config: DrawingConfig,
    classifier: Classifier | None = None,
) -> ItemDenoiser:
    """Return `denoise` with the guidance that `config` asks for.

    Raises
    ------
    UsageError
        If classifier guidance is asked for and there is no classifier.
    """
    if config.classifier_scale != 0 and classifier is None:
        raise UsageError(
            f"classifier_scale is {config.classifier_scale:g} and there is no classifier. Name a "
            "noised_classifier recipe or run under needs: classifier, or set it to 0."
        )

    def item_denoiser(
        x_noised: Tensor, level: Level, condition: Tensor, position: Tensor | None, *given: Tensor
    ) -> Tensor:
        def conditional(x: Tensor, level: Level, condition: Tensor) -> Tensor:
            copies = len(x) // len(x_noised)
            return denoise(
                x,
                level,
                condition,
                None if position is None else position.repeat(copies, 1),
                *(images.repeat(copies, *[1] * (images.ndim - 1)) for images in given),
            )

        null = layout.null(condition)
        denoised = classifier_free(
            conditional, x_noised, level, condition, null, config.guidance_scale
        )
        if classifier is None:
            return denoised
        target, known = classifier.target(condition)

        def log_prob(x: Tensor, level: Level) -> Tensor:
            return torch.where(known, classifier.log_prob(x, level, target, position), 0.0)

        return classifier_guided(denoised, x_noised, level, log_prob, config.classifier_scale)

    return item_denoiser


def first_noise(space: Space, shared: float, rng: SampleRng) -> Tensor:
    """Return the noise (V, C, I, J, K) that sampling starts from.

    Slice k has ``sqrt(shared) z + sqrt(1 - shared) xi_k``, one z a volume: white on every slice, so
    a model of slices sees what it was trained on, and alike from slice to slice.

    Raises
    ------
    UsageError
        If noise is to be shared and the view's items are not single slices, for these would see
        noise that is not white.
    """
    noise = rng.normal(space.volume_shape)
    if shared == 0:
        return noise
    if space.slice_axis is None:
        raise UsageError(
            f"sampling.shared_noise is {shared:g}, and this view's items are not single slices: "
            "they would see noise that is not white and that training never showed. Take the "
            "slice view, or set shared_noise to 0."
        )
    of_one_slice = list(space.volume_shape)
    of_one_slice[1 + space.slice_axis] = 1
    return math.sqrt(shared) * rng.normal(of_one_slice) + math.sqrt(1 - shared) * noise


@dataclass(frozen=True)
class Given:
    """Images that the volumes to be drawn follow; for views that do not lift, of the items' grid.

    Parameters
    ----------
    images : (V, C', I, J, K) that the denoiser reads beside ``x_noised``, None for none.
    base : (V, C, I, J, K) that is added to what is drawn, which is then a difference; None where
        volumes themselves are drawn.
    """

    images: Tensor | None = None
    base: Tensor | None = None


def draw_volumes(
    item_denoiser: ItemDenoiser,
    lift: Lift,
    condition: Tensor,
    levels: Sequence[Level],
    config: DrawingConfig,
    rng: SampleRng,
    given: Given = Given(),
) -> Tensor:
    """Draw volumes (V, C, I, J, K), all items of a volume jointly.

    Parameters
    ----------
    item_denoiser : the model, guidance included.
    lift : how items sit in a volume.
    condition : (V, D).
    levels : from noise to clean.
    rng : one stream a volume; draws the first noise and the sampler's own.
    given : what the volumes follow.
    """
    space = space_of(lift)
    x_noised = levels[0].sigma * first_noise(space, config.shared_noise, rng)
    denoiser = lifted(item_denoiser, space, condition, config.items_per_call, given.images)
    bounded = _bounded(denoiser, lift, config.clip, given.base)
    x = config.solver()(bounded, x_noised, levels, rng)
    if given.base is not None:
        x = x + given.base
    return x if lift.lifts else lift.decode(x)


def edit_volumes(
    item_denoiser: ItemDenoiser,
    lift: Lift,
    volumes: Tensor,
    condition: Tensor,
    levels: Sequence[Level],
    config: DrawingConfig,
    rng: SampleRng,
) -> Tensor:
    """Noise real volumes to the first of `levels` and draw them from there.

    SDEdit (Meng et al., 2021, arXiv:2108.01073, algorithm 1), lifted to volumes. Where the view
    does not lift, its items are noised, so that a view that loses something loses it here too.

    Parameters
    ----------
    volumes : (V, C, I, J, K), clean; returned as they are where no step is to be taken.
    levels : the last of the sampler's own, see `last_levels`.
    item_denoiser, lift, condition, config, rng : as for `draw_volumes`.
    """
    if len(levels) == 1:
        return volumes
    space = space_of(lift)
    clean = volumes if lift.lifts else lift.encode(volumes).x
    noise = first_noise(space, config.shared_noise, rng)
    x_noised = levels[0].alpha * clean + levels[0].sigma * noise
    denoiser = lifted(item_denoiser, space, condition, config.items_per_call)
    bounded = _bounded(denoiser, lift, config.clip)
    x = config.solver()(bounded, x_noised, levels, rng)
    return x if lift.lifts else lift.decode(x)


def _bounded(denoiser: Denoiser, lift: Lift, bound: float, base: Tensor | None = None) -> Denoiser:
    """Keep what is predicted, together with its `base`, inside ``[-bound, bound]``; 0 for none."""
    if not lift.lifts:
        return _bounded_items(denoiser, lift, bound, base)
    if base is None or bound == 0:
        return clipped(denoiser, bound)
    return lambda x_noised, level: (denoiser(x_noised, level) + base).clamp(-bound, bound) - base


def _bounded_items(denoiser: Denoiser, lift: Lift, bound: float, base: Tensor | None) -> Denoiser:
    """Do the same where items are sampled, as far as the view knows bounds of them."""
    if bound == 0 or not isinstance(lift, Bounding):
        return denoiser
    own = 0.0 if base is None else base
    return lambda x_noised, level: lift.bounded(denoiser(x_noised, level) + own, bound) - own


def last_levels(levels: Sequence[Level], strength: float) -> Sequence[Level]:
    """Return the levels of the last `strength` of the steps: all for 1, the clean one for 0.

    Any strength above 0 leaves a step at least.

    Raises
    ------
    UsageError
        If `strength` lies outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise UsageError(
            f"strength is {strength:g}; it is the share of the sampler's steps that are taken, "
            "from 0 (the volume as it is) to 1 (a new one)."
        )
    num_steps = len(levels) - 1
    return levels[num_steps - math.ceil(strength * num_steps - 1e-9) :]
