"""What a network knows besides the image: noise level, condition and position, as one vector.

Sinusoids of the noise level as Dhariwal and Nichol, 2021, arXiv:2105.05233; Fourier features of
the position as Tancik et al., 2020, arXiv:2006.10739, with fixed octaves.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

PERIOD = 10_000.0
STEPS_PER_UNIT = 1000.0


def timestep_embedding(noise_level: Tensor, width: int) -> Tensor:
    """Return cosines and sines of the noise level.

    Parameters
    ----------
    noise_level : (B,), about the unit range: ``t`` in [0, 1] or ``ln(sigma) / 4``. Unit length
        stands for the 1000 steps of the published networks.
    width : length of the embedding; an odd one ends in a zero.

    Returns
    -------
    Tensor
        (B, width).
    """
    half = width // 2
    exponent = torch.arange(half, device=noise_level.device, dtype=torch.float32) / max(half, 1)
    frequency = STEPS_PER_UNIT * PERIOD**-exponent
    angle = noise_level.float()[:, None] * frequency
    embedding = torch.cat([angle.cos(), angle.sin()], dim=1)
    return nn.functional.pad(embedding, (0, width % 2))


def mlp(in_size: int, width: int) -> nn.Sequential:
    """Return the two layers that bring an input to the width of the embedding."""
    return nn.Sequential(nn.Linear(in_size, width), nn.SiLU(), nn.Linear(width, width))


class FourierFeatures(nn.Module):
    """Cosines and sines of coordinates, octave by octave, each of unit mean square.

    The longest wave is four times the range [-1, 1], so that its ends stay further apart than
    neighbours; the shortest has a length of ``2**(4 - num_frequencies)``.

    Parameters
    ----------
    size : P, coordinates of a position.
    num_frequencies : octaves; the shortest of 6 waves spans six of 48 slices.
    """

    frequency: Tensor

    def __init__(self, size: int, num_frequencies: int = 6) -> None:
        super().__init__()
        octaves = 2.0 ** torch.arange(num_frequencies)
        self.register_buffer("frequency", octaves * math.pi / 4, persistent=False)
        self.out_size = 2 * size * num_frequencies

    def forward(self, position: Tensor) -> Tensor:
        """(B, P) in [-1, 1] -> (B, out_size)."""
        angle = (position[:, :, None] * self.frequency).flatten(1)
        return math.sqrt(2) * torch.cat([angle.cos(), angle.sin()], dim=1)


def given(position: Tensor | None) -> Tensor:
    """Return `position`; raises `ValueError` where a network needs one and got none."""
    if position is None:
        raise ValueError(
            "This network was made for items with a position and got none. Pass the position "
            "(B, P) that the view gives with its items."
        )
    return position


class Label(nn.Module):
    """Condition and Fourier features of the position, side by side; nothing is learned.

    Parameters
    ----------
    condition_size, position_size : D and P; either may be 0.
    """

    def __init__(self, condition_size: int, position_size: int) -> None:
        super().__init__()
        self.features = FourierFeatures(position_size) if position_size else None
        self.size = condition_size
        if self.features is not None:
            self.size += self.features.out_size

    def forward(self, condition: Tensor, position: Tensor | None) -> Tensor:
        """(B, D) and (B, P) -> (B, size)."""
        if self.features is None:
            return condition
        return torch.cat([condition, self.features(given(position))], dim=1)


PositionKind = Literal["fourier", "raw"]
"""How coordinates enter: as `FourierFeatures`, or as the numbers they are."""


def embedding_table(size: int, width: int) -> nn.Linear:
    """Return one vector of N(0, 1) a coordinate; of a one-hot index, an embedding table."""
    table = nn.Linear(size, width, bias=False)
    nn.init.normal_(table.weight)
    return table


def position_embedding(size: int, width: int, kind: PositionKind) -> nn.Module:
    """Return what brings a position (B, `size`) to the width of the embedding."""
    if kind == "raw":
        return embedding_table(size, width)
    features = FourierFeatures(size)
    return nn.Sequential(features, *mlp(features.out_size, width))


class ConditionEmbedding(nn.Module):
    """Condition and position, each through its own MLP, summed.

    Parameters
    ----------
    condition_size : D, may be 0.
    position_size : P, may be 0.
    width : length of the embedding.
    position : ``fourier`` features and an MLP, or an `embedding_table` of the ``raw`` numbers.
    """

    def __init__(
        self,
        condition_size: int,
        position_size: int,
        width: int,
        position: PositionKind = "fourier",
    ) -> None:
        super().__init__()
        self.width = width
        self.of_condition = mlp(condition_size, width) if condition_size else None
        self.of_position: nn.Module | None = None
        if position_size:
            self.of_position = position_embedding(position_size, width, position)

    def forward(self, condition: Tensor, position: Tensor | None = None) -> Tensor:
        """(B, D) and (B, P) -> (B, width).

        Raises
        ------
        ValueError
            If the network was made for positions and gets none.
        """
        embedding = condition.new_zeros(len(condition), self.width)
        if self.of_condition is not None:
            embedding = embedding + self.of_condition(condition)
        if self.of_position is not None:
            embedding = embedding + self.of_position(given(position))
        return embedding


class NoiseEmbedding(nn.Module):
    """Embedding of noise level, condition and position of a denoiser's blocks.

    Parameters
    ----------
    base_width : length of the sinusoidal embedding; the result is four times as long.
    condition_size, position_size : D and P, may be 0.
    position : see `ConditionEmbedding`.
    """

    def __init__(
        self,
        base_width: int,
        condition_size: int,
        position_size: int,
        position: PositionKind = "fourier",
    ) -> None:
        super().__init__()
        self.base_width = base_width
        self.width = 4 * base_width
        self.of_noise_level = mlp(base_width, self.width)
        self.others = ConditionEmbedding(condition_size, position_size, self.width, position)

    def forward(
        self, noise_level: Tensor, condition: Tensor, position: Tensor | None = None
    ) -> Tensor:
        """(B,), (B, D) and (B, P) -> (B, width)."""
        sinusoids = timestep_embedding(noise_level, self.base_width).to(condition.dtype)
        return self.of_noise_level(sinusoids) + self.others(condition, position)
