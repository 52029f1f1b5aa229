from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from gyri.report import charts

LOG = [
    {"step": s, "images_seen": 8 * s, "time_s": 0.1 * s, "loss/total": 1 / (1 + s), "lr": 2e-4,
     "gradient_norm/unet": 1.0, "data_wait_share": 0.01, "note": "text"}
    for s in range(40)
]  # fmt: skip


def test_smoothing_keeps_a_constant_and_has_no_start_up_bias():
    np.testing.assert_allclose(charts.smooth(np.full(50, 3.0)), 3.0)
    assert charts.smooth(np.array([5.0, 1.0]))[0] == 5.0


def test_log_series_drops_clocks_text_and_non_finite_values():
    log = [*LOG, {"step": 40, "images_seen": 320, "loss/total": float("nan")}, {"loss/total": 1.0}]
    series = charts.log_series(log)
    assert set(series) == {"loss/total", "lr", "gradient_norm/unet", "data_wait_share"}
    xs, ys = series["loss/total"]
    assert len(xs) == len(ys) == 40
    assert xs[-1] == 8 * 39


def test_losses_come_first_then_gradients():
    assert list(charts.training_curves(LOG)) == [
        "loss/total", "gradient_norm/unet", "data_wait_share", "lr",
    ]  # fmt: skip
    assert charts.training_curves([]) == {}


def test_throughput_and_waiting_come_from_the_clocks():
    log = [
        {"step": s, "images_seen": 10 * s, "elapsed_s": 2.0 * s, "data_wait_s": 0.1 * s}
        for s in range(1, 5)
    ]
    series = charts.log_series(log)
    np.testing.assert_allclose(series["images_per_s"][1], [5.0] * 3)
    np.testing.assert_allclose(series["data_wait_share"][1], [0.05] * 3)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("denoise/loss", "Losses"),
        ("loss/total", "Losses"),
        ("discriminator/r1", "Losses"),
        ("denoise/gradient_norm", "Gradients"),
        ("denoise/lr", "Settings"),
        ("images_per_s", "Machine"),
    ],
)
def test_groups_of_curves(name, group):
    assert charts.curve_group(name) == group


def test_wide_losses_get_a_logarithmic_axis():
    wide = [{"step": s, "loss": 10.0 ** (-s / 5)} for s in range(30)]
    assert charts.training_curves(wide)["loss"][0].axes[0].get_yscale() == "log"
    signed = [{"step": s, "loss": (-1) ** s * 10.0 ** (-s / 5)} for s in range(30)]
    assert charts.training_curves(signed)["loss"][0].axes[0].get_yscale() == "linear"


def test_one_entry_is_a_visible_dot():
    figure, last = charts.training_curves(LOG[:1])["loss/total"]
    assert last == "last 1"
    assert any(line.get_marker() == "o" for line in figure.axes[0].lines)


def test_slopes_are_those_of_the_line():
    years = np.array([20.0, 40.0, 60.0, np.nan, 80.0])
    _, slopes = charts.against_age(
        {"HOLD": (years, 3 + 0.5 * years), "generated": (years[:2], years[:2])}, "ml"
    )
    assert slopes == {"HOLD": pytest.approx(0.5)}


def test_svg_takes_the_colours_of_the_page_and_is_well_formed():
    before = dict(matplotlib.rcParams)
    figure = charts.volume_distributions(
        {"generated": np.array([1.0, 2, np.nan]), "HOLD": np.arange(9.0), "TRAIN": np.array([])},
        "brain (ml)",
    )
    svg = str(charts.themed_svg(figure, 'a "quoted" <alt>', "k1"))
    assert dict(matplotlib.rcParams) == before
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "quoted" <alt>'
    assert not any(colour in svg for colour in charts.PALETTE.values())
    assert "var(--synthetic)" in svg
    assert "var(--hold)" in svg
    assert "DejaVu" not in svg
    assert "http" not in svg
    names = re.findall(r'\bid="([^"]+)"', svg)
    assert all(name.startswith("k1-") for name in names)
    assert len(names) == len(set(names))
    for target in re.findall(r'(?:url\(|href=")#([^")]+)', svg):
        assert target in names


def test_band_leaves_out_what_nobody_knows():
    rows = {"HOLD": np.full((3, 4), np.nan), "generated": np.ones((2, 4))}
    figure = charts.band(np.arange(4.0), rows, "x", "y")
    assert len(figure.axes[0].lines) == 1


def test_neighbour_distribution_marks_the_95th_percentile_of_hold():
    hold = np.linspace(0, 1, 101)
    figure = charts.neighbour_distribution(np.array([0.5]), hold)
    assert any(
        np.allclose(np.asarray(line.get_xdata(), float), 0.95) for line in figure.axes[0].lines
    )


def test_held_out_losses_are_drawn_beside_those_of_training():
    rows = [{"step": n, "images_seen": 8 * n, "a/loss": 2.0, "b/loss": 9.0} for n in range(1, 9)]
    for row in rows[3::4]:
        row |= {"validation/loss": 3.0 + row["step"], "validation/other": 1.0}
    curves = charts.training_curves(rows)
    assert set(curves) == {"a/loss", "b/loss", "validation/other"}
    figure, last = curves["a/loss"]
    assert last == "last 2, held out 11"
    drawn = [line for line in figure.axes[0].lines if line.get_color() == charts.PALETTE["hold"]]
    assert drawn[0].get_xdata().tolist() == [32, 64]
    assert drawn[0].get_ydata().tolist() == [7, 11]
    assert figure.axes[0].get_ylim()[1] > 11
    assert curves["b/loss"][1] == "last 9"
