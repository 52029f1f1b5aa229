"""The mean of all items of a label, learned apart from what differs between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from gyri.nn.layers import zero_init

EMPTY = -1.0
"""Background, in the range of items."""
RATE = 100.0


class MeanImage(nn.Module):
    """Adds to the items of a decoder an image that is linear in their label; empty at the start.

    It moves `RATE` times as fast as any other weight under Adam. Else the decoder learns brightness
    and contrast first through the code, whose posterior then lies far from its prior: samples come
    out dim, and alike for all labels.

    Parameters
    ----------
    label_size : length of the label.
    shape : (C, *S) of an item.
    """

    def __init__(self, label_size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.images = zero_init(nn.Linear(label_size, math.prod(shape)))
        nn.init.constant_(self.images.bias, EMPTY / RATE)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, C, *S) and (B, label_size) -> (B, C, *S)."""
        return x + RATE * self.images(label).unflatten(1, self.shape)
