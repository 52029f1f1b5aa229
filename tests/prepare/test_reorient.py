from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel

CODES = ["".join(c) for p in ("LAS", "PIR", "SLA") for c in itertools.permutations(p)]


def scan(codes: str) -> PreparedScan:
    volume = np.random.default_rng(0).random((1, 4, 5, 6)).astype(np.float32)
    axes = nib.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(axes):
        affine[int(world), axis] = sign * (axis + 1.5)
    affine[:3, 3], affine[3, 3] = (7, -8, 9), 1
    mask = (volume[0] > 0.3).astype(np.float32)
    return PreparedScan(volume, (Channel("T1w"),), affine, mask)


@pytest.mark.parametrize("codes", CODES)
def test_every_voxel_stays_where_it_is_in_the_world(codes: str) -> None:
    before = scan(codes)
    after = reorient(before, ReorientConfig())
    assert nib.aff2axcodes(after.affine) == ("R", "A", "S")
    assert (np.diag(after.affine)[:3] > 0).all()
    for index in [(0, 0, 0), (3, 4, 5), (1, 2, 3)]:
        world = before.affine @ (*index, 1)
        there = np.rint(np.linalg.solve(after.affine, world))[:3].astype(int)
        assert after.image[0][tuple(there)] == before.image[0][index]
        assert after.foreground[tuple(there)] == before.foreground[index]
    assert after.history == ({"step": "reorient", "from": codes, "to": "RAS"},)


def test_it_is_what_nibabel_does() -> None:
    before = scan("LAS")
    canonical = nib.as_closest_canonical(nib.Nifti1Image(before.image[0], before.affine))
    after = reorient(before, ReorientConfig())
    np.testing.assert_array_equal(after.image[0], canonical.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(after.affine, canonical.affine)
