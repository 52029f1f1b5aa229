"""Random numbers that follow from a seed alone.

Every item of a training batch and every generated volume has its own seed and its own stream, so
that results depend neither on batch size nor on the number of processes or devices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from numbers and names; stable across machines and Python versions."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def derive_seeds(positions: Tensor, *parts: int | str) -> Tensor:
    """Derive one seed for each of `positions` (B,) int64; returns (B,) int64 on the CPU."""
    return torch.tensor([derive_seed(*parts, int(p)) for p in positions], dtype=torch.int64)


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """Return a NumPy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))


class SampleRng:
    """One random stream for each item of a batch.

    Parameters
    ----------
    seeds : (B,) int64.
    device : where the numbers are drawn and returned. Streams differ between device types.

    Examples
    --------
    >>> both = SampleRng(torch.tensor([1, 2])).normal((3,))
    >>> second = SampleRng(torch.tensor([2])).normal((3,))
    >>> bool((both[1:] == second).all())
    True
    """

    def __init__(self, seeds: Tensor, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = []
        for seed in seeds.tolist():
            generator = torch.Generator(device=self.device)
            generator.manual_seed(seed)
            self._generators.append(generator)

    def __len__(self) -> int:
        return len(self._generators)

    def repeat(self, count: int) -> SampleRng:
        """Return `count` new independent streams for each stream, those of one together."""
        seeds = [
            torch.randint(2**62, (count,), generator=g, device=self.device)
            for g in self._generators
        ]
        return SampleRng(torch.cat(seeds), self.device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape) standard normal draws."""
        return torch.stack(
            [torch.randn(tuple(shape), generator=g, device=self.device) for g in self._generators]
        )

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Return (B, *shape) draws from [0, 1)."""
        return torch.stack(
            [torch.rand(tuple(shape), generator=g, device=self.device) for g in self._generators]
        )
