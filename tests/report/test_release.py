"""The gate from the outside: second holdouts pass, a copycat fails, refusals come first."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tests.bids import bids_errors
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cli import main
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError, UsageError
from gyri.evaluation.metrics import Score
from gyri.evaluation.scores import Scores
from gyri.registry import METHODS
from gyri.training.run import train


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Fifty-two phantoms at 8 mm: TRAIN 20, HOLD 20, and 12 whom nobody saw."""
    root = tmp_path_factory.mktemp("released")
    api.import_cohort("phantom", None, root / "raw", num_subjects=52, spacing_mm=8.0, jobs=1)
    sizes = {"TRAIN": 20, "VAL": 4, "HOLD": 20, "TEST": 8}
    api.prepare(root / "raw", root / "prepared", spacing_mm=8.0, sizes=sizes, jobs=1)
    return root / "prepared"


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe("pca_gaussian"), cohort, folder, quiet=True)


def samples(run, folder, volumes) -> SyntheticCohort:
    """Write `volumes` as if the run had made them, and a sheet of scores that judges them."""
    made, _ = api.sample(run.root, folder, num=len(volumes))
    for name, volume in zip(made.table.index, volumes):
        made.write(name, list(volume), {"Seed": 0})
    score = Score(
        "fd/x", "fd[x]", "fd", "x", "Fréchet distance", 0.1, 0.0, 0.2, anchors={"ceiling": 0.1}
    )
    sheet = Scores(
        "samples", "T1w", {"TRAIN": 20, "HOLD": 20, "generated": len(volumes)}, (8, 8, 8), 0, {},
        [score], {"orientation": {"passed": True, "share": 1.0, "detail": ""}},
        samples=[{"id": name} for name in made.table.index],
    )  # fmt: skip
    sheet.write(made.root / "evaluation" / "scores.json")
    (made.root / "report.html").write_text("real people")
    return made


@pytest.fixture(scope="module")
def unseen(cohort, run, tmp_path_factory):
    """VAL and TEST in the place of samples."""
    prepared = PreparedCohort.read(cohort)
    volumes = [prepared.volume_set(split).volumes for split in ("VAL", "TEST")]
    return samples(run, tmp_path_factory.mktemp("u") / "samples", np.concatenate(volumes))


@pytest.mark.slow
def test_a_second_holdout_passes_and_only_what_may_leave_is_shared(
    cohort, run, unseen, tmp_path, capsys
):
    out = tmp_path / "out"
    command = ["release", str(run.root), str(unseen.root), "--against", str(cohort)]
    code = main([*command, "--out", str(out)])
    content = json.loads((out / "release.json").read_text())
    assert content["audit"]["alarms"] == []
    assert all(control["passed"] for control in content["controls"])
    if code:  # one in a thousand is granted: then a person looks
        table = pd.read_csv(out / "pairs.tsv", sep="\t").assign(decision="distinct")
        table.to_csv(tmp_path / "seen.tsv", sep="\t", index=False)
        reviewed = ["--out", str(out), "--reviewed", str(tmp_path / "seen.tsv")]
        assert main([*command, *reviewed]) == 0
    assert "PASS" in capsys.readouterr().out
    shared = out / "share"
    names = {path.name for path in shared.rglob("*") if path.is_file()}
    assert {"MODEL_CARD.md", "DATA_CARD.md", "participants.tsv"} <= names
    assert sum(name.endswith(".nii.gz") for name in names) == 12
    assert not names & {"report.html", "scores.json", "release.html", "pairs.tsv"}
    assert bids_errors(shared) == []
    real = {*PreparedCohort.read(cohort).table.index}
    for path in shared.rglob("*"):
        if path.suffix in (".md", ".json", ".tsv"):
            text = path.read_text()
            assert not [name for name in real if name in text]
            assert str(run.root) not in text
    card = (shared / "DATA_CARD.md").read_text()
    assert "The release audit passed" in card
    assert "CC0" in card
    assert "| Fréchet distance, x | 0.100 | 0 to 0.200 | 0.100 |" in card
    model = (shared / "MODEL_CARD.md").read_text()
    assert "gaussian.basis (room for 6 volumes)" in model
    assert "anonym" not in (card + model).lower()


@pytest.mark.slow
def test_a_copycat_fails_with_reasons_in_words(cohort, run, tmp_path, capsys):
    train_set = PreparedCohort.read(cohort).volume_set("TRAIN").volumes
    rng = np.random.default_rng(0)
    copies = train_set + 1e-3 * rng.standard_normal(train_set.shape).astype(np.float32)
    made = samples(run, tmp_path / "samples", copies)
    out = tmp_path / "out"
    (out / "share").mkdir(parents=True)
    command = ["release", str(run.root), str(made.root), "--against", str(cohort)]
    assert main([*command, "--out", str(out)]) == 65
    message = capsys.readouterr().err
    assert "FAIL" in message
    assert "nearest person is of TRAIN in voxels" in message
    assert not (out / "share").exists()
    pairs = pd.read_csv(out / "pairs.tsv", sep="\t")
    assert len(pairs) == 20
    page = (out / "release.html").read_text()
    assert "not to be shared" in page
    assert "<b>FAIL.</b>" in page
    assert page.count("data:image/png") == 20
    assert "FAILED" in (out / "DATA_CARD.md").read_text()
    pairs.assign(decision="distinct").to_csv(tmp_path / "seen.tsv", sep="\t", index=False)
    reviewed = ["--out", str(out), "--reviewed", str(tmp_path / "seen.tsv")]
    assert main([*command, *reviewed]) == 65


@pytest.mark.slow
def test_what_does_not_belong_together_is_refused_before_work(cohort, run, unseen, monkeypatch):
    with pytest.raises(UsageError, match="lies inside the samples"):
        api.release(run.root, unseen.root, cohort, out=unseen.root / "release")
    sheet = unseen.root / "evaluation" / "scores.json"
    text = sheet.read_text()
    sheet.write_text(text.replace("syn0003", "syn9999"))
    with pytest.raises(DataError, match=r"judges 12 samples.*Run `gyri evaluate"):
        api.release(run.root, unseen.root, cohort)
    sheet.unlink()
    with pytest.raises(DataError, match=r"was not evaluated. Run `gyri evaluate"):
        api.release(run.root, unseen.root, cohort)
    sheet.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(METHODS["pca_gaussian"].component, "contains_training_data", True)
        with pytest.raises(DataError, match="made of training voxels"):
            api.release(run.root, unseen.root, cohort)
    facts = unseen.root / "gyri-synthetic.json"
    text = facts.read_text()
    facts.write_text(text.replace(unseen.facts["checkpoint_sha256"], "0" * 64))
    with pytest.raises(UsageError, match="was not made by"):
        api.release(run.root, unseen.root, cohort)
    facts.write_text(text)


@pytest.mark.slow
def test_losses_are_computed_once_and_a_run_without_them_is_not_attacked(cohort, run, tmp_path):
    from gyri.report.release import _membership

    prepared = PreparedCohort.read(cohort)
    assert _membership(run, prepared, None, "cpu") is None
    scored = train(recipe("ddpm", steps=1), cohort, tmp_path / "run", quiet=True)
    first = _membership(scored, prepared, None, "cpu")
    assert (first.num_train, first.num_hold) == (20, 20)
    table = scored.root / "scores.tsv"
    swapped = table.read_text().replace("TRAIN", "@").replace("HOLD", "TRAIN").replace("@", "HOLD")
    table.write_text(swapped)
    assert _membership(scored, prepared, None, "cpu").auc == pytest.approx(1 - first.auc)
