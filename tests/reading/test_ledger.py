from __future__ import annotations

import json

import pytest

from gyri.errors import DataError
from gyri.reading.ledger import Ledger


@pytest.fixture
def ledger(study):
    made = Ledger(study / "sealed.sqlite")
    for trial in made.open_trials("ann", 3):
        made.answer(trial, {"choice": "real", "shown_ms": 5})
    made.refuse("other site", "ann")
    yield made
    made.close()


@pytest.fixture
def seal(study) -> str:
    return json.loads((study / "gyri-reading.json").read_text())["seal"]


def test_an_untouched_file_is_whole(ledger, seal):
    assert ledger.verify(seal) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "UPDATE log SET detail = replace(detail, 'real', 'synthetic') WHERE event = 'answered'",
            "log was",
        ),
        ("UPDATE log SET at = at + 1 WHERE seq = 2", "log was"),
        ("DELETE FROM log WHERE seq = 3", "log was"),
        (
            "UPDATE answers SET answer = replace(answer, 'real', 'synthetic')",
            "not those of the log",
        ),
        ("DELETE FROM answers WHERE rowid = 1", "not those of the log"),
        ("UPDATE trials SET truth = 'real' WHERE truth = 'synthetic'", "sealed"),
        ("UPDATE volumes SET kind = 'real'", "sealed"),
        ("UPDATE cases SET volume = (SELECT id FROM volumes LIMIT 1)", "sealed"),
    ],
)
def test_every_change_is_found(ledger, seal, change, words):
    ledger.rows(change)
    assert any(words in text for text in ledger.verify(seal))


def test_removing_the_last_entry_is_found_by_the_receipt(ledger, seal):
    receipt = ledger.head()
    ledger.rows("DELETE FROM log WHERE seq = (SELECT MAX(seq) FROM log)")
    assert ledger.verify(seal) == []  # a refused request left no answer behind
    assert ledger.head() != receipt


def test_refusals_cannot_fill_the_disk(ledger, monkeypatch):
    monkeypatch.setattr("gyri.reading.ledger.MAX_REFUSALS", 3)
    for _ in range(9):
        ledger.refuse("x" * 10_000)
    rows = ledger.rows("SELECT detail FROM log WHERE event = 'refused'")
    assert len(rows) == 3
    assert max(len(row["detail"]) for row in rows) < 300


def test_tokens_are_kept_as_hashes(study, tokens, ledger):
    content = (study / "sealed.sqlite").read_bytes()
    token = tokens(study)["ann"]
    assert token.encode() not in content
    session = ledger.enter(token)
    assert session.encode() not in (study / "sealed.sqlite").read_bytes()
    assert ledger.reader_of(session)["name"] == "ann"
    assert ledger.enter(token + "x") is None


def test_no_file_is_no_ledger(tmp_path):
    with pytest.raises(DataError, match="gyri read new"):
        Ledger(tmp_path / "sealed.sqlite")
