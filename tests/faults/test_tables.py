"""Rows 28 to 36: grids, labels, tables and splits that do not belong together."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.cohort.small import AFFINE, brain, small_cohort, write_oasis1
from tests.faults.bench import GOOD, data_set, good_bytes, put

from gyri.cohort.bids import read
from gyri.cohort.merge import merge
from gyri.cohort.prepared import SCANS, PreparedCohort
from gyri.cohort.sources.folder import folder
from gyri.cohort.sources.oasis1 import oasis1
from gyri.cohort.splits import split_subjects
from gyri.cohort.twins import twins, voxel_hash
from gyri.conditions import ConditionSchema
from gyri.errors import DataError, UsageError
from gyri.prepare.pipeline import prepare

GRID = {"spacing_mm": 8.0, "shape": (20, 24, 20), "jobs": 1}


def labelled(root: Path, label: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Make a folder of two people with a scan and a lesion each; the second lesion is given."""
    root.mkdir()
    sound = (brain(1) > 150).astype(np.uint8)
    for name, lesion, place in (("a", sound, AFFINE), ("b", label, affine)):
        put(root / f"{name}_T1w.nii.gz", good_bytes(ord(name)))
        nib.save(nib.Nifti1Image(lesion, place), root / f"{name}_lesion.nii.gz")
    return root


