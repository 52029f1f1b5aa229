"""Exponential moving averages of the networks that a method asks to be averaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gyri.types import Method, Progress


class Ema:
    """Averaged copies of a method's networks.

    The weight of the past is ``0.5 ** (batch / half_life)``, the half-life being the method's,
    in images, at the current progress.
    """

    def __init__(self, method: Method) -> None:
        start = Progress(0, 0, 0.0)
        self.networks: dict[str, nn.Module] = {
            name: copy.deepcopy(network).requires_grad_(False)
            for name, network in method.networks.items()
            if method.ema_half_life(name, start) is not None
        }

    @torch.no_grad()
    def update(self, method: Method, batch_size: int, progress: Progress) -> None:
        """Move each average towards the networks as they are now."""
        for name, average in self.networks.items():
            half_life = method.ema_half_life(name, progress) or 0.0
            keep = 0.5 ** (batch_size / max(half_life, 1e-8))
            ours: list[Tensor] = [*average.parameters()]
            theirs: list[Tensor] = [*method.networks[name].parameters()]
            torch._foreach_lerp_(ours, theirs, 1 - keep)
            for mine, new in zip(average.buffers(), method.networks[name].buffers()):
                mine.copy_(new)


@contextmanager
def averaged(method: Method, ema: Ema) -> Iterator[None]:
    """Let `method` use the averaged networks inside the block."""
    own = dict(method.networks)
    method.networks.update(ema.networks)
    try:
        yield
    finally:
        method.networks.update(own)
