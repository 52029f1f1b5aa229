"""Label channels: integers outside, one-hot in {-1, 1} inside.

Inside, a volume has `width` channels: one for each intensity channel and `num_labels` for each
label channel, in the order of the channels. Outside, a label is the argmax over its channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gyri.types import Channel


def width(channels: Sequence[Channel]) -> int:
    """Return how many channels `channels` are inside a model."""
    return sum(_widths(channels))


def _widths(channels: Sequence[Channel]) -> list[int]:
    return [c.num_labels if c.kind == "label" else 1 for c in channels]


def to_inside(parts: Sequence[Tensor], channels: Sequence[Channel], axis: int = 1) -> Tensor:
    """Put channels together as a model sees them.

    Parameters
    ----------
    parts : one tensor a channel, without its channel axis: intensities in [-1, 1], integer labels.
    channels : what they are.
    axis : where the channel axis goes.

    Returns
    -------
    Tensor
        float32 with `width` channels along `axis`.
    """
    inside = []
    for part, channel in zip(parts, channels, strict=True):
        if channel.kind == "label":
            hot = [2.0 * (part == label) - 1.0 for label in range(channel.num_labels)]
            inside.append(torch.stack(hot, axis))
        else:
            inside.append(part.unsqueeze(axis))
    return torch.cat(inside, axis)


def to_outside(inside: Tensor, channels: Sequence[Channel], axis: int = 1) -> list[Tensor]:
    """Inverse of `to_inside`; labels (int64) are the argmax over their channels."""
    groups = inside.split(_widths(channels), axis)
    return [
        group.argmax(axis) if channel.kind == "label" else group.squeeze(axis)
        for group, channel in zip(groups, channels)
    ]
