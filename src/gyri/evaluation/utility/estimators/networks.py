"""Networks trained for a task: a small 3D convolutional network and a small 3D U-Net."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.utility.arms import Training
from gyri.evaluation.utility.augment import augment
from gyri.evaluation.utility.estimators import Place
from gyri.evaluation.utility.measures import Answers
from gyri.evaluation.utility.overlap import compare_structures
from gyri.evaluation.utility.tasks import Cases, Task
from gyri.networks.unet import UNet, UNetConfig
from gyri.nn.layers import conv
from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.types import NetworkSpec

PATCH = 4
"""Side in voxels of what the first layer of the convolutional network reads at once."""
CaseLoss = Callable[[Tensor, Tensor], Tensor]
"""(network output, targets (B, ...)) -> (B,)."""


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of a network's training, the same for every arm: nothing is tuned.

    Parameters
    ----------
    widths : channels of the levels.
    steps, batch_size : of AdamW, with the learning rate falling to 0 along a cosine.
    lr, weight_decay, dropout : as usual.
    """

    widths: tuple[int, ...]
    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    dropout: float = 0.0


def train_network(
    network: nn.Module,
    loss: CaseLoss,
    training: Training,
    targets: Tensor,
    settings: NetworkSettings,
    seed: int,
    device: torch.device,
) -> None:
    """Train by a fixed number of updates; every arm sees as many cases, its own over and over.

    Parameters
    ----------
    targets : (N, ...) of the training cases, as `loss` reads them.
    """
    volumes = torch.from_numpy(training.cases.volumes)
    weights = torch.from_numpy(training.weights).float()
    order = _epochs(len(volumes), settings.steps * settings.batch_size, seed)
    generator = torch.Generator().manual_seed(derive_seed(seed, "augment"))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    network.train()
    for step, rows in enumerate(order.split(settings.batch_size)):
        x, y = volumes[rows].to(device), targets[rows].to(device)
        if training.augment:
            dense = y if y.ndim > 1 else None
            x, moved = augment(x, dense, generator)
            y = y if moved is None else moved
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        total = (loss(network(x), y) * weights[rows].to(device)).mean()
        if not torch.isfinite(total):
            raise Refusal(f"The network's loss is not finite at step {step}.")
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
    network.eval()


