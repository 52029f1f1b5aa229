"""Rows 40 to 42: what names people, shows their faces, or has no name itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.cohort.small import AFFINE, brain, small_cohort, write_oasis1
from tests.faults.bench import data_set, everything

from gyri.cohort.bids import Scan, read, write_raw
from gyri.cohort.merge import merge
from gyri.cohort.sources.bids import bids
from gyri.cohort.sources.folder import folder
from gyri.cohort.sources.oasis1 import oasis1
from gyri.cohort.table import Cohort
from gyri.errors import DataError
from gyri.prepare.pipeline import prepare

SECRET = b"RoeJane1931"
FIELDS = {"descrip": 80, "aux_file": 24, "db_name": 18, "intent_name": 16}
EXTENSIONS = {"dicom": 2, "afni": 4, "comment": 6}
SAID = (
    "PatientName", "PatientBirthDate", "InstitutionName", "DeviceSerialNumber", "StudyInstanceUID",
    "Remark",
)  # fmt: skip
SIDECAR = {"Manufacturer": "Siemens", **dict.fromkeys(SAID, "RoeJane1931")}
GRID = {"spacing_mm": 8.0, "shape": (20, 24, 20), "jobs": 1}


def telling(path: Path, seed: int = 3) -> None:
    """Write a scan that says a person's name wherever a file and its sidecar have room."""
    image = nib.Nifti1Image(np.rint(brain(seed)).astype(np.int16), AFFINE)
    for field in FIELDS:
        image.header[field] = SECRET
    for code in EXTENSIONS.values():
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, SECRET))
    image.to_filename(path)
    path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(SIDECAR))


def cut(path: Path) -> None:
    """Damage a telling scan: its header can be read, its voxels cannot."""
    telling(path)
    path.write_bytes(path.read_bytes()[:-500])


def telling_bids(root: Path) -> Path:
    """Write a BIDS data set of four people; the scan of S001 tells, that of S002 is damaged."""
    small_cohort(root, 4)
    telling(root / "sub-S001" / "anat" / "sub-S001_T1w.nii.gz", 1)
    cut(root / "sub-S002" / "anat" / "sub-S002_T1w.nii.gz")
    table = root / "participants.tsv"
    lines = table.read_text().splitlines()
    said = ["name\tdate_of_birth"] + ["RoeJane1931\tRoeJane1931"] * 4
    table.write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines, said)))
    (root / "RoeJane1931.txt").write_text("RoeJane1931")
    return root


def assert_stripped_and_reported(out: Path, cohort: Cohort) -> None:
    assert SECRET not in everything(out)
    said = " ".join(cohort.notes)
    for field in (*FIELDS, "extensions"):
        assert f"{field} in " in said
    assert "none of it was copied" in said
    assert len(cohort.quarantine) == 1


def test_row_40_bids_headers_sidecars_and_tables(tmp_path: Path) -> None:
    cohort = bids(telling_bids(tmp_path / "src"), tmp_path / "raw")
    assert_stripped_and_reported(tmp_path / "raw", cohort)
    said = " ".join(cohort.notes)
    assert "left out: name, date_of_birth" in said
    assert ".json" in said
    assert "Siemens" in everything(tmp_path / "raw").decode("latin-1"), "machines may go on"


def test_row_40_a_folder(tmp_path: Path) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", cut)
    table = "id,age,Surname,DOB\na,30,RoeJane1931,RoeJane1931\nb,31,x,x\nbad,32,x,x\n"
    (src / "people.csv").write_text(table)
    cohort = folder(src, tmp_path / "raw")
    assert_stripped_and_reported(tmp_path / "raw", cohort)
    assert "left out: surname, dob" in " ".join(cohort.notes)


