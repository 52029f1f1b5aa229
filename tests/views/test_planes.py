"""Slices of several planes of a cube."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig, draw_volumes
from gyri.sampling.latent import decode_latents
from gyri.sampling.schedules import karras_levels
from gyri.types import Channel, Grid
from gyri.views.planes import PlanesConfig

N = 6
CUBE = Grid((N, N, N), ((4.0, 0, 0, 0), (0, 3.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)))
ALL_PLANES = ("axial", "coronal", "sagittal")
AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}


def view(name="planes", channels=2, grid=CUBE, **settings):
    entry = VIEWS[name]
    return entry.component(entry.config(**settings), channels, grid)


def volumes(num=3, seed=0):
    return torch.randn(num, 2, N, N, N, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_plane_is_what_the_slice_view_makes_of_it_with_its_code_in_front(number):
    v, plane = volumes(), ALL_PLANES[number]
    items, alone = view().encode(v), view("slice", plane=plane).encode(v)
    assert items.x.shape == (3 * 3 * N, 2, N, N)
    assert items.position.shape == (3 * 3 * N, 4)
    stack = slice(number * N, (number + 1) * N)
    of_plane = items.x.unflatten(0, (3, -1))[:, stack]
    assert torch.equal(of_plane.flatten(0, 1), alone.x)
    position = items.position.unflatten(0, (3, -1))[:, stack].flatten(0, 1)
    assert torch.equal(position[:, :3], torch.eye(3)[number].expand(3 * N, 3))
    assert torch.equal(position[:, 3:], alone.position)


def test_the_code_follows_the_order_of_planes():
    position = view(planes=("sagittal", "axial")).encode(volumes(1)).position
    assert position[:, :2].tolist() == [[1, 0]] * N + [[0, 1]] * N
    assert float(position[1, 2] - position[0, 2]) == pytest.approx(0.04)
    assert float(position[N + 1, 2] - position[N, 2]) == pytest.approx(0.02)


@pytest.mark.parametrize("assemble", ["average", *ALL_PLANES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decode_undoes_encode(assemble, dtype):
    v, planes = volumes().to(dtype), view(assemble=assemble)
    again = planes.decode(planes.encode(v).x)
    assert again.dtype == dtype
    assert torch.allclose(again, v, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("assemble", "expected"), [("average", 4.0), ("axial", 1.0), ("coronal", 2.0), ("sagittal", 9)]
)
def test_a_volume_is_the_average_of_the_planes_or_one_of_them(assemble, expected):
    said = torch.tensor([1.0, 2.0, 9.0]).repeat_interleave(N)
    planes = view(assemble=assemble, channels=1)
    volume = planes.decode(said[:, None, None, None].expand(-1, 1, N, N))
    assert torch.equal(volume, torch.full((1, 1, N, N, N), float(expected)))


@pytest.mark.parametrize("assemble", ["average", "coronal"])
def test_a_generator_is_told_the_plane_and_its_volume_is_assembled(assemble):
    """A generator that paints where a slice lies, and nothing in other planes than the coronal."""

    def generate(z, condition, position):
        value = position[:, 1] * (position[:, 3] + z[:, 0])
        return value[:, None, None, None].expand(-1, 1, N, N)

    planes = view(channels=1, assemble=assemble)
    z = torch.tensor([[5.0], [7.0]]).repeat_interleave(planes.items_per_volume, 0)
    made = decode_latents(generate, z, planes, torch.zeros(2, 0), items_per_call=7)
    along = (torch.arange(N) - (N - 1) / 2) * 3.0 / 100
    share = 1 / 3 if assemble == "average" else 1
    for volume, level in zip(made[:, 0], (5.0, 7.0), strict=True):
        expected = ((along + level) * share)[None, :, None].expand(N, N, N)
        assert torch.allclose(volume, expected, atol=1e-6)


def test_training_slices_belong_to_their_volume_and_position_and_planes_come_equally():
    v, planes = volumes(5), view()
    planes.fit(v)
    rows = torch.arange(5).repeat(60)
    items = planes.training_items(v, rows, SampleRng(torch.arange(300)))
    everything, count = planes.encode(v), planes.items_per_volume
    for row, x, position in zip(rows, items.x, items.position, strict=True):
        own = slice(int(row) * count, (int(row) + 1) * count)
        k = int((everything.position[own] == position).all(1).nonzero())
        assert torch.equal(everything.x[own][k], x)
    assert torch.allclose(items.position[:, :3].mean(0), torch.tensor(1 / 3), atol=0.1)


def test_foreground_draws_slices_that_show_the_brain_and_planes_equally():
    v = torch.full((4, 2, N, N, N), -1.0)
    v[..., 4] = 0.5
    planes = view(foreground=1.0)
    planes.fit(v)
    axial, coronal, sagittal = planes.state["draw"].chunk(3)
    assert torch.allclose(axial, torch.eye(N)[4] / 3)
    assert torch.allclose(coronal, torch.tensor(1 / 18))
    assert torch.allclose(sagittal, torch.tensor(1 / 18))


def test_stored_labels_become_channels_of_the_slice():
    from gyri.training.data import ResidentVolumes

    intensity = torch.randint(0, 255, (2, 1, N, N, N), dtype=torch.uint8)
    label = torch.randint(0, 2, (2, 1, N, N, N), dtype=torch.uint8)
    channels = (Channel("T1w"), Channel("tissue", "label", 2))
    stored = ResidentVolumes(torch.cat([intensity, label], 1), 1 / 255, (0.0, 1.0), channels)
    planes = view(channels=3)
    x = planes.training_items(stored, torch.tensor([1]), SampleRng(torch.tensor([3]))).x
    everything = planes.encode(stored[1:2]).x
    assert any(torch.equal(x[0], one) for one in everything)


@pytest.mark.parametrize("assemble", ["average", "axial"])
def test_planes_that_agree_sample_as_one_model_of_volumes(assemble):
    """A voxelwise denoiser says the same in every plane: planes must not change its samples."""

    def denoise(x_noised, level, condition=None, position=None):
        return x_noised * 0.25 / (0.25 + level.sigma**2)

    levels, config = karras_levels(8), SamplingConfig(clip=0)
    sampled = [
        draw_volumes(
            denoise, lift, torch.zeros(2, 0), levels, config, SampleRng(torch.tensor([1, 2]))
        )
        for lift in (view(assemble=assemble), view("volume"))
    ]
    assert torch.allclose(*sampled, atol=1e-5)


def test_noise_is_not_shared_between_slices_that_cross():
    config, zero = SamplingConfig(shared_noise=0.5), torch.zeros(1, 0)
    with pytest.raises(UsageError, match="not single slices"):
        draw_volumes(
            lambda x, level, condition, position: x,
            view(),
            zero,
            karras_levels(2),
            config,
            SampleRng(torch.tensor([1])),
        )


def test_a_grid_that_is_no_cube_is_refused_with_the_remedy():
    grid = Grid((6, 8, 6), CUBE.affine)
    with pytest.raises(UsageError, match=r"6 x 8 x 6.*`square`.*s2-planes-256.yaml"):
        view(grid=grid)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planes": ()}, "planes is"),
        ({"planes": ("axial", "axial")}, "planes is"),
        ({"planes": ("axial", "coronal"), "assemble": "sagittal"}, "Add 'sagittal' to planes"),
    ],
)
def test_planes_that_cannot_make_a_volume_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        PlanesConfig(**settings)
