from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from tests.prepare.heads import phantom_head

from gyri.prepare.itk import matrix_of, to_itk
from gyri.prepare.mutual_information import Pair, averaged_to, capped, mask_image


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A brain and its inverted contrast 6 mm to the right and 4 mm down."""
    values, affine, truth = phantom_head()
    away = affine.copy()
    away[:3, 3] += [6, 0, -4]
    contrary = np.where(truth, values.max() - values, 0)
    return Pair(to_itk(values * truth, affine), mask_image(truth, affine), to_itk(contrary, away))


def test_a_shift_between_contrasts_is_found(pair: Pair) -> None:
    start = sitk.TranslationTransform(3)
    coarse = pair.smoothed(4.0, 2).improved(start, step_mm=2.0, tolerance_mm=0.05)
    found = pair.improved(coarse.transform, step_mm=0.5, tolerance_mm=0.01)
    np.testing.assert_allclose(matrix_of(found.transform)[:3, 3], [6, 0, -4], atol=0.3)
    assert found.information > 0.5
    np.testing.assert_array_equal(start.GetOffset(), 0)


def test_every_bit_is_the_same_every_time(pair: Pair) -> None:
    runs = [
        pair.improved(
            sitk.AffineTransform(3), levels=[(2, 2.0), (1, 0.0)], sampled=[0.6, 0.2],
            step_mm=1.0, tolerance_mm=0.01,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert len({run.information for run in runs}) == 1
    assert len({run.transform.GetParameters() for run in runs}) == 1


def test_fine_voxels_are_averaged_and_the_brightest_are_cut_off() -> None:
    volume = np.arange(8 * 6 * 4, dtype=np.float32).reshape(8, 6, 4)
    image = averaged_to(volume, np.diag([1.0, 1.0, 2.0, 1.0]), 2.0)
    assert image.GetSize() == (4, 3, 4)
    assert image[0, 0, 0] == volume[:2, :2, 0].mean()
    assert capped(volume).max() == np.percentile(volume, 99.5)
