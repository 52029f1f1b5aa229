from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.bids import bids_errors
from tests.cohort.layouts import text, write_adni, write_brats, write_ncanda, write_nifti
from tests.cohort.small import brain

from gyri.cohort.bids import LABELS_FOLDER
from gyri.cohort.nifti import read_volume
from gyri.cohort.sources.adni import adni
from gyri.cohort.sources.bids import bids
from gyri.cohort.sources.brats import brats
from gyri.cohort.sources.folder import folder
from gyri.cohort.sources.ixi import ixi
from gyri.cohort.sources.ncanda import ncanda
from gyri.cohort.sources.sald import sald
from gyri.cohort.table import Cohort
from gyri.errors import DataError, UsageError
from gyri.registry import SOURCES


@pytest.mark.parametrize("name", ["ixi", "sald", "brats", "adni", "ncanda", "dicom"])
def test_docstrings_say_what_a_user_must_know(name: str) -> None:
    said = SOURCES[name].component.__doc__
    for word in ("Layout:", "ccess", "itation", "icence"):
        assert word in said


def sidecar(path: str | Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
    return content


def path_of(cohort: Cohort, *key: str) -> str:
    names = ["subject", "session", "modality"]
    return str(cohort.scans.set_index(names).loc[key, "path"])


IXI_TABLE = (
    'IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,WEIGHT,ETHNIC_ID,DOB,DATE_AVAILABLE,STUDY_DATE,AGE\n'
    "2,2,164,58,1,1970-01-30,1,2005-11-18,35.80\n"
    "12,1,175,0,1,1966-08-20,1,2005-06-01,38.78\n"
    "13,1,0,0,1,1958-09-15,0,,\n"
    "219,2,170,104,1,1953-02-08,1,2006-03-10,53.08\n"
    "219,2,164,73,1,1948-02-12,1,2006-03-10,58.07\n"
    "237,2,167,0,1,1928-06-11,1,2006-08-25,78.20\n"
    "237,2,0,0,0,1928-06-11,1,2006-08-25,78.20\n"
)


def write_ixi(root: Path) -> None:
    for name in ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI013-HH-1212", "IXI219-Guys-0894",
                 "IXI237-IOP-1049", "IXI500-Guys-1017"):  # fmt: skip
        write_nifti(root / "IXI-T1" / f"{name}-T1.nii.gz", brain(int(name[3:6])) + 30)
    write_nifti(root / "IXI-T2" / "IXI002-Guys-0828-T2.nii.gz", brain(1) + 30)
    write_nifti(root / "IXI-MRA" / "IXI002-Guys-0828-MRA.nii.gz", brain(1) + 30)
    (root / "IXI.csv").write_text(IXI_TABLE)


