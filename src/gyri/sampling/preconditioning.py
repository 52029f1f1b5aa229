"""What a network is asked to predict, as one affine form for every parameterisation.

``denoised = c_skip x_noised + c_out F(c_in x_noised, noise_level)``. The four published choices
differ in the three coefficients alone, so conversion, loss and sampling are written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Prediction = Literal["eps", "x0", "v", "edm"]

LOG_SNR_LIMIT = 20.0
"""Levels beyond this are told apart by no network; it keeps `noise_level` finite."""


class Scaling(NamedTuple):
    """Coefficients of the affine form, each (B,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


def eps_scaling(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Scaling:
    """F is the noise."""
    return Scaling(1 / alpha, -sigma / alpha, torch.ones_like(alpha))


def x0_scaling(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Scaling:
    """F is the clean item."""
    return Scaling(torch.zeros_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha))


def v_scaling(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Scaling:
    """F is ``v = alpha eps - sigma x`` (Salimans and Ho, 2022, arXiv:2202.00512)."""
    return Scaling(alpha, -sigma, torch.ones_like(alpha))


def edm_scaling(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Scaling:
    """F and its input have unit variance at every level (Karras et al., 2022, table 1)."""
    total = alpha**2 * sigma_data**2 + sigma**2
    return Scaling(
        alpha * sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt()
    )


SCALINGS: dict[str, Callable[[Tensor, Tensor, float], Scaling]] = {
    "eps": eps_scaling,
    "x0": x0_scaling,
    "v": v_scaling,
    "edm": edm_scaling,
}


def noise_level(alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network is told about the noise: ``ln(sigma / alpha) / 4``, EDM's ``c_noise``.

    It means the same for every process, schedule and number of steps, and lies between -2.5 and
    2.5. Shapes as given, (B,) for a batch.
    """
    log_snr = 2 * (alpha.clamp_min(1e-12).log() - sigma.clamp_min(1e-12).log())
    return -log_snr.clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT) / 8


def min_snr_weight(alpha: Tensor, sigma: Tensor, c_out: Tensor, gamma: float = 5.0) -> Tensor:
    """Weight (B,) of the squared error of F: ``min(SNR, gamma)`` on the error of the clean item.

    Hang et al., 2023, arXiv:2303.09556; the published weights for eps, x0 and v are this one times
    ``c_out**2``.
    """
    snr = (alpha / sigma) ** 2
    return snr.clamp_max(gamma) * c_out**2


def over_items(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a coefficient (B,) so that it multiplies items (B, C, *S) of any dimension."""
    return coefficient.reshape(-1, *[1] * (x.ndim - 1))
