"""Overlap of people's regions."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError
from gyri.evaluation.overlap import pairwise_dice


def test_dice_by_hand():
    a = np.array([1, 1, 1, 2, 0, 0])[:, None, None]
    b = np.array([1, 1, 0, 2, 2, 0])[:, None, None]
    c = np.array([0, 1, 0, 0, 2, 3])[:, None, None]
    regions, dice = pairwise_dice([a, b, c])
    assert regions == [1, 2]
    ab, ac, bc = 2 * 2 / 5, 2 * 1 / 4, 2 * 1 / 3
    assert dice[:, 0] == pytest.approx([(ab + ac) / 2, (ab + bc) / 2, (ac + bc) / 2])
    ab, ac, bc = 2 * 1 / 3, 0, 2 * 1 / 3
    assert dice[:, 1] == pytest.approx([(ab + ac) / 2, (ab + bc) / 2, (ac + bc) / 2])


def test_who_lacks_a_region_is_left_out_of_it():
    a, b, c = (np.array(x)[:, None, None] for x in ([1, 1, 0], [1, 0, 0], [0, 0, 2]))
    regions, dice = pairwise_dice([a, b, c])
    assert regions == [1]
    assert dice[:2, 0] == pytest.approx([2 / 3, 2 / 3])
    assert np.isnan(dice[2, 0])


def test_one_map_has_nobody_to_overlap_with():
    with pytest.raises(DataError, match="two label maps or more, got 1"):
        pairwise_dice([np.zeros((2, 2, 2), np.int16)])
