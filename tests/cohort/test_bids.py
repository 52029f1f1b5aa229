from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.bids import bids_errors
from tests.cohort.small import AFFINE, brain, scans, small_cohort, subjects

from gyri.cohort.bids import Scan, read, write_raw
from gyri.cohort.nifti import read_volume
from gyri.cohort.table import CONVENTIONAL, Cohort, ColumnType
from gyri.errors import DataError


def rich_cohort(root: Path) -> Cohort:
    """Two subjects with sessions, contrast agent, labels, missing values and a foreign column."""
    table = pd.DataFrame(
        {"age": [70.0, 95.0], "sex": ["F", None], "ward": ["1", "2"], "iq": [101.5, np.nan]},
        index=pd.Index(["A1", "A2"], name="subject"),
    )
    columns = {
        "age": CONVENTIONAL["age"],
        "sex": CONVENTIONAL["sex"],
        "ward": ColumnType(kind="categorical", description="Ward"),
        "iq": ColumnType(kind="continuous", description="Intelligence", unit="points"),
        "etiv": CONVENTIONAL["etiv"],
    }
    tumour = (brain(0) > 150).astype(np.uint8)
    sessions = {"subject": ["A1", "A2", "A2"], "session": ["1", "1", "2"], "etiv": [1.0, 2, None]}
    return write_raw(
        root,
        name="Rich",
        subjects=table,
        columns=columns,
        scans=[
            Scan("A1", "T1w", brain(0), AFFINE, "1"),
            Scan("A1", "T1c", brain(1), AFFINE, "1", {"ContrastBolusIngredient": "GADOLINIUM"}),
            Scan("A1", "tumour", tumour, AFFINE, "1", is_label=True),
            Scan("A2", "T1w", brain(2), AFFINE, "1"),
            Scan("A2", "FLAIR", brain(3), AFFINE, "2"),
        ],
        sessions=pd.DataFrame(sessions),
        license="CC0",
        citation="Somebody (2020)",
        authors=["Some Body"],
    )


def test_raw_data_sets_are_valid(tmp_path: Path) -> None:
    small_cohort(tmp_path / "small", 3)
    rich_cohort(tmp_path / "rich")
    assert bids_errors(tmp_path / "small") == []
    assert bids_errors(tmp_path / "rich") == []
    assert bids_errors(tmp_path / "rich" / "derivatives" / "labels") == []


