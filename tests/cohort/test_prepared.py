from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import MANIFEST, SCANS, PreparedCohort, prepared_path, write_manifest
from gyri.cohort.table import CONVENTIONAL
from gyri.errors import DataError, UsageError
from gyri.types import Channel, Grid

AFFINE = ((4.0, 0.0, 0.0, -8.0), (0.0, 4.0, 0.0, -10.0), (0.0, 0.0, 4.0, -8.0), (0.0, 0, 0, 1))
GRID = Grid((5, 6, 5), AFFINE)
T1W, SEG = Channel("T1w"), Channel("tumour", "label", 3)


def volume(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).random(GRID.shape)
    values[0] = 0
    return values


@pytest.fixture
def cohort(tmp_path: Path) -> PreparedCohort:
    names = ["A", "B", "B", "C"]
    table = pd.DataFrame(
        {
            "session": ["1", "1", "2", "1"],
            "split": ["TRAIN", "HOLD", "HOLD", "TRAIN"],
            "age": [30.0, 40.0, 41.0, np.nan],
            "sex": ["F", "M", "M", None],
        },
        index=pd.Index(names, name="subject"),
    )
    for seed, (name, session) in enumerate(zip(names, table["session"])):
        path = tmp_path / prepared_path(name, session, T1W)
        write_volume(
            path, volume(seed), np.array(AFFINE), descrip="", dtype="int16", scale=1 / 32767
        )
        labels = np.full(GRID.shape, seed % 3, np.int16)
        write_volume(
            tmp_path / prepared_path(name, session, SEG), labels, np.array(AFFINE), descrip=""
        )
    return write_manifest(
        tmp_path,
        name="test",
        grid=GRID,
        channels=(T1W, SEG),
        intensity_range=(0.0, 1.0),
        table=table,
        columns={name: CONVENTIONAL[name] for name in ("age", "sex")},
        files={"x": "1"},
        quarantine=[{"subject": "D", "session": "", "file": "d.nii", "rule": "truncated"}],
        settings={"seed": 3},
    )


def test_everything_comes_back(cohort: PreparedCohort) -> None:
    assert (cohort.name, cohort.grid, cohort.channels) == ("test", GRID, (T1W, SEG))
    assert cohort.intensity_range == (0.0, 1.0)
    assert cohort.columns == {name: CONVENTIONAL[name] for name in ("age", "sex")}
    assert cohort.table["age"].tolist()[:3] == [30, 40, 41]
    assert np.isnan(cohort.table["age"].iloc[3])
    assert cohort.table["sex"].tolist() == ["F", "M", "M", None]
    assert cohort.quarantine[0]["rule"] == "truncated"
    assert cohort.manifest["preparation"] == {"seed": 3}


def test_rows_are_of_the_subject(cohort: PreparedCohort) -> None:
    assert list(cohort.rows("TRAIN").index) == ["A", "C"]
    assert cohort.rows("HOLD")["session"].tolist() == ["1"]
    assert cohort.rows("HOLD", "all")["session"].tolist() == ["1", "2"]
    assert len(cohort.rows("VAL")) == 0
    with pytest.raises(UsageError, match="no split 'HOLDS'. Did you mean 'HOLD'"):
        cohort.rows("HOLDS")
    with pytest.raises(UsageError, match="sessions"):
        cohort.rows("HOLD", "last")  # type: ignore[arg-type]


def test_voxels(cohort: PreparedCohort) -> None:
    raw, scale = cohort.load(cohort.table)
    assert raw.shape == (4, 2, 5, 6, 5)
    assert (raw.dtype, scale) == (np.int16, 1 / 32767)
    for seed in range(4):
        np.testing.assert_allclose(raw[seed, 0] * scale, volume(seed), atol=0.51 * scale)
        assert (raw[seed, 1] == seed % 3).all()
    assert (raw[:, 0, 0] == 0).all(), "background is exactly 0"


def test_volume_set_holds_intensities(cohort: PreparedCohort) -> None:
    held = cohort.volume_set("HOLD", "all")
    assert held.name == "HOLD"
    assert held.volumes.shape == (2, 1, 5, 6, 5)
    assert held.volumes.dtype == np.float32
    assert held.channels == ("T1w",)
    assert held.ids == ["B", "B"]
    np.testing.assert_allclose(held.volumes[1, 0], volume(2), atol=1e-4)


def test_volume_set_holds_labels(cohort: PreparedCohort) -> None:
    held = cohort.volume_set("HOLD", "all")
    maps = held.labels[SEG.name]
    assert (maps.shape, maps.dtype) == ((2, 5, 6, 5), np.int16)
    assert maps[:, 0, 0, 0].tolist() == [1, 2]
    assert held.take(np.array([1])).labels[SEG.name][0, 0, 0, 0] == 2


def test_files_that_are_gone_or_short(cohort: PreparedCohort) -> None:
    path = cohort.path("A", "1", T1W)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="expected 652"):
        cohort.volume_set("TRAIN")
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        cohort.volume_set("TRAIN")


def test_a_changed_split_is_noticed(cohort: PreparedCohort) -> None:
    path = cohort.root / SCANS
    path.write_text(path.read_text().replace("C\t1\tTRAIN", "C\t1\tHOLD"))
    with pytest.raises(DataError, match="does not match the split"):
        PreparedCohort.read(cohort.root)


def test_folders_that_are_no_prepared_cohort(cohort: PreparedCohort, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gyri prepare"):
        PreparedCohort.read(tmp_path / "none")
    manifest = json.loads((cohort.root / MANIFEST).read_text())
    for wrong in ({**manifest, "format": 99}, {k: v for k, v in manifest.items() if k != "grid"}):
        (cohort.root / MANIFEST).write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="is damaged"):
            PreparedCohort.read(cohort.root)


def test_names() -> None:
    assert str(prepared_path("A", "", T1W)) == "sub-A/anat/sub-A_desc-prepared_T1w.nii"
    assert str(prepared_path("A", "2", Channel("T1c"))) == (
        "sub-A/ses-2/anat/sub-A_ses-2_ce-gadolinium_desc-prepared_T1w.nii"
    )
    assert str(prepared_path("A", "", SEG)) == "sub-A/anat/sub-A_desc-preparedtumour_dseg.nii"
