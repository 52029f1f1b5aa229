from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.report import figures, sections
from gyri.report.page import write_report
from gyri.types import Grid

ATTACK = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>'
LOG = [{"step": s, "images_seen": 8 * s, "loss/total": 1 / (1 + s)} for s in range(30)]


class Page(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    handle_startendtag = handle_starttag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def write(make_set, scores, tmp_path):
    """Return a function that writes a report with some inputs changed."""

    def run(**changes: Any) -> Page:
        inputs: dict[str, Any] = {
            "title": "A small report",
            "training_log": LOG,
            "generated": make_set("synthetic", 4, seed=3),
            "train": make_set("TRAIN", 8, seed=1),
            "hold": make_set("HOLD", 6, seed=2),
            "scores": scores,
            "provenance": {"recipe": "a: 1\nb: 2\n", "cost": {"train_s": 90}, "commands": ["x"]},
        }
        path = write_report(tmp_path / "report.html", **{**inputs, **changes})
        return Page(path.read_text(encoding="utf-8"))

    return run


def test_nothing_is_loaded_from_anywhere(write):
    page = write()
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "@import" not in page.text
    assert not re.search(r"url\((?!#)", page.text)
    assert not page.all("script")
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy


def test_every_picture_is_described_and_ids_are_unique(write):
    page = write()
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-label") for svg in page.all("svg"))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in names


def test_the_page_says_the_essential(write):
    text = write().text
    for said in (
        "passes 1 of 2 gates and fails “slice coherence”",
        "the left of the brain is on the left",
        "0.700 to 0.900",
        "no weights",
        "1 min 30 s",
        "a: 1\nb: 2",
        "What these numbers cannot show",
    ):
        assert said in text
    assert text.index("Coverage, spectrum-v1") < text.index("Kernel distance, spectrum-v1")


def test_a_categorical_condition_has_its_section(write, make_set):
    page = write()
    assert page.text.index('id="volumes"') < page.text.index('id="by-level"')
    assert any(link["href"] == "#by-level" for link in page.all("a"))
    bare = make_set("synthetic", 4, seed=3)
    bare.table.drop(columns="sex", inplace=True)
    assert "by-level" not in write(generated=bare).text


FAMILIES = [
    {
        "family": "fidelity",
        "light": "red",
        "reason": "No better than <the> mean image.",
        "scores": ["kd"],
        "gates": ["slice_coherence"],
    },
    {"family": "privacy", "light": "grey", "reason": "Not judged.", "scores": [], "gates": []},
]


def test_lights_come_first_and_hold_their_scores_and_gates(write, scores):
    scores["families"] = FAMILIES
    page = write()
    text = page.text
    assert "red in fidelity, privacy not judged. It passes 1 of 2 gates" in text
    shown = [a["class"] for tag, a in page.elements if tag == "li" and a.get("class") in
             ("green", "amber", "red", "grey")]  # fmt: skip
    assert shown == ["red", "grey"]
    assert "No better than &lt;the&gt; mean image." in text
    first = text.index("No better than")
    assert first < text.index('id="looks"') < text.index('id="scores"')
    family = text.index('id="family-fidelity"')
    assert text.index("Kernel distance, spectrum-v1", family) < text.index('id="family-privacy"')
    assert text.index("Slice coherence", family) < text.index('id="family-privacy"')
    assert text.index("One component") < text.index('id="looks"')  # a gate of no family


def test_sheets_without_families_keep_their_gates_on_top(write):
    text = write().text
    assert "family-" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert text.index("Slice coherence") < text.index('id="looks"')


def test_how_to_cite(write):
    text = write(provenance={"recipe": {"method": {"name": "ddpm"}}}).text
    assert "@software{gyri," in text
    assert "arXiv:2006.11239" in text


def test_text_from_tables_scores_and_provenance_is_escaped(write, make_set, scores):
    evil = make_set("synthetic", 2)
    evil.table.index = pd.Index([ATTACK, ATTACK + "2"])
    evil.table["sex"] = ATTACK
    train, hold = make_set("TRAIN", 5), make_set("HOLD", 4)
    train.table.index = pd.Index([f"{ATTACK}{row}" for row in range(5)])
    entry = scores["scores"][0]
    scores["families"] = [
        {"family": ATTACK, "light": ATTACK, "reason": ATTACK, "scores": [ATTACK], "gates": [ATTACK]}
    ]
    entry.update(label=ATTACK, features=ATTACK, note=ATTACK, unit=ATTACK, name=ATTACK)
    scores["refused"] = [{"metric": ATTACK, "features": ATTACK, "reason": ATTACK}]
    scores["gates"] = {ATTACK: {"passed": True, "share": None, "detail": ATTACK}}
    scores["samples"] = [{"id": ATTACK, ATTACK: ATTACK}]
    page = write(
        title=ATTACK,
        generated=evil,
        train=train,
        hold=hold,
        training_log=[{"step": 1, f"loss/{ATTACK}": 1.0}],
        provenance={ATTACK: {"deeper": [ATTACK, {"k": ATTACK}]}, "cost": {ATTACK: 1}},
    )
    assert not page.all("script")
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert not any("evil" in attributes.get("src", "") for _, attributes in page.elements)


@pytest.mark.parametrize("log", [None, [], [{"step": 1}], [{"loss": 1.0}]])
def test_without_a_training_log_there_is_no_such_section(write, log):
    page = write(training_log=log)
    assert "#training" not in [link["href"] for link in page.all("a")]
    assert 'id="training"' not in page.text


def test_missing_numbers_become_dashes(write, scores):
    for entry in scores["scores"]:
        entry.update(value=None, low=math.nan, high=None, n_real=None, anchors=None, note=None)
    scores["gates"]["one_component"]["share"] = math.nan
    scores["samples"][0]["brain_ml"] = math.nan
    text = write(scores=scores).text
    assert "no value" in text
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text).lower())


