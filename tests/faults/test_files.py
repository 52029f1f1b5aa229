"""Rows 1 to 9: files that are no scans, or no longer."""

from __future__ import annotations

import gzip
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.bench import good_bytes, patched, put, rule_for, rule_for_bytes

from gyri.cohort.nifti import read_volume
from gyri.errors import FileFault

DIM = 40


@contextmanager
def memory_below(megabytes: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


def packed() -> bytes:
    return gzip.compress(good_bytes())


def test_row_1_empty_file(tmp_path: Path) -> None:
    assert "the file is empty" in rule_for(tmp_path, "bad.nii.gz", Path.touch)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html>404 Not Found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9", "a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("name", ["bad.nii", "bad.nii.gz"])
def test_row_2_web_page_or_pointer_named_as_a_scan(
    tmp_path: Path, content: bytes, kind: str, name: str
) -> None:
    assert kind in rule_for(tmp_path, name, lambda path: path.write_bytes(content))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_row_3_truncated(tmp_path: Path, share: float) -> None:
    content = packed()[: int(len(packed()) * share)]
    rule = rule_for(tmp_path, "bad.nii.gz", lambda path: path.write_bytes(content))
    assert "truncated" in rule


def test_row_4_one_flipped_bit_is_caught_by_the_checksum(tmp_path: Path) -> None:
    # Stored without compression, a flipped voxel bit leaves a valid stream: only the CRC sees it.
    content = bytearray(gzip.compress(good_bytes(), 0))
    content[len(content) // 2] ^= 1
    rule = rule_for(tmp_path, "bad.nii.gz", lambda path: path.write_bytes(content))
    assert "CRC check failed" in rule


@pytest.mark.parametrize("trailer", [b"", b"\0\0\0\0\0\0\0\0"])
def test_row_5_missing_or_wrong_trailer(tmp_path: Path, trailer: bytes) -> None:
    content = packed()[:-8] + trailer
    rule = rule_for(tmp_path, "bad.nii.gz", lambda path: path.write_bytes(content))
    assert "truncated" in rule or "CRC check failed" in rule


def test_row_6_garbage_after_the_stream(tmp_path: Path) -> None:
    content = packed() + b"garbage"
    rule = rule_for(tmp_path, "bad.nii.gz", lambda path: path.write_bytes(content))
    assert "the compressed data are damaged" in rule


def test_row_7_compressed_or_not_against_its_name(tmp_path: Path) -> None:
    for place, name, content, fix in (
        ("plain", "bad.nii.gz", good_bytes(), "Rename it to .nii."),
        ("packed", "bad.nii", packed(), "Rename it to .nii.gz."),
    ):
        (tmp_path / place).mkdir()
        rule = rule_for(tmp_path / place, name, lambda path, c=content: path.write_bytes(c))
        assert rule.endswith(fix)


@pytest.mark.parametrize("name", ["bad.nii", "bad.nii.gz"])
def test_row_8_a_kilobyte_that_declares_30000_cubed_costs_nothing(
    tmp_path: Path, name: str
) -> None:
    content = patched(good_bytes()[:1000], DIM, "4h", 3, 30000, 30000, 30000)
    assert "beyond 1024 voxels" in rule_for_bytes(tmp_path, content, name)
    start = time.perf_counter()
    with memory_below(50), pytest.raises(FileFault):
        read_volume(tmp_path / "src" / name)
    assert time.perf_counter() - start < 1


def test_row_9_a_gzip_bomb_stops_at_what_its_header_declares(tmp_path: Path) -> None:
    bomb = good_bytes() + bytes(1 << 26)
    assert "holds more than" in rule_for_bytes(tmp_path, bomb)
    with memory_below(10), pytest.raises(FileFault):
        read_volume(tmp_path / "src" / "bad.nii.gz")


def test_row_9_a_bomb_that_declares_what_it_holds_is_not_believed(tmp_path: Path) -> None:
    kind_and_bits = struct.pack("<2h", 64, 64)
    head = patched(good_bytes()[:352], DIM, "4h", 3, 512, 512, 512)
    head = head[:70] + kind_and_bits + head[74:]
    bomb = put(tmp_path / "bomb.nii.gz", head + bytes(1 << 22))
    with memory_below(10), pytest.raises(FileFault, match="too many to be true"):
        read_volume(bomb)
