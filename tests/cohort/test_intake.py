from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.cohort.layouts import write_nifti, write_pair
from tests.cohort.small import AFFINE, brain

from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.privacy import beside, free_text
from gyri.errors import DataError


def test_free_text_is_found_wherever_a_header_has_room(tmp_path: Path) -> None:
    image = nib.Nifti1Image(brain(1), AFFINE)
    image.to_filename(tmp_path / "clean.nii.gz")
    image.header["descrip"] = b"Jane"
    image.header["db_name"] = b"Roe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1931"))
    image.to_filename(tmp_path / "told.nii.gz")
    write_pair(tmp_path / "pair", brain(1))
    (tmp_path / "dicom.nii").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 400)
    assert free_text(tmp_path / "clean.nii.gz") == []
    assert free_text(tmp_path / "told.nii.gz") == ["db_name", "descrip", "extensions"]
    assert free_text(tmp_path / "pair.hdr") == []
    assert free_text(tmp_path / "dicom.nii") == ["DICOM"]


def test_a_damaged_file_has_a_fault_and_goes_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    intake = Intake(stripped=False, faces=True)
    path = tmp_path / "a.nii"
    write_nifti(path, brain(1), descrip="Roe^Jane")
    path.write_bytes(path.read_bytes()[:5000])
    with caplog.at_level(logging.WARNING):
        scan = intake.scan(path, "a", "T1w")
    assert (scan.data, scan.file) == (None, None)
    assert scan.fault.startswith("truncated: 5000 bytes")
    assert str(path) in caplog.text
    said = " ".join(intake.notes())
    assert "descrip in 1" in said
    assert (
        f"1 files cannot be used, were not copied and are listed in quarantine.tsv: {path}: "
        in said
    )


def test_a_mean_of_repetitions_needs_all_of_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.nii" for n in range(3)]
    for path in paths:
        write_nifti(path, brain(1))
    paths[1].write_bytes(b"")
    scan = Intake().mean(paths, "a", "T1w")
    assert scan.fault.startswith("the file is empty")
    assert scan.data is None


def test_labels_stay_labels(tmp_path: Path) -> None:
    intake = Intake(stripped=True, faces=False)
    data = np.zeros((6, 6, 6), np.float32)
    data[1], data[2] = 1, 4
    nib.Nifti1Image(data, AFFINE).to_filename(tmp_path / "l.nii.gz")
    scan = intake.label(
        tmp_path / "l.nii.gz", "a", "x", levels={1: "one", 3: "three"}, recode={0: 0, 1: 1, 4: 3}
    )
    assert scan.data is not None
    assert scan.data.dtype == np.uint8
    np.testing.assert_array_equal(scan.data, np.where(data == 4, 3, data))
    for wrong, message in ((0.5, "fractional"), (-1, "negative"), (2, "unexpected labels 2")):
        data[3] = wrong
        nib.Nifti1Image(data, AFFINE).to_filename(tmp_path / "l.nii.gz")
        faulty = intake.label(tmp_path / "l.nii.gz", "a", "x", levels={1: "one", 4: "four"})
        assert message in faulty.fault
        assert faulty.data is None


def test_links_out_of_the_data_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    write_nifti(tmp_path / "elsewhere.nii", brain(1))
    link = tmp_path / "src" / "a.nii"
    link.symlink_to(tmp_path / "elsewhere.nii")
    with pytest.raises(DataError, match=r"a\.nii links to .*outside the data set"):
        refuse_outside(tmp_path / "src", [link])
    refuse_outside(tmp_path, [link])


def test_files_beside_the_scans_are_reported(tmp_path: Path) -> None:
    assert beside(tmp_path) == []
    (tmp_path / "a.xml").touch()
    (tmp_path / "b.json").touch()
    assert "(1 .json, 1 .xml)" in beside(tmp_path)[0]
