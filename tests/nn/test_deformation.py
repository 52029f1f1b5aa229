"""Deformations against what is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gyri.nn.deformation import (
    bending_energy,
    compose,
    diffusion_energy,
    exponential,
    folded,
    folding_energy,
    identity_grid,
    jacobian_determinant,
    resize_field,
    warp,
)

SHAPE = (7, 8, 9)
AXES = pytest.mark.parametrize("axis", [0, 1, 2])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(peak: float, sigma: float = 3.0, size: int = 24, seed: int = 0) -> Tensor:
    field = noise(1, 3, size, size, size, seed=seed).numpy()
    field = torch.from_numpy(gaussian_filter(field, (0, 0, sigma, sigma, sigma), mode="constant"))
    return field * peak / field.abs().max()


def linear(matrix: Tensor, shape: tuple[int, ...] = SHAPE, centred: bool = False) -> Tensor:
    """Return the field ``u(p) = matrix p``, or around the grid's centre."""
    places = identity_grid(torch.empty(1, 3, *shape))
    if centred:
        places = places - places.mean((2, 3, 4), keepdim=True)
    return torch.einsum("ka,baxyz->bkxyz", matrix, places)


def inside(x: Tensor, margin: int) -> Tensor:
    for axis in (-3, -2, -1):
        x = x.narrow(axis, margin, x.shape[axis] - 2 * margin)
    return x


MATRIX = torch.tensor([[0.2, -0.1, 0.05], [0.3, -0.2, 0.1], [0.0, 0.15, 0.1]])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_no_displacement_changes_nothing(mode):
    moving = noise(2, 3, *SHAPE)
    torch.testing.assert_close(
        warp(moving, torch.zeros(2, 3, *SHAPE), mode), moving, atol=1e-5, rtol=0
    )


@AXES
def test_a_shift_of_two_reads_two_voxels_further_along_its_own_axis(axis):
    moving, u = noise(1, 1, *SHAPE), torch.zeros(1, 3, *SHAPE)
    u[:, axis] = 2
    warped, length = warp(moving, u), SHAPE[axis]
    expected = moving.narrow(2 + axis, 2, length - 2)
    torch.testing.assert_close(warped.narrow(2 + axis, 0, length - 2), expected, atol=1e-5, rtol=0)
    last = moving.narrow(2 + axis, length - 1, 1)
    beyond = warped.narrow(2 + axis, length - 2, 2)
    torch.testing.assert_close(beyond, last.expand_as(beyond), atol=1e-5, rtol=0)


def test_a_ramp_is_read_between_voxels():
    u = 0.9 * noise(1, 3, *SHAPE).clamp(-1, 1)
    places = identity_grid(u)
    for axis, length in enumerate(SHAPE):
        warped = warp(places[:, axis : axis + 1], u)[:, 0]
        expected = (places + u)[:, axis].clamp(0, length - 1)
        torch.testing.assert_close(warped, expected, atol=1e-5, rtol=0)


def test_channels_and_items_are_warped_alike_and_alone():
    moving, u = noise(2, 3, *SHAPE), noise(2, 3, *SHAPE, seed=1)
    warped = warp(moving, u)
    for item in range(2):
        for channel in range(3):
            one = moving[item : item + 1, channel : channel + 1]
            alone = warp(one, u[item : item + 1])
            torch.testing.assert_close(warped[item : item + 1, channel : channel + 1], alone)
    both = warp(moving[:1], u)
    torch.testing.assert_close(both[1:], warp(moving[:1], u[1:]))


def test_labels_stay_labels():
    labels = torch.randint(5, (1, 1, *SHAPE), generator=torch.Generator().manual_seed(0)).float()
    u = torch.full((1, 3, *SHAPE), 0.4)
    assert torch.equal(warp(labels, u, "nearest"), labels)
    u[:, 1] = 0.6
    assert torch.equal(warp(labels, u, "nearest")[:, :, :, :-1], labels[:, :, :, 1:])
    assert set(warp(labels, noise(1, 3, *SHAPE), "nearest").unique().tolist()) <= {0, 1, 2, 3, 4}


@AXES
def test_mirroring_a_field_negates_its_component_along_the_axis(axis):
    moving, u = noise(1, 1, *SHAPE), noise(1, 3, *SHAPE, seed=1)
    mirrored = u.flip(2 + axis)
    mirrored[:, axis] *= -1
    warped = warp(moving, u).flip(2 + axis)
    torch.testing.assert_close(warp(moving.flip(2 + axis), mirrored), warped, atol=1e-5, rtol=0)


def test_turning_a_field_turns_its_components():
    moving, u = noise(1, 1, 8, 8, 6), noise(1, 3, 8, 8, 6, seed=1)
    warped, grid_alone = warp(moving, u).rot90(1, (2, 3)), u.rot90(1, (2, 3))
    # The old second axis, mirrored, is the new first one.
    turned = torch.stack([-grid_alone[:, 1], grid_alone[:, 0], grid_alone[:, 2]], dim=1)
    moving = moving.rot90(1, (2, 3))
    torch.testing.assert_close(warp(moving, turned), warped, atol=1e-5, rtol=0)
    assert (warp(moving, grid_alone) - warped).abs().mean() > 0.3


