"""Peak memory of a training step of baselines' recipes on volumes of 128^3, all phases.

    python benchmarks/baseline_memory.py ha-gan-published alpha-wgan-published

Recipes are named as in `recipes/baselines`, or by file; each is counted on items of ``--shape``,
one micro-batch at its own precision, its conditions left out. Counted as in
`r3gan_memory.py`, on tensors without content: parameters, gradients, Adam's moments and moving
averages are part of it; what a library's convolution takes beside its result is not. With
``--whole`` the method's slab is the whole item, so that what slabs save can be told.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from live_storages import GIB, LiveStorages
from stylegan2_memory import Draws
from torch._subclasses.fake_tensor import FakeTensorMode

from gyri.recipe import Recipe, build_method, load_recipe
from gyri.types import Batch, ItemSpec, Progress

SHAPE = (128, 128, 128)
CARD_GIB = 16
RECIPES = Path(__file__).parents[1] / "recipes" / "baselines"


def train_twice(recipe: Recipe, shape: tuple[int, ...]) -> None:
    """Take two updates of every phase; the second has Adam's moments from before."""
    items = recipe.training.micro_batch or recipe.training.batch_size
    spec = ItemSpec(1, shape, num_train=100)
    method = build_method(recipe, spec)
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
    batch = Batch(torch.randn(items, 1, *shape), torch.zeros(items, 0), None, rows, rows)
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
    with FakeTensorMode(), LiveStorages() as storages:
        train_twice(recipe, shape)
    return storages.peak / GIB


def on_whole_items(recipe: Recipe, shape: tuple[int, ...]) -> Recipe:
    """Return the recipe with slabs as thick as the item."""
    config = replace(recipe.method.config, slab=shape[-1])
    return replace(recipe, method=replace(recipe.method, config=config))


def main() -> None:
    """Count and print a line of JSON a recipe."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="+", metavar="recipe")
    parser.add_argument("--shape", nargs="+", type=int, default=SHAPE)
    parser.add_argument("--card", type=float, default=CARD_GIB, help="GiB that a step must fit")
    parser.add_argument("--whole", action="store_true", help="slabs as thick as the item")
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    for name in arguments.recipes:
        path = RECIPES / f"{name}.yaml"
        recipe = load_recipe(path if path.is_file() else Path(name))
        if arguments.whole:
            recipe = on_whole_items(recipe, shape)
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
