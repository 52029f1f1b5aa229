"""Small GANs and what trains them in tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gyri.methods.latent_gan import ClassicGANConfig, LatentGAN
from gyri.networks.dcgan import (
    DCGANDiscriminator,
    DCGANDiscriminatorConfig,
    DCGANGenerator,
    DCGANGeneratorConfig,
)
from gyri.recipe import TrainingConfig
from gyri.runtime.streams import SampleRng
from gyri.training.ema import averaged
from gyri.training.loop import Trainer
from gyri.types import Batch, ItemSpec, Loss, Progress

START = Progress(0, 0, 0.0)


def build(
    kind: type[LatentGAN],
    config: ClassicGANConfig,
    spec: ItemSpec,
    generator: dict[str, Any] | None = None,
    discriminator: dict[str, Any] | None = None,
) -> LatentGAN:
    """Build a method with small DCGAN networks of the given settings."""
    torch.manual_seed(0)
    specs = kind.network_specs(config, spec)
    small = {"widths": (16, 8)}
    networks: dict[str, nn.Module] = {
        "generator": DCGANGenerator(
            DCGANGeneratorConfig(**{**small, **(generator or {})}), specs["generator"]
        ),
        "discriminator": DCGANDiscriminator(
            DCGANDiscriminatorConfig(**{**small, **(discriminator or {})}), specs["discriminator"]
        ),
    }
    return kind(config, spec, networks)


def a_batch(spec: ItemSpec, size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, spec.channels, *spec.shape, generator=generator) * 2 - 1
    condition = torch.randn(size, spec.condition.size, generator=generator)
    position = torch.rand(size, spec.position_size, generator=generator)
    rows = torch.arange(size)
    return Batch(x, condition, position if spec.position_size else None, rows, rows + 7)


def loss_of(method: LatentGAN, phase: str, batch: Batch) -> Loss:
    return method.loss(phase, batch, START, SampleRng(batch.seed))


def assert_phases_reach_their_own_network(method: LatentGAN, batch: Batch) -> None:
    for trained, other in (("discriminator", "generator"), ("generator", "discriminator")):
        for name, network in method.networks.items():
            # As the loop does; the fakes of the discriminator's phase must be cut off without it.
            network.requires_grad_(name == trained or trained == "discriminator")
            network.zero_grad(set_to_none=True)
        loss_of(method, trained, batch).total.backward()
        for parameter in method.networks[trained].parameters():
            assert parameter.grad is not None
            assert float(parameter.grad.abs().sum()) > 0
        assert all(p.grad is None for p in method.networks[other].parameters())


class Repeated:
    """A feed that goes round its items."""

    device = torch.device("cpu")
    view = SimpleNamespace(state={})

    def __init__(self, x: Tensor, condition: Tensor | None = None) -> None:
        self.x = x
        self.condition = torch.zeros(len(x), 0) if condition is None else condition

    def batch(self, positions: Tensor) -> Batch:
        rows = positions % len(self.x)
        return Batch(self.x[rows], self.condition[rows], None, rows, positions)

    def calibration_items(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self.x, {}


def generated(
    method: LatentGAN, feed: Repeated, steps: int, folder: Path, condition: Tensor
) -> Tensor:
    """Train, and return what the generator's average makes of `condition` (N, D)."""
    config = TrainingConfig(steps=steps, batch_size=8, log_every=steps, snapshots=1)
    trainer = Trainer(method, feed, config, 0, folder)  # type: ignore[arg-type]
    trainer.run()
    z = SampleRng(torch.arange(len(condition)) + 10**6).normal((method.config.latent_size,))
    with averaged(method, trainer.ema), torch.no_grad():
        return method.networks["generator"](z, condition, None)
