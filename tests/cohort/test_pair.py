from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.cohort.layouts import write_pair
from tests.cohort.small import brain

from gyri.cohort.header import centred_affine
from gyri.cohort.pair import read_pair
from gyri.errors import DataError, UsageError


@pytest.mark.parametrize("axes", ["RAS", "LAS", "ASL", "PIR"])
def test_axes_point_as_said_and_the_centre_is_the_origin(axes: str) -> None:
    affine = centred_affine((5, 7, 9), (1.0, 2.0, 3.0), axes)
    assert "".join(nib.aff2axcodes(affine)) == axes
    np.testing.assert_allclose(affine @ [2, 3, 4, 1], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [1, 2, 3])


@pytest.mark.parametrize("axes", ["LLS", "XYZ", "RA", ""])
def test_axes_that_are_none(axes: str) -> None:
    with pytest.raises(UsageError, match="three letters"):
        centred_affine((5, 7, 9), (1.0, 1.0, 1.0), axes)


@pytest.mark.parametrize("dtype", [">i2", "<i2", "u1", ">f4"])
def test_voxels_of_either_byte_order(tmp_path: Path, dtype: str) -> None:
    write_pair(tmp_path / "a", brain(1), dtype=">i2")
    if dtype != ">i2":
        header = nib.AnalyzeHeader(endianness="<" if dtype[0] == "<" else ">")
        header.set_data_dtype(np.dtype(dtype))
        header.set_data_shape(brain(1).shape)
        header["pixdim"][1:4] = 8
        (tmp_path / "a.hdr").write_bytes(header.binaryblock)
        stored = np.rint(brain(1)).astype(header.get_data_dtype())
        (tmp_path / "a.img").write_bytes(stored.tobytes(order="F"))
    array, _, info = read_pair(tmp_path / "a.img", axes="LAS")
    np.testing.assert_array_equal(array, np.rint(brain(1)))
    assert info.orientation == "LAS"
    assert "LAS is assumed" in info.notes[-1]
    assert array.dtype.isnative


def test_damaged_pairs(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", brain(1))
    header = (tmp_path / "a.hdr").read_bytes()
    image = (tmp_path / "a.img").read_bytes()
    cases = {
        "no Analyze header": (header[:100], image),
        "its header declares": (header, image + b"\0"),
        "voxels measure": (header[:80] + b"\0" * 16 + header[96:], image),
        "same value": (header, b"\0" * len(image)),
        "its shape is": (header[:42] + b"\xff\xff" + header[44:], image),
    }
    for message, (head, voxels) in cases.items():
        (tmp_path / "a.hdr").write_bytes(head)
        (tmp_path / "a.img").write_bytes(voxels)
        with pytest.raises(DataError, match=message):
            read_pair(tmp_path / "a.hdr", axes="LAS")


def test_a_header_that_declares_too_much_is_not_believed(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", brain(1))
    head = bytearray((tmp_path / "a.hdr").read_bytes())
    head[42:48] = np.array([30000] * 3, ">i2").tobytes()
    (tmp_path / "a.hdr").write_bytes(head)
    with pytest.raises(DataError, match="beyond 1024 voxels"):
        read_pair(tmp_path / "a.hdr", axes="LAS")
