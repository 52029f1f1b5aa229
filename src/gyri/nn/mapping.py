"""StyleGAN2's mapping network: z, condition and position to one vector.

Karras et al., 2020, arXiv:2006.06676 (StyleGAN2-ADA, whose conditional form this is).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.nn.embedding import Label
from gyri.nn.equalised import EqualLinear, activate, unit_mean_square


class Mapping(nn.Module):
    """Fully connected layers over z and a linear embedding of the label, each of unit mean square.

    The label is the condition and Fourier features of the position.

    Parameters
    ----------
    latent_size : length of z, 0 where the label alone is mapped.
    condition_size, position_size : D and P, both may be 0.
    out_size : length of every layer and of the result.
    num_layers : after the embedding.
    lr_multiplier : of these layers, by which they learn slower.
    """

    def __init__(
        self,
        latent_size: int,
        condition_size: int,
        position_size: int,
        out_size: int,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise UsageError(f"mapping_layers is {num_layers}; a mapping has one layer or more.")
        self.label = Label(condition_size, position_size)
        self.embed: EqualLinear | None = None
        first = latent_size
        if self.label.size:
            self.embed = EqualLinear(self.label.size, out_size)
            first += out_size
        self.layers = nn.ModuleList(
            EqualLinear(a, b, lr_multiplier=lr_multiplier)
            for a, b in pairwise([first, *[out_size] * num_layers])
        )

    def forward(
        self, z: Tensor | None, condition: Tensor, position: Tensor | None = None
    ) -> Tensor:
        """(B, Z), (B, D) and (B, P) -> (B, out_size).

        Raises
        ------
        ValueError
            If the network was made for positions and gets none.
        """
        parts = [] if z is None else [unit_mean_square(z)]
        if self.embed is not None:
            parts.append(unit_mean_square(self.embed(self.label(condition, position))))
        x = torch.cat(parts, dim=1)
        for layer in self.layers:
            x = activate(layer(x))
        return x
