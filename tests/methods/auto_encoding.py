"""Small auto-encoding GANs, and laws of their phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.methods.gan import Repeated
from torch import Tensor

from gyri.recipe import Recipe, TrainingConfig, build_method, parse_recipe
from gyri.training.loop import Trainer
from gyri.types import Batch, ConditionLayout, ItemSpec, Method

LAYOUT = ConditionLayout(((0, 2),))
"""One column of two levels and its missing bit."""


def recipe(method: dict[str, Any], networks: dict[str, Any]) -> Recipe:
    return parse_recipe(
        {
            "name": "small",
            "view": "volume",
            "method": method,
            "networks": networks,
            "training": {"steps": 1, "batch_size": 4},
        }
    )


def build(method: dict[str, Any], networks: dict[str, Any], spec: ItemSpec) -> Method:
    """Build a method as a recipe would, from settings."""
    torch.manual_seed(0)
    return build_method(recipe(method, networks), spec)


def weights(method: Method) -> dict[str, list[Tensor]]:
    return {
        name: [p.detach().clone() for p in network.parameters()]
        for name, network in method.networks.items()
    }


def moved_by_each_phase(method: Method, batch: Batch, folder: Path) -> dict[str, set[str]]:
    """Take one update of every phase as the loop does; return the networks each has moved."""
    feed = Repeated(batch.x, batch.condition)
    config = TrainingConfig(steps=1, batch_size=len(batch))
    trainer = Trainer(method, feed, config, 0, folder)  # type: ignore[arg-type]
    moved = {}
    for phase in method.phases:
        before = weights(method)
        trainer._update(phase)
        after = weights(method)
        moved[phase.name] = {
            name
            for name in before
            if any(not torch.equal(a, b) for a, b in zip(before[name], after[name]))
        }
    return moved


def trained(method: Method, x: Tensor, steps: int, folder: Path) -> Method:
    """Train on items (N, C, *S), without conditions."""
    config = TrainingConfig(steps=steps, batch_size=len(x), log_every=steps, snapshots=1)
    Trainer(method, Repeated(x), config, 0, folder).run()  # type: ignore[arg-type]
    return method


def four_volumes() -> Tensor:
    """Four smooth bodies (4, 1, 8, 8, 8) of different sizes and places, in [-1, 1]."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 8)] * 3, indexing="ij"))
    bodies = []
    for number in range(4):
        centre = torch.tensor([0.3, -0.2, 0.1]).roll(number)[:, None, None, None]
        radius = 0.5 + 0.1 * number
        distance = (grid - centre).square().sum(0).sqrt()
        bodies.append(1.6 * torch.sigmoid(8 * (radius - distance)) - 0.8)
    return torch.stack(bodies)[:, None]
