"""Slabs of neighbouring slices with their position, in one plane or in three: "2.5D".

A model of slabs is a 2D model that sees how slices go on. Neighbouring slabs share slices, so the
average of what they say of a slice ties the slabs of a volume together; planes that cross tie it
in every direction (after Lee et al., 2023, arXiv:2303.08440, who take the planes in turn).

Slabs lie inside the volume: at its ends the first and the last slab see their slices off centre.
Nothing is repeated there, so white noise on a volume is white noise on every slab.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import PLANE_AXIS, Plane, View, Volumes
from gyri.views.depth import brain_shown, cut_slices, draw_probabilities, drawn, slice_positions


@dataclass(frozen=True, kw_only=True)
class SlabConfig:
    """Settings of the slab view.

    Parameters
    ----------
    neighbours : k slices on either side; a slab has ``2 k + 1``.
    planes : one plane, or several, of which one network makes volumes that are averaged. The
        position then also says which plane.
    stride : slices from one slab to the next, at most ``2 k + 1``; 1 overlaps most.
    foreground : in [0, 1], how far training draws slabs in proportion to the share of brain that
        they show in TRAIN: 0 draws all equally, 1 never draws an empty slab.
    """

    neighbours: int = 1
    planes: tuple[Plane, ...] = ("axial",)
    stride: int = 1
    foreground: float = 0.5

    def __post_init__(self) -> None:
        """Refuse slabs that leave slices out, and planes given twice or not at all."""
        if self.neighbours < 0 or not 1 <= self.stride <= self.width:
            raise UsageError(
                f"neighbours is {self.neighbours} and stride {self.stride}: slabs of "
                f"{self.width} slices must have at least one and leave none out. Set neighbours "
                "to 0 or more and stride to between 1 and 2 neighbours + 1."
            )
        if not self.planes or len(set(self.planes)) < len(self.planes):
            raise UsageError(
                f"planes is {list(self.planes)}; name one plane or several different ones of "
                f"{', '.join(PLANE_AXIS)}."
            )

    @property
    def width(self) -> int:
        """Slices of a slab."""
        return 2 * self.neighbours + 1


class PlaneSlabs:
    """The slabs of one plane; in-plane axes lie short before long, so that planes fit each other.

    Parameters
    ----------
    plane, width, stride : as `SlabConfig` has them.
    grid : of the volumes.
    """

    def __init__(self, plane: Plane, width: int, stride: int, grid: Grid) -> None:
        self.axis = PLANE_AXIS[plane]
        self.width, self.depth = width, grid.shape[self.axis]
        if width > self.depth:
            raise UsageError(
                f"Slabs of {width} slices do not fit {self.depth} {plane} slices. "
                "Set neighbours lower."
            )
        last = self.depth - width
        self.starts = [*range(0, last, stride), last]
        in_plane = [n for axis, n in enumerate(grid.shape) if axis != self.axis]
        self.turned = in_plane[0] > in_plane[1]
        self.shape = (min(in_plane), max(in_plane))

    def per_slab(self, of_slice: Tensor) -> Tensor:
        """Average a number of every slice (depth,) over each slab, (len(starts),)."""
        return of_slice.unfold(0, self.width, 1).mean(1)[self.starts]

    def encode(self, volumes: Tensor) -> Tensor:
        """(V, C, I, J, K) -> (V, slabs, C * width, *shape); a channel's slices stay together."""
        x = volumes.movedim(2 + self.axis, 2)
        slabs = torch.stack([x[:, :, at : at + self.width] for at in self.starts], dim=1)
        return self._turn(slabs.flatten(2, 3))

    def decode(self, slabs: Tensor) -> Tensor:
        """Inverse of `encode`, overlaps averaged in float64: equal values average exactly."""
        slabs = self._turn(slabs).unflatten(2, (-1, self.width))
        volumes = slabs.shape[0], slabs.shape[2], self.depth, *slabs.shape[4:]
        total = torch.zeros(volumes, dtype=torch.float64, device=slabs.device)
        count = torch.zeros(self.depth, 1, 1, dtype=torch.float64, device=slabs.device)
        for at, slab in zip(self.starts, slabs.unbind(1), strict=True):
            total[:, :, at : at + self.width] += slab
            count[at : at + self.width] += 1
        return (total / count).movedim(2, 2 + self.axis)

    def cut(self, volumes: Volumes, rows: Tensor, index: Tensor) -> Tensor:
        """Return slab ``index[i]`` of the volume ``rows[i]``, (B, C * width, *shape)."""
        start = torch.tensor(self.starts, device=index.device)[index]
        depth = start[:, None] + torch.arange(self.width, device=index.device)
        slices = cut_slices(volumes, rows.repeat_interleave(self.width), self.axis, depth.flatten())
        return self._turn(slices.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(1, 2))

    def _turn(self, x: Tensor) -> Tensor:
        return x.transpose(-1, -2) if self.turned else x


