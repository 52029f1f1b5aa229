"""Slabs of slices, in one plane and in three."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig, draw_volumes
from gyri.sampling.schedules import karras_levels
from gyri.types import Channel, Grid
from gyri.views.slab import SlabConfig, cropped, wrapped

GRID = Grid((6, 8, 10), ((4.0, 0, 0, 0), (0, 3.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)))
ALL_PLANES = ("axial", "coronal", "sagittal")


def view(name="slab", grid=GRID, channels=2, **settings):
    entry = VIEWS[name]
    return entry.component(entry.config(**settings), channels, grid)


def volumes(num=3, seed=0):
    return torch.randn(num, 2, *GRID.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("plane", ALL_PLANES)
def test_a_slab_holds_its_slices_in_order_channel_by_channel(plane):
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    v, depth = volumes(), GRID.shape[axis]
    slabs = view(planes=(plane,), neighbours=1)
    items = slabs.encode(v)
    assert slabs.items_per_volume == depth - 2
    assert items.x.shape == (3 * (depth - 2), 6, *slabs.item_shape)
    second_of_volume_1 = items.x[depth - 2 + 1]
    assert torch.equal(second_of_volume_1[3 + 2], v[1, 1].select(axis, 1 + 2))
    step_mm = (items.position[1] - items.position[0]) * 100
    assert torch.allclose(step_mm, torch.tensor(GRID.spacing_mm[axis]))
    assert torch.allclose(items.position[: depth - 2].mean(), torch.tensor(0.0), atol=1e-6)


def test_slabs_without_neighbours_are_slices():
    v = volumes()
    slabs, slices = view(neighbours=0), view("slice")
    assert torch.equal(slabs.encode(v).x, slices.encode(v).x)
    assert torch.equal(slabs.encode(v).position, slices.encode(v).position)
    for each in (slabs, slices):
        each.fit(v)
    assert torch.allclose(slabs.state["draw"], slices.state["draw"])
    rows, seeds = torch.tensor([2, 0]), torch.tensor([4, 5])
    ours = slabs.training_items(v, rows, SampleRng(seeds))
    theirs = slices.training_items(v, rows, SampleRng(seeds))
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.position, theirs.position)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_slabs_reach_both_ends_and_leave_nothing_out(stride):
    slabs = view(neighbours=2, stride=stride)
    starts = slabs.planes[0].starts
    assert starts[0] == 0
    assert starts[-1] == 10 - 5
    assert {at + n for at in starts for n in range(5)} == set(range(10))
    assert torch.equal(slabs.decode(slabs.encode(volumes()).x), volumes())


def test_decode_averages_what_slabs_say_of_a_slice():
    slabs = view(neighbours=1, channels=1)
    said = torch.arange(8.0)[:, None, None, None].expand(8, 3, *slabs.item_shape)
    volume = slabs.decode(said)[0, 0, 0, 0]
    expected = torch.tensor([0.0, 0.5, 1, 2, 3, 4, 5, 6, 6.5, 7])
    assert torch.allclose(volume, expected)


def test_decode_averages_the_planes():
    slabs = view(neighbours=1, planes=ALL_PLANES, channels=1)
    said = torch.cat([torch.full((count,), float(n)) for n, count in enumerate(slabs.counts)])
    volume = slabs.decode(said[:, None, None, None].expand(-1, 3, *slabs.item_shape))
    assert torch.allclose(volume, torch.tensor(1.0))


def test_the_position_names_the_plane_of_several():
    slabs = view(planes=ALL_PLANES)
    position = slabs.encode(volumes(1)).position
    assert position.shape == (8 + 6 + 4, 4)
    assert position[:, 1:].sum(0).tolist() == [8, 6, 4]
    assert float(position.abs().max()) <= 1


def test_planes_share_a_shape_that_wraps_and_crops_back():
    slabs = view(planes=ALL_PLANES)
    assert slabs.item_shape == (8, 10)
    x = torch.randn(2, 3, 6, 8)
    longer = wrapped(x, (8, 17))
    assert torch.equal(cropped(longer, (6, 8)), x)
    assert torch.equal(longer[..., 0, 4:12], x[..., -1, :])
    assert torch.equal(longer[..., 1, :4], x[..., 0, -4:])


@pytest.mark.parametrize("planes", [("coronal",), ALL_PLANES])
def test_training_slabs_belong_to_their_volume_and_position(planes):
    v = volumes(5)
    slabs = view(planes=planes, neighbours=1)
    rows = torch.arange(5).repeat(8)
    items = slabs.training_items(v, rows, SampleRng(torch.arange(40)))
    everything, count = slabs.encode(v), slabs.items_per_volume
    drawn = set()
    for row, x, position in zip(rows, items.x, items.position):
        own = slice(int(row) * count, (int(row) + 1) * count)
        k = int((everything.position[own] == position).all(1).nonzero())
        drawn.add(k)
        assert torch.equal(everything.x[own][k], x)
    assert min(drawn) < slabs.counts[0]
    assert len(planes) == 1 or max(drawn) >= count - slabs.counts[-1]


def test_foreground_draws_slabs_that_show_the_brain_and_planes_equally():
    v = torch.full((4, 2, *GRID.shape), -1.0)
    v[..., 4] = 0.5
    slabs = view(foreground=1.0)
    slabs.fit(v)
    assert torch.allclose(slabs.state["draw"][2:5], torch.tensor(1 / 3))
    three = view(foreground=0.5, planes=ALL_PLANES)
    three.fit(v)
    shares = [float(part.sum()) for part in three.state["draw"].split(three.counts)]
    assert shares == pytest.approx([1 / 3] * 3)


def test_stored_labels_become_channels_of_the_slab():
    from gyri.training.data import ResidentVolumes

    intensity = torch.randint(0, 255, (2, 1, *GRID.shape), dtype=torch.uint8)
    label = torch.randint(0, 2, (2, 1, *GRID.shape), dtype=torch.uint8)
    channels = (Channel("T1w"), Channel("tissue", "label", 2))
    stored = ResidentVolumes(torch.cat([intensity, label], 1), 1 / 255, (0.0, 1.0), channels)
    slabs = view(channels=3, neighbours=1)
    x = slabs.training_items(stored, torch.tensor([1]), SampleRng(torch.tensor([3]))).x
    everything = slabs.encode(stored[1:2]).x
    assert any(torch.equal(x[0], slab) for slab in everything)


@pytest.mark.parametrize("planes", [("axial",), ALL_PLANES])
def test_planes_that_agree_sample_as_one_model_of_volumes(planes):
    """A voxelwise denoiser says the same in every plane: slabs must not change its samples."""

    def denoise(x_noised, level, condition=None, position=None):
        return x_noised * 0.25 / (0.25 + level.sigma**2)

    levels, config = karras_levels(8), SamplingConfig(clip=0)
    seeds = torch.tensor([1, 2])
    drawn = [
        draw_volumes(denoise, lift, torch.zeros(2, 0), levels, config, SampleRng(seeds))
        for lift in (view(planes=planes), view("volume"))
    ]
    assert torch.allclose(*drawn, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": -1}, "neighbours"),
        ({"stride": 4}, "stride"),
        ({"planes": ()}, "planes"),
        ({"planes": ("axial", "axial")}, "planes"),
    ],
)
def test_settings_that_leave_slices_out_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        SlabConfig(**settings)


def test_slabs_thicker_than_the_volume_are_refused():
    with pytest.raises(UsageError, match="Set neighbours lower"):
        view(neighbours=5)
