from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.bids import bids_errors
from tests.cohort.layouts import text
from tests.cohort.small import AFFINE, brain

from gyri.cohort.nifti import read_volume
from gyri.cohort.sources import dicom as module
from gyri.cohort.sources.dicom import dicom
from gyri.errors import DataError, UnavailableError

PRIVATE = {
    "PatientName": "ROE^JANE",
    "PatientID": "PID771",
    "PatientBirthDate": "1931-02-03",
    "InstitutionName": "Secret Hospital",
    "DeviceSerialNumber": "35177",
    "AcquisitionDateTime": "2010-03-04T10:11:12",
}
CONVERTER = """#!{python}
import shutil, sys
from pathlib import Path
out, src = Path(sys.argv[sys.argv.index("-o") + 1]), Path(sys.argv[-1])
for number, path in enumerate(sorted(src.rglob("*.dcm"))):
    for ending in (".nii", ".json"):
        shutil.copy(path.with_suffix(ending), out / f"{{number}}{{ending}}")
"""


def write_series(folder: Path, name: str, volume: np.ndarray, **about: object) -> None:
    """Write what the stand-in for dcm2niix converts: a series is a file beside its outcome."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.dcm").touch()
    image = nib.Nifti1Image(np.rint(volume).astype(np.int16), AFFINE)
    image.header["descrip"] = b"ROE^JANE"
    image.to_filename(folder / f"{name}.nii")
    said = {"SeriesDescription": name, "Manufacturer": "GE", **PRIVATE, **about}
    (folder / f"{name}.json").write_text(json.dumps(said))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called dcm2niix on the PATH."""
    program = tmp_path / "bin" / "dcm2niix"
    program.parent.mkdir()
    program.write_text(CONVERTER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("stand_in")
def test_the_wanted_series_without_what_names_the_person(tmp_path: Path) -> None:
    write_series(tmp_path / "src/P01/x", "t1_mprage_sag", brain(1))
    write_series(tmp_path / "src/P01/x", "t2_space", brain(2))
    write_series(tmp_path / "src/P01/x", "t1_localizer", brain(2))
    write_series(tmp_path / "src/P02", "SAG MPRAGE", brain(3))
    table = tmp_path / "people.csv"
    table.write_text("subject,age,sex\nP01,61,f\nP02,58,m\nP03,1,m\n")
    cohort = dicom(tmp_path / "src", tmp_path / "raw", table=table)
    assert bids_errors(tmp_path / "raw") == []
    assert cohort.subjects["age"].to_dict() == {"P01": 61, "P02": 58}
    taken, _, _ = read_volume(Path(cohort.scans["path"][0]))
    np.testing.assert_array_equal(taken, np.rint(brain(1)))
    said = text(tmp_path / "raw")
    for private in ("ROE", "PID771", "1931", "Secret", "35177", "2010"):
        assert private not in said
    assert '"Manufacturer": "GE"' in said
    assert "PatientName in 4" in " ".join(cohort.notes)
    assert "descrip in 2" in " ".join(cohort.notes)


@pytest.mark.usefixtures("stand_in")
def test_sessions_and_another_modality(tmp_path: Path) -> None:
    for visit in ("v1", "v2"):
        write_series(tmp_path / "src/P01" / visit, "t2_space", brain(len(visit)))
    cohort = dicom(
        tmp_path / "src", tmp_path / "raw", sessions=True, series="t2", modality="T2w", name="Mine"
    )
    assert cohort.scans[["session", "modality"]].to_numpy().tolist() == [
        ["v1", "T2w"],
        ["v2", "T2w"],
    ]
    assert cohort.name == "Mine"


@pytest.mark.usefixtures("stand_in")
def test_refusals(tmp_path: Path) -> None:
    write_series(tmp_path / "src/P01", "t2_space", brain(1))
    with pytest.raises(DataError, match="P01: no series is called like .*; it has t2_space"):
        dicom(tmp_path / "src", tmp_path / "a")
    write_series(tmp_path / "named/Roe_Jane", "t1", brain(1))
    with pytest.raises(DataError, match="Roe_Jane is called after the patient"):
        dicom(tmp_path / "named", tmp_path / "b")
    (tmp_path / "none/P01").mkdir(parents=True)
    with pytest.raises(DataError, match="P01: dcm2niix made no three-dimensional volume"):
        dicom(tmp_path / "none", tmp_path / "c")
    table = tmp_path / "t.csv"
    table.write_text("subject,age\nP09,61\n")
    with pytest.raises(DataError, match="no row for the folders P01"):
        dicom(tmp_path / "src", tmp_path / "d", table=table)


def test_without_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match="pip install dcm2niix"):
        dicom(tmp_path, tmp_path / "raw")


def test_real_converter(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed")
    volume = np.rint(brain(4)).astype("<u2")
    write_dicom(pydicom, tmp_path / "src" / "P01", volume)
    cohort = dicom(tmp_path / "src", tmp_path / "raw")
    image = nib.as_closest_canonical(nib.load(cohort.scans["path"][0]))
    # DICOM's axes are left, posterior, superior: in RAS the first two run backwards.
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume[::-1, ::-1])
    assert "ROE" not in text(tmp_path / "raw")


def write_dicom(pydicom: object, folder: Path, volume: np.ndarray) -> None:
    """Write an axial series of (I, J, K), one file a slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    for k in range(volume.shape[2]):
        one, meta = Dataset(), FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
            ExplicitVRLittleEndian,
            MRImageStorage,
        )
        meta.MediaStorageSOPInstanceUID = generate_uid()
        one.file_meta, one.SOPClassUID = meta, MRImageStorage
        one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID = study, series
        one.Modality, one.Manufacturer, one.PatientName = "MR", "SIEMENS", PRIVATE["PatientName"]
        one.SeriesDescription = one.ProtocolName = "t1_mprage"
        one.SeriesNumber, one.InstanceNumber, one.AcquisitionNumber = 2, k + 1, 1
        one.StudyDate = one.AcquisitionDate = "20100304"
        one.ImagePositionPatient = [-80, -90, 8 * k]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [8, 8], 8
        one.Rows, one.Columns = volume.shape[1], volume.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.PixelData = np.ascontiguousarray(volume[:, :, k].T).tobytes()
        one.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
