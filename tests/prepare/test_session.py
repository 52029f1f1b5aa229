from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cohort.small import AFFINE, brain
from tests.prepare.heads import phantom_head

from gyri.cohort.nifti import read_volume, write_volume
from gyri.errors import DataError
from gyri.prepare.brain_mask import BrainMaskConfig
from gyri.prepare.coregister import CoregisterConfig
from gyri.prepare.intensity import IntensityConfig
from gyri.prepare.reorient import ReorientConfig
from gyri.prepare.session import _in_range, prepare_session
from gyri.prepare.survey import Session, survey_session
from gyri.types import Channel

STEPS = {"reorient": ReorientConfig(), "intensity": IntensityConfig(output_range=(-1, 1))}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    write_volume(tmp_path / "t1.nii.gz", brain(0), AFFINE, descrip="")
    write_volume(tmp_path / "seg.nii.gz", (brain(0) > 150).astype(np.uint8), AFFINE, descrip="")
    channels = (Channel("T1w"), Channel("dseg", "label", 2))
    return Session("A", "", (str(tmp_path / "t1.nii.gz"), str(tmp_path / "seg.nii.gz")), channels)


def test_files_hold_the_output_range_and_labels_stay_labels(
    session: Session, tmp_path: Path
) -> None:
    done = prepare_session(session, survey_session(session, {}), STEPS, tmp_path)
    assert done.fault == ""
    assert len(done.voxels) == 1
    values, label = (read_volume(tmp_path / file)[0] for file, _ in done.files)
    assert values.min() == pytest.approx(-1)
    assert values.min() == values[0, 0, 0]
    assert values.max() == pytest.approx(1, abs=1e-4)
    assert set(np.unique(label)) == {0, 1}


def test_what_is_there_is_kept_with_its_voxels_hash(session: Session, tmp_path: Path) -> None:
    finding = survey_session(session, {})
    first = prepare_session(session, finding, STEPS, tmp_path)
    path = tmp_path / first.files[0][0]
    written = path.stat().st_mtime_ns
    assert prepare_session(session, finding, STEPS, tmp_path) == first
    assert path.stat().st_mtime_ns == written


def test_values_outside_are_refused_not_clipped() -> None:
    np.testing.assert_allclose(_in_range(np.array([0, 0.5, 1.0]), (-4.0, 4.0)), [-4, 0, 4])
    with pytest.raises(DataError, match="run from 0 to 1.2.*Put the step intensity after"):
        _in_range(np.array([0, 1.2]), (0.0, 1.0))


def test_a_head_in_a_channel_that_lies_apart_is_a_head(session: Session, tmp_path: Path) -> None:
    head, affine, _ = phantom_head()
    write_volume(tmp_path / "t2.nii.gz", head.astype(np.float32), affine, descrip="")
    files = (session.files[0], str(tmp_path / "t2.nii.gz"))
    both = Session("A", "", files, (Channel("T1w"), Channel("T2w")))
    steps = {"coregister": CoregisterConfig(), "intensity": IntensityConfig()}
    done = prepare_session(both, survey_session(both, {}), steps, tmp_path / "out")
    assert "whole head" in done.fault


def test_a_scan_whose_mask_changed_is_prepared_again(tmp_path: Path) -> None:
    write_volume(tmp_path / "sub-A_T1w.nii.gz", brain(0), AFFINE, descrip="")
    session = Session("A", "", (str(tmp_path / "sub-A_T1w.nii.gz"),), (Channel("T1w"),))
    steps = {
        "reorient": ReorientConfig(),
        "brain_mask": BrainMaskConfig(),
        "intensity": IntensityConfig(),
    }
    finding = survey_session(session, {})
    kept = []
    for first in (0, 11):
        mask = brain(0) > 0
        mask[:first] = False
        beside = tmp_path / "sub-A_desc-brain_mask.nii.gz"
        write_volume(beside, mask.astype(np.uint8), AFFINE, descrip="")
        done = prepare_session(session, finding, steps, tmp_path / "out")
        assert done.fault == ""
        kept.append(np.count_nonzero(read_volume(tmp_path / "out" / done.files[0][0])[0]))
    assert kept[1] < 0.7 * kept[0]
