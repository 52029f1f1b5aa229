from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gyri.cohort.nifti import read_volume, write_volume
from gyri.errors import DataError

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3.0, 0, -20], [0, 0, 4.0, -30], [0, 0, 0, 1]])


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (6, 7, 8)).astype(np.uint8)


@pytest.fixture
def good(tmp_path: Path, volume: np.ndarray) -> Path:
    path = tmp_path / "good.nii.gz"
    write_volume(path, volume, AFFINE, descrip="x", scale=0.5)
    return path


def unzipped(path: Path) -> bytearray:
    return bytearray(gzip.decompress(path.read_bytes()))


def faulty(tmp_path: Path, content: bytes, name: str = "bad.nii") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_what_is_written_is_read(tmp_path: Path, volume: np.ndarray, ending: str) -> None:
    path = tmp_path / f"v{ending}"
    write_volume(path, volume, AFFINE, descrip="gyri", scale=0.5)
    values, affine, info = read_volume(path)
    np.testing.assert_array_equal(values, volume * np.float32(0.5))
    np.testing.assert_allclose(affine, AFFINE)
    assert info.orientation == "LAS"
    stored, _, info = read_volume(path, stored=True)
    np.testing.assert_array_equal(stored, volume)
    assert (stored.dtype, info.scale) == (np.uint8, 0.5)
    other = nib.load(path)
    np.testing.assert_array_equal(other.get_fdata(), volume * 0.5)
    np.testing.assert_allclose(other.affine, AFFINE)
    np.testing.assert_allclose(other.header.get_qform(), AFFINE, atol=1e-5)
    assert other.header.extensions == []


def test_same_input_same_bytes(tmp_path: Path, volume: np.ndarray) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, volume, AFFINE, descrip="gyri")
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "b.nii.gz").read_bytes()
    assert first[3] == 0, "no file name in the gzip header"
    assert first[4:8] == b"\0\0\0\0", "no time in the gzip header"


def test_quantisation_is_half_a_step(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 5, 5)).astype(np.float32)
    scale = 1 / 32767
    write_volume(tmp_path / "v.nii", values, AFFINE, descrip="", dtype="int16", scale=scale)
    back, _, _ = read_volume(tmp_path / "v.nii")
    assert np.abs(back - values).max() <= scale * 0.51


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit uint8"):
        write_volume(
            tmp_path / "v.nii", np.full((2, 2, 2), 300.0), AFFINE, descrip="", dtype="uint8"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, good: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = good.read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        write_volume(good, volume + 1, AFFINE, descrip="")
    assert good.read_bytes() == before
    assert list(tmp_path.iterdir()) == [good]


def test_a_sheared_affine_is_kept(tmp_path: Path, volume: np.ndarray) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.7
    write_volume(tmp_path / "v.nii", volume, sheared, descrip="")
    np.testing.assert_allclose(read_volume(tmp_path / "v.nii")[1], sheared, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(400), "a PNG image"),
        (b"PK\x03\x04" + bytes(400), "a zip archive"),
        (bytes(1000), "of a type that is not known"),
    ],
)
@pytest.mark.parametrize("name", ["bad.nii", "bad.nii.gz"])
def test_no_image_names_the_real_type(tmp_path: Path, content: bytes, kind: str, name: str) -> None:
    path = faulty(tmp_path, content, name)
    with pytest.raises(DataError, match=kind) as error:
        read_volume(path)
    assert str(path) in str(error.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "none.nii")
    with pytest.raises(DataError, match="empty"):
        read_volume(faulty(tmp_path, b""))


def test_wrong_endings_say_what_to_rename(tmp_path: Path, good: Path) -> None:
    with pytest.raises(DataError, match=r"Rename it to \.nii\.gz"):
        read_volume(faulty(tmp_path, good.read_bytes(), "v.nii"))
    with pytest.raises(DataError, match=r"Rename it to \.nii\."):
        read_volume(faulty(tmp_path, bytes(unzipped(good)), "v.nii.gz"))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated(tmp_path: Path, good: Path, share: float) -> None:
    packed, plain = good.read_bytes(), bytes(unzipped(good))
    with pytest.raises(DataError, match=r"truncated|no image"):
        read_volume(faulty(tmp_path, packed[: int(len(packed) * share)], "v.nii.gz"))
    with pytest.raises(DataError, match=r"truncated|no image"):
        read_volume(faulty(tmp_path, plain[: int(len(plain) * share)], "v.nii"))


def test_no_flipped_bit_changes_voxels_unnoticed(
    tmp_path: Path, good: Path, volume: np.ndarray
) -> None:
    packed = good.read_bytes()
    caught = 0
    for position in range(12, len(packed), 3):
        damaged = bytearray(packed)
        damaged[position] ^= 4
        try:
            values, _, _ = read_volume(faulty(tmp_path, bytes(damaged), "v.nii.gz"))
        except DataError:
            caught += 1
        else:
            # A few bits do not matter: another way to write the same run of zeros.
            np.testing.assert_array_equal(values, volume * np.float32(0.5))
    assert caught > 0.95 * (len(packed) - 12) / 3


def test_garbage_and_missing_trailer(tmp_path: Path, good: Path) -> None:
    packed = good.read_bytes()
    for content in (packed + b"garbage", packed[:-8], packed[:-4] + b"\0\0\0\1"):
        with pytest.raises(DataError):
            read_volume(faulty(tmp_path, content, "v.nii.gz"))


