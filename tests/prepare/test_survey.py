from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gyri.cohort.nifti import write_volume
from gyri.errors import DataError
from gyri.prepare.survey import Session, SessionScan, own_grids, read_session, survey_session
from gyri.types import Channel

CHANNELS = (Channel("tumour", "label"), Channel("T1w"), Channel("T2w"))
FINE = np.diag([2.0, 2.0, 2.0, 1.0])
THICK = np.diag([1.0, 1.0, 6.0, 1.0])


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A T1w at 2 mm, a T2w in thick slices and a lesion drawn on it."""
    rng = np.random.default_rng(0)
    lesion = np.zeros((60, 64, 9), dtype=np.uint8)
    lesion[20:30, 20:30, 4] = 3
    ball = (((np.indices((30, 32, 28)) - 15) / 13) ** 2).sum(axis=0) < 1
    files = {
        "tumour": (lesion, THICK),
        "T1w": ((ball * rng.uniform(50, 90, ball.shape)).astype(np.float32), FINE),
        "T2w": (rng.uniform(1, 9, lesion.shape).astype(np.float32), THICK),
    }
    for name, (volume, affine) in files.items():
        write_volume(tmp_path / f"{name}.nii.gz", volume, affine, descrip="")
    paths = tuple(str(tmp_path / f"{channel.name}.nii.gz") for channel in CHANNELS)
    return Session("01", "", paths, CHANNELS)


def test_channels_on_other_grids_come_apart_when_asked(session: Session) -> None:
    with pytest.raises(DataError, match=r"tumour\.nii\.gz: its grid .* is not that of T1w"):
        read_session(session)
    scan = read_session(session, apart=True)
    assert isinstance(scan, SessionScan)
    assert scan.source == session
    np.testing.assert_array_equal(scan.affine, FINE)
    assert scan.image.shape == (3, 30, 32, 28)
    assert [other.index for other in scan.apart] == [0, 2]
    assert not scan.image[[0, 2]].any()
    assert [volume.shape for volume, _ in own_grids(scan)] == [
        (60, 64, 9), (30, 32, 28), (60, 64, 9),
    ]  # fmt: skip
    np.testing.assert_array_equal(own_grids(scan)[2][1], THICK)


def test_the_survey_lets_them_pass(session: Session) -> None:
    finding = survey_session(session, {})
    assert finding.fault == ""
    assert finding.shape == (30, 32, 28)
    assert finding.max_label == 3
