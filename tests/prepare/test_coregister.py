from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation
from tests.prepare.heads import dice, phantom_head

from gyri.cohort.nifti import write_volume
from gyri.errors import DataError, UsageError
from gyri.prepare.coregister import CoregisterConfig, coregister
from gyri.prepare.itk import resampled
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan
from gyri.prepare.survey import Session, SessionScan, read_session
from gyri.types import Channel

CHANNELS = (Channel("T1w"), Channel("T2w"), Channel("lesion", "label", 2))


def rigid(degrees: tuple[float, ...], shift_mm: tuple[float, ...], about: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = about - matrix[:3, :3] @ about + shift_mm
    return matrix


def contrast(scan: PreparedScan) -> float:
    """Return T1w's correlation with T2w, its negative, away from the edge that they share."""
    inside = binary_erosion(scan.foreground > 0, iterations=2)
    return float(np.corrcoef(scan.image[0][inside], scan.image[1][inside])[0, 1])


@pytest.fixture(scope="module")
def together() -> PreparedScan:
    """A brain in two contrasts and a lesion, all on one grid and aligned."""
    values, affine, truth = phantom_head()
    contrary = np.where(truth, 1.2 * values.max() - values, 0)
    lesion = np.zeros_like(values)
    lesion[tuple(slice(n - 3, n + 3) for n in np.argwhere(truth).mean(0).astype(int) + 4)] = 1
    image = np.stack([values * truth, contrary, lesion]).astype(np.float32)
    return PreparedScan(image, CHANNELS, affine, truth.astype(np.float32))


@pytest.fixture(scope="module")
def known(together: PreparedScan) -> np.ndarray:
    """Where the patient went between T1w and T2w, world to world."""
    return rigid((6, -4, 5), (5, -7, 4), together.affine[:3, :3] @ [20, 24, 20])


@pytest.fixture(scope="module")
def apart(together: PreparedScan, known: np.ndarray, tmp_path_factory) -> SessionScan:
    """The T2w and the lesion moved, in files on a grid of their own with thick slices."""
    folder = tmp_path_factory.mktemp("apart")
    grid, shape = together.affine @ np.diag([0.75, 0.75, 1.25, 1]), (96, 100, 56)
    places = np.linalg.solve(known, grid)
    moved = [
        resampled(volume, together.affine, places, shape, nearest=channel.kind == "label")
        for volume, channel in zip(together.image[1:], CHANNELS[1:])
    ]
    write_volume(folder / "T1w.nii", together.image[0], together.affine, descrip="")
    write_volume(folder / "T2w.nii", moved[0], grid, descrip="")
    write_volume(folder / "lesion.nii", moved[1].astype(np.uint8), grid, descrip="")
    files = tuple(str(folder / f"{channel.name}.nii") for channel in CHANNELS)
    scan = read_session(Session("01", "", files, CHANNELS), apart=True)
    assert isinstance(scan, SessionScan)
    assert len(scan.apart) == 2
    return scan


def test_channels_come_together(
    apart: SessionScan, together: PreparedScan, known: np.ndarray
) -> None:
    after = coregister(reorient(apart, ReorientConfig()), CoregisterConfig(labels_with="T2w"))
    assert isinstance(after, SessionScan)
    assert after.apart == ()
    np.testing.assert_array_equal(after.image[0], together.image[0])
    facts = after.history[-1]["channels"]
    found = np.array(facts["T2w"]["reference_to_channel"])
    points = np.argwhere(together.foreground)[::50] @ together.affine[:3, :3].T
    points = points + together.affine[:3, 3]
    gap = points @ (found - known)[:3, :3].T + (found - known)[:3, 3]
    assert np.linalg.norm(gap, axis=1).max() < 1
    assert contrast(after) < -0.6
    assert set(np.unique(after.image[2])) == {0, 1}
    assert dice(after.image[2] > 0, together.image[2] > 0) > 0.8
    assert facts["lesion"] == {"with": "T2w"}


def test_labels_stay_with_the_reference_unless_told(
    apart: SessionScan, together: PreparedScan
) -> None:
    after = coregister(apart, CoregisterConfig())
    assert dice(after.image[2] > 0, together.image[2] > 0) < 0.7


def test_another_channel_can_be_the_reference(apart: SessionScan) -> None:
    after = coregister(apart, CoregisterConfig(reference="T2w", labels_with="T2w"))
    np.testing.assert_array_equal(after.image[1:], [other.volume for other in apart.apart])
    np.testing.assert_array_equal(after.affine, apart.apart[0].affine)
    assert after.foreground.shape == after.shape
    assert contrast(after) < -0.6


def test_aligned_channels_keep_every_voxel(together: PreparedScan) -> None:
    after = coregister(together, CoregisterConfig())
    np.testing.assert_array_equal(after.image, together.image)
    assert after.history[-1]["channels"]["T2w"]["moved"] is False


def test_names_and_order_are_checked(together: PreparedScan) -> None:
    with pytest.raises(DataError, match="Did you mean 'T1w'"):
        coregister(together, CoregisterConfig(reference="T1"))
    with pytest.raises(DataError, match="no intensity channel 'lesion'"):
        coregister(together, CoregisterConfig(labels_with="lesion"))
    with pytest.raises(DataError, match="right after reorient"):
        coregister(together.after("resample", {}), CoregisterConfig())
    with pytest.raises(UsageError, match="tolerance_mm"):
        CoregisterConfig(tolerance_mm=-1)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "pattern", "names"),
    [
        ("brats-layout/BraTS-SSA-90001-000", "BraTS-SSA-90001-000-{}", ("t1n", "t2w", "t2f")),
        ("ms/patient07", "patient07_{}", ("T1w", "T2w", "FLAIR")),
    ],
)
def test_known_moves_of_real_scans_are_found(
    real_data: Path, folder: str, pattern: str, names: tuple[str, ...]
) -> None:
    files = tuple(str(real_data / folder / f"{pattern.format(name)}.nii.gz") for name in names)
    scan = read_session(Session("01", "", files, tuple(Channel(name) for name in names)))
    aligned = coregister(scan, CoregisterConfig())
    np.testing.assert_array_equal(aligned.image, scan.image)
    middle = scan.affine[:3, :3] @ (np.array(scan.shape) / 2) + scan.affine[:3, 3]
    points = np.argwhere(scan.foreground)[::500] @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    image, moves = scan.image.copy(), {}
    for index, sign in ((1, 1), (2, -1)):
        known = rigid((8 * sign, -5, 6), (9, 7 * sign, -8), middle)
        places = np.linalg.solve(known, scan.affine)
        image[index] = resampled(scan.image[index], scan.affine, places, scan.shape)
        moves[names[index]] = known
    moved = PreparedScan(image, scan.channels, scan.affine, scan.foreground)
    facts = coregister(moved, CoregisterConfig()).history[-1]["channels"]
    for name, known in moves.items():
        gap = np.array(facts[name]["reference_to_channel"]) - known
        errors_mm = np.linalg.norm(points @ gap[:3, :3].T + gap[:3, 3], axis=1)
        assert np.median(errors_mm) < 1
