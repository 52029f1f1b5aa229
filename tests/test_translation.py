"""Real scans translated by a run: files, tables, measures, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.bids import bids_errors
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cli import main
from gyri.cohort.files import read_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError
from gyri.report.release import _check
from gyri.training.data import load_split
from gyri.training.run import Run, train
from gyri.translation import translated


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe("cyclegan", steps=2), tiny_cohort, folder, quiet=True).root


@pytest.fixture(scope="module")
def done(run, tiny_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "as-b"
    return api.translate(run, tiny_cohort, out, "scanner=B", bootstrap=100)


@pytest.fixture(scope="module")
def people(tiny_cohort):
    return PreparedCohort.read(tiny_cohort).table


def test_all_scans_of_the_other_scanner_are_written(done, people):
    wanted = sorted(map(str, people.index[people["scanner"] == "A"]))
    table = done.made.table
    assert sorted(table.index) == wanted
    assert set(table["scanner"]) == {"B"}
    assert set(table["scanner_original"]) == {"A"}
    age = float(table.loc[wanted[0], "age"])
    assert age == pytest.approx(people.loc[wanted[0], "age"], abs=1e-3)
    assert set(done.skipped) == set(map(str, people.index)) - set(wanted)
    assert set(done.skipped.values()) == {"is scanner=B already"}


def test_files_say_what_they_are(done, run):
    assert bids_errors(done.made.root) == []
    paths = sorted(done.made.root.rglob("*_desc-translated_T1w.nii.gz"))
    assert len(paths) == len(done.made.table)
    about = json.loads(paths[0].with_name(paths[0].name.replace(".nii.gz", ".json")).read_text())
    name = paths[0].name.split("_")[0]
    assert about["Sources"] == [f"bids::{name}"]
    assert about["TranslationOf"] == name
    assert (about["Column"], about["From"], about["To"]) == ("scanner", "A", "B")
    assert about["Model"] == done.made.facts["checkpoint_sha256"]
    assert "personal data" in (done.made.root / "README").read_text()


def test_what_is_measured(done):
    folder = done.made.root / "evaluation"
    sheet = json.loads((folder / "translation.json").read_text())
    assert (sheet["column"], sheet["from"], sheet["to"]) == ("scanner", ["A"], "B")
    assert sheet["translated"] == len(done.made.table)
    assert set(sheet["tissue"]) == {"gm", "wm", "csf", "ventricle"}
    subjects = read_tsv(folder / "translation.tsv")
    assert list(subjects["subject"]) == list(done.made.table.index)
    before, after = subjects["gm_ml"].astype(float), subjects["gm_ml_translated"].astype(float)
    change = sheet["tissue"]["gm"]["change_ml"]["value"]
    assert change == pytest.approx((after - before).mean(), abs=1e-2)
    assert (folder / "translated.png").read_bytes().startswith(b"\x89PNG")


def test_volumes_are_the_networks_own_and_in_their_places(done, run, tiny_cohort):
    trained, cohort = Run.read(run), PreparedCohort.read(tiny_cohort)
    model = trained.load(torch.device("cpu"))
    rows = cohort.rows("TRAIN")
    at = list(rows["scanner"]).index("A")
    x = load_split(cohort, "TRAIN", trained.recipe.data, model.device)[at : at + 1]
    slices = x[0].movedim(-1, 0)
    position = model.view.encode(x).position
    with torch.no_grad():
        expected = model.method.networks["forward"](slices, position).movedim(0, -1)
    condition = torch.zeros(1, model.schema.layout.size)
    made = translated(model, x, condition, 0, 1)
    assert torch.allclose(made[0], expected, atol=1e-5)
    other = translated(model, x, condition, 1, 0)
    assert not torch.allclose(other, made, atol=1e-2)
    row = done.originals.ids.index(str(rows.index[at]))
    stored = done.translated.volumes[row]
    assert np.abs(stored - ((expected + 1) / 2).clamp(0, 1).numpy()).max() < 1e-4
    assert np.allclose(done.originals.volumes[row], (x[0] + 1).numpy() / 2, atol=1e-5)


def test_the_same_command_keeps_what_is_there_and_who_else_is_there_changes_nothing(
    done, run, tiny_cohort, tmp_path
):
    before = {path: path.stat().st_mtime_ns for path in done.made.root.rglob("*.nii.gz")}
    again = api.translate(run, tiny_cohort, done.made.root, "scanner=B", bootstrap=100)
    assert {path: path.stat().st_mtime_ns for path in done.made.root.rglob("*.nii.gz")} == before
    assert again.summary == done.summary
    held = api.translate(
        run, tiny_cohort, tmp_path / "t", "scanner=B", splits=("HOLD",), bootstrap=0
    )
    rows = [done.originals.ids.index(name) for name in held.originals.ids]
    assert np.abs(done.translated.volumes[rows] - held.translated.volumes).max() < 1e-4


def test_translations_are_not_released(done, run, tiny_cohort):
    with pytest.raises(DataError, match="real people"):
        _check(Run.read(run), done.made, PreparedCohort.read(tiny_cohort))


def test_what_cannot_be_translated(run, tiny_cohort, tmp_path):
    def refused(to, words, kind=UsageError, folder=run, cohort=tiny_cohort, **options):
        with pytest.raises(kind, match=words):
            api.translate(folder, cohort, tmp_path / "t", to, **options)

    refused("scanner=C", "'C' was never seen in training.*A, B")
    refused("sex=F", "form scanner=LEVEL. This run translates scanner: A to B, B to A")
    refused("scanner", "form scanner=LEVEL")
    refused("scanner=B", "scanner=B can be translated to scanner=B", source="B")
    pca = train(recipe("pca_gaussian"), tiny_cohort, tmp_path / "pca", quiet=True).root
    refused("scanner=B", "pca_gaussian, which translates no scans.*cyclegan", folder=pca)
    held = PreparedCohort.read(tiny_cohort).rows("VAL")["scanner"]
    level = held.iloc[0]
    refused(f"scanner={level}", f"1 is scanner={level} already", DataError, splits=("VAL",))
    api.import_cohort(
        "phantom", None, tmp_path / "raw", num_subjects=4, spacing_mm=8.0, seed=5, jobs=1
    )
    api.prepare(tmp_path / "raw", tmp_path / "coarse", spacing_mm=10.0, jobs=1)
    refused("scanner=B", r"grid of \(16, 19, 16\)", cohort=tmp_path / "coarse")


def test_the_verb_prints_what_it_did(run, tiny_cohort, tmp_path, capsys):
    command = ["translate", str(run), str(tiny_cohort), "--to", "scanner=A", "--from", "B"]
    more = ["--out", str(tmp_path / "t"), "--split", "HOLD", "VAL", "--bootstrap", "50"]
    assert main([*command, *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "scans of scanner=B written as scanner=A" in lines[0]
    assert "personal data" in lines[1]
    assert [line.split()[0] for line in lines[-5:-1]] == ["gm", "wm", "csf", "ventricle"]
    assert lines[-1].endswith("translation.json")
