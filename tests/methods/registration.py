"""Scans that are known deformations of a template, for tests of registrations."""

from __future__ import annotations

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gyri.methods.atlas_registration import AtlasRegistration
from gyri.nn.deformation import exponential, warp
from gyri.runtime.streams import SampleRng, derive_seeds
from gyri.types import Batch, Progress

SHAPE = (16, 16, 16)


def smooth(seed: int, channels: int, sigma: float, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Return smoothed noise (1, channels, *shape) whose largest value is 1."""
    drawn = torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(seed))
    spread = (0, 0, sigma, sigma, sigma)
    field = torch.from_numpy(gaussian_filter(drawn.numpy(), spread, mode="nearest"))
    return field / field.abs().max()


def blobs() -> Tensor:
    """Return a template (1, 1, 16, 16, 16) with something everywhere."""
    return smooth(0, 1, 1.2)


def scans(num: int) -> tuple[Tensor, Tensor]:
    """Return scans (num, 1, 16, 16, 16) and the displacements of `blobs` that made them."""
    velocities = torch.cat([4.0 * smooth(10 + k, 3, 3.0) for k in range(num)])
    displacements = exponential(velocities)
    return warp(blobs(), displacements), displacements


def batch_of(x: Tensor, step: int = 0) -> Batch:
    """Return scans without conditions, with seeds of that step."""
    rows = torch.arange(len(x))
    seeds = derive_seeds(rows, "test", step)
    return Batch(x, torch.zeros(len(x), 0), None, rows, seeds)


def fit(method: AtlasRegistration, x: Tensor, steps: int, lr: float) -> None:
    """Take plain steps of Adam on all scans at once."""
    weights = [w for network in method.networks.values() for w in network.parameters()]
    adam = torch.optim.Adam(weights, lr=lr)
    for step in range(steps):
        batch = batch_of(x, step)
        progress = Progress(step, step * len(x), step / steps)
        loss = method.loss(method.phases[0].name, batch, progress, SampleRng(batch.seed))
        adam.zero_grad()
        loss.total.backward()
        adam.step()


def endpoint_error(u: Tensor, truth: Tensor) -> float:
    """Mean distance in voxels between two displacements, 2 voxels away from the border."""
    return float((u - truth)[:, :, 2:-2, 2:-2, 2:-2].norm(dim=1).mean())
