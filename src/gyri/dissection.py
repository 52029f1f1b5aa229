"""Which units of a generator follow a label, and what happens without them: GAN dissection.

Bau et al., 2018, arXiv:1811.10597. A unit is one channel of what a stage makes. Its agreement with
a label is the intersection over union of the label's voxels with those where the unit, enlarged to
the item's grid, is highest. The highest are by default as many as the label has, where the paper
searches a threshold: a unit that follows the label exactly then has an agreement of 1, whatever the
label's size. Causes are found by setting units: to 0 everywhere, or, at a place, to the mean of
their highest values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, adaptive_max_pool3d, interpolate

from gyri.capabilities import StyleStage
from gyri.errors import UsageError
from gyri.runtime.seeding import numpy_rng
from gyri.style_walk import ITEMS_PER_CALL, make_items, shown, stylist_of
from gyri.training.labels import to_outside
from gyri.training.run import Model
from gyri.types import Channel

UNITS = 8
"""Most units that are set together; at most a quarter of a stage's."""
CONTROLS = 3
"""Draws of as many other units of the stage."""
KEPT_VALUES = 2**15
"""Values of a unit, over all samples, of which its threshold is the quantile."""
ENLARGED_VALUES = 2**25
"""Values of features on the item's grid that are held at once; bounds memory."""
FOREGROUND = 0.1
"""Intensity in [0, 1] above which a voxel of a sample counts as brain when a place is sought."""

Change = Callable[[Tensor, Tensor, slice], Tensor]
"""Units, features (B, U, *grid) and which rows of all items they are -> features."""


@dataclass(frozen=True)
class Effect:
    """What setting the units of a label did to it.

    Parameters
    ----------
    before, after : amount of the label, in the unit that the owner names.
    control : the same after setting as many other units of the stage, mean of `CONTROLS` draws.
    volumes, label : (V, C, I, J, K) after it, and (V, I, J, K) bool where they have the label.
    """

    before: float
    after: float
    control: float
    volumes: Tensor
    label: np.ndarray


@dataclass(frozen=True)
class Dissected:
    """What was found of one label.

    Parameters
    ----------
    name, number : of the channel, and the label's number in it.
    share : of all voxels of the items that have the label.
    quantile : of a unit's values above which it counts as high.
    grids : of the stages.
    iou : by stage, the agreement (U,) of each unit.
    stage : whose best units were set.
    units : these, the best first.
    high : (V, units, I, J, K) bool, where each of them is high.
    samples, label : (V, C, I, J, K) as they are, and (V, I, J, K) bool where they have the label.
    place : (V, I, J, K) bool, the ball of brain where they were set high.
    ablation : after 0 everywhere; the mean number of the label's voxels in a sample.
    insertion : after setting them high at `place`; share of the place that has the label.
    """

    name: str
    number: int
    share: float
    quantile: float
    grids: tuple[tuple[int, ...], ...]
    iou: tuple[np.ndarray, ...]
    stage: int
    units: tuple[int, ...]
    high: np.ndarray
    samples: Tensor
    label: np.ndarray
    place: np.ndarray
    ablation: Effect
    insertion: Effect


def label_refusal(channels: Sequence[Channel]) -> str | None:
    """Say why a model that makes these channels cannot be dissected, None if it can."""
    if any(channel.kind == "label" for channel in channels):
        return None
    made = ", ".join(channel.name for channel in channels)
    return (
        f"The model makes {made} and no label. Dissection compares units with a label channel that "
        "the model makes with its images: train a recipe with one, such as `data: {channels: [T1w, "
        "dseg]}`, on a cohort that was prepared with it."
    )


