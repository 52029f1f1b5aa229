"""Pictures of deformations whose answers are known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gyri.report import deformation as drawn
from gyri.report.figures import PLANES, colour, display_window, png, slice_image

SHAPE = (16, 20, 12)
SPACING = (8.0, 8.0, 8.0)


def ramp() -> np.ndarray:
    return np.add.outer(np.add.outer(np.arange(16.0), np.arange(20.0)), np.arange(12.0)) / 45


def lit(pixels: np.ndarray) -> np.ndarray:
    """Return where a lattice over black is drawn."""
    return pixels.max(-1) > 100


def inner_lines(pixels: np.ndarray) -> list[float]:
    """Return the centres of runs of pixels but for the first and the last, cut by the border."""
    runs = np.split(pixels, np.flatnonzero(np.diff(pixels) > 1) + 1)
    return [float(run.mean()) for run in runs][1:-1]


@pytest.mark.parametrize("plane", PLANES)
def test_a_checkerboard_takes_its_squares_from_both(plane):
    a, b = ramp(), ramp() ** 2
    board = drawn.checkerboard(a, b, SPACING, plane, 4)
    one, other = (colour(slice_image(v, plane, SPACING), display_window(v)) for v in (a, b))
    side = max(one.shape) // 4
    np.testing.assert_array_equal(board[:side, :side], one[:side, :side])
    np.testing.assert_array_equal(board[side : 2 * side, :side], other[side : 2 * side, :side])
    assert np.logical_or(board == one, board == other).all()


def test_the_same_volume_has_no_seams():
    board = drawn.checkerboard(ramp(), ramp(), SPACING, "axial")
    whole = colour(slice_image(ramp(), "axial", SPACING), display_window(ramp()))
    np.testing.assert_array_equal(board, whole)


def test_the_lattice_of_no_deformation_is_straight_and_even():
    still = np.zeros((3, *SHAPE), np.float32)
    on = lit(drawn.grid_picture(still, SPACING, "axial", lattice_mm=16, pixel_mm=1))
    assert on.shape == (160, 128)
    columns, rows = np.flatnonzero(on.all(0)), np.flatnonzero(on.all(1))
    np.testing.assert_allclose(np.diff(inner_lines(columns)), 16)
    assert len(rows) > 0
    crossed = on.copy()
    crossed[rows] = crossed[:, columns] = False
    assert not crossed.any()


def test_the_lattice_goes_where_the_template_goes():
    """The template is read 1 voxel to the right, so that it moves 8 mm to the left; 4 mm up."""
    u = np.zeros((3, *SHAPE), np.float32)
    still = lit(drawn.grid_picture(u, SPACING, "axial", lattice_mm=32, pixel_mm=1))
    u[0], u[1] = 1.0, -0.5
    moved = lit(drawn.grid_picture(u, SPACING, "axial", lattice_mm=32, pixel_mm=1))
    np.testing.assert_array_equal(moved[12:-12, 12:-12], still[16:-8, 20:-4])


def test_the_lattice_opens_where_the_template_grows():
    places = np.stack(np.indices(SHAPE)).astype(np.float32)
    centre = (np.array(SHAPE, np.float32) - 1).reshape(3, 1, 1, 1) / 2
    grown = (places - centre) * (0.5 - 1)  # twice as large in the scan
    on = lit(drawn.grid_picture(grown, SPACING, "coronal", lattice_mm=16, pixel_mm=1))
    np.testing.assert_allclose(np.diff(inner_lines(np.flatnonzero(on.all(0)))), 32, atol=0.5)


def test_local_volume_is_orange_where_the_template_grew():
    determinant = np.ones(SHAPE, np.float32)
    determinant[:5], determinant[11:] = 0.5, 2.0
    pixels = drawn.jacobian_picture(determinant, SPACING, "axial").astype(int)
    left, middle, right = pixels[10, 2], pixels[10, 8], pixels[10, 13]
    assert left[0] > left[2] + 100, "read from half a voxel of template: it grew"
    assert right[2] > right[0] + 100
    assert middle.max() == 0
    np.testing.assert_allclose(left, drawn.OPACITY * drawn.GROWN, atol=1)


def test_folds_are_red_even_outside_the_brain():
    determinant = np.ones(SHAPE, np.float32)
    determinant[4:8, 4:8, 4:8], determinant[10:] = -0.1, 4.0
    under = np.zeros(SHAPE, np.float32)
    pixels = drawn.jacobian_picture(determinant, SPACING, "axial", under=under)
    red = (pixels == drawn.FOLD).all(-1)
    np.testing.assert_array_equal(red.T[:, ::-1], determinant[:, :, 6] < 0)
    assert pixels[~red].max() == 0, "nothing else is painted where there is no brain"


def test_the_key_runs_from_blue_to_orange():
    key = drawn.jacobian_key().astype(int)
    assert key[0, 0, 2] > key[0, 0, 0] + 100
    assert np.ptp(key[0, 80]) < 10
    assert key[0, -1, 0] > key[0, -1, 2] + 100


def test_pictures_are_put_below_each_other():
    both = drawn.stacked([np.full((4, 6, 3), 9, np.uint8), np.full((2, 10, 3), 7, np.uint8)])
    assert both.shape == (9, 10, 3)
    assert (both[:4, 2:8] == 9).all()
    assert both[:4, :2].max() == 0
    assert (both[7:] == 7).all()


@pytest.mark.parametrize(("count", "stops"), [(2, 2), (7, 4), (9, 5), (11, 6)])
def test_the_strip_has_even_stops_from_template_to_scan(count, stops):
    steps = np.linspace(0.2, 1, count).reshape(-1, 1, 1, 1) * np.ones(SHAPE)
    figure = drawn.deformation_strip(steps, SPACING, scan=np.full(SHAPE, 0.5))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "template"
    assert titles[-2:] == ["100 %", "the scan"]
    assert len(titles) == stops + 1
    first, last = (figure.axes[k].images[0].get_array() for k in (0, stops - 1))
    assert first.max() == 51
    assert last.max() == 255
    assert png(figure, dpi=40).startswith(b"\x89PNG")


def test_the_animation_goes_there_and_back(tmp_path):
    steps = np.linspace(0.25, 1, 4).reshape(-1, 1, 1, 1) * np.ones(SHAPE)
    data = drawn.deformation_gif(steps, SPACING, tmp_path / "way.gif")
    assert (tmp_path / "way.gif").read_bytes() == data
    with Image.open(io.BytesIO(data)) as image:
        levels, waits = [], []
        for k in range(image.n_frames):
            image.seek(k)
            pixels = np.asarray(image.convert("L"))
            levels.append(int(pixels[: pixels.shape[0] // 2].max()))
            waits.append(image.info["duration"])
        assert image.info["loop"] == 0
    assert levels[0] < levels[1] < levels[2] < levels[3]
    assert levels[4:] == levels[2:0:-1]
    assert waits[0] == waits[3] > waits[1]


def test_a_noisy_animation_is_made_to_fit(monkeypatch):
    noise = np.random.default_rng(0).random((6, *SHAPE))
    large = drawn.deformation_gif(noise, SPACING)
    monkeypatch.setattr(drawn, "GIF_BYTES", len(large) // 3)
    assert len(drawn.deformation_gif(noise, SPACING)) <= len(large) // 3


def test_a_section_moves_and_has_a_still():
    steps = np.linspace(0.25, 1, 3).reshape(-1, 1, 1, 1) * np.ones(SHAPE)
    found = drawn.deformation_section(steps, SPACING, "sub-1")
    assert found["animated"]["src"].startswith("data:image/gif;base64,")
    assert found["still"].startswith("data:image/png;base64,")
    assert "sub-1" in found["strip"]["alt"]