def test_row_28_label_on_another_grid_is_quarantined(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 3
    src = labelled(tmp_path / "src", (brain(2) > 150).astype(np.uint8), moved)
    folder(src, tmp_path / "raw", scans=("T1w",), labels=("lesion",))
    cohort = prepare(tmp_path / "raw", tmp_path / "out", channels=("T1w", "lesion"), **GRID)
    assert list(cohort.table.index) == ["a"]
    assert "sub-b_desc-lesion_dseg.nii.gz: its grid" in cohort.quarantine[0]["rule"]


@pytest.mark.parametrize(("value", "rule"), [(0.5, "fractional"), (-1.0, "negative")])
def test_row_29_labels_that_are_none_are_quarantined(
    tmp_path: Path, value: float, rule: str
) -> None:
    lesion = (brain(2) > 150).astype(np.float32)
    lesion[3, 3, 3] = value
    src = labelled(tmp_path / "src", lesion)
    cohort = folder(src, tmp_path / "raw", scans=("T1w",), labels=("lesion",))
    assert rule in cohort.quarantine[0]["rule"]
    assert sorted(zip(cohort.scans["subject"], cohort.scans["modality"])) == [
        ("a", "T1w"), ("a", "lesion"), ("b", "T1w"),
    ]  # fmt: skip


def test_row_30_scans_and_table_that_differ_are_listed_both_ways(tmp_path: Path) -> None:
    src = data_set(tmp_path / "src", "stranger.nii.gz", lambda p: put(p, good_bytes()))
    with pytest.raises(DataError, match=r"scans have no row: stranger.*rows have no scan: bad"):
        folder(src, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_row_30_several_files_each_are_compared_before_work_too(tmp_path: Path) -> None:
    src = labelled(tmp_path / "src", (brain(2) > 150).astype(np.uint8))
    (src / "people.csv").write_text("id,age\na,30\nc,40\n")
    with pytest.raises(DataError, match=r"scans without a row: b; rows without a scan: c"):
        folder(src, tmp_path / "raw", scans=("T1w",), labels=("lesion",))
    assert not (tmp_path / "raw").exists()


def test_row_31_one_identifier_for_two_people(tmp_path: Path) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    (src / "people.csv").write_text("id,age\na,30\na,31\nb,40\nbad,50\n")
    with pytest.raises(DataError, match="lists subjects a more than once"):
        folder(src, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_row_31_identical_voxels_under_two_labels(tmp_path: Path) -> None:
    for name, people in (("one", 3), ("two", 2)):
        small_cohort(tmp_path / name, people)
    with pytest.raises(DataError, match=r"same voxels lie under two labels: .*S000"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out", ["one", "two"])
    assert not (tmp_path / "out").exists()


def test_row_31_a_copy_turned_and_saved_anew_is_found(tmp_path: Path) -> None:
    turned = AFFINE.copy()
    turned[0, 0] *= -1
    nib.save(nib.Nifti1Image(brain(1), AFFINE), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(brain(1)[::-1], turned), tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(brain(1)[::-1], AFFINE), tmp_path / "c.nii.gz")
    files = [tmp_path / "a.nii", tmp_path / "b.nii.gz", tmp_path / "c.nii.gz"]
    assert twins((path.name, voxel_hash(path), path) for path in files) == [(files[0], files[1])]


def test_row_32_sessions_of_one_person_in_two_splits(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    oasis1(tmp_path / "src", tmp_path / "raw")
    sizes = {"TRAIN": 3, "HOLD": 2}
    cohort = prepare(tmp_path / "raw", tmp_path / "out", sizes=sizes, **GRID)
    assert cohort.table.loc["OAS10002", "split"].nunique() == 1
    listing = tmp_path / "out" / SCANS
    lines = listing.read_text().splitlines()
    row = next(n for n, line in enumerate(lines) if line.startswith("OAS10002\tMR2"))
    side = cohort.table.loc["OAS10002", "split"].iloc[0]
    lines[row] = lines[row].replace(side, "TEST")
    listing.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="scans of OAS10002 in more than one split"):
        PreparedCohort.read(tmp_path / "out")


def test_row_33_slices_cannot_be_dealt(tmp_path: Path) -> None:
    slices = pd.DataFrame({"age": [50.0] * 20}, index=[f"P{n // 10}" for n in range(20)])
    with pytest.raises(
        UsageError, match=r"P0, P1 would be dealt more than once.*one row a subject"
    ):
        split_subjects(slices, {"TRAIN": 0.5, "TEST": 0.5}, ["age"])


@pytest.mark.parametrize("age", ["45y", "-1", "999"])
def test_row_34_ages_that_nobody_has(tmp_path: Path, age: str) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    (src / "people.csv").write_text(f"id,age\na,30\nb,40\nbad,{age}\n")
    with pytest.raises(DataError, match="bad"):
        folder(src, tmp_path / "raw")


@pytest.mark.parametrize("age", ["NaN", "999", "-1", ""])
def test_row_34_ages_that_are_mapped_to_missing(tmp_path: Path, age: str) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    (src / "people.csv").write_text(f"id,age\na,30\nb,40\nbad,{age}\n")
    cohort = folder(src, tmp_path / "raw", missing=("999", "-1"))
    assert np.isnan(cohort.subjects.loc["bad", "age"])
    assert "sub-bad\tn/a" in (tmp_path / "raw" / "participants.tsv").read_text()


def test_row_34_ages_of_sessions_count_as_well(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    table = tmp_path / "src" / "oasis_cross-sectional.csv"
    table.write_text(table.read_text().replace("OAS1_0002_MR2,M,R,41", "OAS1_0002_MR2,M,R,999"))
    with pytest.raises(DataError, match="ages outside 0-120 years for OAS10002"):
        oasis1(tmp_path / "src", tmp_path / "raw")


def test_row_35_a_scanner_never_seen_lists_the_known_ones() -> None:
    table = pd.DataFrame({"scanner": ["Intera", "TrioTim", "Intera"]})
    schema = ConditionSchema.fit(table, ["scanner"], {"scanner": "categorical"})
    with pytest.raises(
        UsageError, match=r"scanner='Trio' was never seen.*Intera, TrioTim"
    ) as error:
        schema.assign({"scanner": "Trio"})
    assert error.value.exit_code == 2


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("cut", [",", ";", "\t", "|"])
def test_row_36_marks_delimiters_and_formulas(tmp_path: Path, mark: str, cut: str) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    formulas = ["=cmd()", "@SUM(A1)", "+1+cmd()"]
    rows = [["id", "remark", "score"], *zip((*GOOD, "bad"), formulas, ("-1.5", "2", "3"))]
    table = mark + "".join(cut.join(row) + "\r\n" for row in rows)
    (src / "people.csv").write_bytes(table.encode())
    cohort = folder(src, tmp_path / "raw")
    assert cohort.subjects["remark"].tolist() == formulas
    written = (tmp_path / "raw" / "participants.tsv").read_text()
    cells = [line.split("\t")[1:] for line in written.splitlines()[1:]]
    assert cells == [[f"'{f}", score] for f, score in zip(formulas, ("-1.5", "2", "3"))]


def test_row_36_a_bids_table_with_commas_names_what_came(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 2)
    table = tmp_path / "raw" / "participants.tsv"
    table.write_text(table.read_text().replace("\t", ","))
    with pytest.raises(DataError, match=r"has the columns participant_id,age,sex"):
        read(tmp_path / "raw")
