"""Guidance: denoisers that lean towards a condition.

Guidance comes before clipping: between the clean prediction and the noise lies an affine map, so
guiding either is the same only as long as nothing has been clipped.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gyri.sampling.schedules import Level

Conditional = Callable[[Tensor, Level, Tensor], Tensor]
"""``denoised = conditional(x_noised, level, condition)``, condition (B, D)."""

LogProb = Callable[[Tensor, Level], Tensor]
"""``log p(y | x_noised)`` (B,), of the noised item at that level."""


def classifier_free(
    conditional: Conditional,
    x_noised: Tensor,
    level: Level,
    condition: Tensor,
    null: Tensor,
    scale: float,
) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598), in one call.

    ``denoised = null + scale (conditional - null)``: a scale of 1 is the plain conditional model
    and 0 the unconditional one, each without the other's cost. (The "1 + w" convention names the
    same guidance by one less.)

    Parameters
    ----------
    conditional : the model.
    x_noised : (B, C, *S).
    level : of all of `x_noised`.
    condition, null : (B, D), the condition and the same with every column missing.
    scale : for continuous covariates 1 to 2; more takes variance from the samples.
    """
    if scale == 1:
        return conditional(x_noised, level, condition)
    if scale == 0:
        return conditional(x_noised, level, null)
    both = conditional(torch.cat([x_noised, x_noised]), level, torch.cat([condition, null]))
    given, free = both.chunk(2)
    return free + scale * (given - free)


def classifier_guided(
    denoised: Tensor, x_noised: Tensor, level: Level, log_prob: LogProb, scale: float
) -> Tensor:
    """Classifier guidance (Dhariwal and Nichol, 2021, arXiv:2105.05233, algorithm 2).

    ``eps - scale sigma grad log p(y | x_noised)``, written for the clean item:
    ``denoised + scale sigma**2 / alpha grad log p``. Pure noise says nothing of y: where alpha is
    0, the prediction is returned as it is.

    Parameters
    ----------
    denoised : (B, C, *S), the model's prediction.
    x_noised : (B, C, *S).
    level : of all of `x_noised`.
    log_prob : must have been trained on noised items; one trained on clean items misleads.
    scale : ``s``; 1 samples p(x | y) if the classifier is exact.
    """
    if scale == 0 or level.alpha == 0:
        return denoised
    with torch.enable_grad():
        leaf = x_noised.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_prob(leaf, level).sum(), leaf)
    return denoised + scale * level.sigma**2 / level.alpha * gradient
