from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from tests.bids import bids_errors
from tests.cohort.small import brain, save, small_cohort, write_oasis1

from gyri.cohort.bids import read
from gyri.cohort.nifti import read_volume
from gyri.cohort.sheet import read_sheet
from gyri.cohort.sources.bids import bids
from gyri.cohort.sources.folder import folder
from gyri.cohort.sources.oasis1 import oasis1
from gyri.errors import DataError, UsageError
from gyri.registry import SOURCES


def test_sources_are_registered_and_say_what_they_are() -> None:
    for name in ("oasis1", "bids", "folder"):
        text = SOURCES[name].component.__doc__
        for word in ("Layout", "ccess", "itation", "icence"):
            assert word in text, (name, word)


def test_oasis1_miniature(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    cohort = oasis1(tmp_path / "src", tmp_path / "raw")
    assert bids_errors(tmp_path / "raw") == []
    assert list(cohort.subjects.index) == [f"OAS1000{n}" for n in range(1, 6)]
    assert cohort.subjects["cdr"].tolist() == ["0.5", None, "0", None, "0"]
    assert cohort.subjects["age"].tolist() == [30, 40, 50, 60, 70]
    pairs = cohort.scans[["subject", "session"]].to_numpy().tolist()
    assert ["OAS10002", "MR1"] in pairs
    assert ["OAS10002", "MR2"] in pairs
    assert cohort.covariates("OAS10002", "MR2")["delay"] == 20
    assert cohort.covariates("OAS10002", "MR2")["age"] == 41
    assert cohort.notes == [
        "1 rows of the table have no scan here and are left out.",
        "Headers held free text (descrip in 6 files); none of it was copied.",
    ]
    path = cohort.scans.set_index(["subject", "session"]).loc[("OAS10003", "MR1"), "path"]
    source = tmp_path / "src" / "OAS1_0003_MR1_T1w.nii.gz"
    for mine, theirs in zip(read_volume(Path(path))[:2], read_volume(source)[:2]):
        np.testing.assert_array_equal(mine, theirs)


def test_oasis1_table_with_mark_and_moved_columns(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    first = oasis1(tmp_path / "src", tmp_path / "a").subjects
    table = tmp_path / "src" / "oasis_cross-sectional.csv"
    rows = read_sheet(table)
    rows[rows.columns[::-1]].to_csv(table, index=False, encoding="utf-8-sig")
    second = oasis1(tmp_path / "src", tmp_path / "b").subjects
    assert first.equals(second[first.columns])


def test_oasis1_scan_without_a_row(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    save(tmp_path / "src" / "OAS1_0399_MR1_T1w.nii.gz", brain(0))
    with pytest.raises(DataError, match="1 scans .* no row in the table: OAS1_0399_MR1"):
        oasis1(tmp_path / "src", tmp_path / "raw")


def test_oasis1_missing_things(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        oasis1(tmp_path / "none", tmp_path / "raw")
    (tmp_path / "src").mkdir()
    with pytest.raises(DataError, match="no OASIS-1 scans"):
        oasis1(tmp_path / "src", tmp_path / "raw")
    write_oasis1(tmp_path / "src")
    table = tmp_path / "src" / "oasis_cross-sectional.csv"
    text = table.read_text()
    table.write_text(text.replace("CDR", "Rating"))
    with pytest.raises(DataError, match="lacks the columns cdr"):
        oasis1(tmp_path / "src", tmp_path / "raw")
    table.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(DataError, match="OAS1_0001_MR1 more than once"):
        oasis1(tmp_path / "src", tmp_path / "raw")
    table.unlink()
    with pytest.raises(DataError, match="0 tables"):
        oasis1(tmp_path / "src", tmp_path / "raw")


def test_a_bad_file_is_listed_and_not_copied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_oasis1(tmp_path / "src")
    bad = tmp_path / "src" / "OAS1_0003_MR1_T1w.nii.gz"
    bad.write_bytes(bad.read_bytes()[:200])
    with caplog.at_level(logging.WARNING):
        cohort = oasis1(tmp_path / "src", tmp_path / "raw")
    assert "OAS1_0003_MR1" in caplog.text
    assert len(cohort.scans) == 5
    assert "OAS10003" not in cohort.subjects.index
    assert "1 people have no scan that can be used: OAS10003." in cohort.notes
    entry = read(tmp_path / "raw").quarantine[0]
    assert entry["file"] == "sub-OAS10003/ses-MR1/anat/sub-OAS10003_ses-MR1_T1w.nii.gz"
    assert "the file is truncated" in entry["rule"]
    assert not list((tmp_path / "raw" / "sub-OAS10003").rglob("*.nii*"))
    assert bids_errors(tmp_path / "raw") == []


def test_bids_is_written_anew(tmp_path: Path) -> None:
    small_cohort(tmp_path / "src", 3)
    lines = ["participant_id\tage\tgender"] + [f"sub-S00{n}\t{40 + n}\tf" for n in range(3)]
    (tmp_path / "src" / "participants.tsv").write_text("\n".join(lines) + "\n")
    cohort = bids(tmp_path / "src", tmp_path / "raw")
    assert cohort.subjects["sex"].tolist() == ["F", "F", "F"]
    assert bids_errors(tmp_path / "raw") == []
    again = bids(tmp_path / "raw", tmp_path / "again")
    assert again.subjects.equals(cohort.subjects)
    for name in ("participants.tsv", "sub-S001/anat/sub-S001_T1w.nii.gz"):
        assert (tmp_path / "raw" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_bids_refuses_disagreement_and_derivatives(tmp_path: Path) -> None:
    small_cohort(tmp_path / "src", 3)
    table = tmp_path / "src" / "participants.tsv"
    table.write_text(table.read_text().replace("sub-S002", "sub-S009"))
    with pytest.raises(DataError, match=r"no scan: S009.*no row: S002"):
        bids(tmp_path / "src", tmp_path / "raw")
    (tmp_path / "src" / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    with pytest.raises(DataError, match="expected a raw one"):
        bids(tmp_path / "src", tmp_path / "raw")


def write_folder(src: Path, table: bytes, names: list[str]) -> None:
    src.mkdir()
    for number, name in enumerate(names):
        save(src / name, brain(number))
    (src / "people.csv").write_bytes(table)


AWKWARD = "\ufeffSubject ID;M/F;Age;CDR;Score\rs_1;M;71,5;0,5;0,7\rs_2;f;;;1,5\r".encode()


def test_folder_with_an_awkward_table(tmp_path: Path) -> None:
    write_folder(tmp_path / "src", AWKWARD, ["s_1.nii.gz", "s_2_T1w.nii.gz"])
    cohort = folder(tmp_path / "src", tmp_path / "raw")
    assert list(cohort.subjects.index) == ["s1", "s2"]
    assert cohort.subjects["sex"].tolist() == ["M", "F"]
    assert cohort.subjects["age"]["s1"] == 71.5
    assert cohort.subjects["cdr"].tolist() == ["0.5", None]
    assert cohort.columns["score"].kind == "continuous"
    assert bids_errors(tmp_path / "raw") == []
    assert read(tmp_path / "raw").subjects.equals(cohort.subjects)


def test_folder_never_mistakes_one_subject_for_another(tmp_path: Path) -> None:
    names = ["s1.nii.gz", "s10.nii.gz", "s1_b.nii.gz"]
    write_folder(tmp_path / "src", b"id,age\ns1,30\ns10,40\ns1_b,50\n", names)
    cohort = folder(tmp_path / "src", tmp_path / "raw")
    for label, seed in (("s1", 0), ("s10", 1), ("s1b", 2)):
        path = tmp_path / "raw" / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"
        expected, _, _ = read_volume(tmp_path / "src" / names[seed])
        np.testing.assert_array_equal(read_volume(path)[0], expected)
    assert cohort.subjects["age"].to_dict() == {"s1": 30, "s10": 40, "s1b": 50}


def test_folder_disagreement_is_listed(tmp_path: Path) -> None:
    write_folder(tmp_path / "src", b"id,age\na,30\nb,40\n", ["a.nii.gz", "a_2.nii.gz", "c.nii.gz"])
    with pytest.raises(DataError) as error:
        folder(tmp_path / "src", tmp_path / "raw")
    for part in ("1 scans have no row: c.nii.gz", "1 rows have no scan: b", "one scan each: a"):
        assert part in str(error.value)


def test_folder_unknown_column_and_missing_things(tmp_path: Path) -> None:
    write_folder(tmp_path / "src", b"code,age\na,30\n", ["a.nii.gz"])
    with pytest.raises(UsageError, match="no column 'cod'. Did you mean 'code'"):
        folder(tmp_path / "src", tmp_path / "raw", subject="cod")
    with pytest.raises(DataError, match="none of them called like a subject"):
        folder(tmp_path / "src", tmp_path / "raw")
    folder(tmp_path / "src", tmp_path / "raw", subject="code")
    (tmp_path / "src" / "people.csv").unlink()
    with pytest.raises(DataError, match="holds 0 tables"):
        folder(tmp_path / "src", tmp_path / "raw2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no .nii or"):
        folder(tmp_path / "empty", tmp_path / "raw2")


def test_folder_path_traversal(tmp_path: Path) -> None:
    write_folder(tmp_path / "src", b"id,age\n../../x,30\n", ["a.nii.gz"])
    with pytest.raises(DataError):
        folder(tmp_path / "src", tmp_path / "raw")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no table"), (b"a,a\n1,2\n", "two columns"), (b"a,b\n1,2,3\n", "line 2: 3 cells")],
)
def test_sheets_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_sheet(path)


@pytest.mark.realdata
def test_real_tables(real_data: Path) -> None:
    plain = read_sheet(real_data / "oasis1-2mm" / "oasis_cross-sectional.csv").set_index("ID")
    moved = read_sheet(real_data / "tables" / "oasis_cross-sectional_bom-reordered.csv")
    moved = moved.set_index("ID").loc[plain.index, plain.columns]
    assert len(plain) == 313
    same = ["M/F", "Age", "CDR", "eTIV"]
    assert moved[same].equals(plain[same])
    longitudinal = read_sheet(real_data / "tables" / "oasis_longitudinal_demographic.csv")
    assert longitudinal.shape == (373, 15)
    assert longitudinal["nWBV"][0] == "0,696"


@pytest.mark.realdata
def test_real_bids(real_data: Path, tmp_path: Path) -> None:
    cohort = read(real_data / "ds002748")
    assert len(cohort.subjects) == 6
    assert cohort.subjects["sex"].value_counts().to_dict() == {"F": 5, "M": 1}
    assert cohort.columns["icd_10"].levels is not None
    assert cohort.columns["edinburgh"].kind == "continuous"
