from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.bids import bids_errors
from tests.cohort.small import AFFINE, brain, small_cohort

from gyri.cohort.bids import Scan, read, write_raw
from gyri.cohort.merge import merge
from gyri.cohort.nifti import read_volume
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType
from gyri.errors import DataError, UsageError

YEARS = ColumnType(kind="continuous", description="Years of education", unit="year")
CODE = ColumnType(kind="continuous", description="Education, 1 to 5")


def other_cohort(root: Path, first_seed: int = 50, education: ColumnType = YEARS) -> Cohort:
    """Three people, two labels of the small cohort, with sessions and labels."""
    table = pd.DataFrame(
        {"age": [30.0, 40.0, 50.0], "scanner": ["A", "B", None], "education": [9.0, 12.0, 16.0]},
        index=pd.Index(["S001", "S002", "T001"], name="subject"),
    )
    columns = {
        "age": CONVENTIONAL["age"],
        "scanner": CONVENTIONAL["scanner"],
        "education": education,
        "mmse": CONVENTIONAL["mmse"],
    }
    scans = [
        Scan(label, "T1w", brain(first_seed + n), AFFINE, "1", {"Faces": True, "Serial": "X9"})
        for n, label in enumerate(table.index)
    ]
    tissue = (brain(1) > 100).astype(np.uint8)
    scans.append(Scan("S001", "tumour", tissue, AFFINE, "1", is_label=True))
    sessions = pd.DataFrame({"subject": list(table.index), "session": "1", "mmse": [29, 28, None]})
    return write_raw(
        root, name="Other set", subjects=table, columns=columns, scans=scans, sessions=sessions,
        license="CC BY", citation="Other (2020)",
    )  # fmt: skip


def test_merged_cohorts_keep_everyone(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 4)
    other_cohort(tmp_path / "b")
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert bids_errors(tmp_path / "out") == []
    table = merged.subjects
    assert sorted(table.index) == [
        "OthersetS001", "OthersetS002", "S000", "S003", "SmallS001", "SmallS002", "T001",
    ]  # fmt: skip
    assert table["source"].value_counts().to_dict() == {"Small": 4, "Otherset": 3}
    assert table.loc["OthersetS001", "age"] == 30
    assert table.loc["S000", "scanner"] is None
    assert np.isnan(table.loc["S000", "education"])
    assert merged.covariates("OthersetS001", "1")["mmse"] == 29
    assert "2 labels occur in several cohorts" in " ".join(merged.notes)
    assert read(tmp_path / "out").subjects["source"].to_dict() == table["source"].to_dict()
    assert "Other (2020)" in (tmp_path / "out" / "dataset_description.json").read_text()


def test_merging_changes_no_voxel_and_copies_no_serial(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 2)
    other_cohort(tmp_path / "b")
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", ["one", "two"])
    path = Path(merged.scans.set_index(["subject", "modality"]).loc[("twoS001", "T1w"), "path"])
    np.testing.assert_array_equal(read_volume(path)[0], brain(50))
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json")).read_text()
    assert '"Faces": true' in sidecar
    assert "X9" not in sidecar


def test_columns_that_mean_different_things_stay_apart(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 1)
    other_cohort(tmp_path / "b", 50)
    other_cohort(tmp_path / "c", 60, CODE)
    roots = [tmp_path / name for name in "abc"]
    merged = merge(roots, tmp_path / "out", ["a", "years", "code"])
    assert "education" not in merged.subjects
    assert merged.subjects["education_years"].dropna().tolist() == [9, 12, 16]
    assert merged.columns["education_years"].unit == "year"
    assert "Column education means different things" in " ".join(merged.notes)


def test_a_column_without_values_contradicts_nothing(tmp_path: Path) -> None:
    for name, group, seed in (("a", [None], 1), ("b", ["case"], 2)):
        table = pd.DataFrame({"group": group}, index=pd.Index([name], name="subject"))
        columns = {"group": ColumnType(kind="categorical", description="Group")}
        write_raw(
            tmp_path / name, name=name, subjects=table, columns=columns,
            scans=[Scan(name, "T1w", brain(seed), AFFINE)],
        )  # fmt: skip
    # Nothing but n/a reads as numbers.
    (tmp_path / "a" / "participants.json").write_text("{}")
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert merged.subjects["group"].tolist() == [None, "case"]


def test_the_same_voxels_under_two_labels_are_refused(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 3)
    scan = Scan("T009", "T1w", brain(2), AFFINE)
    table = pd.DataFrame({"age": [30.0]}, index=pd.Index(["T009"], name="subject"))
    write_raw(
        tmp_path / "b", name="B", subjects=table, columns={"age": CONVENTIONAL["age"]}, scans=[scan]
    )
    with pytest.raises(DataError, match=r"sub-S002_T1w.nii.gz and .*sub-T009_T1w.nii.gz"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merged_again_keeps_the_first_source(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 1)
    other_cohort(tmp_path / "b")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab", ["a", "b"])
    other_cohort(tmp_path / "c", 80)
    merged = merge([tmp_path / "ab", tmp_path / "c"], tmp_path / "out", ["ab", "c"])
    assert set(merged.subjects["source"]) == {"a", "b", "c"}


def test_merge_needs_two_cohorts_and_their_names(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 1)
    with pytest.raises(UsageError, match="at least two"):
        merge([tmp_path / "a"], tmp_path / "out")
    with pytest.raises(UsageError, match="different names"):
        merge([tmp_path / "a", tmp_path / "a"], tmp_path / "out")
    with pytest.raises(UsageError, match="2 cohorts and 1 names"):
        merge([tmp_path / "a", tmp_path / "a"], tmp_path / "out", ["x"])
