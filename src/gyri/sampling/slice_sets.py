"""Which slices of a volume are looked at together: random sets in training, an order in sampling.

Peng et al., 2023 (cDPM); Harvey et al., 2022, arXiv:2205.11495, section 3 and appendix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Order = Literal["hierarchical", "autoregressive"]

CHANCES = 4
"""Draws that decide about a run of slices: its length, spacing, offset, and on which side it is."""


class SliceSets(NamedTuple):
    """Slices of each volume of a batch; all (B, T).

    `at` (int64) is where they lie, `target` says which are noised and learned (the others are
    observed), `valid` which there are at all: a set may end in fillers.
    """

    at: Tensor
    target: Tensor
    valid: Tensor


def drawn_sets(chances: Tensor, depth: int, window: int) -> SliceSets:
    """Draw the sets of a training batch.

    Runs of evenly spaced slices are added until the window is full: of a length uniform from 1 to
    the window's, a spacing log-uniform from 1 to the largest that fits, and a uniform offset. The
    first is a target, each later one a target or observed with equal chance, and slices that are
    there already stay what they are. So all gaps between slices are learnt. A run that brings more
    slices than there is room for is left out, for a part of it would lie at one of its ends.

    Parameters
    ----------
    chances : (B, runs, CHANCES) uniform in [0, 1); as many runs at most are added.
    depth : slices of a volume.
    window : T, the most slices in a set; a volume of fewer is taken whole.
    """
    window = min(window, depth)
    drawn = [_drawn_set(own, depth, window) for own in chances.tolist()]
    index = torch.zeros(len(drawn), window, dtype=torch.int64)
    target, valid = (torch.zeros(len(drawn), window, dtype=torch.bool) for _ in range(2))
    for row, is_target in enumerate(drawn):
        count = len(is_target)
        index[row, :count] = torch.tensor(list(is_target))
        target[row, :count] = torch.tensor(list(is_target.values()))
        valid[row, :count] = True
    device = chances.device
    return SliceSets(index.to(device), target.to(device), valid.to(device))


def _drawn_set(runs: list[list[float]], depth: int, window: int) -> dict[int, bool]:
    """Return which slices are in a set, each with whether it is a target."""
    is_target: dict[int, bool] = {}
    for number, (of_length, of_spacing, of_offset, of_side) in enumerate(runs):
        length = 1 + int(of_length * window)
        widest = (depth - 1) / max(length - 1, 1)
        spacing = math.exp(of_spacing * math.log(max(widest, 1.0)))
        offset = of_offset * (depth - spacing * (length - 1))
        run = {min(int(offset + k * spacing), depth - 1) for k in range(length)}
        new = sorted(run - is_target.keys())
        if len(is_target) + len(new) <= window:
            is_target |= dict.fromkeys(new, number == 0 or of_side < 0.5)
    return is_target


class Block(NamedTuple):
    """Slices that are sampled together, and those already there that they are told; rising."""

    targets: tuple[int, ...]
    observed: tuple[int, ...]


def blocks(depth: int, window: int, order: Order, kept: int) -> list[Block]:
    """Return in which order the slices of a volume are sampled, each once.

    ``autoregressive`` begins with the first `window` slices and goes on from there, as published.
    ``hierarchical`` begins with as many spread evenly over the volume and then fills the gaps
    between them, wide ones from their middle: every later slice has neighbours on both sides, and
    nothing drifts. A block is told of its slices' neighbours first, then of the nearest, as many as
    the window holds.

    Parameters
    ----------
    depth : slices of a volume.
    window : the most slices in a block.
    order : see above.
    kept : the fewest slices that a block after the first is told of, below `window`.
    """
    window = min(window, depth)
    first = list(range(window))
    if order == "hierarchical":
        first = sorted({round(k * (depth - 1) / max(window - 1, 1)) for k in range(window)})
    plan, known = [Block(tuple(first), ())], set(first)
    most = max(window - kept, 1)
    while len(known) < depth:
        wanted = _wanted(known, depth, order, most)
        while wanted:
            block = _block(wanted[:most], known, window)
            plan.append(block)
            known.update(block.targets)
            wanted = wanted[len(block.targets) :]
    return plan


def _block(wanted: Sequence[int], known: set[int], window: int) -> Block:
    """Take the first of `wanted`, as many as go into a window together with their neighbours."""
    targets: list[int] = []
    told: set[int] = set()
    for target in wanted:
        below, above = (k for k in known if k < target), (k for k in known if k > target)
        beside = told | {max(below, default=target), min(above, default=target)} - {target}
        if targets and len(targets) + 1 + len(beside) > window:
            break
        targets.append(target)
        told = beside
    near = sorted(known, key=lambda k: (k not in told, min(abs(k - t) for t in targets), k))
    return Block(tuple(targets), tuple(sorted(near[: window - len(targets)])))


def _wanted(known: set[int], depth: int, order: Order, most: int) -> list[int]:
    """Return the slices that come next: all that are missing, or the middles of wide gaps."""
    missing = [k for k in range(depth) if k not in known]
    if order == "autoregressive":
        return missing
    ends = sorted(known)
    gaps = [(low, high) for low, high in pairwise(ends) if high - low > 1]
    if all(high - low - 1 <= most for low, high in gaps):
        return missing
    return [(low + high) // 2 for low, high in gaps]
