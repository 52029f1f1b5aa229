"""From a trained model to a judged sweep, on phantoms at 8 mm."""

from __future__ import annotations

import numpy as np
import pytest
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cli.sample import main
from gyri.training.run import train


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    api.import_cohort("phantom", None, root / "raw", num_subjects=56, spacing_mm=8.0, jobs=1)
    sizes = {"TRAIN": 30, "VAL": 1, "HOLD": 24, "TEST": 1}
    api.prepare(root / "raw", root / "prepared", spacing_mm=8.0, sizes=sizes, jobs=1)
    return root / "prepared"


@pytest.mark.slow
def test_a_sweep_is_sampled_and_judged(cohort, tmp_path, capsys):
    run = train(recipe("pca_gaussian"), cohort, tmp_path / "run", quiet=True).root
    swept = tmp_path / "swept"
    main([str(run), "--sweep", "age=25:85:4", "--num", "6", "--out", str(swept)])
    assert "24 synthetic volumes" in capsys.readouterr().out
    sheet = api.evaluate(swept, cohort, bootstrap=100)
    slope = sheet["sweep/age/brain_ml/slope"]
    assert slope.low <= slope.value <= slope.high
    assert slope.n_generated == 24
    gain = sheet["conditioning/age/gain"]
    assert np.isfinite(gain.value) or gain.note.startswith("not judged")
    refused = {entry.metric for entry in sheet.refused}
    assert not {"sweep", "conditioning", "fairness"} & refused


@pytest.mark.slow
def test_samples_of_the_runs_own_mix_are_no_sweep(cohort, tmp_path):
    run = train(recipe("pca_gaussian"), cohort, tmp_path / "run", quiet=True).root
    api.sample(run, tmp_path / "plain", num=12)
    sheet = api.evaluate(tmp_path / "plain", cohort, bootstrap=100)
    reasons = {entry.metric: entry.reason for entry in sheet.refused}
    assert "--sweep" in reasons["sweep"]
    assert any(score.metric == "conditioning" for score in sheet.scores)
