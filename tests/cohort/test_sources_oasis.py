from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.bids import bids_errors
from tests.cohort.layouts import (
    text,
    write_oasis1_discs,
    write_oasis2,
    write_oasis3,
    write_oasis4,
    write_pair,
)
from tests.cohort.small import brain, write_oasis1

from gyri.cohort.bids import LABELS_FOLDER
from gyri.cohort.sources.oasis1 import oasis1
from gyri.cohort.sources.oasis2 import oasis2
from gyri.cohort.sources.oasis3 import oasis3
from gyri.cohort.sources.oasis4 import oasis4
from gyri.cohort.table import Cohort
from gyri.errors import DataError, UsageError
from gyri.registry import SOURCES


def path_of(cohort: Cohort, *key: str) -> Path:
    names = ["subject", "session", "modality"]
    return Path(cohort.scans.set_index(names).loc[key, "path"])


def canonical(path: Path) -> np.ndarray:
    """Voxels in RAS order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def sidecar(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
    return content


@pytest.mark.parametrize("name", ["oasis1", "oasis2", "oasis3", "oasis4"])
def test_docstrings_say_what_a_user_must_know(name: str) -> None:
    said = SOURCES[name].component.__doc__
    for word in ("Layout:", "Access:", "Citation:", "Licence:", "Sharing:"):
        assert word in said


def test_oasis1_masked_discs(tmp_path: Path) -> None:
    write_oasis1_discs(tmp_path / "src")
    cohort = oasis1(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    assert bids_errors(tmp_path / "raw" / LABELS_FOLDER) == []
    assert list(cohort.subjects.index) == ["OAS10001", "OAS10061"]
    assert cohort.scans["modality"].value_counts().to_dict() == {"T1w": 3, "dseg": 3}
    image = path_of(cohort, "OAS10061", "MR2", "T1w")
    assert sidecar(image)["SkullStripped"] is True
    assert sidecar(image)["Faces"] is False
    stored = np.asarray(nib.load(image).dataobj)
    np.testing.assert_array_equal(stored, np.rint(brain(2)))
    labels = path_of(cohort, "OAS10061", "MR2", "dseg")
    assert set(np.unique(nib.load(labels).dataobj)) <= {0, 1, 2, 3}
    assert nib.load(labels).get_data_dtype() == np.uint8
    assert sidecar(labels)["LabelNames"]["2"] == "grey matter"
    assert "Roe" not in text(tmp_path / "raw")
    assert any("LAS is assumed" in note for note in cohort.notes)


def test_oasis1_atlas_scans_are_stored_to_left_anterior_superior(tmp_path: Path) -> None:
    write_oasis1_discs(tmp_path / "src", ("masked",))
    folder = tmp_path / "src/disc1/OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111"
    marked = brain(0)
    marked[19, 20, 3] = 900  # stored far to the left, anterior, inferior
    write_pair(folder / "OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc", marked)
    cohort = oasis1(tmp_path / "src", tmp_path / "raw")
    volume = canonical(path_of(cohort, "OAS10001", "MR1", "T1w"))
    assert np.argwhere(volume == 900).tolist() == [[22 - 1 - 19, 20, 3]]


def test_oasis1_raw_scans_are_aligned_and_averaged(tmp_path: Path) -> None:
    write_oasis1_discs(tmp_path / "src")
    cohort = oasis1(tmp_path / "src", tmp_path / "raw", image="raw")
    assert bids_errors(tmp_path / "raw") == []
    path = path_of(cohort, "OAS10001", "MR1", "T1w")
    assert sidecar(path)["Repetitions"] == 3
    assert sidecar(path)["SkullStripped"] is False
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == "ASL"
    mean = np.asarray(nib.load(path).dataobj)
    noise = mean - (brain(0) + 50)
    inner = noise[2:-2, 2:-2, 2:-2]
    assert inner.std() < 5 / np.sqrt(3) * 1.6  # three repetitions of noise 5, a little resampling
    assert not (cohort.scans["modality"] == "dseg").any()


def test_oasis1_refusals(tmp_path: Path) -> None:
    write_oasis1_discs(tmp_path / "src")
    broken = tmp_path / "src/disc2/OAS1_0061_MR1/PROCESSED/MPRAGE/T88_111"
    masked = broken / "OAS1_0061_MR1_mpr_n4_anon_111_t88_masked_gfc.img"
    content = masked.read_bytes()
    masked.write_bytes(content[:-10])
    cut = oasis1(tmp_path / "src", tmp_path / "a")
    assert "bytes, its header declares" in cut.quarantine[0]["rule"]
    masked.unlink()
    with pytest.raises(DataError, match=r"masked_gfc\.img in OAS1_0061_MR1"):
        oasis1(tmp_path / "src", tmp_path / "b", image="masked")
    assert "unmasked" in oasis1(tmp_path / "src", tmp_path / "c").notes[0]
    (tmp_path / "src/disc1/OAS1_0061_MR1").mkdir()
    with pytest.raises(DataError, match="are the same session"):
        oasis1(tmp_path / "src", tmp_path / "d")


def test_oasis1_half_a_pair_and_strange_labels(tmp_path: Path) -> None:
    write_oasis1_discs(tmp_path / "src", ("masked",))
    folder = tmp_path / "src/disc1/OAS1_0001_MR1"
    header = next((folder / "PROCESSED/MPRAGE/T88_111").glob("*.hdr"))
    kept = header.read_bytes()
    header.unlink()
    halved = oasis1(tmp_path / "src", tmp_path / "a")
    assert "this half of the pair is missing" in halved.quarantine[0]["rule"]
    header.write_bytes(kept)
    tissue = np.zeros((22, 26, 22))
    tissue[5, 5, 5] = 7
    stem = next((folder / "FSL_SEG").glob("*.img")).with_suffix("")
    write_pair(stem, tissue, dtype=">u1")
    strange = oasis1(tmp_path / "src", tmp_path / "b")
    rules = [entry["rule"] for entry in strange.quarantine]
    assert rules == ["unexpected labels 7; expected only 0, 1, 2, 3. Correct or remove the file."]


def test_oasis1_flat_files_take_no_image(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    with pytest.raises(UsageError, match="leave out image"):
        oasis1(tmp_path / "src", tmp_path / "raw", image="raw")


def test_oasis2_sessions_and_awkward_table(tmp_path: Path) -> None:
    write_oasis2(tmp_path / "src")
    cohort = oasis2(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    assert list(cohort.subjects.index) == ["OAS20001", "OAS20100"]
    assert cohort.subjects.loc["OAS20001", "age"] == 87
    second = cohort.covariates("OAS20001", "MR2")
    assert (second["age"], second["delay"], second["nwbv"]) == (88, 457, 0.681)
    assert cohort.covariates("OAS20100", "MR1")["cdr"] == "0.5"
    assert cohort.subjects["group"].tolist() == ["Nondemented", "Converted"]
    assert np.isnan(cohort.subjects.loc["OAS20100", "ses"])
    assert cohort.columns["education_years"].unit == "year"
    path = path_of(cohort, "OAS20001", "MR2", "T1w")
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == "ASL"


def test_oasis2_believes_a_header_that_declares_its_orientation(tmp_path: Path) -> None:
    write_oasis2(tmp_path / "src")
    stem = tmp_path / "src/OAS2_RAW_PART1/OAS2_0001_MR1/RAW/mpr-1.nifti"
    affine = np.diag([-2.0, 2, 2, 1])
    nib.Nifti1Pair(brain(5).astype(np.int16), affine).to_filename(f"{stem}.img")
    cohort = oasis2(tmp_path / "src", tmp_path / "raw", runs="first")
    path = path_of(cohort, "OAS20001", "MR1", "T1w")
    np.testing.assert_allclose(nib.load(path).affine, affine)


def test_oasis2_refusals(tmp_path: Path) -> None:
    write_oasis2(tmp_path / "src")
    table = tmp_path / "src" / "oasis_longitudinal_demographic.csv"
    content = table.read_bytes()
    table.write_bytes(content.replace(b"OAS2_0001_MR2", b"OAS2_0009_MR2"))
    with pytest.raises(DataError, match="1 scans have no row in .*: OAS2_0001_MR2"):
        oasis2(tmp_path / "src", tmp_path / "a")
    table.write_bytes(content.replace(b"OAS2_0001_MR2", b"OAS2_0001_MR1"))
    with pytest.raises(DataError, match="OAS2_0001_MR1 more than once"):
        oasis2(tmp_path / "src", tmp_path / "b")
    table.write_bytes(content.replace(b";CDR;", b";Rating;"))
    with pytest.raises(DataError, match="lacks the columns cdr"):
        oasis2(tmp_path / "src", tmp_path / "c")
    table.unlink()
    with pytest.raises(DataError, match="0 tables like oasis_longitudinal_demographics"):
        oasis2(tmp_path / "src", tmp_path / "d")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no OASIS-2 scans"):
        oasis2(tmp_path / "empty", tmp_path / "e")


def test_oasis3_sessions_by_days_and_nearest_visit(tmp_path: Path) -> None:
    write_oasis3(tmp_path / "src")
    cohort = oasis3(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    keys = sorted(map(tuple, cohort.scans[["subject", "session", "modality"]].to_numpy()))
    assert keys == [
        ("OAS30001", "d0129", "T1w"),
        ("OAS30001", "d0129", "T2w"),
        ("OAS30001", "d0757", "T1w"),
        ("OAS30002", "d0371", "T1w"),
    ]
    first = cohort.covariates("OAS30001", "d0129")
    assert first["age"] == pytest.approx(65.15 + 129 / 365.25)
    assert (first["mmse"], first["cdr"], first["visit_delay"]) == (28, "0", -129)
    assert first["scanner"] == "Siemens TrioTim"
    later = cohort.covariates("OAS30001", "d0757")
    assert (later["mmse"], later["cdr"], later["visit_delay"]) == (26, "0.5", -35)
    assert cohort.subjects["sex"].tolist() == ["F", "M"]
    assert cohort.covariates("OAS30002", "d0371")["cdr"] is None
    notes = " ".join(cohort.notes)
    for part in ("1 PET AV45", "1 bold", "run-01_T1w", "OAS30002 day 371", "OAS30753"):
        assert part in notes
    for private in ("35177", "2009-03-04", "CENTRAL_1"):
        assert private not in text(tmp_path / "raw")


def test_oasis3_refusals(tmp_path: Path) -> None:
    write_oasis3(tmp_path / "src")
    tables = tmp_path / "src" / "OASIS3_data_files"
    people = tables / "OASIS3_demographics.csv"
    content = people.read_text()
    people.write_text(content.replace("OAS30002", "OAS30009"))
    with pytest.raises(DataError, match="1 people have scans and no row in .*: OAS30002"):
        oasis3(tmp_path / "src", tmp_path / "a")
    people.write_text(content)
    (tables / "OASIS3_UDSb4_cdr.csv").unlink()
    with pytest.raises(DataError, match="0 tables of clinical visits"):
        oasis3(tmp_path / "src", tmp_path / "b")


def test_oasis4(tmp_path: Path) -> None:
    write_oasis4(tmp_path / "src")
    cohort = oasis4(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    assert cohort.subjects["sex"].tolist() == ["M", "F"]
    assert cohort.subjects["group"].tolist() == ["MCI", "Cognitively Normal"]
    assert cohort.covariates("OAS40001", "d0000")["cdr"] == "0.5"
    assert cohort.covariates("OAS40002", "d3030")["age"] == 81
    assert any("no CDR within 365 days: OAS40002 day 3030" in note for note in cohort.notes)
    imaging = tmp_path / "src" / "OASIS4_data_imaging.csv"
    imaging.write_text(imaging.read_text().replace("d3030", "d3031"))
    with pytest.raises(DataError, match="no row in .*: OAS40002_MR_d3030"):
        oasis4(tmp_path / "src", tmp_path / "b")


@pytest.mark.realdata
def test_real_oasis2_table(real_data: Path, tmp_path: Path) -> None:
    write_oasis2(tmp_path / "src")
    table = tmp_path / "src" / "oasis_longitudinal_demographic.csv"
    table.write_bytes((real_data / "tables" / table.name).read_bytes())
    write_pair(tmp_path / "src/OAS2_RAW_PART2/OAS2_0186_MR3/RAW/mpr-1.nifti", brain(3))
    cohort = oasis2(tmp_path / "src", tmp_path / "raw", runs="first")
    assert cohort.covariates("OAS20001", "MR2")["asf"] == 0.876
    assert cohort.covariates("OAS20186", "MR3")["visit"] == 3


@pytest.mark.realdata
def test_real_oasis1_table_with_mark_and_moved_columns(real_data: Path, tmp_path: Path) -> None:
    write_oasis1_discs(tmp_path / "src", ("masked",))
    table = real_data / "tables" / "oasis_cross-sectional_bom-reordered.csv"
    (tmp_path / "src" / "oasis_cross-sectional.csv").write_bytes(table.read_bytes())
    cohort = oasis1(tmp_path / "src", tmp_path / "raw")
    first = cohort.covariates("OAS10001", "MR1")
    assert (first["age"], first["mmse"], first["ses"], first["etiv"]) == (74, 29, 3, 1344)
