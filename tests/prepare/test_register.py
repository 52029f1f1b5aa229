from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation
from tests.prepare.heads import phantom_head, scan_of

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError, UsageError
from gyri.prepare.brain_mask import BrainMaskConfig, brain_mask
from gyri.prepare.itk import matrix_of, resampled, to_itk
from gyri.prepare.register import RegisterConfig, register
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.resample import ResampleConfig, resample
from gyri.prepare.scan import PreparedScan, box_centre_mm
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


def error_mm(scan: PreparedScan, first: np.ndarray, known: np.ndarray) -> float:
    """Return the median distance over the brain between two registrations.

    `first` is the registered scan's affine; the other is that of the scan moved by `known`.
    """
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


STRIPPED = [
    f"ds002748/sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in ("01", "13", "25", "37", "49", "61")
]
HEADS = [
    f"ixi/IXI-T1/IXI{name}-T1.nii.gz"
    for name in ("012-HH-1211", "174-HH-1571", "296-HH-1970", "606-HH-2601")
]


def native_brain(path: Path) -> PreparedScan:
    """Return a real brain in its own space at 2 mm; heads are masked first."""
    volume, affine, _ = read_volume(path)
    scan = brain_mask(reorient(scan_of(volume, affine), ReorientConfig()), BrainMaskConfig())
    return resample(scan, ResampleConfig(spacing_mm=2.0))


@pytest.mark.realdata
@pytest.mark.slow
def test_twenty_known_affines_are_recovered(real_data: Path) -> None:
    errors = []
    for number, name in enumerate([*STRIPPED, *HEADS]):
        scan = native_brain(real_data / name)
        first = register(scan, RegisterConfig()).affine
        errors += [error_mm(scan, first, known_affine(scan, 10 * number + n)) for n in range(2)]
    assert len(errors) == 20
    assert np.median(errors) <= 2
    assert max(errors) <= 4, "one ended in a wrong basin"


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", [*STRIPPED[:3], *HEADS[:2]])
def test_the_gain_is_that_of_a_two_minute_search(real_data: Path, name: str) -> None:
    scan = native_brain(real_data / name)
    centred = scan.affine.copy()
    centred[:3, 3] += CENTRE_MM - box_centre_mm(scan.foreground >= 0.5, scan.affine)
    start = correlation(scan, centred)
    ours = correlation(scan, register(scan, RegisterConfig()).affine)
    assert ours - start >= 0.95 * (correlation(scan, searched(scan, centred)) - start)


def correlation(scan: PreparedScan, affine: np.ndarray) -> float:
    """Return the correlation with the template inside its mask of a scan placed by `affine`."""
    template = mni152()
    values = resampled(scan.image[0], affine, template.affine, template.image.shape)
    return float(np.corrcoef(values[template.mask], template.image[template.mask])[0, 1])


def searched(scan: PreparedScan, centred: np.ndarray) -> np.ndarray:
    """Return the affine after the best of eight long registrations from seeded starts.

    It shares no code with the step: multi-resolution affine Mattes mutual information over all
    voxels of the template's brain, about two minutes on one core.
    """
    template = mni152()
    fixed, moving = to_itk(template.image, template.affine), to_itk(scan.image[0], scan.affine)
    rng = np.random.default_rng(0)
    middle = np.append(template.centre_mm, 1.0)
    to_scan = scan.affine @ np.linalg.inv(centred)
    found = []
    for _ in range(8):
        transform = sitk.AffineTransform(3)
        transform.SetCenter(middle[:3].tolist())
        turn = Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix()
        transform.SetMatrix((turn * rng.uniform(0.85, 1.05)).ravel().tolist())
        shift = (to_scan @ middle - middle)[:3] + rng.uniform(-8, 8, 3)
        transform.SetTranslation(shift.tolist())
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfWorkUnits(1)
        method.SetMetricAsMattesMutualInformation(50)
        method.SetMetricFixedMask(sitk.Cast(to_itk(template.mask, template.affine), sitk.sitkUInt8))
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200, 0.8, 1e-9)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([4, 2, 1])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetInitialTransform(transform, inPlace=True)
        method.Execute(fixed, moving)
        found.append((method.GetMetricValue(), transform))
    _, best = min(found, key=lambda one: one[0])
    return np.linalg.solve(matrix_of(best), scan.affine)
