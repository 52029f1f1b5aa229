from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.nn.adaptive_augment import (
    ADAConfig,
    AugmentationConfig,
    augmented,
    resampled,
)
from gyri.runtime.streams import SampleRng

SHAPES = [(8, 12), (6, 8, 10)]
NOTHING = AugmentationConfig(
    shift=0, isotropic=0, anisotropic=0, rotation=0, brightness=0, contrast=0
)
EVERYTHING = AugmentationConfig(flip_axis=0, noise=0.1, cutout=0.5)


def rng(count: int = 2, first: int = 0) -> SampleRng:
    return SampleRng(torch.arange(count) + first)


def draws(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def only(**settings: float) -> AugmentationConfig:
    return AugmentationConfig(**{**vars(NOTHING), **settings})


def affine(dims: int) -> Tensor:
    return torch.eye(dims + 1)[None].repeat(2, 1, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_probability_zero_is_the_identity(shape: tuple[int, ...]) -> None:
    x = draws(2, 1, *shape)
    assert augmented(x, EVERYTHING, 0.0, rng()) is x


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_left_out_changes_nothing(shape: tuple[int, ...]) -> None:
    x = draws(2, 1, *shape)
    torch.testing.assert_close(augmented(x, NOTHING, 0.9, rng()), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_item_s_change_depends_on_its_own_stream(shape: tuple[int, ...]) -> None:
    x = draws(6, 2, *shape)
    together = augmented(x, EVERYTHING, 0.7, rng(6))
    alone = augmented(x[4:5], EVERYTHING, 0.7, rng(1, first=4))
    torch.testing.assert_close(together[4:5], alone)
    assert not torch.allclose(together, x)


@pytest.mark.parametrize("shape", SHAPES)
def test_images_that_go_with_an_item_move_and_stay_what_they_are(shape: tuple[int, ...]) -> None:
    x = draws(6, 2, *shape)
    beside = x[:, :1].clone()
    changed = augmented(torch.cat([x, beside], 1), EVERYTHING, 0.9, rng(6), own=2)
    torch.testing.assert_close(changed[:, :2], augmented(x, EVERYTHING, 0.9, rng(6)))
    turns = AugmentationConfig(flip_axis=0, brightness=0, contrast=0)
    torch.testing.assert_close(changed[:, 2:], augmented(beside, turns, 0.9, rng(6)))


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_shifts_move_voxels_and_mirror_the_border(shape: tuple[int, ...]) -> None:
    x, matrix = draws(2, 1, *shape), affine(len(shape))
    matrix[:, 0, -1], matrix[:, -2, -1] = 2, -1
    moved = resampled(x, matrix)
    torch.testing.assert_close(moved[:, :, :-2, ..., 1:], x[:, :, 2:, ..., :-1])
    # Beyond the last voxel lie the last, and then the one before it.
    torch.testing.assert_close(moved[:, :, -2, ..., 1:], x[:, :, -1, ..., :-1])
    torch.testing.assert_close(moved[:, :, -1, ..., 1:], x[:, :, -2, ..., :-1])


def test_maps_are_those_of_voxels_not_of_the_box() -> None:
    # A quarter turn of an item that is no square: (i, j) is taken from (-j, i).
    x, matrix = draws(2, 1, 8, 12), affine(2)
    matrix[:, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    square = resampled(x, matrix)[..., 2:10]
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    torch.testing.assert_close(square, x[:, :, 7 - j, i + 2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_mirror_the_named_axis(axis: int) -> None:
    x = draws(16, 1, 6, 8, 10)
    flipped = augmented(x, only(flip_axis=axis), 1.0, rng(16))
    mirrored = x.flip(axis + 2)
    kinds = [
        (torch.allclose(y, one, atol=1e-5), torch.allclose(y, other, atol=1e-5))
        for y, one, other in zip(flipped, x, mirrored, strict=True)
    ]
    assert set(kinds) == {(True, False), (False, True)}


@pytest.mark.parametrize("shape", [(24, 28), (20, 22, 24)])
def test_rotations_leave_a_ball_and_scales_its_centre(shape: tuple[int, ...]) -> None:
    axes = [torch.arange(n) - (n - 1) / 2 for n in shape]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    ball = torch.exp(-place.square().sum(0) / 8).expand(8, 1, *shape) - 1
    turned = augmented(ball, only(rotation=180.0), 1.0, rng(8))
    assert (turned - ball).abs().max() < 0.15
    sizes = []
    for settings in ({"isotropic": 0.3}, {"anisotropic": 0.3}):
        y = augmented(ball, only(**settings), 1.0, rng(8)) + 1
        sizes.append(y.flatten(1).sum(1).log2())
        assert not torch.allclose(y, ball + 1, atol=0.05)
    # Volumes change under isotropic scales and not under those whose product is 1.
    assert sizes[0].std() > 5 * sizes[1].std()


@pytest.mark.parametrize("dims", [2, 3])
def test_rotations_turn_around_every_axis(dims: int) -> None:
    shape = (9,) * dims
    for axis in range(dims):
        line = torch.full((1, 1, *shape), -1.0)
        at: list[int | slice] = [4] * dims
        at[axis] = slice(1, 8)
        line[(0, 0, *at)] = 1.0
        turned = augmented(line.expand(8, -1, *[-1] * dims), only(rotation=180.0), 1.0, rng(8))
        assert all((y - line[0]).abs().max() > 0.3 for y in turned)


def test_contrast_leaves_the_background_and_brightness_moves_all() -> None:
    x = torch.full((64, 1, 4, 4), -1.0)
    x[:, :, 1:3] = 0.0
    seeds = rng(64)
    bright = augmented(x, only(brightness=0.2), 1.0, seeds)
    added = (bright - x).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand(-1, 16))
    assert added[:, 0].std() == pytest.approx(0.2, rel=0.3)
    steep = augmented(x, only(contrast=0.5), 1.0, rng(64))
    assert torch.equal(steep[:, :, 0], x[:, :, 0])
    assert (steep[:, 0, 1, 1] + 1).log2().std() == pytest.approx(0.5, rel=0.3)


def test_noise_and_cutout() -> None:
    x = torch.zeros(64, 1, 8, 8)
    noisy = augmented(x, only(noise=0.1), 1.0, rng(64))
    strength = noisy.flatten(1).std(1)
    assert strength.square().mean().sqrt() == pytest.approx(0.1, rel=0.3)
    cut = augmented(x, only(cutout=0.5), 1.0, rng(64))
    covered = (cut == -1).flatten(1).sum(1)
    assert int(covered.max()) == 16
    assert int(covered.min()) >= 4
    assert set(cut.unique().tolist()) == {-1.0, 0.0}


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_each_kind_fires_with_its_probability(p: float) -> None:
    x = draws(1, 1, 8, 8).expand(400, -1, -1, -1)
    for settings in ({"isotropic": 0.3}, {"rotation": 90.0}, {"brightness": 0.2}):
        y = augmented(x, only(**settings), p, rng(400))
        fired = ((y - x).abs().flatten(1).max(1).values > 1e-4).float().mean()
        assert float(fired) == pytest.approx(p, abs=3 * math.sqrt(p * (1 - p) / 400))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_derivatives_of_any_order(shape: tuple[int, ...]) -> None:
    matrix = affine(len(shape)).double()[:1]
    matrix[:, 0, 1], matrix[:, 1, -1] = 0.3, 0.4
    x = draws(1, 1, *shape).double().requires_grad_()

    def curved(x: Tensor) -> Tensor:
        return torch.tanh(resampled(x, matrix)).sum()

    assert torch.autograd.gradcheck(curved, (x,))
    assert torch.autograd.gradgradcheck(curved, (x,))


def test_p_moves_by_one_over_the_named_images() -> None:
    config = ADAConfig(images=4000, every=4, limit=1.0)
    state = config.initial()
    assert float(state["ada_p"]) == 0.0
    moves = []
    for _ in range(4000 // 50):
        before = float(state["ada_p"])
        # Fifty reals of which all are called real: r = 1, above the target.
        state = config.moved(state, torch.tensor([50.0, 50.0]))
        moves.append(float(state["ada_p"]) - before)
    assert float(state["ada_p"]) == pytest.approx(1.0, abs=1e-5)
    assert [round(m, 6) for m in moves[:8]] == [0, 0, 0, 0.05] * 2
    # r = 0.5, below the target: back, and never below 0.
    for _ in range(4000 // 50 + 8):
        state = config.moved(state, torch.tensor([25.0, 50.0]))
    assert float(state["ada_p"]) == pytest.approx(0.0, abs=1e-5)


def test_p_stays_below_its_limit_or_where_it_is_put() -> None:
    fast = ADAConfig(images=100, every=1)
    state = fast.initial()
    for _ in range(10):
        state = fast.moved(state, torch.tensor([50.0, 50.0]))
    assert float(state["ada_p"]) == pytest.approx(0.8)
    fixed = ADAConfig(images=0, start=0.3, every=1)
    assert fixed.moved(fixed.initial(), torch.ones(2))["ada_p"] == fixed.initial()["ada_p"]
    with pytest.raises(UsageError, match="start <= limit"):
        ADAConfig(start=0.9)
