from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from gyri.report.levels import MAX_LEVELS, NUM_PICTURES, by_level, draw_boxes


def entry(level: str, features: str = "radiomics-v1", column: str = "sex", **changes) -> dict:
    rng = np.random.default_rng(len(level))
    draws = (10 + rng.random(20)).tolist()
    return {
        "key": f"fd_by_level/{features}/{column}={level}",
        "metric": "fd_by_level",
        "features": features,
        "value": float(np.mean(draws)),
        "low": 8.0,
        "high": 13.0,
        "draws": draws,
        "anchors": {"ceiling": 4.0, "other_levels": 17.0},
        **changes,
    }


@pytest.fixture
def sets(make_set):
    generated, hold = make_set("synthetic", 12, seed=1), make_set("HOLD", 9, seed=2)
    generated.table["sex"] = ["F", "M", "F"] * 4
    hold.table["sex"] = ["F", "M", "F"] * 3
    return generated, hold


def test_one_chart_a_feature_set_and_pictures_of_every_level(sets):
    found = [entry(level, f) for f in ("morph-v1", "radiomics-v1") for level in "FM"]
    other = entry("A", column="scanner")
    (column,) = by_level({"scores": [*found, other]}, *sets, 0)
    assert column["name"] == "Sex"
    assert [p["title"] for p in column["panels"]] == ["morph-v1", "radiomics-v1"]
    assert 'aria-label="Fréchet distance on morph-v1 by sex' in column["panels"][0]["svg"]
    assert [level["name"] for level in column["levels"]] == ["Sex F", "Sex M"]
    assert column["left_out"] == []


def test_pictures_are_of_the_first_samples_and_of_people_of_the_level(sets):
    generated, hold = sets
    (column,) = by_level({}, generated, hold, 0)
    men = column["levels"][1]
    made, real = men["pictures"]
    assert made["facts"].startswith("4 of 4 volumes: ")
    first = [generated.ids[row] for row in (1, 4, 7, 10)]
    assert made["facts"].endswith(", ".join(first))
    assert real["facts"].startswith("3 of 3 volumes")
    assert {name.strip() for name in real["facts"].split(": ")[1].split(",")} == {
        hold.ids[row] for row in (1, 4, 7)
    }
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p["src"].split(",")[1]))))
        for p in (made, real)
    ]
    assert pixels[0].shape == pixels[1].shape
    quarter = pixels[0].shape[1] // NUM_PICTURES
    assert pixels[0][:, -quarter:].any()
    assert not pixels[1][:, -quarter + 2 :].any()  # three people, one empty place


def test_a_level_without_value_says_why(sets):
    small = entry("M", draws=[], value=None, features=None, note="not judged: HOLD 3")
    small["key"] = "fd_by_level/sex=M"
    (column,) = by_level({"scores": [entry("F"), small]}, *sets, 0)
    assert column["left_out"] == ["M: not judged: HOLD 3"]
    assert len(column["panels"]) == 1


def test_no_section_without_a_categorical_condition(sets):
    generated, hold = sets
    generated.table.drop(columns="sex", inplace=True)
    assert by_level({"scores": [entry("F")]}, generated, hold, 0) == []


def test_many_levels_are_cut_to_those_of_most_samples(make_set):
    generated, hold = make_set("synthetic", 40), make_set("HOLD", 40, seed=3)
    for members in (generated, hold):
        members.table["site"] = [f"s{row % 10}" for row in range(20)] + ["s9"] * 20
        members.table.drop(columns="sex", inplace=True)
    (column,) = by_level({}, generated, hold, 0)
    assert len(column["levels"]) == MAX_LEVELS
    assert column["num_left_out"] == 2
    assert column["levels"][-1]["name"] == "Site s9"


def test_a_box_shows_draws_interval_and_anchors():
    score = entry("F", draws=[*range(21)], low=2.0, high=30.0)
    axes = draw_boxes({"F": score}).axes[0]
    box = axes.patches[0]
    assert (box.get_x(), box.get_x() + box.get_width()) == (5, 15)
    spans = {tuple(line.get_xdata()) for line in axes.lines}
    assert {(0.0, 20.0), (10.0, 10.0), (2.0, 30.0), (4.0,), (17.0,)} <= spans
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["F"]
