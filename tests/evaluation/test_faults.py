from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gyri.evaluation.faults import finite_fault, grid_fault, range_fault, reference_fault
from gyri.evaluation.features.extraction import volume_hashes
from gyri.types import Grid


def test_a_clean_set_has_no_faults(cohort):
    made, train = cohort["generated"], cohort["TRAIN"]
    assert grid_fault(made, train) is None
    assert range_fault(made, train) is None
    assert finite_fault(made) is None
    assert reference_fault(made, volume_hashes(cohort["HOLD"])) is None


@pytest.mark.parametrize("change", [lambda v: 2 * v - 1, lambda v: 255 * v, lambda v: 0 * v])
def test_other_ranges_are_named_with_their_measures(change, cohort, changed):
    fault = range_fault(changed(change(cohort["generated"].volumes)), cohort["TRAIN"])
    assert fault is not None
    assert "bring both to [0, 1]" in fault.reason
    assert "[0, 1]" in fault.reason


def test_blur_and_weak_contrast_are_no_range_fault(cohort, changed):
    volumes = cohort["generated"].volumes
    for other in (ndimage.gaussian_filter(volumes, (0, 0, 1.5, 1.5, 1.5)), 0.5 * volumes):
        assert range_fault(changed(other), cohort["TRAIN"]) is None


def test_other_grids_are_named(cohort):
    made = cohort["generated"]
    cut = replace(made, volumes=made.volumes[..., :18], grid=Grid((20, 24, 18), made.grid.affine))
    fault = grid_fault(cut, cohort["TRAIN"])
    assert fault is not None
    assert "(20, 24, 18)" in fault.reason
    spacing = tuple(tuple(4.0 * (a == b) for b in range(4)) for a in range(3))
    other = replace(made, grid=Grid(made.grid.shape, (*spacing, (0.0, 0.0, 0.0, 1.0))))
    assert grid_fault(other, cohort["TRAIN"]) is not None


def test_nan_is_named_by_volume(cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[5, 0, 3, 3, 3] = np.nan
    fault = finite_fault(changed(volumes))
    assert fault is not None
    assert cohort["generated"].ids[5] in fault.reason
    assert range_fault(changed(volumes), cohort["TRAIN"]) is None


def test_hold_among_the_generated_is_named(cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[2] = cohort["HOLD"].volumes[7]
    fault = reference_fault(changed(volumes), volume_hashes(cohort["HOLD"]))
    assert fault is not None
    assert fault.reason.startswith("1 of 16")
    assert cohort["generated"].ids[2] in fault.reason