def test_a_scores_file_without_anything_optional(write):
    page = write(scores={"schema": "gyri-scores-1", "scores": []}, provenance={})
    assert "No scores." in page.text


def test_one_sample_and_one_subject_of_each_set(write, make_set):
    page = write(
        generated=make_set("synthetic", 1), train=make_set("TRAIN", 1), hold=make_set("HOLD", 1)
    )
    assert "1 synthetic brain " in page.text


def test_many_samples_show_a_stated_number_of_pictures(write, make_set, scores):
    few = write(generated=make_set("synthetic", 16))
    scores["samples"] = [
        {"id": f"s{i}", "coherent": True} for i in range(sections.MAX_SAMPLE_ROWS + 9)
    ]
    many = write(generated=make_set("synthetic", 128), scores=scores)
    assert len(many.all("img")) == len(few.all("img"))
    assert f"first {sections.NUM_PICTURES} samples" in many.text
    assert "9 more samples" in many.text
    assert len(many.text) < 3e6


def test_every_channel_gets_its_rows(write, make_set, scores):
    channels = ("T1w", "T2w", "FLAIR")
    scores["channel"] = "FLAIR"
    sets = {
        key: make_set(name, 6, seed=seed, channels=channels)
        for seed, (key, name) in enumerate(
            {"generated": "synthetic", "train": "TRAIN", "hold": "HOLD"}.items()
        )
    }
    page = write(**sets)
    for name in channels:
        drawn = [image for image in page.all("img") if f"Synthetic {name} of" in image["alt"]]
        assert len(drawn) == sections.NUM_PICTURES // 2


def test_volumes_that_are_not_finite_are_stated(write, make_set):
    generated = make_set("synthetic", 3)
    generated.volumes[1, 0, 3:6] = np.nan
    generated.volumes[2, 0, 0, 0, 0] = np.inf
    page = write(generated=generated)
    assert "2 synthetic volumes hold values that are not finite" in page.text
    assert np.isnan(generated.volumes[1]).any()  # the caller's array is as it was


def test_the_reference_is_called_by_its_name(write, make_set):
    text = write(hold=make_set("VAL", 5)).text
    assert "Real, VAL" in text
    assert "HOLD" not in re.sub(r"base64,[^\"]*", "", text)


def test_sets_without_covariates(write, make_set):
    sets = {"generated": make_set("synthetic", 3), "train": make_set("TRAIN", 4)}
    for members in sets.values():
        members.table = members.table[[]]
    page = write(**sets)
    assert "The synthetic volumes carry no age." in page.text


def test_conditions_take_the_place_of_the_generated_table(write, make_set):
    generated = make_set("synthetic", 2)
    conditions = pd.DataFrame({"age": [33.0, 44.0], "sex": ["F", "M"]}, index=generated.table.index)
    text = write(generated=generated, conditions_table=conditions).text
    assert "33 y · F" in text
    assert "44 y · M" in text


def test_previews_are_limited_and_stated(write, tmp_path):
    paths = []
    for step in range(20):
        paths.append(tmp_path / f"step-{step:03d}.png")
        paths[-1].write_bytes(figures.preview(np.full((1, 1, 4, 4, 4), step / 20)))
    page = write(previews=paths)
    shown = [image for image in page.all("img") if image["alt"].startswith("Preview")]
    assert len(shown) == sections.NUM_PREVIEWS
    assert "6 of 20" in page.text
    assert "step-019" in page.text


def test_a_folder_gets_a_report_and_nothing_else(make_set, scores, tmp_path):
    path = write_report(
        tmp_path, title="t", training_log=None, generated=make_set("synthetic", 2),
        train=make_set("TRAIN", 3), hold=make_set("HOLD", 3), scores=scores, provenance={},
    )  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    assert path == tmp_path / "report.html"


def test_the_same_input_gives_the_same_page(write):
    assert write().text == write().text


@pytest.mark.parametrize("which", ["generated", "train", "hold"])
def test_an_empty_set_is_refused(write, make_set, which):
    with pytest.raises(DataError, match="empty"):
        write(**{which: make_set("nobody", 0)})


def test_another_schema_or_grid_is_refused(write, make_set, scores):
    with pytest.raises(DataError, match="gyri-scores-0"):
        write(scores={**scores, "schema": "gyri-scores-0"})
    members = make_set("HOLD", 2)
    affine = ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0))
    other = VolumeSet(
        "HOLD", members.volumes, members.table, Grid(members.grid.shape, affine), ("T1w",)
    )
    with pytest.raises(DataError, match="prepared cohort"):
        write(hold=other)


def test_hold_subjects_are_matched_in_age_and_sex():
    chosen = pd.DataFrame({"age": [70.0, 71.0], "sex": ["F", "M"]})
    pool = pd.DataFrame({"age": [20.0, 69.0, 70.0, 60.0], "sex": ["F", "M", "M", "Female"]})
    np.testing.assert_array_equal(sections.match_subjects(chosen, pool), [3, 2])


def test_template_and_style_are_where_the_package_looks(tmp_path: Path):
    folder = Path(sections.__file__).parent
    assert {"report.html", "style.css"} <= {entry.name for entry in folder.iterdir()}
