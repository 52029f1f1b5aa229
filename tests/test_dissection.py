"""Dissection of a generator made by hand, one of whose units is the label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gyri.capabilities import StyleStage
from gyri.conditions import ConditionSchema
from gyri.dissection import dissect, enlarged, largest_ball, overlaps
from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.training.run import Model
from gyri.types import Channel, Grid
from gyri.views.base import View

SHAPE = (12, 16, 10)
GRID = Grid(SHAPE, ((8.0, 0, 0, 0), (0, 8.0, 0, 0), (0, 0, 8.0, 0), (0, 0, 0, 1)))
CHANNELS = (Channel("T1w"), Channel("lesion", "label", 2))
UNIT, UNITS = 5, 8


class Features(nn.Module):
    """Noise of each item's own; where `unit` is given, that unit is a box at the item's place."""

    def __init__(self, grid: tuple[int, ...], unit: int | None = None) -> None:
        super().__init__()
        self.grid, self.unit = grid, unit

    def forward(self, styles: Tensor) -> Tensor:
        parts = []
        for place in styles[:, 0, 0].long().tolist():
            generator = torch.Generator().manual_seed(place)
            x = torch.randn(UNITS, *self.grid, generator=generator)
            if self.unit is not None:
                x[self.unit] = 0
                x[(self.unit, *(slice(1 + place, 4 + place) for _ in self.grid))] = 1
            parts.append(x)
        return torch.stack(parts)


class Boxes:
    """A `Stylist` whose label is unit `UNIT` of its second stage, and whose brain is everywhere."""

    def __init__(self, view: View) -> None:
        self.view = view
        shape = tuple(view.item_shape)
        self.coarse = Features(tuple(n // 2 for n in shape))
        self.fine = Features(shape, UNIT)

    def style_stages(self) -> tuple[StyleStage, ...]:
        return tuple(StyleStage(f.grid, k, f) for k, f in enumerate((self.coarse, self.fine)))

    def styles_of(self, lift: Any, condition: Tensor, rng: Any) -> Tensor:
        raise NotImplementedError

    def mean_styles(self, lift: Any, condition: Tensor) -> Tensor:
        raise NotImplementedError

    def from_styles(self, styles: Tensor) -> Tensor:
        self.coarse(styles)
        hot = 2 * self.fine(styles)[:, UNIT : UNIT + 1] - 1
        x = torch.cat([torch.full_like(hot, 0.5), -hot, hot], dim=1)
        if len(x[0, 0].shape) == 2 and self.view.slice_axis is None:
            return self.view.encode(x.unsqueeze(-1).repeat(1, 1, 1, 1, SHAPE[2])).x
        return x


def a_model(view: str) -> Model:
    entry = VIEWS[view]
    made = entry.component(entry.config(), 3, GRID)
    return Model(Boxes(made), made, ConditionSchema(), torch.device("cpu"))  # type: ignore[arg-type]


def places(model: Model) -> Tensor:
    """Styles of three samples, whose boxes lie at three places."""
    of_sample = torch.tensor([0.0, 2.0, 4.0]).reshape(3, 1, 1, 1)
    return of_sample.repeat(1, model.view.items_per_volume, 2, 4)


@pytest.mark.parametrize("view", ["slice", "stack", "volume"])
def test_the_unit_that_is_the_label_is_found_and_makes_it(view):
    model = a_model(view)
    (found,) = dissect(model, CHANNELS, places(model))
    assert (found.name, found.number) == ("lesion", 1)
    depth = 3 if view == "volume" else SHAPE[2]
    assert found.ablation.before == 3 * 3 * depth
    assert found.iou[1][UNIT] == 1.0
    others = [x for k, x in enumerate(found.iou[1]) if k != UNIT]
    assert max(*others, *found.iou[0]) < 0.3
    assert found.stage == 1
    assert found.units[0] == UNIT
    assert np.array_equal(found.high[:, 0], found.label)
    assert found.label.sum() == 3 * found.ablation.before
    assert found.ablation.after == 0
    assert found.ablation.control == found.ablation.before
    assert not found.ablation.label.any()
    assert found.place.any()
    assert not (found.place & found.label).any()
    assert (found.insertion.before, found.insertion.control) == (0, 0)
    assert found.insertion.after == 1
    assert found.insertion.label[found.place].all()
    assert (found.samples[:, 0] == 0.5).all()


def test_nothing_stays_changed():
    model = a_model("volume")
    styles = places(model)
    before = model.method.from_styles(styles.flatten(0, 1))
    dissect(model, CHANNELS, styles)
    assert torch.equal(model.method.from_styles(styles.flatten(0, 1)), before)
    assert not model.method.fine._forward_hooks


def test_a_given_quantile_decides_what_is_high():
    model = a_model("volume")
    styles = places(model)
    (own,) = dissect(model, CHANNELS, styles)
    (half,) = dissect(model, CHANNELS, styles, quantile=0.5)
    assert own.quantile == pytest.approx(1 - 27 / np.prod(SHAPE))
    assert half.quantile == 0.5
    noise = [k for k in range(UNITS) if k != UNIT]
    share = 27 / np.prod(SHAPE)
    # Noise that is high in half of the voxels meets half of the label.
    expected = 0.5 * share / (0.5 + 0.5 * share)
    assert half.iou[1][noise].mean() == pytest.approx(expected, rel=0.3)


def test_overlaps_are_counted_on_the_mask_s_grid():
    features = torch.tensor([[[[0.0, 1.0]], [[1.0, 1.0]]]])
    mask = torch.tensor([[[False, False, True, True]]])
    met, either = overlaps(features, mask, torch.tensor([0.5, 0.5]))
    assert enlarged(features, (1, 4))[0, 0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert met.tolist() == [2, 2]
    assert either.tolist() == [2, 4]


def test_the_place_is_brain_far_from_the_label():
    brain = np.zeros((2, 20, 10, 10), bool)
    brain[0, 1:19, 1:9, 1:9] = True
    label = np.zeros_like(brain)
    label[0, 2:6, 3:7, 3:7] = True
    place = largest_ball(brain, label, (2.0, 2.0, 2.0))
    assert not place[1].any()
    assert not (place & (label | ~brain)).any()
    centre = np.argwhere(place[0]).mean(0)
    assert centre[0] > 8
    # Half the label's size: it is in one of two samples.
    assert place[0].sum() == pytest.approx(32, rel=0.3)


def test_without_a_label_there_is_nothing_to_dissect():
    model = a_model("volume")
    with pytest.raises(UsageError, match=r"makes T1w and no label.*T1w, dseg"):
        dissect(model, CHANNELS[:1], places(model))
