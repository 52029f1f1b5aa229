"""Volumes beside what a coarser view keeps of them."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Grid, Items

GRID = Grid((4, 4, 4), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


class Halved:
    """Keeps half of every voxel, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def encode(self, volumes):
        self.asked += len(volumes)
        return Items(volumes / 2)

    def decode(self, items):
        return items


def detail(channels=1):
    entry = VIEWS["detail"]
    view, coarse = entry.component(entry.config(), channels, GRID), Halved()
    view.use({"coarse": SimpleNamespace(method=None, view=coarse)})
    return view, coarse


def test_the_coarse_form_is_given_beside_the_volume():
    view, _ = detail()
    x = torch.randn(3, 1, *GRID.shape)
    items = view.training_items(x, torch.arange(3), SampleRng(torch.arange(3)))
    assert torch.equal(items.x, x)
    assert torch.equal(items.context["coarse"], x / 2)
    assert torch.equal(view.items_of(x, 2).context["coarse"], x[2:] / 2)
    assert view.item_spec(ConditionLayout(), 3).context == {"coarse": 1}


def test_channels_that_are_given_have_no_coarse_form():
    view, _ = detail()
    x = torch.randn(3, 2, *GRID.shape)
    assert view.items_of(x, 0).context["coarse"].shape[1] == 1


class Resident:
    """Volumes that stay, unlike an augmented tensor."""

    def __init__(self, x):
        self.x, self.shape = x, tuple(x.shape)

    def __getitem__(self, index):
        return self.x[index]


def test_resident_volumes_are_made_coarse_once_and_others_each_time():
    view, coarse = detail()
    x, rows, rng = torch.randn(4, 1, *GRID.shape), torch.tensor([2, 0]), SampleRng(torch.arange(2))
    resident, others = Resident(x), Resident(-x)
    for _ in range(3):
        items = view.training_items(resident, rows, rng)
        assert torch.equal(items.context["coarse"], x[rows] / 2)
    assert coarse.asked == 2
    assert torch.equal(view.training_items(others, rows, rng).context["coarse"], -x[rows] / 2)
    assert coarse.asked == 4
    view.training_items(x, rows, rng)
    view.training_items(x, rows, rng)
    assert coarse.asked == 8
