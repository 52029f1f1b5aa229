"""Random numbers with one stream an item.

Every item of a training batch and every generated volume has its own seed and its own stream, so
that results depend neither on batch size nor on the number of processes or devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gyri.runtime.seeding import derive_seed


def derive_seeds(positions: Tensor, *parts: int | str) -> Tensor:
    """Derive one seed for each of `positions` (B,) int64; returns (B,) int64 on the CPU."""
    return torch.tensor([derive_seed(*parts, int(p)) for p in positions], dtype=torch.int64)


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
