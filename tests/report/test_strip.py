from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from gyri.report.strip import anchor_strip_svg, place


def test_ceiling_lies_at_zero_and_noise_at_one(score):
    entry = score()
    assert place(1.0, entry) == 0
    assert place(17.0, entry) == 1
    # The best cheap anchor, PCA-Gaussian, lies at r = 4 / 16.
    assert place(5.0, entry) == pytest.approx(math.asinh(1) / math.asinh(4))


def test_better_than_real_lies_left_of_the_ceiling(score):
    assert place(0.0, score()) == pytest.approx(-math.asinh(1 / 4) / math.asinh(4))


def test_direction_does_not_change_the_place(score):
    lower = score(anchors={"ceiling": 0.1, "noise": 1.0})
    higher = score(better="higher", anchors={"ceiling": 0.9, "noise": 0.0})
    assert place(0.4, lower) == pytest.approx(place(0.6, higher))


def test_near_is_symmetric_about_its_target(score):
    entry = score(better="near", target=1.0, anchors={"ceiling": 1.0, "noise": 0.0})
    assert place(0.8, entry) == pytest.approx(place(1.2, entry))
    without = score(better="near", target=None, anchors={"ceiling": 1.0, "noise": 0.0})
    assert place(0.8, without) == pytest.approx(place(0.8, entry))


@pytest.mark.parametrize(
    ("value", "anchors", "said"),
    [
        (None, {"ceiling": 1.0, "noise": 2.0}, "no value"),
        (math.nan, {"ceiling": 1.0, "noise": 2.0}, "no value"),
        (1.0, {"ceiling": None, "noise": 2.0}, "no anchors"),
        (1.0, {"ceiling": 2.0, "noise": 2.0}, "noise scores as well"),
        (1.0, {"ceiling": 3.0, "noise": 2.0}, "noise scores as well"),
        (1.0, None, "no anchors"),
    ],
)
def test_what_cannot_be_placed_is_said(value, anchors, said, score):
    assert said in anchor_strip_svg(score(value=value, anchors=anchors))


def circles(svg: str) -> list[float]:
    return [float(c.get("cx", 0)) for c in ElementTree.fromstring(svg).iter("circle")]


def test_worse_values_lie_further_right(score):
    spots = [circles(anchor_strip_svg(score(value=v)))[0] for v in (1.0, 1.5, 3.0, 9.0, 16.0)]
    assert spots == sorted(spots)
    assert len(set(spots)) == 5


def test_a_huge_noise_floor_leaves_room_for_what_models_differ_by(score):
    anchors = {"ceiling": -0.2, "noise": 1e5, "pca_gaussian": 1.6, "mean_image": 9.0}
    entry = score(anchors=anchors)
    assert place(1.6, entry) - place(0.8, entry) > 0.02
    assert place(9.0, entry) - place(1.6, entry) > 0.1


def test_a_value_off_the_line_is_an_arrow(score):
    svg = anchor_strip_svg(score(value=400.0, low=300.0, high=500.0))
    assert not circles(svg)
    assert '<path class="value"' in svg


def test_an_unreliable_value_is_hollow(score):
    assert "hollow" in anchor_strip_svg(score(reliable=False))
    assert "hollow" not in anchor_strip_svg(score())


def test_interval_around_a_target_begins_at_the_target(score):
    entry = score(
        better="near", target=1.0, value=1.05, low=0.9, high=1.2,
        anchors={"ceiling": 1.0, "noise": 0.0},
    )  # fmt: skip
    root = ElementTree.fromstring(anchor_strip_svg(entry))
    (bar,) = root.iter("rect")
    assert float(bar.get("x", 0)) == pytest.approx(22.0)
