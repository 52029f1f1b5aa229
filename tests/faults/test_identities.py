"""Rows 37 to 39: names, links and archives that lead out of their folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cohort.small import small_cohort, write_oasis1
from tests.faults.bench import data_set, good_bytes, put

from gyri.cohort.archive import opened, unpack
from gyri.cohort.bids import read
from gyri.cohort.sources.folder import folder
from gyri.cohort.sources.oasis1 import oasis1
from gyri.errors import DataError

Write = Callable[[Path], object]


@pytest.mark.parametrize("identifier", ["../../x", "x" * 300, "/etc/passwd", "a;rm"])
def test_row_37_identifiers_that_are_no_names(tmp_path: Path, identifier: str) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    (src / "people.csv").write_text(f"id,age\na,30\nb,40\n{identifier},50\n")
    with pytest.raises(DataError):
        folder(src, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_row_37_an_identifier_with_nul(tmp_path: Path) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    (src / "people.csv").write_bytes(b"id,age\na,30\nb,40\nbad\x00x,50\n")
    with pytest.raises(DataError, match="holds no table"):
        folder(src, tmp_path / "raw")


def test_row_38_a_scan_that_links_out_of_its_folder(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.nii.gz", good_bytes())
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: p.symlink_to(outside))
    with pytest.raises(DataError, match=r"bad\.nii\.gz links to .*outside the data set"):
        folder(src, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_row_38_oasis1_files_that_link_out(tmp_path: Path) -> None:
    write_oasis1(tmp_path / "src")
    scan = tmp_path / "src" / "OAS1_0001_MR1_T1w.nii.gz"
    scan.rename(tmp_path / "outside.nii.gz")
    scan.symlink_to(tmp_path / "outside.nii.gz")
    with pytest.raises(DataError, match="outside the data set"):
        oasis1(tmp_path / "src", tmp_path / "raw")


@pytest.mark.parametrize("name", ["sub-S000", "participants.tsv", "participants.json"])
def test_row_38_folders_and_tables_that_link_out_of_a_bids_data_set(
    tmp_path: Path, name: str
) -> None:
    small_cohort(tmp_path / "raw", 2)
    path = tmp_path / "raw" / name
    path.rename(tmp_path / f"outside-{name}")
    path.symlink_to(tmp_path / f"outside-{name}")
    with pytest.raises(DataError, match=f"links to .*outside-{name}.*outside the data set"):
        read(tmp_path / "raw")


def test_row_38_links_within_a_data_set_are_fine(tmp_path: Path) -> None:
    small_cohort(tmp_path / "raw", 2)
    scan = tmp_path / "raw" / "sub-S000" / "anat" / "sub-S000_T1w.nii.gz"
    (tmp_path / "raw" / ".annex").mkdir()
    scan.rename(tmp_path / "raw" / ".annex" / "key")
    scan.symlink_to("../../.annex/key")
    assert len(read(tmp_path / "raw").scans) == 2


def zipped(names: dict[str, bytes], mode: int = 0) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in names.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (mode if name == "odd" else stat.S_IFREG | 0o644) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                file.writestr(info, content)

    return write


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Write:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz") as file:
            for entry, of in (("a.txt", tarfile.REGTYPE), (name, kind)):
                info = tarfile.TarInfo(entry)
                info.type, info.linkname = of, link
                info.size = 5 if of == tarfile.REGTYPE else 0
                file.addfile(info, io.BytesIO(b"hello"))

    return write


ODD_ARCHIVES = {
    "zip, up": ("x.zip", zipped({"a.txt": b"1", "../../evil.txt": b"2"}), "leads out"),
    "zip, root": ("x.zip", zipped({"a.txt": b"1", "/evil.txt": b"2"}), "leads out"),
    "zip, drive": ("x.zip", zipped({"a.txt": b"1", "C:evil.txt": b"2"}), "leads out"),
    "zip, link": ("x.zip", zipped({"a.txt": b"1", "odd": b"/etc"}, stat.S_IFLNK | 0o777), "a link"),
    "zip, twice": ("x.zip", zipped({"a.txt": b"1", "A.txt": b"2"}), "comes twice"),
    "zip, bomb": ("x.zip", zipped({"a.txt": bytes(1 << 27)}), "too many to be true"),
    "tar, up": ("x.tar.gz", tarred("../evil.txt"), "leads out"),
    "tar, root": ("x.tar.gz", tarred("/evil.txt"), "leads out"),
    "tar, link": ("x.tar.gz", tarred("odd", tarfile.SYMTYPE, "/etc"), "a link"),
    "tar, hard link": ("x.tar.gz", tarred("odd", tarfile.LNKTYPE, "../../x"), "a link"),
    "tar, device": ("x.tar.gz", tarred("odd", tarfile.CHRTYPE), "a device"),
    "tar, pipe": ("x.tgz", tarred("odd", tarfile.FIFOTYPE), "a device"),
    "no zip": ("x.zip", lambda path: path.write_bytes(b"<html>"), "damaged"),
    "no tar": ("x.tar.gz", lambda path: path.write_bytes(b"\x1f\x8b" + bytes(99)), "damaged"),
}


@pytest.mark.parametrize(("name", "write", "rule"), ODD_ARCHIVES.values(), ids=ODD_ARCHIVES)
def test_row_39_an_archive_with_one_odd_member_is_refused_as_a_whole(
    tmp_path: Path, name: str, write: Write, rule: str
) -> None:
    write(tmp_path / name)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=rule):
        unpack(tmp_path / name, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out"])


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_sound_archives_are_opened_like_folders(tmp_path: Path, ending: str) -> None:
    src = data_set(tmp_path / "src", "bad.nii.gz", lambda p: put(p, good_bytes()))
    archive = tmp_path / f"set{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in src.iterdir():
                file.write(path, f"set/{path.name}")
    else:
        with tarfile.open(archive, "w:gz" if ending.endswith("gz") else "w") as tar:
            tar.add(src, "./")
    with opened(archive, tmp_path) as unpacked:
        assert len(folder(unpacked, tmp_path / "raw", name="set").scans) == 3
    assert not unpacked.exists()
    with opened(src) as same:
        assert same == src
