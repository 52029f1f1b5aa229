"""A training step of the published dense VAE: gyri's trainer against a plain PyTorch loop.

    python benchmarks/dense_vae.py [--threads 1] [--steps 40] [--repeats 5]

The setting is the published one: 9,680 slices of 182 x 218 pixels, four scanners, a hidden layer of
512, 256 latents, 41 million parameters, Adam, batches of 8. The peer is the same modules in a
`torch.utils.data.DataLoader` (in this process, or with two workers) and an eager loop with
`torch.optim.Adam` as it comes, and with ``fused=True``. Steps of all are interleaved; medians of
wall and processor time. What a step has to move at least (every weight read twice and its gradient
written once, Adam's seven passes) is set against the memory bandwidth of a copy in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from gyri.methods.gaussian_autoencoder import ReconstructionConfig
from gyri.methods.vae import VAE, VAEConfig
from gyri.networks.dense import DenseConfig, DenseDecoder, DenseDecoderConfig, DenseEncoder
from gyri.recipe import TrainingConfig
from gyri.training.data import Feed, ResidentVolumes
from gyri.training.loop import Trainer
from gyri.types import ConditionLayout, Grid, ItemSpec, OptimiserConfig
from gyri.views.slice import SliceConfig, SliceView

SUBJECTS, SHAPE, SCANNERS, BATCH = 968, (182, 218, 10), 4, 8
PASSES = 10
"""Of the weights: two reads and a gradient, and Adam's four reads and three writes."""


def build(spec: ItemSpec) -> VAE:
    """Return the published network, with the position and missing bit that gyri adds."""
    config = VAEConfig(
        reconstruction=ReconstructionConfig(loss="logcosh", scale=1.0),
        optimiser=OptimiserConfig(lr=3e-4),
    )
    specs = VAE.network_specs(config, spec)
    networks = {
        "encoder": DenseEncoder(DenseConfig(), specs["encoder"]),
        "decoder": DenseDecoder(DenseDecoderConfig(), specs["decoder"]),
    }
    return VAE(config, spec, networks)


def ours(stored: Tensor, condition: Tensor, out: Path) -> Callable[[], None]:
    """Return a step of gyri's trainer."""
    grid = Grid(SHAPE, ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0)))
    view = SliceView(SliceConfig(foreground=0.0), 1, grid)
    volumes = ResidentVolumes(stored, 1 / 32767, (0.0, 1.0))
    spec = ItemSpec(1, SHAPE[:2], view.position_size, ConditionLayout(((0, SCANNERS),)))
    out.mkdir()
    training = TrainingConfig(steps=10**9, batch_size=BATCH, save_every_s=1e9)
    trainer = Trainer(build(spec), Feed(volumes, condition, view, 0), training, 0, out)
    return trainer._step


def peer(data: TensorDataset, workers: int, fused: bool) -> Callable[[], None]:
    """Return a step of a plain loop on slices as floats."""
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers)
    spec = ItemSpec(1, SHAPE[:2], 1, ConditionLayout(((0, SCANNERS),)))
    method = build(spec)
    encoder, decoder = method.networks["encoder"], method.networks["decoder"]
    parameters = [*encoder.parameters(), *decoder.parameters()]
    adam = torch.optim.Adam(parameters, lr=3e-4, fused=fused)

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        x, label, place = next(batches)
        mean, log_variance = encoder(x, label, place).chunk(2, dim=1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = method.config.reconstruction.error(x, decoder(z, label, place))
        kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        adam.zero_grad()
        (error + kl).mean().backward()
        adam.step()

    return step


def bandwidth() -> float:
    """Return GB/s of a copy of 164 MB, read and write counted."""
    source = torch.rand(41_000_000)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - began)
    return 2 * source.numel() * 4 / min(times) / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(32767, (SUBJECTS, 1, *SHAPE), generator=generator, dtype=torch.int16)
    levels = torch.randint(SCANNERS, (SUBJECTS,), generator=generator)
    condition = torch.nn.functional.one_hot(levels, SCANNERS + 1).float()
    data = TensorDataset(
        stored[:, 0].movedim(3, 1).flatten(0, 1)[:, None].float() / 32767 * 2 - 1,
        condition.repeat_interleave(SHAPE[2], 0),
        torch.linspace(-0.05, 0.05, SHAPE[2])[:, None].repeat(SUBJECTS, 1),
    )
    with tempfile.TemporaryDirectory() as folder:
        steps: dict[str, Callable[[], None]] = {
            "gyri": ours(stored, condition, Path(folder) / "run")
        }
        for name, workers, fused in (
            ("plain", 0, False),
            ("plain, two workers", 2, False),
            ("plain, fused Adam", 0, True),
        ):
            steps[name] = peer(data, workers, fused)
        wall: dict[str, list[float]] = {name: [] for name in steps}
        cpu: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(options.repeats + 1):
            for name, step in steps.items():
                began, cpu_began = time.perf_counter(), time.process_time()
                for _ in range(options.steps):
                    step()
                if repeat:
                    wall[name].append((time.perf_counter() - began) / options.steps)
                    cpu[name].append((time.process_time() - cpu_began) / options.steps)
    seconds = {name: statistics.median(times) for name, times in wall.items()}
    moved = PASSES * 4 * 41.07e6 / seconds["gyri"] / 1e9
    limit = bandwidth()
    print(
        json.dumps(
            {
                "threads": options.threads,
                "wall_ms": {name: round(1e3 * s, 1) for name, s in seconds.items()},
                "cpu_ms": {n: round(1e3 * statistics.median(t), 1) for n, t in cpu.items()},
                "plain / gyri": {n: round(s / seconds["gyri"], 2) for n, s in seconds.items()},
                "GB/s needed": round(moved, 1),
                "GB/s of a copy": round(limit, 1),
                "share of the bandwidth": round(moved / limit, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
