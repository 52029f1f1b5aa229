from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.reading import brains

from gyri.errors import UsageError
from gyri.reading import cues
from gyri.reading.ledger import Ledger
from gyri.reading.new import CuesFound, new_study
from gyri.reading.study import Blocks, Encoding


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(cues, "PERMUTATIONS", 1)
    monkeypatch.setattr(cues, "REPEATS", 1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    return brains.write_samples(tmp_path_factory.mktemp("noisy") / "samples", noise=0.2)


def test_samples_that_can_be_told_are_refused_with_a_cure(plan, noisy, tmp_path):
    with pytest.raises(CuesFound, match="(?s)intensity: matched.*--allow-cues") as error:
        new_study(replace(plan, synthetic=(noisy,)), tmp_path / "out")
    assert error.value.exit_code == 65
    assert not (tmp_path / "out" / "sealed.sqlite").exists()
    made = new_study(replace(plan, synthetic=(noisy,)), tmp_path / "out", allow_cues=True)
    record = json.loads((made.root / "gyri-reading.json").read_text())
    assert record["passed_cue_check"] is False
    assert "this is a pilot" in (made.root / "preregistration.md").read_text()


def test_matched_histograms_leave_nothing_in_the_histogram(plan, noisy, tmp_path):
    encoding = Encoding(mask="common", intensity="matched")
    study = replace(plan, synthetic=(noisy,), encoding=encoding)
    made = new_study(study, tmp_path / "out", allow_cues=True)
    assert made.cues[str(noisy)].groups["histogram"] == pytest.approx(0.5, abs=0.06)


def test_a_study_holds_what_was_asked(drawn, plan, tokens):
    ledger = Ledger(drawn / "sealed.sqlite")
    kinds = ledger.rows("SELECT kind, COUNT(DISTINCT subject) AS n FROM volumes GROUP BY kind")
    need = plan.blocks.pairs_needed
    assert {row["kind"]: row["n"] for row in kinds} == {"real": need, "synthetic": need}
    assert len(list((drawn / "volumes").iterdir())) == 2 * need
    assert set(tokens(drawn)) == {"ann", "ben"}
    assert len(set(tokens(drawn).values())) == 2
    text = (drawn / "preregistration.md").read_text()
    record = json.loads((drawn / "gyri-reading.json").read_text())
    assert record["seal"] in text
    assert "215 independent" in text
    assert "20 brain images" in (drawn / "consent.md").read_text()
    assert ledger.verify(record["seal"]) == []


def test_two_models_share_the_pairs(plan, samples, noisy, tmp_path):
    study = replace(plan, synthetic=(samples, noisy))
    made = new_study(study, tmp_path / "out", allow_cues=True)
    rows = Ledger(made.root / "sealed.sqlite").rows(
        "SELECT source, COUNT(*) AS n FROM volumes WHERE kind = 'synthetic' GROUP BY source"
    )
    assert sorted(row["n"] for row in rows) == [5, 5]
    assert len({row["source"] for row in rows}) == 2


def test_what_does_not_go_together_is_refused(plan, tmp_path):
    coarse = brains.write_samples(tmp_path / "coarse", shape=(10, 10, 10))
    with pytest.raises(UsageError, match="voxels at"):
        new_study(replace(plan, synthetic=(coarse,)), tmp_path / "out")
    dealt = brains.write_samples(
        tmp_path / "dealt", data_hash=data_hash(plan.cohort), split_hash="another"
    )
    with pytest.raises(UsageError, match="dealt differently"):
        new_study(replace(plan, synthetic=(dealt,)), tmp_path / "out")
    with pytest.raises(UsageError, match="no channel 'T2w'"):
        new_study(replace(plan, channel="T2w"), tmp_path / "out")
    with pytest.raises(UsageError, match="take 105 matched pairs"):
        new_study(replace(plan, blocks=Blocks(yes_no=200, pairs=3, ratings=4)), tmp_path / "out")
    few = brains.write_samples(tmp_path / "few", num=10)
    with pytest.raises(UsageError, match="cue check needs 20"):
        new_study(replace(plan, synthetic=(few,)), tmp_path / "out")


def data_hash(cohort) -> str:
    return json.loads((cohort / "gyri-prepared.json").read_text())["data_hash"]


def test_faces_are_shown_only_when_allowed(plan, tmp_path):
    heads = brains.write_cohort(tmp_path / "heads", skull_stripped=False)
    made = brains.write_samples(tmp_path / "made", skull_stripped=False)
    study = replace(plan, cohort=heads, synthetic=(made,))
    with pytest.raises(UsageError, match="faces"):
        new_study(study, tmp_path / "out")
    new_study(replace(study, allow_faces=True), tmp_path / "out", allow_cues=True)


def test_a_study_is_drawn_once(plan, drawn):
    with pytest.raises(UsageError, match="drawn once"):
        new_study(plan, drawn)
