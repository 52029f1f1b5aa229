"""What may be pictured of a head."""

from __future__ import annotations

import numpy as np

from gyri.report.faces import BELOW_VERTEX_MM, Cut, cuts_above_orbits, middle_cuts

SPACING = np.array([2.0, 2.0, 2.0])


def head(top: int = 90, breadth: int = 76) -> np.ndarray:
    """Return an ellipsoid 220 mm high whose vertex is voxel `top` of 100."""
    i, j, k = np.indices((100, 110, 100))
    middle = top - 55
    inside = ((i - 50) / (breadth / 2)) ** 2 + ((j - 55) / 48) ** 2 + ((k - middle) / 55.5) ** 2
    return inside <= 1


def test_the_middle_of_the_box() -> None:
    mask = np.zeros((10, 12, 14), bool)
    mask[2:7, 1:10, 4:13] = True
    expected = (Cut("axial", 8), Cut("coronal", 5), Cut("sagittal", 4))
    assert middle_cuts(mask) == expected


def test_a_head_is_cut_below_its_vertex_and_above_its_orbits() -> None:
    for top in (80, 90):
        cuts = cuts_above_orbits(head(top), SPACING)
        assert [cut.plane for cut in cuts] == ["axial"] * 3
        assert [2 * (top - cut.index) for cut in cuts] == [24, 36, 44]
    assert max(BELOW_VERTEX_MM) < 60


def test_where_the_vertex_is_uncertain_nothing_is_shown() -> None:
    assert cuts_above_orbits(head(top=110), SPACING) == ()
    assert cuts_above_orbits(head(breadth=40), SPACING) == ()
    assert cuts_above_orbits(np.zeros((20, 20, 20), bool), SPACING) == ()
    assert cuts_above_orbits(head()[:, :, 80:], SPACING) == ()