def test_composition_warps_by_the_second_and_then_by_the_first():
    first, then = smooth_field(2, seed=1), smooth_field(2, seed=2)
    moving = identity_grid(first)
    two_steps = warp(warp(moving, then), first)
    torch.testing.assert_close(
        inside(warp(moving, compose(first, then)), 5), inside(two_steps, 5), atol=1e-4, rtol=0
    )
    other_order = warp(moving, compose(then, first))
    assert inside(other_order - two_steps, 5).abs().max() > 0.1


@AXES
def test_a_field_on_a_finer_grid_counts_in_its_voxels(axis):
    field = torch.zeros(1, 3, 5, 5, 5)
    field[:, axis] = 1
    fine = resize_field(field, (9, 13, 17))
    assert torch.equal(fine[0, axis].unique(), torch.tensor([(2.0, 3.0, 4.0)[axis]]))
    assert fine.abs().sum() == fine[:, axis].sum()
    torch.testing.assert_close(resize_field(fine, (5, 5, 5)), field)


def test_a_linear_field_is_the_same_map_on_every_grid():
    coarse, fine = linear(MATRIX, (5, 5, 5)), linear(MATRIX, (9, 9, 9))
    torch.testing.assert_close(resize_field(coarse, (9, 9, 9)), fine, atol=1e-5, rtol=0)
    torch.testing.assert_close(resize_field(fine, (5, 5, 5)), coarse, atol=1e-5, rtol=0)
    assert resize_field(coarse, (5, 5, 5)) is coarse


def test_no_velocity_and_a_constant_one():
    assert torch.equal(exponential(torch.zeros(1, 3, *SHAPE)), torch.zeros(1, 3, *SHAPE))
    velocity = torch.tensor([1.5, -0.5, 2.0]).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    torch.testing.assert_close(exponential(velocity), velocity, atol=1e-5, rtol=0)


def test_a_linear_velocity_shrinks_exponentially():
    # Linear fields are interpolated exactly, so squaring gives (1 + a / 2^K)^(2^K).
    a = -0.3
    u = exponential(linear(a * torch.eye(3), centred=True))
    reached = (1 + a / 2**7) ** 2**7
    torch.testing.assert_close(
        u, linear((reached - 1) * torch.eye(3), centred=True), atol=1e-5, rtol=0
    )
    assert reached == pytest.approx(math.exp(a), abs=a**2 / 2**8)


def test_the_negative_velocity_undoes():
    velocity = smooth_field(3)
    forth, back = exponential(velocity), exponential(-velocity)
    assert forth.abs().max() > 2
    for there_and_back in (compose(forth, back), compose(back, forth)):
        assert inside(there_and_back, 4).abs().max() < 0.15
        assert inside(there_and_back, 4).abs().mean() < 0.02


def test_a_smooth_velocity_never_folds_and_a_large_displacement_does():
    for seed in range(3):
        u = exponential(smooth_field(3, seed=seed))
        assert jacobian_determinant(u).min() > 0
        assert not folded(u).any()
    velocity = smooth_field(10)
    assert folded(velocity).float().mean() > 0.05
    assert jacobian_determinant(exponential(velocity)).min() > 0


def test_an_affine_field():
    u = linear(MATRIX) + 3
    determinant = torch.linalg.det(torch.eye(3) + MATRIX)
    expected = determinant.expand(1, *SHAPE)
    torch.testing.assert_close(jacobian_determinant(u), expected, atol=1e-5, rtol=0)
    assert not folded(u).any()
    assert float(bending_energy(u)) == pytest.approx(0, abs=1e-9)
    assert float(diffusion_energy(u)) == pytest.approx(float(MATRIX.square().sum()) / 9, rel=1e-5)


def test_bending_of_quadratic_fields():
    p = identity_grid(torch.empty(1, 3, *SHAPE))
    u = torch.zeros(2, 3, *SHAPE)
    u[0, 1] = p[0, 0] * p[0, 2]  # its mixed derivative, 1, counts twice
    u[1, 2] = p[0, 1] ** 2
    assert bending_energy(u).tolist() == pytest.approx([2.0, 4.0], rel=1e-4)


@AXES
def test_folds_of_one_voxels_size_are_seen_by_one_sided_differences_alone(axis):
    place = identity_grid(torch.empty(1, 3, *SHAPE))[:, axis]
    u = torch.zeros(1, 3, *SHAPE)
    u[:, axis] = 0.6 * (-1) ** place
    # Voxels swap places: steps of 1 - 1.2 and 1 + 1.2 in turn, on the mean 1.
    torch.testing.assert_close(
        inside(jacobian_determinant(u), 1), torch.ones(1, *(n - 2 for n in SHAPE))
    )
    bad = folded(u).movedim(1 + axis, -1)
    assert bad[..., 0::2].all()
    assert not bad[..., 1::2].any()


def test_a_mirror_folds_everywhere():
    u = linear(torch.diag(torch.tensor([-1.5, 0.0, 0.0])))
    assert folded(u).all()
    assert folded(u).shape == (1, *(n - 1 for n in SHAPE))
    assert float(folding_energy(u)) == pytest.approx(0.5, abs=1e-5)
    assert float(folding_energy(torch.zeros(1, 3, *SHAPE))) == 0