def test_huge_declarations_cost_no_memory(tmp_path: Path, good: Path) -> None:
    head = unzipped(good)[:1000]
    head[40:48] = struct.pack("<4h", 3, 30000, 30000, 30000)
    tracemalloc.start()
    with pytest.raises(DataError, match="beyond 1024 voxels"):
        read_volume(faulty(tmp_path, bytes(head)))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_a_bomb_stops_at_what_the_header_declares(tmp_path: Path, good: Path) -> None:
    bomb = gzip.compress(bytes(unzipped(good)) + bytes(1 << 25))
    with pytest.raises(DataError, match="holds more than"):
        read_volume(faulty(tmp_path, bomb, "v.nii.gz"))
    head = unzipped(good)[:352]
    head[40:48] = struct.pack("<4h", 3, 512, 512, 512)
    with pytest.raises(DataError, match="too many to be true"):
        read_volume(faulty(tmp_path, gzip.compress(bytes(head)), "v.nii.gz"))


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ((3, 0, 5, 5), "shape"),
        ((3, -4, 5, 5), "shape"),
        ((9, 5, 5, 5), "9 axes"),
        ((2, 5, 5), "sh"),
    ],
)
def test_impossible_shapes(tmp_path: Path, good: Path, shape: tuple[int, ...], rule: str) -> None:
    content = unzipped(good)
    content[40 : 40 + 2 * len(shape)] = struct.pack(f"<{len(shape)}h", *shape)
    with pytest.raises(DataError, match=rule):
        read_volume(faulty(tmp_path, bytes(content)))


def test_offsets_outside_the_file(tmp_path: Path, good: Path) -> None:
    for offset in (10.0, 1e9, float("nan")):
        content = unzipped(good)
        content[108:112] = struct.pack("<f", offset)
        with pytest.raises(DataError, match="places the voxels"):
            read_volume(faulty(tmp_path, bytes(content)))


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def test_series_nan_and_constant(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"shape is \(4, 4, 4, 3\)"):
        read_volume(save(tmp_path / "a.nii", rng.random((4, 4, 4, 3)).astype(np.float32)))
    holed = rng.random((4, 4, 4)).astype(np.float32)
    holed[1, 1, 1] = np.nan
    with pytest.raises(DataError, match="1 voxels are NaN"):
        read_volume(save(tmp_path / "b.nii", holed))
    with pytest.raises(DataError, match="same value"):
        read_volume(save(tmp_path / "c.nii", np.ones((4, 4, 4), np.float32)))


def test_a_trailing_axis_is_squeezed_and_noted(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((4, 5, 6, 1)).astype(np.float32)
    array, _, info = read_volume(save(tmp_path / "a.nii", data))
    np.testing.assert_array_equal(array, data[..., 0])
    assert info.notes == ("Squeezed (4, 5, 6, 1) to (4, 5, 6).",)


def test_affines_that_cannot_be(tmp_path: Path, good: Path) -> None:
    for row, rule in (
        ((0.0, 0, 0, 0), "singular"),
        ((float("nan"), 0, 0, 0), "not finite"),
        ((100.0, 0, 0, 0), "mm"),
    ):
        content = unzipped(good)
        content[280:296] = struct.pack("<4f", *row)
        with pytest.raises(DataError, match=rule):
            read_volume(faulty(tmp_path, bytes(content)))
    content = unzipped(good)
    content[252:256] = bytes(4)
    with pytest.raises(DataError, match="codes are 0"):
        read_volume(faulty(tmp_path, bytes(content)))


def test_forms_that_contradict_each_other(tmp_path: Path, volume: np.ndarray) -> None:
    image = nib.Nifti1Image(volume, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 5
    image.set_qform(moved, code=2)
    image.set_sform(AFFINE, code=2)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"5\.0 mm apart"):
        read_volume(tmp_path / "a.nii")
    image.set_qform(moved, code=1)
    nib.save(image, tmp_path / "b.nii")
    _, affine, info = read_volume(tmp_path / "b.nii")
    np.testing.assert_allclose(affine, AFFINE)
    assert "the sform is used" in info.notes[0]


def test_scales(tmp_path: Path, good: Path, volume: np.ndarray) -> None:
    for slope in (0.0, float("nan"), float("inf")):
        content = unzipped(good)
        content[112:116] = struct.pack("<f", slope)
        values, _, _ = read_volume(faulty(tmp_path, bytes(content)))
        np.testing.assert_array_equal(values, volume)
    content = unzipped(good)
    content[112:116] = struct.pack("<f", 1e38)
    with pytest.raises(DataError, match="out of float32"):
        read_volume(faulty(tmp_path, bytes(content)))


def test_voxels_that_are_no_numbers(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(DataError, match="one real number each"):
        read_volume(save(tmp_path / "a.nii", rgb))
    with pytest.raises(DataError, match="one real number each"):
        read_volume(save(tmp_path / "b.nii", np.ones((4, 4, 4), np.complex64)))


def test_big_endian(tmp_path: Path, volume: np.ndarray) -> None:
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(volume.astype(">i2"), AFFINE, header)
    nib.save(image, tmp_path / "a.nii")
    values, _, _ = read_volume(tmp_path / "a.nii", stored=True)
    np.testing.assert_array_equal(values, volume)
    assert values.dtype.isnative
