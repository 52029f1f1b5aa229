"""Real scans rebuilt by a run: files, scores, and what cannot be rebuilt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.bids import bids_errors
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cli import main
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError
from gyri.methods.ddpm import DDPM
from gyri.reconstruction import ANCHORS, rebuild
from gyri.report.release import _check
from gyri.training.data import encode_conditions, load_split
from gyri.training.run import Model, Run, train


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe("ddpm", steps=2), tiny_cohort, folder, quiet=True).root


@pytest.fixture(scope="module")
def made(run, tiny_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "r"
    return api.reconstruct(run, tiny_cohort, out, strengths=(0.0, 0.5, 1.0), bootstrap=200)


def by_arm(made, metric):
    return {score.arm: score.value for score in made.scores if score.metric == metric}


def test_strength_0_is_the_scan_and_more_strength_is_farther(made, tiny_cohort):
    originals = PreparedCohort.read(tiny_cohort).volume_set("HOLD").volumes
    same = made.arms["strength-0"].volume_set().volumes
    assert np.abs(same - originals).max() < 1e-4
    psnr = by_arm(made, "psnr")
    assert psnr["strength-0"] > 80
    assert psnr["strength-0"] > psnr["strength-0.5"] > psnr["strength-1"]
    assert by_arm(made, "mae")["strength-0"] < 1e-4


def test_what_is_written(made, run, tiny_cohort):
    folder = made.root / "strength-0.5"
    assert bids_errors(folder) == []
    subjects = [str(name) for name in PreparedCohort.read(tiny_cohort).rows("HOLD").index]
    paths = sorted(folder.rglob("*_desc-reconstructed_T1w.nii.gz"))
    assert [path.parts[-3] for path in paths] == [f"sub-{name}" for name in sorted(subjects)]
    sidecar = json.loads(paths[0].with_name(paths[0].name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["ReconstructionOf"] == f"sub-{min(subjects)}"
    assert sidecar["Strength"] == 0.5
    assert "real person" in (folder / "README").read_text()
    sheet = json.loads((made.root / "paired.json").read_text())
    assert sheet["data_range"] == 1.0
    arms = {entry["arm"] for entry in sheet["scores"]}
    assert arms == {"strength-0", "strength-0.5", "strength-1", *ANCHORS}
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in sheet["scores"])
    assert len(made.subjects) == len(arms) * len(subjects)
    assert (made.root / "paired.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_keeps_what_is_there_and_says_the_same(made, run, tiny_cohort):
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*.nii.gz")}
    again = api.reconstruct(run, tiny_cohort, made.root, strengths=(0.5,), bootstrap=200)
    assert {path: path.stat().st_mtime_ns for path in made.root.rglob("*.nii.gz")} == before
    ours = {(s.arm, s.metric): s for s in made.scores}
    assert all(ours[s.arm, s.metric] == s for s in again.scores)


def test_who_else_is_there_and_the_batch_change_nothing(made, run, tiny_cohort, tmp_path):
    alone = api.reconstruct(
        run, tiny_cohort, tmp_path / "r", strengths=(0.5,), batch=1, bootstrap=0
    )
    volumes = [m.arms["strength-0.5"].volume_set().volumes for m in (made, alone)]
    assert np.allclose(*volumes, atol=1e-4)


def test_reconstructions_are_not_released(made, run, tiny_cohort):
    with pytest.raises(DataError, match="real people"):
        _check(Run.read(run), made.arms["strength-0.5"], PreparedCohort.read(tiny_cohort))


class Remembers(DDPM):
    """Encodes a slice as itself, a little darker."""

    def reconstruct(self, batch):
        return batch.x - 0.2


def test_a_reconstructor_rebuilds_items_in_their_order(run, tiny_cohort):
    trained, cohort = Run.read(run), PreparedCohort.read(tiny_cohort)
    model = trained.load(torch.device("cpu"))
    method = Remembers(model.method.config, model.method.spec, model.method.networks)
    volumes = load_split(cohort, "HOLD", trained.recipe.data, model.device)[:2]
    condition = encode_conditions(cohort, model.schema, "HOLD", trained.recipe.data)[:2]
    other = Model(method, model.view, model.schema, model.device)
    rebuilt = rebuild(other, volumes, condition, None, torch.tensor([0, 1]))
    assert torch.allclose(rebuilt, volumes - 0.2, atol=1e-6)


def test_what_cannot_be_rebuilt(run, tiny_cohort, tmp_path):
    folder = tmp_path / "pca"
    train(recipe("pca_gaussian"), tiny_cohort, folder, quiet=True)
    with pytest.raises(UsageError, match="pca_gaussian, which cannot rebuild.*ddpm"):
        api.reconstruct(folder, tiny_cohort, tmp_path / "r")
    with pytest.raises(UsageError, match="strength is .*from 0 to 1"):
        api.reconstruct(run, tiny_cohort, tmp_path / "r", strengths=(0.3, 1.5))
    api.import_cohort(
        "phantom", None, tmp_path / "raw", num_subjects=4, spacing_mm=8.0, seed=5, jobs=1
    )
    api.prepare(tmp_path / "raw", tmp_path / "coarse", spacing_mm=10.0, jobs=1)
    with pytest.raises(UsageError, match=r"grid of \(16, 19, 16\).*trained on \(20, 24, 20\)"):
        api.reconstruct(run, tmp_path / "coarse", tmp_path / "r")
    with pytest.raises(DataError, match="1 subject in VAL"):
        api.reconstruct(run, tiny_cohort, tmp_path / "v", split="VAL", strengths=(0.0,))


def test_the_verb_prints_a_table(run, tiny_cohort, tmp_path, capsys):
    command = ["reconstruct", str(run), str(tiny_cohort), "--out", str(tmp_path / "r")]
    assert main([*command, "--strength", "0.25", "--bootstrap", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 HOLD subjects")
    assert lines[1].split() == ["PSNR", "dB", "SSIM", "MAE"]
    assert [line[:28].strip() for line in lines[2:6]] == ["strength-0.25", *ANCHORS]