def _epochs(num_cases: int, length: int, seed: int) -> Tensor:
    """Return (length,) rows: all cases in a new random order, again and again."""
    rng = numpy_rng(seed, "order")
    rounds = [rng.permutation(num_cases) for _ in range(-(-length // num_cases))]
    return torch.from_numpy(np.concatenate(rounds)[:length])


@torch.no_grad()
def outputs(network: nn.Module, volumes: np.ndarray, device: torch.device, batch: int) -> Tensor:
    """Return the network's outputs for (N, C, I, J, K), on the CPU."""
    parts = torch.from_numpy(volumes).split(batch)
    return torch.cat([network(part.to(device)).float().cpu() for part in parts])


class Standardise(nn.Module):
    """Subtract a mean and divide by a spread, both numbers."""

    def __init__(self, volumes: np.ndarray) -> None:
        super().__init__()
        self.mean, self.std = float(volumes.mean()), max(float(volumes.std()), 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return x of the same shape with mean 0 and spread 1 over the training cases."""
        return (x - self.mean) / self.std


def small_cnn(settings: NetworkSettings, volumes: np.ndarray, num_outputs: int) -> nn.Sequential:
    """Return patches of 4^3 voxels, strided 3^3 convolutions, and a linear layer on eight octants.

    Group norm and ReLU follow every convolution; a grid that 4 does not divide is filled with 0.
    """
    first, *others = settings.widths
    i, j, k = (-size % PATCH for size in volumes.shape[2:])
    layers: list[nn.Module] = [nn.ConstantPad3d((0, k, 0, j, 0, i), 0.0), Standardise(volumes)]
    layers += [nn.Conv3d(volumes.shape[1], first, PATCH, PATCH), nn.GroupNorm(first // 8, first)]
    for before, after in pairwise((first, *others)):
        layers += [nn.ReLU(), conv(3, before, after, stride=2), nn.GroupNorm(after // 8, after)]
    # Where something lies matters in brains that lie alike: eight octants are kept apart.
    layers += [nn.ReLU(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Dropout(settings.dropout)]
    return nn.Sequential(*layers, nn.Linear(8 * settings.widths[-1], num_outputs))


class ConvolutionalNetwork:
    """Small 3D convolutional network for classes and values."""

    def __init__(self, place: Place) -> None:
        self.settings = NetworkSettings(
            widths=(32, 64), steps=place.steps or 300, batch_size=8, lr=1e-3, dropout=0.3
        )
        self.device = place.device

    def answer(
        self, task: Task, training: Training, val: Cases, asked: Cases, seed: int
    ) -> Answers:
        """See `Estimator`; nothing is tuned, VAL is not read."""
        target = torch.from_numpy(training.cases.target)
        if len(target.unique()) < 2:
            raise Refusal(f"All {len(target)} training cases have the same {task.name}.")
        centre, spread = 0.0, 1.0
        loss: CaseLoss = _cross_entropy
        if task.kind == "regression":
            centre, spread = float(target.mean()), float(target.std(correction=0))
            target, loss = ((target - centre) / spread).float(), _squared_error
        volumes = training.cases.volumes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = small_cnn(self.settings, volumes, max(1, len(task.levels))).to(self.device)
            train_network(network, loss, training, target, self.settings, seed, self.device)
        found = outputs(network, asked.volumes, self.device, self.settings.batch_size)
        if task.kind == "regression":
            return {"prediction": found[:, 0].double().numpy() * spread + centre}
        return {"probability": found.double().softmax(1).numpy()}


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output[:, 0] - target) ** 2


class Labeller(nn.Module):
    """The project's U-Net as a segmenter: no noise, no condition; odd grids are filled with 0."""

    def __init__(self, settings: NetworkSettings, volumes: np.ndarray, num_labels: int) -> None:
        super().__init__()
        self.standardise = Standardise(volumes)
        config = UNetConfig(
            widths=settings.widths,
            patch=2,
            num_res_blocks=1,
            attention=(False,) * len(settings.widths),
            norm_groups=8,
        )
        self.odd = [size % 2 for size in volumes.shape[2:]]
        shape = tuple(size + odd for size, odd in zip(volumes.shape[2:], self.odd))
        self.network = UNet(config, NetworkSpec(volumes.shape[1], num_labels, shape))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, I, J, K) -> (B, labels, I, J, K) logits."""
        shape = x.shape[2:]
        i, j, k = self.odd
        x = functional.pad(self.standardise(x), (0, k, 0, j, 0, i))
        y = self.network(x, x.new_zeros(len(x)), x.new_zeros(len(x), 0))
        return y[:, :, : shape[0], : shape[1], : shape[2]]


class SegmentingUNet:
    """Small 3D U-Net, cross entropy and soft Dice (Milletari 2016, arXiv:1606.04797)."""

    def __init__(self, place: Place) -> None:
        self.settings = NetworkSettings(
            widths=(16, 32, 64), steps=place.steps or 150, batch_size=2, lr=2e-3
        )
        self.device = place.device

    def answer(
        self, task: Task, training: Training, val: Cases, asked: Cases, seed: int
    ) -> Answers:
        """See `Estimator`; nothing is tuned, VAL is not read."""
        volumes, num_labels = training.cases.volumes, len(task.levels) + 1
        targets = torch.from_numpy(training.cases.target.astype(np.int64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Labeller(self.settings, volumes, num_labels).to(self.device)
            train_network(
                network, _overlap_loss, training, targets, self.settings, seed, self.device
            )
        logits = outputs(network, asked.volumes, self.device, self.settings.batch_size)
        found = logits.argmax(1).to(torch.uint8).numpy()
        truth = asked.target.astype(np.uint8)
        return compare_structures(found, truth, len(task.levels), asked.spacing_mm)


def _overlap_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return (B,) cross entropy + 1 - mean soft Dice of the structures."""
    entropy = functional.cross_entropy(logits, target, reduction="none").flatten(1).mean(1)
    share = logits.softmax(1)[:, 1:].flatten(2)
    truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
    overlap = 2 * (share * truth).sum(2) + 1
    dice = overlap / (share.sum(2) + truth.sum(2) + 1)
    return entropy + 1 - dice.mean(1)
