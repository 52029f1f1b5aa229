from __future__ import annotations

import json

import pytest
from tests.contracts.tiny import recipe

from gyri.cohort.prepared import PreparedCohort
from gyri.recipe import parse_recipe
from gyri.report.cards import attribution, flips, without_places
from gyri.training.run import Run


def test_attribution_goes_back_to_the_source(tiny_cohort):
    text = "\n".join(attribution(PreparedCohort.read(tiny_cohort)))
    source = tiny_cohort.parent / "raw" / "dataset_description.json"
    described = json.loads(source.read_text())
    assert described["License"] in text
    assert described["HowToAcknowledge"] in text


def test_places_are_left_out():
    assert without_places({"name": "x", "needs": {"a": "/home/me/runs/a"}}) == {
        "name": "x",
        "needs": {"a": "a"},
    }


@pytest.mark.parametrize(("axis", "lost"), [("left_right", True), ("foot_head", False)])
def test_flips_lose_laterality(tmp_path, axis, lost):
    mapping = recipe("ddpm").to_mapping()
    mapping["data"]["augment"] = [{"name": "flip", "axis": axis}]
    assert flips(Run(tmp_path, parse_recipe(mapping), {})) is lost
    assert not flips(Run(tmp_path, recipe("ddpm"), {}))
