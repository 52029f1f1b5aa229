"""Overlap against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.utility.overlap import compare_structures, dice, hausdorff95


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((20, 12, 12), bool)
    mask[start:stop, 2:10, 2:10] = True
    return mask


def test_dice_of_shifted_boxes():
    assert dice(box(2, 10), box(2, 10)) == 1
    assert dice(box(2, 10), box(4, 12)) == pytest.approx(2 * 6 / 16)


def test_a_missing_structure_counts_zero_and_as_far_as_the_grid_is_wide():
    nothing = np.zeros((20, 12, 12), bool)
    assert dice(nothing, box(2, 10)) == 0
    assert hausdorff95(nothing, box(2, 10), (2.0, 1.0, 1.0)) == pytest.approx(
        np.sqrt(40**2 + 12**2 + 12**2)
    )
    assert np.isnan(dice(nothing, nothing))
    assert np.isnan(hausdorff95(nothing, nothing, (1.0, 1.0, 1.0)))


def test_hausdorff_of_a_shift_is_the_shift_in_millimetres():
    # Both faces across the axis are a quarter of the surface: beyond the 95th percentile.
    assert hausdorff95(box(2, 10), box(4, 12), (3.0, 1.0, 1.0)) == pytest.approx(6.0)
    assert hausdorff95(box(2, 10), box(2, 10), (3.0, 1.0, 1.0)) == 0


def test_volume_error_in_millilitres():
    found, truth = np.zeros((1, 10, 10, 10), np.uint8), np.zeros((1, 10, 10, 10), np.uint8)
    found[0, :5], truth[0, :3] = 2, 2
    result = compare_structures(found, truth, 2, (2.0, 2.0, 2.0))
    assert result["volume_error_ml"][0, 1] == pytest.approx(200 * 8 / 1000)
    assert np.isnan(result["dice"][0, 0])
