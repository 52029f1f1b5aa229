"""Brains as deformations of a template."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tests.views.registration import registration

from gyri.errors import UsageError
from gyri.nn.deformation import warp
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Grid

GRID = Grid((8, 12, 10), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


def fields(form="velocity", **settings):
    entry = VIEWS["field"]
    view = entry.component(entry.config(**settings), 1, GRID)
    view.use({"registration": SimpleNamespace(method=registration(1, GRID, form), view=None)})
    return view


def scans(num=5):
    return torch.randn(num, 1, *GRID.shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@pytest.mark.parametrize("form", ["velocity", "displacement"])
def test_decode_of_encode_is_the_template_warped_by_the_registration(form):
    view, x = fields(form), scans()
    view.fit(x)
    method = view.registrar
    expected = warp(method.template, method.displacement(method.field(x)))
    assert torch.allclose(view.decode(view.encode(x).x), expected, atol=1e-5)


def test_fitted_fields_have_no_mean_and_unit_variance_in_every_component():
    view, x = fields(), scans(20)
    view.fit(x)
    items = view.encode(x).x
    assert float(items.mean(0).abs().max()) < 1e-4
    assert torch.allclose(items.var(dim=(0, 2, 3, 4)), torch.ones(3), rtol=0.1)


def test_the_mean_field_is_what_zeros_decode_to():
    view, x = fields(), scans()
    view.fit(x)
    mean = view.fields(x).mean(0, keepdim=True)
    zeros = torch.zeros(1, view.item_channels, *view.item_shape)
    assert torch.allclose(view.field_of(zeros), mean, atol=1e-6)


def test_eta_goes_from_the_template_to_the_whole_way():
    view, x = fields(), scans(2)
    items = view.encode(x).x
    assert torch.equal(view.displacement(items, 0.0), torch.zeros(2, 3, *GRID.shape))
    ways = [view.displacement(items, eta).norm(dim=1).mean() for eta in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(a < b for a, b in pairwise(ways))


def test_a_coarse_grid_keeps_a_field_in_its_own_voxels():
    view = fields(stride=4)
    assert view.item_shape == (2, 3, 3)
    linear = torch.zeros(1, 3, *view.item_shape)
    linear[:, 1] = 0.5  # half a node to the front
    u = view.displacement(linear)
    assert torch.allclose(u[:, 1], torch.full(GRID.shape, 0.5 * 11 / 2), atol=0.2)


def test_published_scaling_loses_what_lies_outside_zero_to_one_voxel():
    view, x = fields(scaling="published"), scans()
    view.fit(x)
    found, kept = view.fields(x), view.field_of(view.encode(x).x)
    assert torch.allclose(kept, found.clamp(0, 1), atol=1e-6)
    assert not torch.allclose(kept, found, atol=0.05)


def test_turned_grids_keep_their_components_and_follow_their_seed():
    view, x = fields(turn_grid=True), scans()
    rows, rng = torch.tensor([1, 3]), SampleRng(torch.tensor([4, 5]))
    turned, plain = view.training_items(x, rows, rng).x, view.encode(x[rows]).x
    assert not torch.equal(turned, plain)
    for component in range(3):
        one, other = turned[:, component].flatten(1), plain[:, component].flatten(1)
        assert torch.equal(one.sort(1).values, other.sort(1).values)


def test_folds_and_bends_are_penalised_and_a_shift_is_not():
    view = fields("displacement")
    still = torch.zeros(1, 3, *view.item_shape)
    shifted = still + 0.5
    folding = still.clone()
    folding[0, 0, ::2] = 6.0
    for name in ("bending", "folding"):
        penalty = {k: float(view.penalties(x)[name]) for k, x in
                   {"still": still, "shifted": shifted, "folding": folding}.items()}  # fmt: skip
        assert penalty["still"] == pytest.approx(0, abs=1e-6)
        assert penalty["shifted"] == pytest.approx(0, abs=1e-6)
        assert penalty["folding"] > 0.01


def test_it_says_what_it_needs():
    entry = VIEWS["field"]
    view = entry.component(entry.config(), 1, GRID)
    with pytest.raises(UsageError, match="needs a registration"):
        view.encode(scans())
    with pytest.raises(UsageError, match="registers nothing"):
        view.use({"registration": SimpleNamespace(method=object(), view=None)})
    with pytest.raises(UsageError, match="follows no image"):
        view.item_spec(ConditionLayout(), 3, {"tumour": 4})
