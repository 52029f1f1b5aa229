from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tests.prepare.heads import phantom_head, scan_of

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError, UsageError
from gyri.prepare.itk import resampled
from gyri.prepare.register import RegisterConfig, register
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.resample import ResampleConfig, resample
from gyri.prepare.scan import PreparedScan
from gyri.prepare.template import CENTRE_MM, mni152


def known_affine(scan: PreparedScan, seed: int) -> np.ndarray:
    """Return up to 15 degrees, 15 mm and 10 % about the scan's middle, world to world."""
    rng = np.random.default_rng(seed)
    linear = Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix()
    linear = linear @ np.diag(rng.uniform(0.9, 1.1, 3))
    middle = scan.affine[:3, :3] @ (np.array(scan.shape) / 2) + scan.affine[:3, 3]
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = middle - linear @ middle + rng.uniform(-15, 15, 3)
    return matrix


def displaced(scan: PreparedScan, known: np.ndarray) -> PreparedScan:
    """Return the scan with its content moved by `known`, on the same grid."""
    moved = known @ scan.affine
    image = resampled(scan.image[0], moved, scan.affine, scan.shape)
    support = resampled(scan.foreground, moved, scan.affine, scan.shape)
    return PreparedScan((image * (support >= 0.5))[None], scan.channels, scan.affine, support)


def error_mm(scan: PreparedScan, known: np.ndarray) -> float:
    """Return the median distance over the brain between the two registrations."""
    first = register(scan, RegisterConfig()).affine
    second = register(displaced(scan, known), RegisterConfig()).affine
    voxels = np.argwhere(scan.foreground >= 0.5)[::20]
    there = np.linalg.solve(scan.affine, known @ scan.affine)
    moved = voxels @ there[:3, :3].T + there[:3, 3]
    one = voxels @ first[:3, :3].T + first[:3, 3]
    two = moved @ second[:3, :3].T + second[:3, 3]
    return float(np.median(np.linalg.norm(one - two, axis=1)))


@pytest.fixture(scope="module")
def stripped() -> PreparedScan:
    values, affine, truth = phantom_head()
    return scan_of(values * truth, affine)


@pytest.fixture(scope="module")
def registered(stripped: PreparedScan) -> PreparedScan:
    known = known_affine(stripped, 0)
    return register(displaced(stripped, known), RegisterConfig())


def test_a_moved_brain_comes_to_the_template(registered: PreparedScan) -> None:
    template = mni152()
    brain = resampled(
        registered.foreground, registered.affine, template.affine, template.image.shape
    )
    both = (brain >= 0.5) & template.mask
    assert 2 * both.sum() / ((brain >= 0.5).sum() + template.mask.sum()) > 0.92
    assert registered.history[-1]["transform"] == "affine"


def test_nothing_is_interpolated(stripped: PreparedScan, registered: PreparedScan) -> None:
    before = displaced(stripped, known_affine(stripped, 0))
    np.testing.assert_array_equal(registered.image, before.image)
    # The history's matrix and the affine say the same.
    matrix = np.array(registered.history[-1]["template_to_scan"])
    np.testing.assert_allclose(matrix @ registered.affine, before.affine, atol=2e-2)


def test_registered_scans_come_onto_one_lattice(registered: PreparedScan) -> None:
    through = (-78.0, -112.0, -74.0)
    after = resample(registered, ResampleConfig(spacing_mm=4.0, through_mm=through))
    np.testing.assert_allclose(after.affine[:3, :3], np.diag([4.0] * 3))
    np.testing.assert_allclose(np.mod(after.affine[:3, 3] - through, 4.0) % 4.0, 0, atol=1e-9)
    ml = (after.foreground >= 0.5).sum() * 0.064
    assert ml == pytest.approx(
        (registered.foreground >= 0.5).sum() * np.linalg.det(registered.affine[:3, :3]) / 1000,
        rel=0.02,
    )


def test_sheared_grids_and_unknown_transforms_are_refused(registered: PreparedScan) -> None:
    sheared = registered.affine.copy()
    sheared[0, 1] += 0.2 * sheared[1, 1]
    scan = PreparedScan(registered.image, registered.channels, sheared, registered.foreground)
    with pytest.raises(DataError, match="right angles"):
        register(scan, RegisterConfig())
    with pytest.raises(UsageError, match="'syn'"):
        RegisterConfig(transform="syn")  # type: ignore[arg-type]


def test_the_window_is_the_template_s_middle() -> None:
    template = mni152()
    where = np.argwhere(template.mask)
    middle = (where.min(0) + where.max(0)) / 2 @ template.affine[:3, :3] + template.affine[:3, 3]
    np.testing.assert_allclose(middle, CENTRE_MM, atol=2)


@pytest.mark.realdata
@pytest.mark.slow
def test_twenty_known_affines_are_recovered(real_data: Path) -> None:
    errors = []
    for number, path in enumerate(sorted((real_data / "ds002748").glob("sub-*/anat/*T1w.nii.gz"))):
        volume, affine, _ = read_volume(path)
        scan = resample(
            reorient(scan_of(volume, affine), ReorientConfig()), ResampleConfig(spacing_mm=2.0)
        )
        errors += [error_mm(scan, known_affine(scan, 10 * number + n)) for n in range(4)]
    assert len(errors[:20]) == 20
    assert np.median(errors[:20]) <= 2
