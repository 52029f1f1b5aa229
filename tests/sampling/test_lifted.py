"""Views that do not lift: ``x_noised`` lives on their items."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import Given, SamplingConfig, draw_volumes, edit_volumes
from gyri.sampling.lifted import ItemSpace, lifted, space_of
from gyri.sampling.samplers import dpmpp_2m
from gyri.sampling.schedules import CLEAN, Level, VPSchedule
from gyri.types import Items

from .oracle import gaussian_denoiser, noise

LEVELS = VPSchedule.build("linear", 1000).trailing(10)
PLAIN = SamplingConfig(clip=0.1)


class Codes:
    """Volumes whose code, of any shape, is not linear in them: the cube roots of some voxels."""

    volume_shape = (1, 4, 5, 6)
    slice_axis: int | None = None
    lifts = False

    def __init__(self, *item: int) -> None:
        self.item_channels, self.item_shape = item[0], item[1:]
        self.encoded = self.decoded = 0

    def encode(self, volumes: Tensor) -> Items:
        self.encoded += 1
        flat = volumes.flatten(1)[:, : self._size]
        code = flat.sign() * flat.abs() ** (1 / 3)
        return Items(code.reshape(len(volumes), self.item_channels, *self.item_shape))

    def decode(self, items: Tensor) -> Tensor:
        self.decoded += 1
        volumes = torch.zeros(len(items), 120)
        volumes[:, : self._size] = items.flatten(1) ** 3
        return volumes.reshape(-1, *self.volume_shape)

    @property
    def _size(self) -> int:
        size = self.item_channels
        for n in self.item_shape:
            size *= n
        return size


def oracle(x_noised: Tensor, level: Level, condition: Tensor, position: Tensor | None) -> Tensor:
    return gaussian_denoiser()(x_noised, level)


SHAPES = [(3, 2, 3, 2), (4, 5, 6)]


@pytest.mark.parametrize("item", SHAPES)
def test_items_are_drawn_and_decoded_once(item: tuple[int, ...]) -> None:
    codes = Codes(*item)
    seeds = torch.tensor([1, 2])
    drawn = draw_volumes(oracle, codes, torch.zeros(2, 0), LEVELS, PLAIN, SampleRng(seeds))
    assert (codes.encoded, codes.decoded) == (0, 1)
    start = LEVELS[0].sigma * SampleRng(seeds).normal(item)
    items = dpmpp_2m(gaussian_denoiser(), start, LEVELS, SampleRng(seeds))
    # Items are no intensities: nothing is clipped.
    assert float(items.abs().max()) > 1
    torch.testing.assert_close(drawn, codes.decode(items))


@pytest.mark.parametrize("item", SHAPES)
def test_editing_encodes_once_and_keeps_volumes_at_no_strength(item: tuple[int, ...]) -> None:
    codes = Codes(*item)
    volumes = noise(2, *codes.volume_shape)
    seeds, nobody = torch.tensor([1, 2]), torch.zeros(2, 0)
    edited = edit_volumes(oracle, codes, volumes, nobody, LEVELS[5:], PLAIN, SampleRng(seeds))
    assert (codes.encoded, codes.decoded) == (1, 1)
    start = LEVELS[5].alpha * codes.encode(volumes).x
    start = start + LEVELS[5].sigma * SampleRng(seeds).normal(item)
    items = dpmpp_2m(gaussian_denoiser(), start, LEVELS[5:], SampleRng(seeds))
    torch.testing.assert_close(edited, codes.decode(items))
    same = edit_volumes(oracle, codes, volumes, nobody, [CLEAN], PLAIN, SampleRng(seeds))
    assert torch.equal(same, volumes)


def test_what_a_view_that_does_not_lift_is_given_lies_on_its_items() -> None:
    codes, images, base = Codes(3, 2, 3, 2), noise(2, 1, 2, 3, 2), noise(2, 3, 2, 3, 2, seed=1)
    seen: list[Tensor] = []

    def follow(
        x: Tensor, level: Level, condition: Tensor, position: Tensor | None, images: Tensor
    ) -> Tensor:
        seen.append(images)
        return images.expand_as(x)

    drawn = draw_volumes(
        follow,
        codes,
        torch.zeros(2, 0),
        LEVELS,
        replace(PLAIN, items_per_call=1),
        SampleRng(torch.tensor([1, 2])),
        Given(images, base),
    )
    torch.testing.assert_close(drawn, codes.decode(images + base))
    assert torch.equal(torch.cat(seen[:2]), images)


def test_a_difference_is_clipped_where_its_sum_leaves_the_range() -> None:
    class Whole(ItemSpace):
        lifts = True

        def __init__(self) -> None:
            self.volume_shape = (1, 2, 2, 2)

    def far(x: Tensor, level: Level, condition: Tensor, position: Tensor | None) -> Tensor:
        return torch.full_like(x, 0.8)

    base = torch.tensor([-0.5, 0.5]).reshape(2, 1, 1, 1, 1).expand(2, 1, 2, 2, 2)
    drawn = draw_volumes(
        far,
        Whole(),  # type: ignore[arg-type]
        torch.zeros(2, 0),
        LEVELS,
        SamplingConfig(clip=1.0),
        SampleRng(torch.tensor([1, 2])),
        Given(base=base),
    )
    torch.testing.assert_close(drawn[:, 0, 0, 0, 0], torch.tensor([0.3, 1.0]))


def test_slices_of_items_share_no_noise() -> None:
    config = SamplingConfig(shared_noise=0.5)
    rng = SampleRng(torch.tensor([1]))
    with pytest.raises(UsageError, match="not single slices"):
        draw_volumes(oracle, Codes(3, 2, 3, 2), torch.zeros(1, 0), LEVELS, config, rng)


def test_the_space_is_the_view_where_it_lifts() -> None:
    codes = Codes(3, 2, 3, 2)
    assert space_of(codes).volume_shape == (3, 2, 3, 2)
    codes.lifts = True
    assert space_of(codes) is codes
    x = noise(1, 1, 4, 5, 6).abs()
    whole = lifted(lambda x, *_: x, codes, torch.zeros(1, 0), 4)(x, LEVELS[0])
    assert whole.shape == x.shape
