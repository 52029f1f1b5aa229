"""Peak memory of R3GAN's training step on volumes, batch 1, float32, both phases.

    python benchmarks/r3gan_memory.py [--measure 64]

The peak is counted: the step runs on tensors without content (the device ``meta``), every storage
is counted from its making to its end, and the largest sum is kept. Parameters, averages,
gradients and Adam's moments are part of it; what a library's convolution takes beside its result is
not. ``--measure SIZE`` runs the same step for real in a fresh process and prints by how much its
resident memory rose, to check the count; it needs as much memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from live_storages import GIB, LiveStorages
from torch import Tensor

from gyri.methods.r3gan import R3GAN, R3GANConfig
from gyri.networks.r3gan import R3GANDiscriminator, R3GANGenerator, R3GANNetworkConfig
from gyri.types import Batch, ItemSpec, Progress

WIDTHS = {
    64: (256, 128, 64, 32, 16),
    96: (256, 128, 64, 32, 16),
    128: (256, 256, 128, 64, 32, 16),
}
"""Widths by side of the volume; narrow where the grid is large."""
CARD_GIB = 24


class Draws:
    """Random numbers of one stream an item; here, any."""

    def __init__(self, device: str) -> None:
        self.device = device

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return (1, *shape) standard normal draws."""
        return torch.randn(1, *shape, device=self.device)

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Return (1, *shape) draws from [0, 1)."""
        return torch.rand(1, *shape, device=self.device)


def train_twice(side: int, checkpointing: bool, device: str = "cpu") -> None:
    """Take two training steps, both phases, batch 1; the second has Adam's moments from before."""
    config = R3GANNetworkConfig(widths=WIDTHS[side], gradient_checkpointing=checkpointing)
    spec = ItemSpec(1, (side,) * 3)
    specs = R3GAN.network_specs(R3GANConfig(), spec)
    networks: dict[str, torch.nn.Module] = {
        "generator": R3GANGenerator(config, specs["generator"]).to(device),
        "discriminator": R3GANDiscriminator(config, specs["discriminator"]).to(device),
    }
    average = R3GANGenerator(config, specs["generator"]).to(device)
    method = R3GAN(R3GANConfig(), spec, networks)
    adam = {name: torch.optim.Adam(network.parameters()) for name, network in networks.items()}
    batch = Batch(
        x=torch.randn(1, 1, *spec.shape, device=device),
        condition=torch.zeros(1, 0, device=device),
        position=None,
        subject=torch.zeros(1, dtype=torch.int64),
        seed=torch.zeros(1, dtype=torch.int64),
    )
    for _ in range(2):
        for phase in ("discriminator", "generator"):
            for name, network in networks.items():
                network.requires_grad_(name == phase)
            method.loss(phase, batch, Progress(1, 1, 0.5), Draws(device)).total.backward()
            adam[phase].step()
            adam[phase].zero_grad()
    del average


def counted_gib(side: int, checkpointing: bool) -> float:
    """Return the peak of `train_twice` as counted."""
    with LiveStorages() as storages:
        train_twice(side, checkpointing, device="meta")
    return storages.peak / GIB


def peak_resident_gib() -> float:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / GIB


def measured(side: int, checkpointing: bool) -> dict[str, float]:
    """Return rise of resident memory in GiB and seconds of `train_twice` in a fresh process."""
    command = [sys.executable, __file__, "--inside", str(side), str(int(checkpointing))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Count, measure where asked, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", nargs="+", type=int, choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--measure", nargs="*", type=int, choices=WIDTHS, default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.inside:
        side, checkpointing = arguments.inside
        before, began = peak_resident_gib(), time.process_time()
        train_twice(side, bool(checkpointing))
        rise = peak_resident_gib() - before
        print(json.dumps({"gib": rise, "processor_s": time.process_time() - began}))
        return
    rows = []
    for side in arguments.sides:
        for checkpointing in (False, True):
            row: dict[str, Any] = {"side": side, "gradient_checkpointing": checkpointing}
            row["widths"] = WIDTHS[side]
            row["counted_gib"] = counted_gib(side, checkpointing)
            row["fits_24_gib"] = row["counted_gib"] < CARD_GIB
            if side in arguments.measure:
                row["measured"] = measured(side, checkpointing)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
