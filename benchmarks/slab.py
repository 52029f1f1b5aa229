"""Sampling a volume of overlapping slabs jointly, against as many independent slices.

    python benchmarks/slab.py [--threads 1] [--repeats 3]

Draws one 40x48x40 volume in 20 steps of ``dpmpp_2m``: with the slab view (3 and 5 slices, stride 1)
through the lift, and as 40 slices that know nothing of each other, with the same widths of U-Net.
Repeats are taken in turn, so that whatever else the machine does meets all; processor times are
compared (target: at most 1.5). Also counts the network calls of an 80x96x80 volume, item by item.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.networks.unet import UNet, UNetConfig
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig
from gyri.types import ConditionLayout, Grid, Items
from gyri.views.base import View

STEPS = 20
WIDTHS = (16, 32)
NEIGHBOURS = {"slabs of 3": 1, "slabs of 5": 2}


def grid(shape: tuple[int, int, int], spacing_mm: float) -> Grid:
    """Return a grid of cubic voxels."""
    rows = [tuple(spacing_mm * (i == k) for k in range(4)) for i in range(3)]
    return Grid(shape, (*rows, (0.0, 0.0, 0.0, 1.0)))


def build(name: str, where: Grid, **settings: object) -> View:
    """Return a view of one channel."""
    entry = VIEWS[name]
    view: View = entry.component(entry.config(**settings), 1, where)
    return view


def model(view: View, sampling: SamplingConfig) -> DDPM:
    """Return an untrained denoiser of the view's items."""
    torch.manual_seed(0)
    spec = view.item_spec(ConditionLayout(), num_train=1)
    config = DDPMConfig(prediction="edm", sampling=sampling)
    widths = UNetConfig(widths=WIDTHS, attention=(False,) * len(WIDTHS), num_res_blocks=1)
    (network,) = DDPM.network_specs(config, spec).values()
    return DDPM(config, spec, {"denoiser": UNet(widths, network).eval()})


class Apart:
    """One slice as a volume of its own."""

    slice_axis = None

    def __init__(self, view: View) -> None:
        self.volume_shape = (1, *view.item_shape, 1)
        self.position = view.state["position"]

    def encode(self, volumes: Tensor) -> Items:
        """(V, 1, I, J, 1) -> (V, 1, I, J); the slices from the first to the last."""
        return Items(volumes[..., 0], self.position[: len(volumes)])

    def decode(self, items: Tensor) -> Tensor:
        """Inverse of `encode`."""
        return items[..., None]


def samplers(where: Grid, items_per_call: int) -> dict[str, Callable[[], Tensor]]:
    """Return what draws one volume in each of the ways."""
    sampling = SamplingConfig(num_steps=STEPS, items_per_call=items_per_call)
    slices = build("slice", where)
    ways: dict[str, Callable[[], Tensor]] = {}
    count = slices.items_per_volume
    ways["slices apart"] = partial(
        model(slices, sampling).sample,
        Apart(slices),
        torch.zeros(count, 0),
        SampleRng(torch.arange(count)),
    )
    for name, neighbours in NEIGHBOURS.items():
        slabs = build("slab", where, neighbours=neighbours)
        rng = SampleRng(torch.arange(1))
        ways[name] = partial(model(slabs, sampling).sample, slabs, torch.zeros(1, 0), rng)
    return ways


def interleaved(ways: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, dict[str, float]]:
    """Median wall and processor seconds of each way, after one unmeasured volume."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, draw in ways.items():
            began, began_processor = time.perf_counter(), time.process_time()
            draw()
            if repeat > 0:
                wall[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - began_processor)
    return {
        name: {
            "wall_s": statistics.median(wall[name]),
            "processor_s": statistics.median(processor[name]),
        }
        for name in ways
    }


class Counted(torch.nn.Module):
    """Stands for a network: says nothing and counts how often it sees an item."""

    def __init__(self) -> None:
        super().__init__()
        self.items = 0

    def forward(self, x: Tensor, *known: Tensor) -> Tensor:
        """Return zeros."""
        self.items += len(x)
        return torch.zeros_like(x)


def calls_per_item(where: Grid, neighbours: int) -> float:
    """Return how often the network sees each item of a volume."""
    slabs = build("slab", where, neighbours=neighbours)
    method = model(slabs, SamplingConfig(num_steps=STEPS))
    method.networks["denoiser"] = counted = Counted()
    method.sample(slabs, torch.zeros(1, 0), SampleRng(torch.arange(1)))
    return counted.items / slabs.items_per_volume


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--items-per-call", type=int, default=SamplingConfig().items_per_call)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    small, large = grid((40, 48, 40), 4.0), grid((80, 96, 80), 2.0)
    times = interleaved(samplers(small, arguments.items_per_call), arguments.repeats)
    base = times["slices apart"]["processor_s"]
    results = {
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "steps": STEPS,
        "widths": WIDTHS,
        "times": times,
        "ratio": {name: times[name]["processor_s"] / base for name in NEIGHBOURS},
        "calls_per_item_80x96x80": calls_per_item(large, neighbours=1),
    }
    print(json.dumps(results, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
