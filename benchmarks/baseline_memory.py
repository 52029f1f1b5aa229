"""Peak memory of a training step of baselines' recipes on volumes of 128^3, all phases.

    python benchmarks/baseline_memory.py [RECIPE ...]

Recipes are named as in `recipes/baselines`, or by file; each is counted on the items that its view
makes of a volume of ``--shape``, one micro-batch at its own precision, without its conditions and
what it needs (autoencoders have lines of their own). Counted as in `r3gan_memory.py`, on tensors
without content: parameters, gradients, Adam's moments and moving averages are part of it; what a
library's convolution takes beside its result is not. With ``--whole`` the method's slab is the
whole item, so that what slabs save can be told. Boxes that an autoencoder is trained on are left
out, so that its items are whole, and so is a Gaussian prior.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from live_storages import GIB, LiveStorages
from stylegan2_memory import Draws
from torch._subclasses.fake_tensor import FakeTensorMode

from gyri.recipe import Recipe, build_method, build_view, load_recipe
from gyri.sampling.schedules import Level, VPSchedule
from gyri.types import Batch, ConditionLayout, Grid, ItemSpec, Progress

SHAPE = (128, 128, 128)
AFFINE = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
CARD_GIB = 16
PUBLISHED = ("ha-gan-published", "wavelet-published", "maisi-published")
RECIPES = Path(__file__).parents[1] / "recipes" / "baselines"


SCHEDULE = (
    mock.patch.object(VPSchedule, "build", return_value=VPSchedule(torch.ones(9))),
    mock.patch.object(VPSchedule, "level", return_value=Level(0.7, 0.7)),
    mock.patch.object(VPSchedule, "coefficients", new=lambda self, at: (torch.ones(len(at)),) * 2),
)
"""A schedule is read when a method is built, and tensors without content hold nothing to read."""


def train_twice(recipe: Recipe, spec: ItemSpec) -> None:
    """Take two updates of every phase; the second has Adam's moments from before."""
    items = recipe.training.micro_batch or recipe.training.batch_size
    method = build_method(recipe, spec)
    method.state = {name: 1.0 for name in method.state}  # Scalars that a step reads.
    averages = [
        network
        for name, network in build_method(recipe, spec).networks.items()
        if method.ema_half_life(name, Progress(1, 1, 0.5)) is not None
    ]
    adam = {
        name: torch.optim.Adam(
            {
                p: None
                for phase in method.phases
                if phase.optimiser == name
                for network in phase.networks
                for p in method.networks[network].parameters()
            }
        )
        for name in method.optimisers
    }
    rows = torch.zeros(items, dtype=torch.int64)
    x = torch.randn(items, spec.channels, *spec.shape)
    context = {name: torch.randn(items, c, *spec.shape) for name, c in spec.context.items()}
    position = torch.zeros(items, spec.position_size) if spec.position_size else None
    batch = Batch(x, torch.zeros(items, 0), position, rows, rows, context)
    bf16 = recipe.training.precision == "bf16"
    for _ in range(2):
        for phase in method.phases:
            for name, network in method.networks.items():
                network.requires_grad_(name in phase.networks)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = method.loss(phase.name, batch, Progress(1, 1, 0.5), Draws(items))
            loss.total.backward()
            adam[phase.optimiser].step()
            adam[phase.optimiser].zero_grad()
    del averages


def counted_gib(recipe: Recipe, shape: tuple[int, ...]) -> float:
    """Return the peak of `train_twice` as counted."""
    spec = build_view(recipe, 1, Grid(shape, AFFINE)).item_spec(ConditionLayout(), 100)
    with ExitStack() as stack:
        for patch in SCHEDULE:
            stack.enter_context(patch)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        storages = stack.enter_context(LiveStorages())
        train_twice(recipe, spec)
    return storages.peak / GIB


def changed(recipe: Recipe, **settings: Any) -> Recipe:
    """Return the recipe with other settings of its method."""
    config = replace(recipe.method.config, **settings)
    return replace(recipe, method=replace(recipe.method, config=config))


def main() -> None:
    """Count and print a line of JSON a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="recipe", default=PUBLISHED)
    parser.add_argument("--shape", nargs="+", type=int, default=SHAPE)
    parser.add_argument("--card", type=float, default=CARD_GIB, help="GiB that a step must fit")
    parser.add_argument("--whole", action="store_true", help="slabs as thick as the item")
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    for name in arguments.recipes:
        path = RECIPES / f"{name}.yaml"
        recipe = load_recipe(path if path.is_file() else Path(name))
        if getattr(recipe.method.config, "patch", None) is not None:
            recipe = changed(recipe, patch=None)
        if getattr(recipe.method.config, "prior", "none") == "gaussian":
            recipe = changed(recipe, prior="none")
        if arguments.whole:
            recipe = changed(recipe, slab=shape[-1])
        gib = counted_gib(recipe, shape)
        row: dict[str, Any] = {
            "recipe": recipe.name,
            "shape": shape,
            "items": recipe.training.micro_batch or recipe.training.batch_size,
            "precision": recipe.training.precision,
            "whole": arguments.whole,
            "counted_gib": round(gib, 2),
            "fits": gib < arguments.card,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
