import pytest
import torch

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import Grid

GRID = Grid((6, 8, 10), ((4.0, 0, 0, 0), (0, 3.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)))


def view(name, **settings):
    entry = VIEWS[name]
    return entry.component(entry.config(**settings), 2, GRID)


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_slices_are_the_slices_in_order(plane):
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    volumes = torch.randn(3, 2, 6, 8, 10)
    slices = view("slice", plane=plane)
    items = slices.encode(volumes)
    depth = GRID.shape[axis]
    assert items.x.shape == (3 * depth, 2, *slices.item_shape)
    assert torch.equal(items.x[depth + 4], volumes[1].select(1 + axis, 4))
    step_mm = (items.position[1] - items.position[0]) * 100
    assert torch.allclose(step_mm, torch.tensor(GRID.spacing_mm[axis]))
    assert torch.allclose(items.position[:depth].mean(), torch.tensor(0.0), atol=1e-6)


def test_stack_keeps_the_slices_of_a_channel_together():
    volumes = torch.randn(3, 2, 6, 8, 10)
    items = view("stack").encode(volumes)
    assert items.x.shape == (3, 20, 6, 8)
    assert torch.equal(items.x[1, 10 + 7], volumes[1, 1, :, :, 7])


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_training_slices_belong_to_their_volume_and_position(plane):
    volumes = torch.randn(5, 2, 6, 8, 10)
    slices = view("slice", plane=plane)
    rows = torch.tensor([4, 0, 2])
    items = slices.training_items(volumes, rows, SampleRng(torch.arange(3)))
    everything = slices.encode(volumes)
    depth = slices.items_per_volume
    for row, x, position in zip(rows, items.x, items.position):
        own = slice(int(row) * depth, (int(row) + 1) * depth)
        k = int((everything.position[own] == position).all(1).nonzero())
        assert torch.equal(everything.x[own][k], x)


def test_foreground_draws_follow_the_share_of_brain():
    volumes = torch.full((4, 2, 6, 8, 10), -1.0)
    volumes[..., 3] = 0.5
    volumes[:, :, :3, :, 4] = 0.5
    slices = view("slice", foreground=1.0)
    slices.fit(volumes)
    assert torch.allclose(slices.state["draw"][[3, 4]], torch.tensor([2 / 3, 1 / 3]))
    half = view("slice", foreground=0.5)
    half.fit(volumes)
    assert torch.allclose(half.state["draw"][0], torch.tensor(0.05))
    items = slices.training_items(
        volumes, torch.zeros(300, dtype=torch.long), SampleRng(torch.arange(300))
    )
    drawn = (items.position == slices.state["position"][3]).float().mean()
    assert abs(float(drawn) - 2 / 3) < 0.1


def test_a_slice_index_is_one_hot():
    slices = view("slice", position="index", plane="coronal")
    items = slices.encode(torch.randn(2, 2, 6, 8, 10))
    assert slices.position_size == 8
    assert torch.equal(items.position, torch.eye(8).repeat(2, 1))


def test_slices_that_are_left_out_are_never_drawn():
    slices = view("slice", foreground=0.0, left_out=0.3)
    depth = slices.items_per_volume
    volumes = torch.arange(float(depth)).expand(6, 2, 6, 8, depth).clone()
    rows = torch.arange(6).repeat(300)
    out = slices.left_out(torch.arange(6))
    assert 0.1 < out.float().mean() < 0.5
    items = slices.training_items(volumes, rows, SampleRng(torch.arange(len(rows))))
    seen = torch.zeros(6, depth, dtype=torch.bool)
    seen[rows, items.x[:, 0, 0, 0].long()] = True
    assert torch.equal(seen, ~out)


def test_leaving_out_more_than_half_is_refused():
    with pytest.raises(UsageError, match="share from 0 to 0.5"):
        view("slice", left_out=0.7)
