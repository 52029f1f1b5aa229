"""Volumes beside what a coarser view keeps of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gyri.errors import UsageError
from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Grid, Items
from gyri.views.base import View
from gyri.views.slab import SlabConfig

GRID = Grid((4, 4, 4), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


class Halved(View):
    """Keeps half of every voxel, and counts how often it is asked."""

    def __init__(self):
        super().__init__(None, 1, GRID)
        self.asked = 0

    def encode(self, volumes):
        self.asked += len(volumes)
        return Items(volumes / 2)

    def decode(self, items):
        return items


def detail(channels=1, slab=None):
    entry = VIEWS["detail"]
    view, coarse = entry.component(entry.config(slab=slab), channels, GRID), Halved()
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


@pytest.mark.parametrize("given", [0, 2])
def test_slabs_lie_beside_the_same_slabs_of_the_coarse_volume(given):
    view, _ = detail(slab=SlabConfig(neighbours=1, planes=("axial", "coronal")))
    x = torch.randn(5, 1 + given, *GRID.shape)
    view.fit(x[:, :1])
    items = view.training_items(x, torch.tensor([3, 0]), SampleRng(torch.arange(2)))
    assert items.x.shape[1] == 3 * (1 + given)
    assert torch.equal(items.context["coarse"], items.x[:, :3] / 2)
    everything = view.items_of(x, 2)
    assert torch.equal(view.decode(everything.x[:, :3]), x[2:3, :1])
    assert torch.equal(view.decode(everything.context["coarse"]), x[2:3, :1] / 2)
    assert view.position_size == items.position.shape[1] == 3
    assert view.lifts


def test_what_was_measured_for_slabs_travels_in_the_state():
    slab = SlabConfig(neighbours=0, foreground=1.0)
    fitted, fresh = detail(slab=slab)[0], detail(slab=slab)[0]
    volumes = torch.full((2, 1, *GRID.shape), -1.0)
    volumes[..., 1] = 1.0
    fitted.fit(volumes)
    fresh.state = {name: tensor.clone() for name, tensor in fitted.state.items()}
    assert torch.equal(fresh.cut.state["draw"], fitted.state["draw"])
    assert not torch.equal(fitted.state["draw"], detail(slab=slab)[0].state["draw"])


def corrupted(**settings):
    entry = VIEWS["detail"]
    view = entry.component(entry.config(**settings), 1, GRID)
    view.use({"coarse": SimpleNamespace(method=None, view=Halved())})
    return view


def test_the_coarse_form_is_mixed_with_noise_and_says_how_much():
    view = corrupted(corruption=0.4)
    x, num = torch.zeros(300, 1, *GRID.shape), 300
    rows, rng = torch.arange(num), SampleRng(torch.arange(num))
    coarse = view.training_items(x, rows, rng).context["coarse"]
    share = coarse[:, 1]
    assert view.item_spec(ConditionLayout(), 3).context == {"coarse": 2}
    assert torch.equal(share.amin((1, 2, 3)), share.amax((1, 2, 3)))
    level = share[:, 0, 0, 0]
    assert 0 <= float(level.min()) < 0.02
    assert 0.38 < float(level.max()) < 0.4
    # The coarse form of zeros is zero: what is left is noise of that standard deviation.
    ratio = coarse[:, 0].flatten(1).std(1) / level
    assert float(ratio[level > 0.05].mean()) == pytest.approx(1, abs=0.05)
    ones = view.training_items(x + 2, rows, SampleRng(torch.arange(num))).context["coarse"]
    torch.testing.assert_close(ones[:, 0] - coarse[:, 0], 1 - share)


def test_noise_of_an_item_is_of_its_own_stream():
    view, x = corrupted(corruption=0.4), torch.randn(3, 1, *GRID.shape)
    both = view.training_items(x, torch.tensor([2, 0]), SampleRng(torch.tensor([4, 5])))
    alone = view.training_items(x, torch.tensor([0]), SampleRng(torch.tensor([5])))
    assert torch.equal(both.context["coarse"][1:], alone.context["coarse"])


def test_real_scans_are_measured_without_noise():
    view, x = corrupted(corruption=0.4), torch.randn(3, 1, *GRID.shape)
    coarse = view.items_of(x, 1).context["coarse"]
    assert torch.equal(coarse[:, :1], x[1:2] / 2)
    assert torch.equal(coarse[:, 1:], torch.zeros(1, 1, *GRID.shape))


@pytest.mark.parametrize(("asked", "level"), [(None, 0.2), (0.0, 0.0), (0.4, 0.4)])
def test_sampling_mixes_in_the_level_that_the_settings_fix(asked, level):
    view = corrupted(corruption=0.4, sampling_corruption=asked)
    made = torch.ones(50, 1, *GRID.shape)
    given = view.given({"coarse": made, "mask": made}, SampleRng(torch.arange(50)))
    assert given["mask"] is made
    assert given["coarse"].shape == (50, 2, *GRID.shape)
    torch.testing.assert_close(given["coarse"][:, 1], torch.full((50, *GRID.shape), level))
    assert float(given["coarse"][:, 0].std()) == pytest.approx(level, rel=0.1)
    assert float(given["coarse"][:, 0].mean()) == pytest.approx(1 - level, abs=0.02)


def test_without_corruption_a_sample_is_given_as_it_is():
    view, made = detail()[0], torch.randn(2, 1, *GRID.shape)
    rng, other = (SampleRng(torch.tensor([1, 2])) for _ in range(2))
    assert view.given({"coarse": made}, rng)["coarse"] is made
    assert torch.equal(rng.normal((3,)), other.normal((3,)))


def test_noise_cannot_be_what_differences_are_taken_from():
    view = corrupted(corruption=0.4)
    config = DDPMConfig(residual="coarse")
    with pytest.raises(UsageError, match=r"items have 1 channels.*coarse \(2\)"):
        DDPM.network_specs(config, view.item_spec(ConditionLayout(), 3))


@pytest.mark.parametrize(
    "settings", [{"corruption": 1.0}, {"corruption": 0.2, "sampling_corruption": 0.3}]
)
def test_shares_of_noise_that_mean_nothing_are_refused(settings):
    with pytest.raises(UsageError, match="corruption"):
        corrupted(**settings)


def test_what_is_kept_is_for_the_coarse_view_to_say():
    view, coarse = detail()
    x = torch.randn(3, 1, *GRID.shape)
    coarse.kept = lambda volumes, row: 7 * volumes[torch.tensor([row])]
    assert torch.equal(view.items_of(x, 1).context["coarse"], 7 * x[1:2])
