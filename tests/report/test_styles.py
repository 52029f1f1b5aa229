"""The page of styles, from findings made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gyri.dissection import Dissected, Effect
from gyri.latent_walk import Walk
from gyri.report.dissection import BLUE, ORANGE, dissection_figure, most_of, painted
from gyri.report.styles import Inside, numbers, plane_of, write_styles
from gyri.style_walk import Mixing, Projection

SHAPE = (8, 10, 6)
SPACING = (8.0, 8.0, 8.0)


def box(*corner: int) -> np.ndarray:
    mask = np.zeros((2, *SHAPE), bool)
    mask[(slice(None), *(slice(c, c + 2) for c in corner))] = True
    return mask


@pytest.fixture
def inside() -> Inside:
    rng = np.random.default_rng(0)
    volumes = rng.random((2, *SHAPE)).astype(np.float32)
    walk = Walk("sample 1 to <2>", ("0%", "100%"), volumes)
    inside_model = torch.from_numpy(2 * volumes - 1)[:, None]
    label, place = box(1, 1, 1), box(5, 6, 3)
    found = Dissected(
        name="tumour",
        number=2,
        share=0.0123,
        quantile=0.9877,
        grids=((4, 5), (8, 10)),
        iou=(np.array([0.1, 0.2]), np.array([0.05, 0.7654, 0.3])),
        stage=1,
        units=(1,),
        high=label[:, None],
        samples=inside_model,
        label=label,
        place=place,
        ablation=Effect(321.0, 12.5, 315.0, inside_model, np.zeros_like(label)),
        insertion=Effect(0.0, 0.456, 0.0789, inside_model, label | place),
    )
    scores = {
        "mean styles": {"psnr": 12.0, "ssim": 0.3, "nrmse": 0.4},
        "projection": {"psnr": 19.5, "ssim": 0.8, "nrmse": 0.211},
    }
    return Inside(
        name="a <recipe>",
        walks=[walk],
        mixings=[Mixing((8, 10), (walk, walk))],
        projections=[Projection("sub-a", volumes[0], volumes[1], volumes[1], scores, 1.57)],
        projected_pictures=True,
        dissected=[found],
        refusal="",
        intensity=0,
        spacing_mm=SPACING,
        plane="axial",
        provenance={"seed": 0},
    )


def test_the_page_holds_every_number_and_loads_nothing(inside, tmp_path):
    text = write_styles(tmp_path / "page.html", inside).read_text()
    for part in (
        "a &lt;recipe&gt;",
        "7.50 dB",
        "19.5",
        "0.211",
        "1.57",
        "Fine from 8 x 10 on",
        "tumour, label 2",
        "1.23 %",
        "0.765",
        "321",
        "12.5",
        "45.6",
        "7.89",
        "Personal data",
    ):
        assert part in text, part
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("data:image/png") == 4


def test_scans_with_heads_are_measured_and_not_pictured(inside, tmp_path):
    hidden = Inside(**{**vars(inside), "projected_pictures": False})
    text = write_styles(tmp_path / "page.html", hidden).read_text()
    assert "19.5" in text
    assert "heads are not pictured" in text
    assert text.count("data:image/png") == 3


def test_what_was_refused_is_said(inside, tmp_path):
    bare = Inside(**{**vars(inside), "projections": [], "dissected": [], "refusal": "No label."})
    text = write_styles(tmp_path / "page.html", bare).read_text()
    assert "No label." in text
    assert "No cohort was given" in text
    assert "tumour" not in text


def test_the_numbers_are_plain_data(inside):
    found = numbers(inside)
    assert found["dissection"][0]["stages"][1] == {"grid": [8, 10], "iou": [0.05, 0.7654, 0.3]}
    assert found["dissection"][0]["insertion"]["after"] == 0.456
    assert found["projections"][0]["reach"] == 1.57


def test_masks_are_painted_where_they_are():
    volume = np.full(SHAPE, 0.5, np.float32)
    mask = box(1, 1, 1)[0]
    position = most_of(mask, axis=2)
    assert int(position * SHAPE[2]) == 1
    assert most_of(np.zeros(SHAPE, bool), axis=2) == 0.5
    pixels = painted(volume, [(mask, ORANGE)], "axial", position, SPACING, (0.0, 1.0))
    coloured = (pixels.max(-1) != pixels.min(-1)).T[:, ::-1]
    assert np.array_equal(coloured, mask[:, :, 1])
    red, _, blue = pixels[pixels.max(-1) != pixels.min(-1)].mean(0)
    assert red > blue
    assert BLUE[2] > BLUE[0]


def test_samples_with_most_of_the_label_come_first(inside):
    found = inside.dissected[0]
    found.label[1, 4:6, 4:6, 4:6] = True
    figure = dissection_figure(found, 0, SPACING, "axial")
    rows, columns = 4, 2
    assert len(figure.axes) == rows * columns
    first = figure.axes[0].images[0].get_array()
    cut = most_of(found.label[1], axis=2)
    own = (found.samples[1, 0].numpy() + 1) / 2
    gray = np.asarray(first)[..., 1]
    expected = own[:, :, int(cut * SHAPE[2])].T[::-1]
    plain = ~found.label[1][:, :, int(cut * SHAPE[2])].T[::-1]
    assert np.corrcoef(gray[plain], expected[plain])[0, 1] > 0.99


def test_the_plane_is_the_view_s():
    assert [plane_of(axis) for axis in (0, 1, 2, None)] == [
        "sagittal",
        "coronal",
        "axial",
        "axial",
    ]