@torch.no_grad()
def dissect(
    model: Model,
    channels: Sequence[Channel],
    styles: Tensor,
    *,
    intensity: int = 0,
    quantile: float | None = None,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> list[Dissected]:
    """Find, set to 0 and set high the units that follow each label.

    Parameters
    ----------
    model : whose method is a `gyri.capabilities.Stylist`.
    channels : of its volumes.
    styles : (V, items, L, W) of samples.
    intensity : place inside the model of the channel in which a brain is seen.
    quantile : of a unit's values above which it counts as high; by default 1 - the label's share.
    seed : of the control units.
    advance : called after each label.

    Returns
    -------
    list of Dissected
        One a label that samples have, but for 0, the background.

    Raises
    ------
    UsageError
        If all channels hold intensities.
    """
    if refusal := label_refusal(channels):
        raise UsageError(refusal)
    flat = styles.flatten(0, 1)
    volumes = model.view.decode(make_items(model, flat))
    kept = _kept_values(model, flat)
    found = []
    for channel, labels in zip(channels, to_outside(volumes, channels)):
        for number in range(1, channel.num_labels if channel.kind == "label" else 0):
            mask = labels == number
            if bool(mask.any()):
                search = _Search(model, flat, channels, channel.name, number, volumes, mask)
                found.append(search.found(kept, intensity, quantile, seed))
            advance()
    return found


def _rows_of(model: Model, num: int) -> Iterator[slice]:
    size = ITEMS_PER_CALL[len(model.view.item_shape)]
    return (slice(at, at + size) for at in range(0, num, size))


@contextmanager
def _hooked(stages: Sequence[StyleStage], hook: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Let `hook` see and replace the features of stages, by their place, while the block runs."""
    handles = [
        stage.module.register_forward_hook(lambda module, given, out, k=k: hook(k, out))
        for k, stage in enumerate(stages)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _features(model: Model, styles: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield rows of items and the features (B, U, *grid) of every stage."""
    stages = stylist_of(model).style_stages()
    for rows in _rows_of(model, len(styles)):
        seen: dict[int, Tensor] = {}

        def see(place: int, features: Tensor, seen: dict[int, Tensor] = seen) -> Tensor:
            seen[place] = features.float()
            return features

        with _hooked(stages, see):
            stylist_of(model).from_styles(styles[rows])
        yield rows, [seen[k] for k in range(len(stages))]


def _kept_values(model: Model, styles: Tensor) -> list[Tensor]:
    """Return values (n, U) of every stage's units, sorted, from all items alike."""
    per_item = max(KEPT_VALUES // len(styles), 1)
    generator = torch.Generator().manual_seed(0)
    parts: list[list[Tensor]] = [[] for _ in stylist_of(model).style_stages()]
    for _, features in _features(model, styles):
        for part, x in zip(parts, features):
            values = x.flatten(2)
            if values.shape[2] > per_item:
                where = torch.randint(values.shape[2], (per_item,), generator=generator)
                values = values[..., where.to(x.device)]
            part.append(values.movedim(1, 2).flatten(0, 1))
    return [torch.cat(part).sort(dim=0).values for part in parts]


def overlaps(features: Tensor, mask: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersections and unions (U,) of where features are high with a mask, in voxels.

    Parameters
    ----------
    features : (B, U, *grid); they are enlarged linearly.
    mask : (B, *S) bool.
    threshold : (U,); from it on a unit is high.
    """
    met, either = [], []
    size = max(ENLARGED_VALUES // mask.numel(), 1)
    for part, own in zip(features.split(size, dim=1), threshold.split(size)):
        high = enlarged(part, tuple(mask.shape[1:])) >= own.reshape(1, -1, *[1] * (mask.ndim - 1))
        met.append((high & mask[:, None]).transpose(0, 1).flatten(1).sum(1))
        either.append((high | mask[:, None]).transpose(0, 1).flatten(1).sum(1))
    return torch.cat(met), torch.cat(either)


def enlarged(features: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring features (B, U, *grid) to a grid, linearly."""
    if tuple(features.shape[2:]) == shape:
        return features
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return interpolate(features, size=shape, mode=mode, align_corners=False)


@dataclass(frozen=True)
class _Search:
    """One label's search: samples, and where they have it."""

    model: Model
    styles: Tensor
    channels: Sequence[Channel]
    name: str
    number: int
    volumes: Tensor
    mask: Tensor

    def found(
        self, kept: list[Tensor], intensity: int, quantile: float | None, seed: int
    ) -> Dissected:
        mask_items = self._in_items(self.mask)
        share = float(mask_items.float().mean())
        quantile = 1 - share if quantile is None else quantile
        highest = [v[min(int(quantile * len(v)), len(v) - 1) :] for v in kept]
        thresholds = [values[0] for values in highest]
        iou = self._agreement(mask_items, thresholds)
        num = [max(min(UNITS, len(of) // 4), 1) for of in iou]
        order = [of.argsort(descending=True) for of in iou]
        stage = int(np.argmax([float(of[o[:n]].mean()) for of, o, n in zip(iou, order, num)]))
        best, others = order[stage][: num[stage]], order[stage][num[stage] :].tolist()
        rng = numpy_rng("dissection", seed, self.name, self.number)
        draws = [rng.choice(others, min(len(best), len(others)), False) for _ in range(CONTROLS)]
        sets = [best, *(torch.as_tensor(draw).to(best) for draw in draws)]
        place = largest_ball(
            shown(self.volumes, intensity) > FOREGROUND,
            self.mask.cpu().numpy(),
            self.model.view.grid.spacing_mm,
        )
        return Dissected(
            name=self.name,
            number=self.number,
            share=share,
            quantile=quantile,
            grids=tuple(stage.grid for stage in stylist_of(self.model).style_stages()),
            iou=tuple(of.cpu().numpy() for of in iou),
            stage=stage,
            units=tuple(best.tolist()),
            high=self._high(stage, best, thresholds[stage]),
            samples=self.volumes,
            label=self.mask.cpu().numpy(),
            place=place,
            ablation=self._ablation(stage, sets),
            insertion=self._insertion(stage, sets, highest[stage].mean(0), place),
        )

    def _in_items(self, mask: Tensor) -> Tensor:
        """Return where items (N, *S) show a mask (V, I, J, K): in any of their channels."""
        channels = self.volumes.shape[1]
        items = self.model.view.encode(mask[:, None].repeat(1, channels, 1, 1, 1).float()).x
        return items.amax(1) > 0.5

    def _agreement(self, mask: Tensor, thresholds: list[Tensor]) -> list[Tensor]:
        met = [torch.zeros_like(t, dtype=torch.int64) for t in thresholds]
        either = [torch.zeros_like(t, dtype=torch.int64) for t in thresholds]
        for rows, features in _features(self.model, self.styles):
            for k, x in enumerate(features):
                a, b = overlaps(x, mask[rows], thresholds[k])
                met[k], either[k] = met[k] + a, either[k] + b
        return [a / b.clamp(min=1) for a, b in zip(met, either)]

    def _high(self, stage: int, units: Tensor, threshold: Tensor) -> np.ndarray:
        """Return where units are high, (V, units, I, J, K)."""
        view, parts = self.model.view, []
        for _, features in _features(self.model, self.styles):
            x = enlarged(features[stage][:, units], tuple(view.item_shape))
            parts.append(x >= threshold[units].reshape(1, -1, *[1] * (x.ndim - 2)))
        high = torch.cat(parts).float()
        whole = [
            view.decode(high[:, k : k + 1].repeat(1, view.item_channels, *[1] * (high.ndim - 2)))
            for k in range(high.shape[1])
        ]
        return torch.stack([volume[:, 0] > 0.5 for volume in whole], dim=1).cpu().numpy()

    def _changed(
        self, stage: int, change: Callable[[Tensor, slice], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return volumes with changed features, and where they have the label."""
        own = stylist_of(self.model).style_stages()[stage]
        parts = []
        for rows in _rows_of(self.model, len(self.styles)):

            def hook(place: int, x: Tensor, rows: slice = rows) -> Tensor:
                return change(x, rows)

            with _hooked([own], hook):
                parts.append(make_items(self.model, self.styles[rows]))
        volumes = self.model.view.decode(torch.cat(parts))
        labels = dict(zip([c.name for c in self.channels], to_outside(volumes, self.channels)))
        return volumes, labels[self.name] == self.number

    def _effect(
        self, stage: int, sets: list[Tensor], change: Change, amount: Callable[[Tensor], float]
    ) -> Effect:
        """Change the best units and the controls, and measure the label's masks."""
        done = [self._changed(stage, partial(change, units)) for units in sets]
        after = [amount(mask) for _, mask in done]
        volumes, mask = done[0]
        own = mask.cpu().numpy()
        return Effect(amount(self.mask), after[0], float(np.mean(after[1:])), volumes, own)

    def _ablation(self, stage: int, sets: list[Tensor]) -> Effect:
        def without(units: Tensor, x: Tensor, rows: slice) -> Tensor:
            x = x.clone()
            x[:, units] = 0
            return x

        return self._effect(stage, sets, without, lambda mask: float(mask.sum()) / len(mask))

    def _insertion(
        self, stage: int, sets: list[Tensor], level: Tensor, place: np.ndarray
    ) -> Effect:
        grid = stylist_of(self.model).style_stages()[stage].grid
        pool = {2: adaptive_max_pool2d, 3: adaptive_max_pool3d}[len(grid)]
        where = torch.from_numpy(place).to(self.mask.device)
        cells = pool(self._in_items(where)[:, None].float(), grid) > 0
        total = max(float(where.sum()), 1.0)

        def high(units: Tensor, x: Tensor, rows: slice) -> Tensor:
            x = x.clone()
            own = level[units].to(x).reshape(1, -1, *[1] * (x.ndim - 2))
            x[:, units] = torch.where(cells[rows], x[:, units].maximum(own), x[:, units])
            return x

        return self._effect(stage, sets, high, lambda mask: float((mask & where).sum()) / total)


def largest_ball(
    brain: np.ndarray, label: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Return a ball of brain as far from a label as there is one.

    Its volume is the label's mean volume, less where there is no such room.

    Parameters
    ----------
    brain, label : (V, I, J, K) bool.

    Returns
    -------
    np.ndarray
        (V, I, J, K) bool, empty where a sample has no brain without the label.
    """
    from scipy.ndimage import distance_transform_edt

    wanted_mm3 = label.sum() / len(label) * np.prod(spacing_mm)
    radius_mm = (3 * wanted_mm3 / (4 * np.pi)) ** (1 / 3)
    axes = np.meshgrid(
        *(np.arange(n) * size for n, size in zip(brain.shape[1:], spacing_mm)), indexing="ij"
    )
    places = np.zeros_like(brain)
    for place, free in zip(places, brain & ~label):
        room = distance_transform_edt(free, sampling=spacing_mm)
        if room.any():
            centre = np.unravel_index(room.argmax(), room.shape)
            far = sum((axis - c * size) ** 2 for axis, c, size in zip(axes, centre, spacing_mm))
            place |= (far < min(radius_mm, room.max()) ** 2) & free
            place[centre] = True
    return places
