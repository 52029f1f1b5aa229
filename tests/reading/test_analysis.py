"""Whole studies answered by simulated readers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gyri.errors import DataError
from gyri.reading.analysis import analyse, summary
from gyri.reading.ledger import Ledger
from gyri.reading.results import write_results
from gyri.reading.study import SCALES


def answered(study, how, faults=()) -> None:
    """Let every reader answer all trials; `how` gives the choice from (trial, volumes, rng)."""
    ledger = Ledger(study / "sealed.sqlite")
    kinds = {row["id"]: row["kind"] for row in ledger.rows("SELECT id, kind FROM volumes")}
    rng = np.random.default_rng(0)
    for reader in ("ann", "ben"):
        for trial in ledger.open_trials(reader, 100):
            rows = ledger.rows(
                "SELECT volume FROM cases WHERE trial = ? ORDER BY side", trial["id"]
            )
            volumes = [row["volume"] for row in rows]
            if trial["block"] == "ratings":
                is_real = kinds[volumes[0]] == "real"
                answer = {
                    "grades": dict.fromkeys(SCALES, 4 if is_real else 2),
                    "faults": [] if is_real else list(faults),
                    "shown_ms": 20_000,
                }
            else:
                answer = {"choice": how(trial, volumes, rng), "shown_ms": 4000}
            ledger.answer(trial, answer)
    ledger.close()


OTHER = {"real": "synthetic", "synthetic": "real", "left": "right", "right": "left"}


def perfect(trial, volumes, rng):
    return trial["truth"]


def guess(trial, volumes, rng):
    return trial["truth"] if rng.random() < 0.5 else OTHER[trial["truth"]]


def always(trial, volumes, rng):
    return "real" if trial["block"] == "yes_no" else "left"


def test_a_perfect_reader_comes_out_perfect(study):
    fault = {"name": "truncated", "place": [1.0, 2.0, 3.0]}
    answered(study, perfect, [fault])
    sheet = analyse(study)
    yes = sheet["blocks"]["yes_no"]
    assert yes["accuracy"]["value"] == 1
    assert yes["accuracy"]["n"] == 2 * 8  # repeats do not count
    assert yes["accuracy"]["interval"][0] > 0.75
    assert yes["detection"]["d_prime"] > 2.5
    assert not yes["equivalence"]["shown"]
    assert yes["readers"]["ann"]["self_kappa"] == {"n": 2, "kappa": 1.0, "same": 1.0} or (
        yes["readers"]["ann"]["self_kappa"]["same"] == 1.0
    )
    assert yes["agreement"]["fleiss_kappa"] == 1
    pairs = sheet["blocks"]["pairs"]
    assert pairs["accuracy"]["value"] == 1
    assert pairs["readers"]["ben"]["self_kappa"]["same"] == 1  # also where sides were exchanged
    rated = sheet["blocks"]["ratings"]
    assert rated["scales"]["anatomy"]["difference"] == -2
    assert rated["scales"]["anatomy"]["alpha"] == 1
    assert rated["faults"]["truncated"]["synthetic"] == 2 * 2
    assert rated["faults"]["truncated"]["real"] == 0
    assert rated["faults"]["truncated"]["places"][0]["mm"] == [1.0, 2.0, 3.0]
    assert "Readers tell." in summary(sheet)


def test_a_biased_reader_is_found_to_be_biased(study):
    answered(study, always)
    yes = analyse(study)["blocks"]["yes_no"]
    assert yes["accuracy"]["value"] == 0.5
    assert yes["detection"]["d_prime"] == pytest.approx(0)
    assert yes["detection"]["criterion"] > 1
    assert (yes["detection"]["sensitivity"], yes["detection"]["specificity"]) == (0, 1)
    assert analyse(study)["blocks"]["pairs"]["readers"]["ann"]["said_left"] == 1


def test_guessing_in_few_trials_is_no_equivalence(study):
    answered(study, guess)
    sheet = analyse(study)
    text = " ".join(summary(sheet))
    assert "Neither telling nor guessing" in text
    assert "215 independent trials are needed" in text
    assert sheet["wrong"] == []


def test_results_are_written_for_people_and_programs(study, tmp_path):
    answered(study, guess)
    sheet = analyse(study)
    page, *tables = write_results(study, sheet, tmp_path / "results")
    text = page.read_text()
    assert "<script" not in text
    assert "Forced choice" in text
    assert str(study) not in text
    results, answers, log = (pd.read_csv(path) for path in tables)
    assert {"accuracy", "d_prime", "criterion", "self_kappa"} <= set(results["measure"])
    assert len(answers) == 2 * 20
    assert (answers["repeat_of"].notna()).sum() == 2 * 4
    assert list(log["seq"]) == list(range(1, len(log) + 1))
    assert json.loads((tmp_path / "results" / "results.json").read_text())["blocks"]


def test_a_changed_answer_is_said_first(study):
    answered(study, perfect)
    Ledger(study / "sealed.sqlite").rows(
        "UPDATE answers SET answer = replace(answer, 'real', 'synthetic')"
    )
    assert summary(analyse(study))[0].startswith("WRONG: The answers are not those of the log")


def test_nothing_to_analyse(study):
    with pytest.raises(DataError, match="no reader has answered"):
        analyse(study)
