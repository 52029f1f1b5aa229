"""Pictures of scans: their geometry and their size."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from gyri.report import mosaic
from gyri.report.faces import Cut

SPACING = (2.0, 1.0, 3.0)
CUTS = (Cut("axial", 4), Cut("coronal", 10), Cut("sagittal", 7))


def box() -> np.ndarray:
    volume = np.zeros((16, 24, 10), np.float32)
    volume[4:12, 6:18, 2:8] = 1.0
    return volume


def points(path: str) -> list[np.ndarray]:
    """Return the corners of every piece of an SVG path."""
    pieces = []
    for piece in path.split("M")[1:]:
        first, moves = piece.split("l")
        steps = np.array(re.findall(r"-?[\d.]+", moves), float).reshape(-1, 2)
        start = np.array(first.split(), float)
        pieces.append(np.vstack([start, start + steps.cumsum(axis=0)]))
    return pieces


def test_slices_are_stacked_in_millimetres() -> None:
    layout = mosaic.arrange(CUTS, box().shape, SPACING)
    assert layout.width_mm == 32
    assert layout.height_mm == 24 + 30 + 30 + 2 * mosaic.GAP_MM
    assert [part.left_mm for part in layout.parts] == [0, 0, 4]
    assert [part.top_mm for part in layout.parts] == [0, 27, 60]


def test_the_outline_runs_along_the_border() -> None:
    layout = mosaic.arrange(CUTS, box().shape, SPACING)
    outlines = points(mosaic.outline(box() > 0, SPACING, layout))
    assert len(outlines) == 3
    # Rows run downwards: of 24 mm in the axial slice, the box takes 6 to 18 either way.
    for found, (left, top, right, bottom) in zip(
        outlines, [(8, 6, 24, 18), (8, 33, 24, 51), (10, 66, 22, 84)]
    ):
        np.testing.assert_allclose(found.min(axis=0), [left, top], atol=0.75)
        np.testing.assert_allclose(found.max(axis=0), [right, bottom], atol=0.75)
        np.testing.assert_allclose(found[0], found[-1], atol=0.3)


def test_specks_are_not_outlined() -> None:
    layout = mosaic.arrange(CUTS[:1], box().shape, SPACING)
    speck = np.zeros((16, 24, 10), bool)
    speck[8, 12, 4] = True
    assert mosaic.outline(speck, SPACING, layout) == ""


def test_the_picture_shows_the_slices_and_fits_its_bytes() -> None:
    rng = np.random.default_rng(0)
    volume = (box() * rng.uniform(0.5, 1, box().shape)).astype(np.float32)
    layout = mosaic.arrange(CUTS, volume.shape, SPACING)

    def drawn(most_bytes: int) -> tuple[np.ndarray, int]:
        picture = mosaic.picture(
            volume, volume > 0, SPACING, layout, window=(0.0, 1.0), most_bytes=most_bytes
        )
        assert (picture.width_mm, picture.height_mm) == (layout.width_mm, layout.height_mm)
        data = base64.b64decode(picture.source.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(data)).convert("L")), len(data)

    fine, size = drawn(1_000_000)
    assert fine.shape == (90, 32)
    assert fine[12, 16] > 100
    assert fine[2, 16] < 20
    coarse, smaller = drawn(size - 200)
    assert smaller <= size - 200
    assert coarse.shape[0] < fine.shape[0]
    assert coarse.shape[0] / coarse.shape[1] == pytest.approx(90 / 32, rel=0.1)
