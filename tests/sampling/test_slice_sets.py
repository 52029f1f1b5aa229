"""Sets of slices in training, and their order in sampling."""

from __future__ import annotations

import pytest
import torch

from gyri.sampling.slice_sets import CHANCES, blocks, drawn_sets


def drawn(num: int = 2000, depth: int = 40, window: int = 16):
    generator = torch.Generator().manual_seed(0)
    return drawn_sets(torch.rand(num, window, CHANCES, generator=generator), depth, window)


@pytest.mark.parametrize(("depth", "window"), [(40, 16), (9, 16), (300, 8), (1, 4), (16, 16)])
def test_a_set_has_different_slices_of_the_volume(depth: int, window: int) -> None:
    sets = drawn(200, depth, window)
    assert sets.at.shape == (200, min(window, depth))
    for index, target, valid in zip(*sets):
        own = index[valid].tolist()
        assert len(set(own)) == len(own) > 0
        assert 0 <= min(own) <= max(own) < depth
        assert target[valid].any()
        assert not target[~valid].any()


def test_windows_are_nearly_full_and_slices_are_drawn_alike_from_both_ends() -> None:
    index, _, valid = drawn()
    assert 0.9 < float(valid.float().mean()) < 1
    counts = torch.bincount(index[valid], minlength=40).double()
    assert float((counts - counts.flip(0)).abs().max() / counts.mean()) < 0.2


def test_the_first_run_is_a_target_and_the_others_are_either() -> None:
    # One run alone: of 4 slices, as far apart as they go.
    chances = torch.tensor([[[0.3, 0.999999, 0.0, 0.9]]])
    one = drawn_sets(chances, 31, 10)
    assert one.at[0, one.valid[0]].tolist() == [0, 9, 19, 29]
    assert one.target[0].sum() == 4
    # A second one of 3 neighbours from 20 on is observed, or a target too.
    for side, targets in ((0.7, 4), (0.2, 7)):
        second = torch.tensor([[[0.25, 0.0, 20.5 / 29, side]]])
        both = drawn_sets(torch.cat([chances, second], 1), 31, 10)
        assert sorted(both.at[0, both.valid[0]].tolist()) == [0, 9, 19, 20, 21, 22, 29]
        assert both.target[0].sum() == targets


def test_a_run_that_does_not_fit_is_left_out() -> None:
    chances = torch.tensor([[[0.65, 0.5, 0.1, 0.0], [0.65, 0.5, 0.6, 0.0], [0.0, 0.5, 0.99, 0.9]]])
    sets = drawn_sets(chances, 100, 10)
    assert sets.valid.sum() == 8
    assert sets.target.sum() == 7
    assert sets.at[0, 7] == 99


def test_the_middle_draws_are_spread_over_lengths_and_gaps() -> None:
    _, target, valid = drawn()
    full = (target & valid).sum(1) == 16
    assert 0.05 < float(full.float().mean()) < 0.6
    observed = (~target & valid).sum(1)
    assert set(observed.unique().tolist()) >= set(range(13))


@pytest.mark.parametrize("order", ["hierarchical", "autoregressive"])
@pytest.mark.parametrize(
    ("depth", "window", "kept"), [(40, 16, 8), (128, 16, 8), (300, 16, 4), (7, 16, 8), (9, 4, 3)]
)
def test_every_slice_is_made_once_and_told_of_slices_that_are_there(
    order, depth: int, window: int, kept: int
) -> None:
    plan = blocks(depth, window, order, kept)
    there: set[int] = set()
    for number, block in enumerate(plan):
        assert not there & set(block.targets)
        assert set(block.observed) <= there
        assert len(block.targets) + len(block.observed) <= window
        assert (len(block.observed) >= kept) == (number > 0)
        there |= set(block.targets)
    assert there == set(range(depth))


def test_one_after_another_goes_on_from_the_last_slices() -> None:
    plan = blocks(20, 8, "autoregressive", 4)
    assert plan[0].targets == tuple(range(8))
    assert plan[1].targets == (8, 9, 10, 11)
    assert plan[1].observed == (4, 5, 6, 7)


def test_hierarchy_begins_all_over_and_fills_between_neighbours() -> None:
    plan = blocks(129, 9, "hierarchical", 4)
    assert plan[0].targets == tuple(range(0, 129, 16))
    assert plan[1].targets == (8, 24, 40, 56)
    for block in plan[1:]:
        for target in block.targets:
            others = {*block.observed, *block.targets}
            assert min(others) < target < max(others)
