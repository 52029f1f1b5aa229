from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cohort.small import small_cohort
from tests.prepare.heads import phantom_head

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.prepared import MANIFEST
from gyri.cohort.table import CONVENTIONAL
from gyri.errors import UsageError
from gyri.prepare.pipeline import prepare
from gyri.prepare.plan import Choices
from gyri.prepare.preview import previewed

CHOICES = Choices(spacing_mm=8.0, shape=(20, 24, 20))


def test_stages_are_those_of_the_preparation(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 5)
    previews = previewed(tmp_path / "raw", tmp_path / "out", CHOICES, 3, jobs=1)
    assert [preview.session.subject for preview in previews] == ["S000", "S002", "S004"]
    stages = previews[1].stages
    assert [s.step for s in stages] == ["read", "reorient", "resample", "crop", "intensity"]
    assert not any(stage.shows_face for stage in stages)
    assert not (tmp_path / "out" / MANIFEST).exists()
    cohort = prepare(tmp_path / "raw", tmp_path / "out", spacing_mm=8.0, shape=(20, 24, 20), jobs=1)
    stored, scale = cohort.load(cohort.table.loc[["S002"]])
    np.testing.assert_allclose(stages[-1].scan.image[0], stored[0, 0] * scale, atol=scale)


def test_a_finished_cohort_stays_what_it_is(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 3)
    made = prepare(tmp_path / "raw", tmp_path / "out", spacing_mm=8.0, shape=(20, 24, 20), jobs=1)
    other = Choices(spacing_mm=16.0)
    assert len(previewed(tmp_path / "raw", tmp_path / "out", other, 9, jobs=1)) == 3
    again = prepare(tmp_path / "raw", tmp_path / "out", spacing_mm=8.0, shape=(20, 24, 20), jobs=1)
    assert again.data_hash == made.data_hash


def test_faults_end_the_stages(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 2)
    choices = Choices(spacing_mm=8.0, shape=(4, 4, 4))
    preview = previewed(tmp_path / "raw", tmp_path / "out", choices, 1, jobs=1)[0]
    assert [stage.step for stage in preview.stages] == ["read", "reorient", "resample"]
    assert "does not fit" in preview.fault
    with pytest.raises(UsageError, match="a preview of 0|A preview of 0"):
        previewed(tmp_path / "raw", tmp_path / "out", choices, 0)


def test_heads_show_a_face_until_a_step_takes_it(tmp_path: Path) -> None:
    values, affine, mask = phantom_head()
    scans = [
        Scan("A", "T1w", values, affine),
        Scan("A", "brain", mask.astype(np.uint8), affine, is_label=True),
    ]
    write_raw(
        tmp_path / "raw",
        name="head",
        subjects=small_cohort(tmp_path / "other", 1).subjects.rename({"S000": "A"}),
        columns={name: CONVENTIONAL[name] for name in ("age", "sex")},
        scans=scans,
    )
    steps = [
        "reorient",
        {"name": "brain_mask", "channel": "brain"},
        {"name": "crop", "shape": [48, 52, 48]},
        "intensity",
    ]
    choices = Choices(channels=("T1w", "brain"), steps=steps)
    stages = previewed(tmp_path / "raw", tmp_path / "out", choices, 1, jobs=1)[0].stages
    faces = {stage.step: stage.shows_face for stage in stages}
    assert faces == {
        "read": True, "reorient": True, "brain_mask": False, "crop": False, "intensity": False,
    }  # fmt: skip
