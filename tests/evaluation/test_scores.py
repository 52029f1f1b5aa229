from __future__ import annotations

import json

import pytest

from gyri.errors import DataError
from gyri.evaluation.metrics import NAN, Score
from gyri.evaluation.scores import Refused, Scores


def sheet(reliable: bool = True) -> Scores:
    def score(key: str, metric: str, **rest) -> Score:
        return Score(key, f"{key}[n=9/8]", metric, "morph-v1", "words", 1.5, **rest)

    return Scores(
        generated="samples",
        channel="T1w",
        n={"TRAIN": 10, "HOLD": 9, "generated": 8},
        spacing_mm=(8.0, 8.0, 8.0),
        seed=0,
        provenance={"bootstrap": 100},
        scores=[
            score("fd/morph-v1", "fd", reliable=reliable, low=NAN, anchors={"noise": 9.0}),
            score("kid/morph-v1", "kid", p_value=0.5, target=0.0),
            score("coverage/morph-v1", "prdc", better="higher"),
            score("volumes/brain_ml/d", "volumes"),
        ],
        gates={"components": {"passed": True, "share": 1.0, "detail": ""}},
        refused=[Refused("msssim", None, "too small")],
        samples=[{"id": "a", "components": 1, "one_component": True}],
    )


def test_a_sheet_survives_its_file(tmp_path):
    scores = sheet()
    scores.write(tmp_path / "deep" / "scores.json")
    again = Scores.read(tmp_path / "deep" / "scores.json")
    assert again.to_dict() == scores.to_dict()
    assert again["fd/morph-v1"].anchors == {"noise": 9.0}
    assert again["kid/morph-v1[n=9/8]"].p_value == 0.5
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["scores.json"]


def test_the_file_is_strict_json_with_the_agreed_keys(tmp_path):
    sheet().write(tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert content["schema"] == "gyri-scores-1"
    expected = "generated channel n spacing_mm seed provenance lead scores refused gates samples"
    assert set(expected.split()) <= set(content)
    fields = "name metric features label value low high n_real n_generated better target unit"
    fields += " reliable note p_value anchors"
    assert set(fields.split()) <= set(content["scores"][0])
    assert content["scores"][0]["low"] is None


def test_the_reliable_lead():
    assert [name.split("/")[0] for name in sheet(True).lead] == ["fd", "kid", "coverage", "volumes"]
    assert [name.split("/")[0] for name in sheet(False).lead] == ["kid", "coverage", "volumes"]


def test_families_are_part_of_the_file_and_derived_when_it_is_read(tmp_path):
    """A sheet that was written before there were families gets them, too."""
    sheet().write(tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    lights = {f["family"]: f["light"] for f in content["families"]}
    assert lights["privacy"] == "grey"
    assert {"family", "light", "reason", "scores", "gates"} == set(content["families"][0])
    del content["families"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    again = Scores.read(tmp_path / "old.json").to_dict()
    assert {f["family"]: f["light"] for f in again["families"]} == lights


def test_scores_that_are_not_reliable_do_not_lead():
    scores = sheet()
    scores["kid/morph-v1"].reliable = False
    assert [name.split("/")[0] for name in scores.lead] == ["fd", "coverage", "volumes"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "cannot be read"),
        ("[]", "schema 'list'"),
        ('{"schema": "gyri-scores-0"}', "gyri evaluate"),
        ('{"schema": "gyri-scores-1"}', "lacks generated"),
    ],
)
def test_other_files_are_refused(text, words, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match=words):
        Scores.read(tmp_path / "s.json")


def test_unknown_scores_are_named():
    with pytest.raises(KeyError, match="there are fd/morph-v1"):
        sheet()["fid"]
