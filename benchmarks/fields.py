"""Memory and time of training `ddpm` on fields of deformation, with both U-Nets of volumes.

    python benchmarks/fields.py [--parts memory times measured] [--repeats 5]

Items have three channels and lie on a control grid; batch 1. Memory is counted as in
`stylegan2_memory.py`, on tensors without content: parameters, gradients, Adam's moments and the
weights' average are part of it, what a library's kernel takes beside its result is not. Counted is
the plain step that a GPU takes; on CPU normalisations recompute what they can. Attention over depth
is counted with its weights kept, which a fused kernel with a learned bias may not need.

Times are processor seconds of the two networks' steps taken in turn, float32, medians; beside them
the time to integrate a velocity and to warp one volume by it. Part ``measured`` takes plain steps
for real, each in a fresh process, and prints by how much resident memory rose, beside the count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from typing import Any
from unittest import mock

import torch
from live_storages import GIB, LiveStorages
from r3gan_memory import Draws, peak_resident_gib
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Adam

from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.networks.unet import UNet, UNetConfig
from gyri.networks.unet_factorised import UNetFactorised, UNetFactorisedConfig
from gyri.nn.deformation import exponential, warp
from gyri.types import Batch, ItemSpec, Progress

COUNTED = ((128, 128, 32), (80, 96, 80), (40, 48, 40))
"""(I, J, K): the published crop of 32 axial slices, a grid of 2 mm, and every other voxel of it."""
SMALLEST = (8, 8, 8)
TIMED = ((40, 48, 40), (20, 24, 20))
PUBLISHED = (64, 128, 256, 512)
NARROW = (32, 64, 96)
"""Widths of the timed networks."""
NETWORKS = ("unet_factorised", "unet")
PARTS = ("memory", "times", "measured")
Step = Callable[[], None]
METHOD = DDPMConfig(prediction="x0", schedule="log_snr", loss_weighting="min_snr")


def never(weight: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> bool:
    """Stand for `recomputes`; a `Mock` would keep the tensors that it is asked about."""
    return False


PLAIN = mock.patch("gyri.nn.normalise.recomputes", new=never)
"""Under it normalisations keep what a GPU keeps."""


def network_of(
    name: str, widths: tuple[int, ...], shape: tuple[int, ...], checkpointing: bool = False
) -> nn.Module:
    """Build a network: attention at every level where factorised, else at the lowest."""
    spec = DDPM.network_specs(METHOD, ItemSpec(3, shape))["denoiser"]
    every, lowest = (True,) * len(widths), (False,) * (len(widths) - 1) + (True,)
    if name == "unet":
        config = UNetConfig(widths=widths, attention=lowest, gradient_checkpointing=checkpointing)
        return UNet(config, spec)
    factorised = UNetFactorisedConfig(widths=widths, attention=every, depth_attention=every)
    return UNetFactorised(replace(factorised, gradient_checkpointing=checkpointing), spec)


def make_step(method: DDPM, network: nn.Module, adam: Adam, bf16: bool = False) -> Step:
    """Return a function that takes one training step on a field of noise."""
    method.networks = {"denoiser": network}
    batch = Batch(
        x=torch.randn(1, 3, *method.spec.shape),
        condition=torch.zeros(1, 0),
        position=None,
        subject=torch.zeros(1, dtype=torch.int64),
        seed=torch.zeros(1, dtype=torch.int64),
    )

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = method.loss("denoise", batch, Progress(1, 1, 0.5), Draws(str(batch.x.device)))
        loss.total.backward()
        adam.step()
        adam.zero_grad()

    return step


def real_step(name: str, shape: tuple[int, ...]) -> Step:
    """Return a step in float32 with a network of its own."""
    network = network_of(name, NARROW, shape)
    return make_step(DDPM(METHOD, ItemSpec(3, shape), {}), network, Adam(network.parameters()))


def counted_gib(
    name: str,
    widths: tuple[int, ...],
    shapes: Sequence[tuple[int, ...]],
    bf16: bool = False,
    checkpointing: bool = False,
) -> Iterator[float]:
    """Yield the peak of a step as counted, on each grid in turn.

    One network serves all; a first step, whose peak is dropped, makes Adam's moments. Fake tensors
    know autocast; those of ``meta`` are quicker.
    """
    methods = [DDPM(METHOD, ItemSpec(3, shape), {}) for shape in (SMALLEST, *shapes)]
    with ExitStack() as stack:
        if bf16:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.device("cpu" if bf16 else "meta"))
        storages = stack.enter_context(LiveStorages())
        network, average = (network_of(name, widths, SMALLEST, checkpointing) for _ in range(2))
        adam = Adam(network.parameters())
        for method in methods:
            if bf16:
                # Made here, the number stays known, as the method reads it.
                method.state["data_std"] = torch.tensor(0.5)
            storages.peak = storages.now
            make_step(method, network, adam, bf16)()
            if method is not methods[0]:
                yield storages.peak / GIB
        del average


def medians(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each task, taken in turn after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            if repeat:
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def step_times(shape: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Median seconds of a step with each network."""
    return medians({name: real_step(name, shape) for name in NETWORKS}, repeats)


