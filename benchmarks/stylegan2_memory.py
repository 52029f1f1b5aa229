"""Peak memory of StyleGAN2's training step as two recipes have it, all four phases.

    python benchmarks/stylegan2_memory.py

Counted as in `r3gan_memory.py`, on tensors without content (fake ones, which know autocast):
parameters, gradients, Adam's moments and the generator's average are part of it; what a library's
convolution takes beside its result is not. ``--measure`` also takes a step of a smaller item for
real, in float32, and prints by how much resident memory rose.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from live_storages import GIB, LiveStorages
from r3gan_memory import peak_resident_gib
from torch._subclasses.fake_tensor import FakeTensorMode

from gyri.recipe import Recipe, build_method, load_recipe
from gyri.types import Batch, ItemSpec, Progress

RECIPES = Path(__file__).parents[1] / "recipes" / "brats-africa"
CASES = {
    "slices of 256 x 256": ("stylegan2.yaml", (256, 256), 12),
    "volumes of 128 x 128 x 128": ("stylegan2-volume.yaml", (128, 128, 128), 40),
}
"""Name -> recipe, shape of an item, GiB of the card that it must fit."""
SMALL = ("slices of 64 x 64", "stylegan2.yaml", (64, 64))


class Draws:
    """Random numbers, as `gyri.runtime.streams.SampleRng` gives them; here, any."""

    def __init__(self, items: int) -> None:
        self.items = items

    def normal(self, shape: Any) -> torch.Tensor:
        """Return (B, *shape) standard normal draws."""
        return torch.randn(self.items, *shape)

    def uniform(self, shape: Any = ()) -> torch.Tensor:
        """Return (B, *shape) draws from [0, 1)."""
        return torch.rand(self.items, *shape)


def train_twice(recipe: Recipe, shape: tuple[int, ...], bf16: bool) -> None:
    """Take two updates of every phase; the second has Adam's moments from before."""
    items = recipe.training.micro_batch
    spec = ItemSpec(1, shape, num_train=100)
    method = build_method(recipe, spec)
    average = build_method(recipe, spec).networks["generator"]
    adam = {name: torch.optim.Adam(own.parameters()) for name, own in method.networks.items()}
    batch = Batch(
        x=torch.randn(items, 1, *shape),
        condition=torch.zeros(items, 0),
        position=None,
        subject=torch.zeros(items, dtype=torch.int64),
        seed=torch.zeros(items, dtype=torch.int64),
    )
    for _ in range(2):
        for phase in method.phases:
            for name, network in method.networks.items():
                network.requires_grad_(name in phase.networks)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = method.loss(phase.name, batch, Progress(1, 1, 0.5), Draws(items))
            loss.total.backward()
            adam[phase.optimiser].step()
            adam[phase.optimiser].zero_grad()
    del average


def counted_gib(recipe: Recipe, shape: tuple[int, ...], bf16: bool) -> float:
    """Return the peak of `train_twice` as counted."""
    with FakeTensorMode(), LiveStorages() as storages:
        train_twice(recipe, shape, bf16)
    return storages.peak / GIB


def read(file: str) -> Recipe:
    """Read a recipe of `RECIPES`."""
    return load_recipe(RECIPES / file)


def main() -> None:
    """Count, measure where asked, and print a line of JSON a case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, file, shape = SMALL
    if arguments.inside:
        before = peak_resident_gib()
        train_twice(read(file), shape, bf16=False)
        print(json.dumps({"gib": peak_resident_gib() - before}))
        return
    for case, (case_file, case_shape, card_gib) in CASES.items():
        recipe = read(case_file)
        bf16 = recipe.training.precision == "bf16"
        gib = counted_gib(recipe, case_shape, bf16)
        row: dict[str, Any] = {"case": case, "items": recipe.training.micro_batch, "bf16": bf16}
        print(json.dumps({**row, "counted_gib": gib, "fits_gib": card_gib, "fits": gib < card_gib}))
    if arguments.measure:
        command = [sys.executable, __file__, "--inside"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rise = json.loads(done.stdout.splitlines()[-1])["gib"]
        counted = counted_gib(read(file), shape, bf16=False)
        print(json.dumps({"case": name, "counted_gib": counted, "measured_gib": rise}))


if __name__ == "__main__":
    main()
