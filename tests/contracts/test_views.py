"""Laws of every registered view."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.views.autoencoder import autoencoder
from tests.views.registration import registration

from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Grid

GRID = Grid((6, 8, 10), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))
GRIDS = {"planes": Grid((8, 8, 8), GRID.affine)}
"""For views that do not take every grid."""

FEW_VOLUMES = {"low_rank": {"components": 1, "num_folds": 3}}
"""For views whose defaults want more than three volumes."""

SETTINGS = [
    *((name, FEW_VOLUMES.get(name, {})) for name in VIEWS),
    ("slice", {"position": "index", "plane": "coronal"}),
    ("slab", {"neighbours": 2, "stride": 3, "planes": ("sagittal",)}),
    ("slab", {"planes": ("axial", "coronal", "sagittal")}),
    ("planes", {"assemble": "coronal", "planes": ("coronal", "axial")}),
    ("wavelet", {"scale": "band"}),
    ("pyramid", {"factor": (3, 1, 2), "upsampling": "nearest"}),
    ("detail", {"corruption": 0.4}),
]


def trained(name):
    """Return what a view stands on: an untrained method, or a view of an untrained one's fields."""
    if name == "autoencoder":
        return autoencoder(2, GRID)
    method = registration(2, GRID)
    if name == "registration":
        return SimpleNamespace(method=method, view=None)
    fields = VIEWS["field"].component(VIEWS["field"].config(), 2, GRID)
    fields.use({"registration": SimpleNamespace(method=method, view=None)})
    return SimpleNamespace(method=None, view=fields)


@pytest.fixture(params=SETTINGS, ids=lambda setting: "-".join(map(str, [setting[0], *setting[1]])))
def view(request):
    name, settings = request.param
    entry = VIEWS[name]
    made = entry.component(entry.config(**settings), 2, GRIDS.get(name, GRID))
    made.use({needed: trained(needed) for needed in made.needs})
    return made


@pytest.fixture
def volumes(view):
    return torch.randn(3, *view.volume_shape, generator=torch.Generator().manual_seed(0))


def test_a_view_keeps_what_it_declares(view, volumes):
    again = view.decode(view.encode(volumes).x)
    assert again.shape == volumes.shape
    if view.kind == "exact":
        assert torch.equal(again, volumes)


def test_encode_is_deterministic_and_fits_the_spec(view, volumes):
    items, again = view.encode(volumes), view.encode(volumes)
    spec = view.item_spec(ConditionLayout(), num_train=3)
    assert torch.equal(items.x, again.x)
    assert items.x.shape == (3 * spec.items_per_volume, spec.channels, *spec.shape)
    if spec.position_size:
        assert items.position.shape == (len(items.x), spec.position_size)
        assert float(items.position.abs().max()) <= 1.5
    else:
        assert items.position is None


def test_encode_is_linear(view, volumes):
    mixed = view.encode(2 * volumes[:1] - 3 * volumes[1:2]).x
    apart = 2 * view.encode(volumes[:1]).x - 3 * view.encode(volumes[1:2]).x
    if view.kind == "exact":
        assert torch.allclose(mixed, apart, atol=1e-5)


def test_white_noise_on_a_volume_is_white_noise_on_every_item(view):
    noise = torch.randn(400, *view.volume_shape, generator=torch.Generator().manual_seed(0))
    of_volume = view.encode(noise).x.unflatten(0, (400, -1))
    if view.kind == "exact":
        assert float((of_volume.var(0) - 1).abs().max()) < 0.5


def test_the_items_of_a_volume_do_not_depend_on_its_neighbours(view, volumes):
    count = view.items_per_volume
    alone = view.encode(volumes[1:2]).x
    assert torch.equal(view.encode(volumes).x[count : 2 * count], alone)


def test_training_items_have_the_spec_and_follow_their_seed(view, volumes):
    view.fit(volumes)
    rows = torch.tensor([2, 0])
    items = view.training_items(volumes, rows, SampleRng(torch.tensor([4, 5])))
    again = view.training_items(volumes, rows[1:], SampleRng(torch.tensor([5])))
    assert items.x.shape == (2, view.item_channels, *view.item_shape)
    assert torch.equal(items.x[1:], again.x)