def warp_times(shape: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Median seconds of integrating a velocity and warping one channel, there and back."""
    velocity = torch.randn(1, 3, *shape, requires_grad=True)
    moving = torch.randn(1, 1, *shape)

    def forward() -> torch.Tensor:
        return warp(moving, exponential(velocity))

    def without_gradient() -> None:
        with torch.no_grad():
            forward()

    return medians(
        {"forward": without_gradient, "with gradient": lambda: forward().sum().backward()}, repeats
    )


def grid(shape: tuple[int, ...]) -> str:
    """Return the shape as text."""
    return "x".join(map(str, shape))


def print_counts() -> None:
    """Count every network, precision, form and grid, and print a table in GiB."""
    print(f"| network | precision | checkpointed | {' | '.join(map(grid, COUNTED))} |")
    print("|---|---|---|---|---|---|")
    for bf16, checkpointing, name in product((False, True), (False, True), NETWORKS):
        with PLAIN:
            peaks = list(counted_gib(name, PUBLISHED, COUNTED, bf16, checkpointing))
        cells = " | ".join(f"{peak:.2f}" for peak in peaks)
        precision, form = ("fp32", "bf16")[bf16], ("no", "yes")[checkpointing]
        print(f"| {name} | {precision} | {form} | {cells} |", flush=True)


def print_times(repeats: int) -> None:
    """Time both networks and the deformation, and print a table of seconds."""
    print("\n| grid | unet_factorised, s | unet, s | ratio | exp and warp, s | with gradient, s |")
    print("|---|---|---|---|---|---|")
    for shape in TIMED:
        steps, warps = step_times(shape, repeats), warp_times(shape, repeats)
        factorised, unet = (steps[name] for name in NETWORKS)
        print(
            f"| {grid(shape)} | {factorised:.3f} | {unet:.3f} | {factorised / unet:.2f} "
            f"| {warps['forward']:.4f} | {warps['with gradient']:.4f} |",
            flush=True,
        )


def print_measured() -> None:
    """Take the timed steps in fresh processes; print counted and measured GiB."""
    print("\n| grid | network | counted | measured |\n|---|---|---|---|")
    for name in NETWORKS:
        command = [sys.executable, __file__, "--inside", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rise = json.loads(done.stdout.splitlines()[-1])["gib"]
        (counted,) = counted_gib(name, NARROW, TIMED[:1])
        print(f"| {grid(TIMED[0])} | {name} | {counted:.2f} | {rise:.2f} |", flush=True)


def main() -> None:
    """Count, time, measure where asked, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--inside", choices=NETWORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.inside:
        before = peak_resident_gib()
        step = real_step(arguments.inside, TIMED[0])
        with PLAIN:
            step()
            step()
        print(json.dumps({"gib": peak_resident_gib() - before}))
        return
    if "memory" in arguments.parts:
        print_counts()
    if "times" in arguments.parts:
        print_times(arguments.repeats)
    if "measured" in arguments.parts:
        print_measured()


if __name__ == "__main__":
    main()