def wrapped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Continue the last two axes of x periodically to `shape`, what is new on both sides."""
    for axis, size in zip((-2, -1), shape, strict=True):
        own = x.shape[axis]
        if size > own:
            index = torch.arange(size, device=x.device) - (size - own) // 2
            x = x.index_select(axis, index % own)
    return x


def cropped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `wrapped`."""
    for axis, size in zip((-2, -1), shape, strict=True):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


@VIEWS.register("slab", SlabConfig)
class SlabView(View):
    """Neighbouring slices as channels, (C * (2 k + 1), *in-plane), and where their centre lies.

    Planes of unequal shape are turned short axis first and continued periodically to a common
    shape: both are linear and leave white noise with unit variance.
    """

    def __init__(self, config: SlabConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        width = config.width
        self.planes = [PlaneSlabs(plane, width, config.stride, grid) for plane in config.planes]
        self.item_channels = channels * width
        self.item_shape = tuple(max(sizes) for sizes in zip(*(p.shape for p in self.planes)))
        self.counts = [len(plane.starts) for plane in self.planes]
        self.items_per_volume = sum(self.counts)
        centres = [plane.per_slab(slice_positions(grid, plane.axis)) for plane in self.planes]
        position = torch.cat(centres)[:, None]
        if len(self.planes) > 1:
            of_plane = torch.arange(len(self.planes)).repeat_interleave(torch.tensor(self.counts))
            one_hot = torch.nn.functional.one_hot(of_plane, len(self.planes))
            position = torch.cat([position, one_hot.to(position)], dim=1)
        self.position_size = position.shape[1]
        self.state = {
            "position": position,
            "draw": self._draw([torch.ones(plane.depth) for plane in self.planes]),
        }

    def _draw(self, shown: list[Tensor]) -> Tensor:
        """Return how often each slab is drawn, all planes equally often."""
        draws = [
            draw_probabilities(plane.per_slab(of_slice), self.config.foreground)
            for plane, of_slice in zip(self.planes, shown, strict=True)
        ]
        return torch.cat(draws) / len(draws)

    def fit(self, volumes: Volumes) -> None:
        """Measure how much brain each slab shows in TRAIN."""
        shown = brain_shown(volumes, [plane.axis for plane in self.planes])
        self.state["draw"] = self._draw(shown).to(self.state["draw"].device)

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> all slabs of a volume, plane after plane, from first to last."""
        slabs = [wrapped(plane.encode(volumes), self.item_shape) for plane in self.planes]
        x = slabs[0] if len(slabs) == 1 else torch.cat(slabs, dim=1)
        return Items(x.flatten(0, 1), self.state["position"].repeat(len(volumes), 1))

    def decode(self, items: Tensor) -> Tensor:
        """Average overlaps in each plane, then the planes."""
        slabs = items.unflatten(0, (-1, self.items_per_volume)).split(self.counts, dim=1)
        volumes = [
            plane.decode(cropped(own, plane.shape))
            for plane, own in zip(self.planes, slabs, strict=True)
        ]
        return torch.stack(volumes).mean(0).to(items.dtype)

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Draw one slab of each of the volumes `rows`, of any of the planes."""
        index = drawn(self.state["draw"], rng)
        channels = volumes.shape[1] * self.config.width
        x = torch.empty(len(rows), channels, *self.item_shape, device=rows.device)
        first = 0
        for plane, count in zip(self.planes, self.counts, strict=True):
            own = ((index >= first) & (index < first + count)).nonzero()[:, 0]
            slabs = plane.cut(volumes, rows[own], index[own] - first)
            x[own] = wrapped(slabs, self.item_shape)
            first += count
        return Items(x, self.state["position"][index])
