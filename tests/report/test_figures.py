from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from gyri.errors import UsageError
from gyri.report import figures

SHAPE = (10, 12, 8)


def corner_volume() -> np.ndarray:
    """Bright at the right, the front and the top, in one third of each axis."""
    volume = np.zeros(SHAPE, np.float32)
    volume[7:], volume[:, 9:], volume[:, :, 6:] = 0.2, 0.6, 1.0
    return volume


def test_axial_display_is_neurological():
    image = figures.slice_image(corner_volume(), "axial", (1, 1, 1), position=0)
    assert image.shape == (12, 10)
    assert image[-1, -1] == pytest.approx(0.2)  # right of the brain on the right
    assert image[-1, 0] == 0  # left of the brain on the left, back of the head below
    assert image[0, 0] == pytest.approx(0.6)  # front of the head on top


def test_coronal_and_sagittal_have_the_vertex_on_top():
    coronal = figures.slice_image(corner_volume(), "coronal", (1, 1, 1), position=0)
    sagittal = figures.slice_image(corner_volume(), "sagittal", (1, 1, 1), position=0)
    assert coronal.shape == (8, 10)
    assert coronal[0, 0] == 1.0
    assert coronal[-1, -1] == pytest.approx(0.2)
    assert sagittal.shape == (8, 12)
    assert sagittal[0, 0] == 1.0
    assert sagittal[-1, -1] == pytest.approx(0.6)  # front to the right
    assert sagittal[-1, 0] == 0


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 3.0), (2.0, 1.0, 1.0)])
def test_pixels_are_isotropic_whatever_the_spacing(spacing_mm):
    image = figures.slice_image(corner_volume(), "coronal", spacing_mm)
    extent = SHAPE[2] * spacing_mm[2], SHAPE[0] * spacing_mm[0]
    assert image.shape == tuple(round(e / min(spacing_mm[0], spacing_mm[2])) for e in extent)
    assert image.min() >= 0
    assert image.max() <= 1


def test_resampling_keeps_a_centred_object_centred():
    volume = np.zeros((11, 11, 11), np.float32)
    volume[3:8, 3:8, 3:8] = 1
    image = figures.slice_image(volume, "axial", (4, 4, 4), pixel_mm=2)
    np.testing.assert_allclose(image, image[::-1], atol=1e-5)
    np.testing.assert_allclose(image, image[:, ::-1], atol=1e-5)


def test_unknown_plane_names_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'coronal'"):
        figures.slice_image(corner_volume(), "corona", (1, 1, 1))  # type: ignore[arg-type]


def test_tile_stacks_the_planes():
    column = figures.tile(corner_volume(), (1, 1, 1))
    row = figures.tile(corner_volume(), (1, 1, 1), side_by_side=True)
    assert column.shape == (12 + 8 + 8 + 4, 12)
    assert row.shape == (12, 10 + 10 + 12 + 4)


def test_window_maps_its_ends_to_black_and_white():
    pixels = figures.colour(np.array([[0.1, 0.2, 0.3, 0.9, np.nan]]), (0.1, 0.3))
    np.testing.assert_array_equal(pixels, [[0, 128, 255, 255, 0]])


def test_display_window_of_an_empty_set_of_voxels():
    assert figures.display_window(np.zeros(SHAPE)) == (0.0, 1.0)


def test_a_copy_has_a_black_difference():
    volume = corner_volume()
    (image,) = figures.nearest_pairs([volume], [volume], spacing_mm=(1, 1, 1), window=(0, 1))
    third = (image.shape[1] - 4) // 3
    assert image[:, -third:].max() == 0
    np.testing.assert_array_equal(image[:, :third], image[:, third + 2 : 2 * third + 2])


def test_difference_is_orange_where_the_sample_is_brighter():
    volume = np.full(SHAPE, 0.6, np.float32)
    (image,) = figures.nearest_pairs(
        [volume], [volume - 0.5], spacing_mm=(1, 1, 1), window=(0, 1), planes=("axial",)
    )
    red, _, blue = image[6, -5].astype(int)
    assert red > blue


def test_preview_holds_every_channel_of_the_first_volumes():
    volumes = np.random.default_rng(0).random((20, 2, *SHAPE))
    image = Image.open(io.BytesIO(figures.preview(volumes, max_volumes=3)))
    assert image.size == (3 * 12 + 2 * 2, 2 * 32 + 2)
    assert image.mode == "L"


@pytest.mark.parametrize("shape", [(0, 1, 4, 4, 4), (4, 4, 4)])
def test_preview_says_what_it_needs(shape):
    with pytest.raises(UsageError, match=r"\(N, C, I, J, K\)"):
        figures.preview(np.zeros(shape))


def test_mosaics_are_black_pngs_and_leave_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    volumes = [corner_volume()] * 3
    one = figures.mosaic(volumes, spacing_mm=(1, 1, 2), labels=["a", "b"])
    two = figures.real_beside_synthetic(volumes, volumes[:2], spacing_mm=(1, 1, 2))
    for figure in (one, two):
        pixels = np.asarray(Image.open(io.BytesIO(figures.png(figure, dpi=50))).convert("L"))
        assert pixels[0, 0] == 0
        assert pixels.max() > 200
    assert dict(matplotlib.rcParams) == before


def test_mosaic_of_nothing_is_refused():
    with pytest.raises(UsageError, match="no volumes"):
        figures.mosaic([])
    with pytest.raises(UsageError, match="0 synthetic and 1 real"):
        figures.real_beside_synthetic([], [corner_volume()], spacing_mm=(1, 1, 1))
