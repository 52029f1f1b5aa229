"""Time of a training step of gyri's recipe, MONAI's latent diffusion and diffusion of voxels.

    cd benchmarks && python families.py [RECIPE ...] [--threads 1] [--repeats 5]

Each recipe's networks and batch, on items of noise as its view makes them of a 40x48x40 volume,
without conditions, Gaussian priors and the stage that it needs: losses of all phases, backward and
Adam in float32, not compiled. Steps are taken in turn in one process, so that whatever else the
machine does meets all, and medians of processor seconds are compared. A step of slabs is worth as
many volumes as its items hold voxels of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from baseline_memory import AFFINE, changed
from fields import medians
from r3gan_memory import Draws

from gyri.recipe import Recipe, build_method, build_view, load_recipe
from gyri.types import Batch, ConditionLayout, Grid, Progress

SHAPE = (40, 48, 40)
RECIPES = Path(__file__).parents[1] / "recipes"
FAMILIES = ("gyri/brains-4mm", "baselines/monai-ldm-4mm", "oasis1/volume-ddpm-4mm")
"""gyri's own, latent diffusion on MONAI's classes (second stage), voxels without a prior."""


def plain(recipe: Recipe) -> Recipe:
    """Return the recipe without conditions and Gaussian prior."""
    if getattr(recipe.method.config, "prior", "none") == "gaussian":
        recipe = changed(recipe, prior="none")
    return replace(recipe, conditions=())


def make_step(recipe: Recipe) -> tuple[Callable[[], None], float]:
    """Return what takes a training step, and how many volumes' items it reads."""
    view = build_view(recipe, 1, Grid(SHAPE, AFFINE))
    spec = view.item_spec(ConditionLayout(), 100)
    method = build_method(recipe, spec)
    adam = torch.optim.Adam(p for n in method.networks.values() for p in n.parameters())
    items = recipe.training.batch_size
    rows = torch.zeros(items, dtype=torch.int64)
    batch = Batch(
        torch.randn(items, spec.channels, *spec.shape),
        torch.zeros(items, 0),
        torch.zeros(items, spec.position_size) if spec.position_size else None,
        rows,
        rows,
        {name: torch.randn(items, c, *spec.shape) for name, c in spec.context.items()},
    )

    def step() -> None:
        for phase in method.phases:
            loss = method.loss(phase.name, batch, Progress(1, 1, 0.5), Draws("cpu"))
            loss.total.backward()
        adam.step()
        adam.zero_grad()

    whole = recipe.view.name == "latent"  # An item of codes is a volume.
    voxels = prod(SHAPE) if whole else spec.channels * prod(spec.shape)
    return step, items * voxels / prod(SHAPE)


def main() -> None:
    """Measure and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="recipe", default=FAMILIES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    steps, volumes = {}, {}
    for name in arguments.recipes:
        recipe = plain(load_recipe(RECIPES / f"{name}.yaml"))
        steps[name], volumes[name] = make_step(recipe)
    times = medians(steps, arguments.repeats)
    first = arguments.recipes[0]
    for name in arguments.recipes:
        line = {
            "recipe": name,
            "step_s": round(times[name], 3),
            "volumes": round(volumes[name], 2),
            "step_ratio": round(times[first] / times[name], 3),
            "volume_ratio": round(times[first] / volumes[first] * volumes[name] / times[name], 3),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
