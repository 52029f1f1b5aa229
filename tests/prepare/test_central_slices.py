from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError, UsageError
from gyri.prepare.central_slices import CentralSlicesConfig, central_slices
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel


def scan(depth: int = 182) -> PreparedScan:
    """Slices whose value is their number, at z = -72 mm and on."""
    volume = np.broadcast_to(np.arange(depth, dtype=np.float32), (4, 5, depth)).copy()
    affine = np.eye(4)
    affine[:3, 3] = (-91, -126, -72)
    return PreparedScan(volume[None], (Channel("T1w"),), affine, np.ones((4, 5, depth), np.float32))


def test_ten_slices_around_the_middle_of_mni152() -> None:
    after = central_slices(scan(), CentralSlicesConfig())
    assert after.shape == (4, 5, 10)
    assert after.image[0, 0, 0].tolist() == list(range(86, 96))
    assert after.affine[2, 3] == 14


@pytest.mark.parametrize(
    ("depth", "count", "first"), [(181, 9, 86), (181, 10, 85), (182, 9, 86), (10, 10, 0)]
)
def test_odd_and_even(depth: int, count: int, first: int) -> None:
    after = central_slices(scan(depth), CentralSlicesConfig(count=count))
    assert after.image[0, 0, 0].tolist() == list(range(first, first + count))
    assert after.history[-1]["foreground_cut"] == pytest.approx(1 - count / depth, abs=1e-6)


def test_around_a_place_in_the_world() -> None:
    after = central_slices(scan(), CentralSlicesConfig(count=3, centre_mm=-20))
    assert after.image[0, 0, 0].tolist() == [51, 52, 53]
    across = central_slices(scan(), CentralSlicesConfig(count=1, plane="sagittal", centre_mm=-90))
    assert across.shape == (1, 5, 182)
    assert across.affine[0, 3] == -90


def test_refusals() -> None:
    with pytest.raises(DataError, match="do not lie in a scan of 182"):
        central_slices(scan(), CentralSlicesConfig(count=10, centre_mm=500))
    with pytest.raises(DataError, match="do not lie in a scan of 5"):
        central_slices(scan(5), CentralSlicesConfig(count=6))
    empty = scan()
    empty.foreground[..., 80:100] = 0
    with pytest.raises(DataError, match="are empty"):
        central_slices(empty, CentralSlicesConfig())
    with pytest.raises(UsageError, match="count is 0"):
        CentralSlicesConfig(count=0)