def test_row_40_files_of_oasis1(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    cut(tmp_path / "src" / "OAS1_0003_MR1_T1w.nii.gz")
    cohort = oasis1(tmp_path / "src", tmp_path / "raw")
    assert_stripped_and_reported(tmp_path / "raw", cohort)


def test_row_40_merged_cohorts(tmp_path: Path) -> None:
    telling_bids(tmp_path / "a")
    scan = Scan("T009", "T1w", brain(90), AFFINE)
    table = pd.DataFrame(index=pd.Index(["T009"], name="subject"))
    write_raw(tmp_path / "b", name="B", subjects=table, columns={}, scans=[scan])
    cohort = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert_stripped_and_reported(tmp_path / "out", cohort)


def test_row_40_a_data_set_that_is_prepared_as_it_is(tmp_path: Path) -> None:
    cohort = prepare(telling_bids(tmp_path / "src"), tmp_path / "out", **GRID)
    assert sorted(cohort.table.index) == ["S000", "S001", "S003"]
    assert SECRET not in everything(tmp_path / "out")


def test_row_40_strict_refuses_before_any_work(tmp_path: Path) -> None:
    src = telling_bids(tmp_path / "src")
    with pytest.raises(DataError, match=r"2 scans may name people.*S001.*PatientName"):
        bids(src, tmp_path / "raw", strict=True)
    folder_src = data_set(tmp_path / "folder", "bad.nii.gz", telling)
    with pytest.raises(DataError, match=r"1 scans may name people.*bad\.nii\.gz \(db_name, "):
        folder(folder_src, tmp_path / "raw", strict=True)
    assert not (tmp_path / "raw").exists()


def test_row_40_what_gyri_wrote_passes_strict(tmp_path: Path) -> None:
    small_cohort(tmp_path / "src", 2)
    assert len(bids(tmp_path / "src", tmp_path / "raw", strict=True).scans) == 2


def test_row_41_a_face_is_refused_where_no_step_removes_it(tmp_path: Path) -> None:
    head = brain(1) + np.random.default_rng(0).normal(20, 5, brain(1).shape).astype(np.float32)
    table = pd.DataFrame(index=pd.Index(["H1"], name="subject"))
    scan = Scan("H1", "T1w", head, AFFINE)
    write_raw(tmp_path / "raw", name="H", subjects=table, columns={}, scans=[scan])
    with pytest.raises(DataError, match="whole head, whose face can be recognised") as error:
        prepare(tmp_path / "raw", tmp_path / "out", mask=False, register=False, **GRID)
    assert error.value.exit_code == 65
    assert not list((tmp_path / "out").rglob("*.nii"))


@pytest.mark.parametrize(
    ("scan", "name"),
    [
        (Scan("A_1", "T1w", brain(1), AFFINE), "X"),
        (Scan("A1", "../../T1w", brain(1), AFFINE), "X"),
        (Scan("A1", "T1w", brain(1), AFFINE, "day 1"), "X"),
        (Scan("A1", "T1w", brain(1), AFFINE), " "),
    ],
    ids=["subject", "modality", "session", "data set"],
)
def test_row_42_names_that_bids_has_not_are_never_written(
    tmp_path: Path, scan: Scan, name: str
) -> None:
    table = pd.DataFrame(index=pd.Index(["A1"], name="subject"))
    with pytest.raises(DataError, match=r"Rename them|has no name"):
        write_raw(tmp_path / "raw", name=name, subjects=table, columns={}, scans=[scan])
    assert not list(tmp_path.rglob("*.nii*"))


def test_row_42_invalid_names_and_a_missing_description_are_said_on_reading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_cohort(tmp_path / "raw", 2)
    scan = tmp_path / "raw" / "sub-S000" / "anat" / "sub-S000_T1w.nii.gz"
    scan.with_name("scan 2.nii.gz").write_bytes(scan.read_bytes())
    (tmp_path / "raw" / "dataset_description.json").unlink()
    with caplog.at_level(logging.WARNING):
        cohort = read(tmp_path / "raw")
    said = " ".join(cohort.notes)
    assert "scan 2.nii.gz is no BIDS name and was left out" in said
    assert "dataset_description.json is missing" in said
    assert said.split(". ")[0] in caplog.text
