"""Time of a training step: our `stylegan2` against lucidrains' stylegan2-pytorch.

    pip install --no-deps stylegan2_pytorch kornia kornia_rs && pip install einops
    python benchmarks/stylegan2.py --out stylegan2.json

Slices of 64 x 64 pixels, three channels, equal widths, w of 512 and a mapping of 8 layers, float32,
the same threads. Each takes whole steps of its own method over a period that holds all lazy
regularisers: ours R1 every 16 steps and path length every 4, the peer R1 and R2 every 4 and path
length every 32. Periods of the two are taken in turn in one process, and medians are compared. Ours
tries both memory formats; the peer's convolution of a group an item, with channels last, ends torch
2.13 on CPU with a corrupted heap, so it has its own default alone. The peer's step is its
`Trainer.train` without what that needs a GPU, a loader and files for. What the peer imports for the
command line, augmentation and quantisation is replaced by empty modules where it is not installed;
its networks use none of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import nn

SIDE, BATCH, LATENT, PERIOD = 64, 8, 512, 32
GENERATOR = (128, 64, 32, 16, 8)
DISCRIMINATOR = (512, 256, 128, 64, 32, 16)
CAPACITY = 4
"""Of the peer, which makes these widths."""
UNUSED = (
    "torchvision", "fire", "aim", "contrastive_learner", "linear_attention_transformer",
    "vector_quantize_pytorch",
)  # fmt: skip


def our_step(format: str) -> tuple[Callable[[int], None], int]:
    """Return a function that takes step number n, and the number of parameters."""
    from gyri.recipe import build_method, parse_recipe
    from gyri.runtime.streams import SampleRng
    from gyri.types import Batch, ItemSpec, Progress

    last = format == "channels_last"
    recipe = parse_recipe(
        {
            "name": "ours",
            "view": "slice",
            "method": {"name": "stylegan2", "latent_size": LATENT},
            "networks": {
                "generator": {"widths": list(GENERATOR), "channels_last": last},
                "discriminator": {"widths": list(DISCRIMINATOR), "channels_last": last},
            },
            "training": {"steps": 1},
        }
    )
    method = build_method(recipe, ItemSpec(3, (SIDE, SIDE), num_train=100))
    adam = {name: torch.optim.Adam(own.parameters()) for name, own in method.networks.items()}
    average = [p.detach().clone() for p in method.networks["generator"].parameters()]

    def step(number: int) -> None:
        for phase in method.phases:
            if number % phase.every != phase.offset:
                continue
            batch = Batch(
                torch.randn(BATCH, 3, SIDE, SIDE),
                torch.zeros(BATCH, 0),
                None,
                torch.zeros(BATCH, dtype=torch.int64),
                torch.arange(BATCH),
            )
            for name, network in method.networks.items():
                network.requires_grad_(name in phase.networks)
            adam[phase.optimiser].zero_grad()
            loss = method.loss(phase.name, batch, Progress(number, 1, 0.5), SampleRng(batch.seed))
            loss.total.backward()
            adam[phase.optimiser].step()
            method.after_step(phase.name, loss.statistics)
        with torch.no_grad():
            torch._foreach_lerp_(average, list(method.networks["generator"].parameters()), 0.01)

    return step, _count(*method.networks.values())


def peer_step() -> tuple[Callable[[int], None], int]:
    """As `our_step`, of the peer."""
    for name in UNUSED:
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = mock.MagicMock()
    import kornia.filters  # noqa: F401  (outside of the patch, which it would believe)

    # It refuses to be imported without a GPU, which its networks do not need.
    with mock.patch("torch.cuda.is_available", return_value=True):
        from stylegan2_pytorch import stylegan2_pytorch as peer

    mapping = peer.StyleVectorizer(LATENT, 8)
    generator = peer.Generator(SIDE, LATENT, CAPACITY)
    discriminator = peer.Discriminator(SIDE, CAPACITY)
    makers = [*mapping.parameters(), *generator.parameters()]
    adam_g = torch.optim.Adam(makers, betas=(0.5, 0.9))
    adam_d = torch.optim.Adam(discriminator.parameters(), betas=(0.5, 0.9))
    average = [p.detach().clone() for p in makers]

    def made() -> tuple[torch.Tensor, torch.Tensor]:
        style = [(torch.randn(BATCH, LATENT), generator.num_layers)]
        w = peer.styles_def_to_tensor(peer.latent_to_w(mapping, style))
        noise = torch.rand(BATCH, SIDE, SIDE, 1)
        return w, generator(w, noise)

    def step(number: int) -> None:
        penalised = number % 4 == 0
        adam_d.zero_grad()
        fake = made()[1].detach().requires_grad_(penalised)
        real = torch.randn(BATCH, 3, SIDE, SIDE).requires_grad_(penalised)
        of_fake, of_real = discriminator(fake)[0], discriminator(real)[0]
        loss = peer.hinge_loss(of_fake, of_real)
        if penalised:
            loss = (
                loss + peer.gradient_penalty(real, of_real) + peer.gradient_penalty(fake, of_fake)
            )
        loss.backward()
        adam_d.step()
        adam_g.zero_grad()
        discriminator.requires_grad_(False)
        w, fake = made()
        loss = peer.gen_hinge_loss(discriminator(fake)[0], None)
        if number % 32 == 0:
            loss = loss + (peer.calc_pl_lengths(w, fake) - 1.0).square().mean()
        loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(average, makers, 0.01)

    return step, _count(mapping, generator, discriminator)


def _count(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def main() -> None:
    """Time both in turn and print a line of JSON a row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--periods", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    built = {("ours", format): our_step(format) for format in ("channels_first", "channels_last")}
    built["peer", "channels_first"] = peer_step()
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in built}
    for step, _ in built.values():
        step(0)
    for _ in range(arguments.periods):
        for key, (step, _) in built.items():
            began = time.process_time()
            for number in range(PERIOD):
                step(number)
            seconds[key].append((time.process_time() - began) / PERIOD)
    rows = [
        {
            "who": who,
            "format": format,
            "parameters": built[who, format][1],
            "processor_s_a_step": statistics.median(taken),
            "range": [min(taken), max(taken)],
        }
        for (who, format), taken in seconds.items()
    ]
    best = {
        who: min(r["processor_s_a_step"] for r in rows if r["who"] == who)
        for who in ("ours", "peer")
    }
    rows.append({"ours_over_peer": best["ours"] / best["peer"]})
    for row in rows:
        print(json.dumps(row))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