def test_ixi(tmp_path: Path) -> None:
    write_ixi(tmp_path / "src")
    cohort = ixi(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    table = cohort.subjects
    assert table["sex"].to_dict() == {
        "IXI002": "F", "IXI012": "M", "IXI013": "M", "IXI219": "F", "IXI237": "F", "IXI500": None,
    }  # fmt: skip
    assert table["age"].dropna().to_dict() == {"IXI002": 35.8, "IXI012": 38.78, "IXI237": 78.2}
    assert table.loc["IXI237", "height"] == 167
    assert np.isnan(table.loc["IXI012", "weight"])
    assert table["scanner"].tolist()[:2] == ["Gyroscan Intera", "Intera"]
    assert table.loc["IXI237", ["site", "scanner"]].tolist() == ["IOP", "Unspecified"]
    about = sidecar(path_of(cohort, "IXI002", "", "T2w"))
    assert (about["Faces"], about["SkullStripped"]) == (True, False)
    assert (about["Manufacturer"], about["MagneticFieldStrength"]) == ("Philips", 1.5)
    notes = " ".join(cohort.notes)
    for part in (
        "MRA",
        "2 people are listed more than once: 219, 237",
        "IXI219 contradict",
        "no row in IXI.csv: 500",
        "3 people have no age: IXI013, IXI219, IXI500",
    ):
        assert part in notes
    assert "1970-01-30" not in text(tmp_path / "raw")


def test_ixi_refusals(tmp_path: Path) -> None:
    write_ixi(tmp_path / "src")
    extra = tmp_path / "src" / "IXI-T1" / "IXI900-UCL-0001-T1.nii.gz"
    write_nifti(extra, brain(9))
    with pytest.raises(DataError, match="'UCL' is none of IXI's hospitals"):
        ixi(tmp_path / "src", tmp_path / "a")
    extra.rename(tmp_path / "src" / "IXI002-Guys-0828-T1.nii.gz")
    with pytest.raises(DataError, match="are the same scan"):
        ixi(tmp_path / "src", tmp_path / "b")
    (tmp_path / "src" / "IXI002-Guys-0828-T1.nii.gz").unlink()
    table = tmp_path / "src" / "IXI.csv"
    table.write_text(IXI_TABLE.replace("\n12,", "\ntwelve,"))
    with pytest.raises(DataError, match="identifier 'twelve'"):
        ixi(tmp_path / "src", tmp_path / "c")
    table.unlink()
    with pytest.raises(DataError, match="holds 0 CSV tables"):
        ixi(tmp_path / "src", tmp_path / "d")
    (tmp_path / "src" / "IXI.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(DataError, match="no readable workbook"):
        ixi(tmp_path / "src", tmp_path / "e")


def write_sald(root: Path) -> None:
    for archive, person in (
        ("sub-031274_sub-031323", "031274"),
        ("sub-031324_sub-031373", "031330"),
    ):
        write_nifti(
            root / archive / f"sub-{person}/anat/sub-{person}_T1w.nii.gz", brain(int(person))
        )
        write_nifti(root / archive / f"sub-{person}/func/sub-{person}_bold.nii.gz", brain(1))
    (root / "sub_information.csv").write_text(
        "Sub_ID,Sex,Age\n31274,M,45\n031330,F,23\n31400,F,30\n"
    )


def test_sald(tmp_path: Path) -> None:
    write_sald(tmp_path / "src")
    cohort = sald(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    assert cohort.subjects["age"].to_dict() == {"031274": 45, "031330": 23}
    assert cohort.subjects["scanner"].unique().tolist() == ["Magnetom TrioTim"]
    table = tmp_path / "src" / "sub_information.csv"
    table.write_text("Sub_ID,Sex,Age\n31274,1,45\n")
    with pytest.raises(DataError, match="1 scans have no row in .*: 031330"):
        sald(tmp_path / "src", tmp_path / "b")
    table.write_text("Sub_ID,Sex,Age\n31274,1,45\n031330,2,23\n")
    with pytest.raises(DataError, match="'sex' has levels that are not declared"):
        sald(tmp_path / "src", tmp_path / "c")


def labels_of(cohort: Cohort, *key: str) -> list[int]:
    data = np.asarray(nib.load(path_of(cohort, *key, "tumour")).dataobj)
    return np.unique(data).tolist()


def test_brats_new_names(tmp_path: Path) -> None:
    write_brats(tmp_path / "src" / "95_Glioma", "BraTS-SSA-00002-000")
    write_brats(tmp_path / "src" / "51_OtherNeoplasms", "BraTS-SSA-00009-000", (1, 2))
    cohort = brats(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    assert bids_errors(tmp_path / "raw" / LABELS_FOLDER) == []
    assert cohort.subjects["group"].tolist() == ["glioma", "other neoplasm"]
    assert set(cohort.scans["modality"]) == {"T1w", "T1c", "T2w", "FLAIR", "tumour"}
    assert labels_of(cohort, "BraTSSSA00002", "000") == [0, 1, 2, 3]
    image = read_volume(Path(path_of(cohort, "BraTSSSA00002", "000", "T1c")))[0]
    source = tmp_path / "src/95_Glioma/BraTS-SSA-00002-000/BraTS-SSA-00002-000-t1c.nii.gz"
    np.testing.assert_array_equal(image, read_volume(source)[0])
    assert sidecar(path_of(cohort, "BraTSSSA00002", "000", "FLAIR"))["SkullStripped"] is True


def test_brats_until_2021_calls_enhancing_tumour_4(tmp_path: Path) -> None:
    write_brats(tmp_path / "src", "BraTS2021_00000", (1, 2, 4), old=True)
    cohort = brats(tmp_path / "src", tmp_path / "raw")
    path = path_of(cohort, "BraTS202100000", "", "tumour")
    source = np.asarray(
        nib.load(tmp_path / "src/BraTS2021_00000/BraTS2021_00000_seg.nii.gz").dataobj
    )
    written = np.asarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(written == 3, source == 4)
    np.testing.assert_array_equal(written == 1, source == 1)
    assert sidecar(path)["SourceConvention"] == "BraTS 2021"
    assert sidecar(path)["LabelNames"]["3"] == "enhancing tumour"


def test_brats_2024_has_cavities_and_time_points(tmp_path: Path) -> None:
    write_brats(tmp_path / "src", "BraTS-GLI-02062-100", (1, 2, 3, 4))
    write_brats(tmp_path / "src", "BraTS-GLI-02062-101", (2, 4))
    cohort = brats(tmp_path / "src", tmp_path / "raw")
    assert labels_of(cohort, "BraTSGLI02062", "101") == [0, 2, 4]
    assert list(cohort.subjects.index) == ["BraTSGLI02062"]


def test_brats_label_4_without_3(tmp_path: Path) -> None:
    write_brats(tmp_path / "ssa", "BraTS-SSA-00002-000", (1, 2, 4))
    assert labels_of(brats(tmp_path / "ssa", tmp_path / "a"), "BraTSSSA00002", "000")[-1] == 3
    write_brats(tmp_path / "gli", "BraTS-GLI-00002-000", (1, 2, 4))
    with pytest.raises(DataError, match=r"BraTS-GLI-00002-000-seg.*Say which with `labels`"):
        brats(tmp_path / "gli", tmp_path / "b")
    kept = labels_of(brats(tmp_path / "gli", tmp_path / "c", labels="2024"), "BraTSGLI00002", "000")
    assert kept == [0, 1, 2, 4]
    write_brats(tmp_path / "ssa", "BraTS-SSA-00003-000", (1, 2, 3))
    with pytest.raises(DataError, match="two conventions are mixed"):
        brats(tmp_path / "ssa", tmp_path / "d")


def test_brats_refusals(tmp_path: Path) -> None:
    write_brats(tmp_path / "src", "BraTS-SSA-00002-000", (1, 2, 9))
    case = tmp_path / "src" / "BraTS-SSA-00002-000"
    listed = brats(tmp_path / "src", tmp_path / "a")
    assert "unexpected labels 9; expected only 0, 1, 2, 3" in listed.quarantine[0]["rule"]
    assert any(r"00002-000-seg.nii.gz: unexpected labels 9" in note for note in listed.notes)
    (case / "BraTS-SSA-00002-000-seg.nii.gz").unlink()
    notes = brats(tmp_path / "src", tmp_path / "b").notes
    assert "1 of 1 sessions have no segmentation." in notes
    (case / "BraTS-SSA-00002-000-t2f.nii.gz").unlink()
    with pytest.raises(DataError, match=r"lack modalities: BraTSSSA00002 000 \(FLAIR\)"):
        brats(tmp_path / "src", tmp_path / "c")


def test_adni(tmp_path: Path) -> None:
    write_adni(tmp_path / "src")
    cohort = adni(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    keys = cohort.scans[["subject", "session"]].to_numpy().tolist()
    assert keys == [["002S0295", "sc"], ["002S0295", "m06"], ["005S0546", "sc"]]
    taken, _, _ = read_volume(Path(path_of(cohort, "002S0295", "m06", "T1w")))
    source = next((tmp_path / "src").rglob("*_I40967.nii"))
    np.testing.assert_array_equal(taken, read_volume(source)[0])
    assert cohort.covariates("002S0295", "m06")["delay"] == 198
    assert cohort.subjects["group"].to_dict() == {"002S0295": "CN", "005S0546": "MCI"}
    assert cohort.subjects["site"].tolist() == ["2", "5"]
    said = text(tmp_path / "raw")
    for private in ("Roe", "1931", "2006", "20070219", "S13408", "I45107"):
        assert private not in said
    assert any("descrip in 3" in note for note in cohort.notes)


def test_adni_without_visits_numbers_them_in_time(tmp_path: Path) -> None:
    write_adni(tmp_path / "src")
    table = tmp_path / "src" / "ADNI1_Screening.csv"
    table.write_text(table.read_text().replace('"Visit"', '"Remark"').replace('"Acq Date"', '"On"'))
    cohort = adni(tmp_path / "src", tmp_path / "raw")
    keys = cohort.scans[["subject", "session"]].to_numpy().tolist()
    assert keys == [["002S0295", "1"], ["002S0295", "2"], ["005S0546", "1"]]


def test_adni_refusals(tmp_path: Path) -> None:
    write_adni(tmp_path / "src")
    table = tmp_path / "src" / "ADNI1_Screening.csv"
    content = table.read_text()
    table.write_text(content.replace("I50001", "I50002"))
    with pytest.raises(DataError, match="1 scans have no row in .*: I50001"):
        adni(tmp_path / "src", tmp_path / "a")
    table.write_text(content.replace('"I50001","005_S_0546"', '"I50001","005_S_0547"'))
    with pytest.raises(DataError, match="to another person"):
        adni(tmp_path / "src", tmp_path / "b")
    table.write_text(content)
    (tmp_path / "src/ADNI/005_S_0546").rename(tmp_path / "src/ADNI/005_S_0999")
    with pytest.raises(DataError, match="lies in the folder of 005_S_0999"):
        adni(tmp_path / "src", tmp_path / "c")


def test_a_damaged_file_whose_header_names_someone_is_not_copied(tmp_path: Path) -> None:
    write_adni(tmp_path / "src")
    bad = next((tmp_path / "src").rglob("*_I50001.nii"))
    bad.write_bytes(bad.read_bytes()[:2000])
    cohort = adni(tmp_path / "src", tmp_path / "raw")
    assert "005S0546" not in cohort.subjects.index
    assert "truncated" in cohort.quarantine[0]["rule"]
    for private in ("Roe", "1931", "I50001"):
        assert private not in text(tmp_path / "raw")


@pytest.mark.parametrize(("image", "faces"), [("native", True), ("stripped", False)])
def test_ncanda(tmp_path: Path, image: str, faces: bool) -> None:
    write_ncanda(tmp_path / "src")
    cohort = ncanda(tmp_path / "src", tmp_path / "raw", image=image)
    assert bids_errors(tmp_path / "raw") == []
    assert list(cohort.subjects.index) == ["NCANDAS00033", "NCANDAS00034"]
    assert cohort.covariates("NCANDAS00033", "followup1y")["age"] == 16.5
    assert np.isnan(cohort.subjects.loc["NCANDAS00034", "age"])
    about = sidecar(path_of(cohort, "NCANDAS00033", "baseline", "T1w"))
    assert (about["Faces"], about["SkullStripped"]) == (faces, not faces)
    assert ("T2w" in set(cohort.scans["modality"])) == (image == "native")


def test_ncanda_refusals(tmp_path: Path) -> None:
    write_ncanda(tmp_path / "src")
    table = tmp_path / "src/summaries/redcap/demographics.csv"
    table.write_text(table.read_text().replace("standard,followup_1y", "standard,followup_2y"))
    with pytest.raises(
        DataError, match="1 visits have scans and no row .*: NCANDA_S00033 followup_1y"
    ):
        ncanda(tmp_path / "src", tmp_path / "a")
    with pytest.raises(DataError, match="no NCANDA scans"):
        ncanda(tmp_path / "src", tmp_path / "b", image="sri24")


def test_folder_with_several_files_a_subject(tmp_path: Path) -> None:
    for name, volume in (("T1w", brain(1)), ("T1post", brain(2)), ("lesion", brain(3) > 150)):
        write_nifti(tmp_path / "src" / f"p_1_{name}.nii.gz", volume)
    endings = ("T1w", "T1c=T1post")
    cohort = folder(tmp_path / "src", tmp_path / "raw", scans=endings, labels=("lesion",))
    assert bids_errors(tmp_path / "raw") == []
    assert sorted(cohort.scans["modality"]) == ["T1c", "T1w", "lesion"]
    assert cohort.notes == []
    with pytest.raises(UsageError, match="comes twice"):
        folder(tmp_path / "src", tmp_path / "b", scans=("T1w", "T1c=T1w"))
    only = folder(tmp_path / "src", tmp_path / "c", scans=("T1w",))
    assert "2 files end otherwise" in only.notes[0]


@pytest.mark.realdata
def test_real_ixi(real_data: Path, tmp_path: Path) -> None:
    cohort = ixi(real_data / "ixi", tmp_path / "raw", table=real_data / "ixi" / "ages.csv")
    assert len(cohort.subjects) == len(cohort.scans) == 25
    assert cohort.subjects.loc["IXI012", ["age", "sex", "site", "scanner"]].tolist() == [
        38.78, "M", "HH", "Intera",
    ]  # fmt: skip
    assert cohort.subjects["age"].notna().all()
    assert all(sidecar(p)["Faces"] is True for p in cohort.scans["path"])
    assert not any(sidecar(p)["SkullStripped"] for p in cohort.scans["path"])
    assert bids_errors(tmp_path / "raw") == []


@pytest.mark.realdata
def test_real_ixi_workbook(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name in ("IXI012-HH-1211-T1.nii.gz", "IXI014-HH-1236-T1.nii.gz"):
        (tmp_path / "src" / name).write_bytes((real_data / "ixi/IXI-T1" / name).read_bytes())
    cohort = ixi(tmp_path / "src", tmp_path / "raw", table=real_data / "ixi" / "IXI.xls")
    assert cohort.subjects["age"].round(2).tolist() == [38.78, 34.24]
    assert any("26 people are listed more than once" in note for note in cohort.notes)
    assert any("IXI328 contradict each other in sex" in note for note in cohort.notes)


@pytest.mark.realdata
@pytest.mark.slow
def test_real_ds002748(real_data: Path, tmp_path: Path) -> None:
    cohort = bids(real_data / "ds002748", tmp_path / "raw")
    assert len(cohort.scans) == 6
    assert bids_errors(tmp_path / "raw") == []


@pytest.mark.realdata
def test_real_brats_layout(real_data: Path, tmp_path: Path) -> None:
    cohort = brats(real_data / "brats-layout", tmp_path / "raw")
    assert sorted(cohort.scans["modality"]) == ["FLAIR", "T1c", "T1w", "T2w", "tumour"]
    assert labels_of(cohort, "BraTSSSA90001", "000") == [0, 1, 2]
    source = next((real_data / "brats-layout").rglob("*-seg.nii.gz"))
    written = np.asarray(nib.load(path_of(cohort, "BraTSSSA90001", "000", "tumour")).dataobj)
    np.testing.assert_array_equal(written, np.asarray(nib.load(source).dataobj))
    affines = [nib.load(path).affine for path in cohort.scans["path"]]
    assert all(np.array_equal(affine, affines[0]) for affine in affines)


@pytest.mark.realdata
def test_real_ms_patient(real_data: Path, tmp_path: Path) -> None:
    endings = ("T1w", "T1c=T1post", "T2w", "FLAIR")
    cohort = folder(
        real_data / "ms" / "patient07", tmp_path / "raw", scans=endings, labels=("lesion",)
    )
    assert sorted(cohort.scans["modality"]) == ["FLAIR", "T1c", "T1w", "T2w", "lesion"]
    lesion = np.asarray(nib.load(path_of(cohort, "patient07", "", "lesion")).dataobj)
    assert np.unique(lesion).tolist() == [0, 1]