def test_the_validator_sees_errors(tmp_path: Path) -> None:
    small_cohort(tmp_path / "small", 2)
    (tmp_path / "small" / "sub-S000" / "anat" / "scan.nii.gz").write_bytes(b"x")
    (tmp_path / "small" / "dataset_description.json").write_text("{}")
    errors = " ".join(bids_errors(tmp_path / "small"))
    assert "JSON_KEY_REQUIRED" in errors
    assert "scan.nii.gz" in errors


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    written = rich_cohort(tmp_path / "rich")
    found = read(tmp_path / "rich")
    pd.testing.assert_frame_equal(found.subjects, written.subjects)
    pd.testing.assert_frame_equal(
        found.sessions[["subject", "session", "etiv"]], written.sessions, check_dtype=False
    )
    assert {name: column.kind for name, column in found.columns.items()} == {
        name: column.kind for name, column in written.columns.items()
    }
    assert found.columns["iq"].unit == "points"
    keys = ["subject", "session", "modality"]
    assert sorted(map(tuple, found.scans[keys].to_numpy())) == sorted(
        map(tuple, written.scans[keys].to_numpy())
    )
    first = found.scans[found.scans["modality"] == "T1c"].iloc[0]
    values, affine, _ = read_volume(Path(first["path"]))
    np.testing.assert_array_equal(values, brain(1))
    np.testing.assert_allclose(affine, AFFINE)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rich_cohort(tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) > 15
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        small_cohort(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_table_and_scans_must_agree(tmp_path: Path) -> None:
    columns = {name: CONVENTIONAL[name] for name in ("age", "sex")}
    with pytest.raises(DataError, match="1 subjects have no scan: S002"):
        write_raw(tmp_path / "x", name="x", subjects=subjects(3), columns=columns, scans=scans(2))


def test_unsafe_labels_never_become_paths(tmp_path: Path) -> None:
    bad = Scan("../../x", "T1w", brain(0), AFFINE)
    with pytest.raises(DataError, match="letters and digits"):
        write_raw(tmp_path / "x", name="x", subjects=subjects(1), columns={}, scans=[bad])
    assert not (tmp_path.parent / "x").exists()


def test_missing_folder_and_no_scans(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match="holds no scans"):
        read(tmp_path)


def test_the_first_run_is_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_cohort(tmp_path / "x", 2)
    folder = tmp_path / "x" / "sub-S000" / "anat"
    original = folder / "sub-S000_T1w.nii.gz"
    (folder / "sub-S000_run-2_T1w.nii.gz").write_bytes(original.read_bytes())
    original.rename(folder / "sub-S000_run-1_T1w.nii.gz")
    with caplog.at_level(logging.WARNING):
        cohort = read(tmp_path / "x")
    assert cohort.scans["path"][0].endswith("run-1_T1w.nii.gz")
    assert cohort.notes == [
        "sub-S000 has 2 T1w: took sub-S000_run-1_T1w.nii.gz, not sub-S000_run-2_T1w.nii.gz."
    ]
    assert "run-1" in caplog.text


def test_files_without_json_or_table_are_fine(tmp_path: Path) -> None:
    small_cohort(tmp_path / "x", 2)
    for path in [*(tmp_path / "x").rglob("*.json"), tmp_path / "x" / "participants.tsv"]:
        path.unlink()
    cohort = read(tmp_path / "x")
    assert list(cohort.subjects.index) == ["S000", "S001"]
    assert cohort.name == "x"


def test_foreign_headings_are_harmonised(tmp_path: Path) -> None:
    small_cohort(tmp_path / "x", 3)
    lines = ["participant_id\tAge\tgender\tICD-10", "sub-S000\t61\tm\tF32", "sub-S001\tn/a\tf\tn/a"]
    lines.append("sub-S002\t30\tFemale\tF33")
    (tmp_path / "x" / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    about = {"ICD-10": {"Description": "Diagnosis", "Levels": {"F32": "depressive episode"}}}
    (tmp_path / "x" / "participants.json").write_text(json.dumps(about))
    cohort = read(tmp_path / "x")
    assert cohort.subjects["sex"].tolist() == ["M", "F", "F"]
    assert cohort.columns["icd_10"].levels == {"F32": "depressive episode", "F33": "F33"}
    assert cohort.subjects["icd_10"].tolist() == ["F32", None, "F33"]


def test_declared_units_are_kept(tmp_path: Path) -> None:
    small_cohort(tmp_path / "x", 2)
    lines = ["participant_id\tage\teducation\tiq\theight", "sub-S000\t61\t12\t100\t1.7"]
    lines.append("sub-S001\t30\t9\t110\t1.8")
    (tmp_path / "x" / "participants.tsv").write_text("\n".join(lines) + "\n")
    units = {"age": "Years", "education": "years", "iq": "n/a", "height": "m"}
    about = {name: {"Description": name, "Units": unit} for name, unit in units.items()}
    (tmp_path / "x" / "participants.json").write_text(json.dumps(about))
    columns = read(tmp_path / "x").columns
    assert {name: column.unit for name, column in columns.items()} == {
        "age": "year", "education": "year", "iq": "", "height": "m",
    }  # fmt: skip
    assert columns["age"].description == CONVENTIONAL["age"].description


def test_the_quarantine_of_an_import_is_read_again(tmp_path: Path) -> None:
    bad = {"S001": Scan("S001", "T1w", fault="the file is empty. Copy it again.")}
    written = small_cohort(tmp_path / "x", 3, bad)
    assert bids_errors(tmp_path / "x") == []
    again = read(tmp_path / "x")
    assert list(again.subjects.index) == ["S000", "S002"]
    assert again.quarantine == written.quarantine
    assert again.quarantine[0] == {
        "subject": "S001",
        "session": "",
        "file": "sub-S001/anat/sub-S001_T1w.nii.gz",
        "rule": "the file is empty. Copy it again.",
    }
    everyone = {f"S00{n}": Scan(f"S00{n}", "T1w", fault="gone.") for n in range(2)}
    with pytest.raises(DataError, match="None of the 2 scans of 'Small' can be used"):
        small_cohort(tmp_path / "y", 2, everyone)


def test_links_out_of_the_data_set_are_refused(tmp_path: Path) -> None:
    small_cohort(tmp_path / "x", 2)
    path = tmp_path / "x" / "sub-S000" / "anat" / "sub-S000_T1w.nii.gz"
    path.rename(tmp_path / "outside.nii.gz")
    path.symlink_to(tmp_path / "outside.nii.gz")
    with pytest.raises(DataError, match="outside the data set"):
        read(tmp_path / "x")


def test_broken_tables_name_the_file(tmp_path: Path) -> None:
    small_cohort(tmp_path / "x", 2)
    (tmp_path / "x" / "participants.json").write_text("{")
    with pytest.raises(DataError, match=r"participants\.json is no readable JSON"):
        read(tmp_path / "x")
    (tmp_path / "x" / "participants.tsv").write_text("name\nA\n")
    with pytest.raises(DataError, match="expected participant_id"):
        read(tmp_path / "x")
