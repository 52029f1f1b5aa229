from __future__ import annotations

from pathlib import Path

from tests.cohort.small import small_cohort

from gyri.cohort.twins import twins, voxel_hash


def test_twins_are_found_whatever_the_file_stores(tmp_path: Path) -> None:
    small_cohort(tmp_path / "a", 2)
    first, second = (tmp_path / f"a/sub-S00{n}/anat/sub-S00{n}_T1w.nii.gz" for n in (0, 1))
    assert voxel_hash(first) != voxel_hash(second)
    one, other = voxel_hash(first), voxel_hash(second)
    assert twins([("x", one, 1), ("x", one, 2), ("y", other, 3)]) == []
    assert twins([("x", one, 1), ("y", other, 2), ("z", one, 3)]) == [(1, 3)]


def test_an_unreadable_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    hashes = [voxel_hash(tmp_path / name) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
