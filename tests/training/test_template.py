"""Templates on a cohort's grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.contracts.tiny import recipe

from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError
from gyri.recipe import DataConfig, load_recipe, parse_recipe
from gyri.training.data import load_split
from gyri.training.run import Run, train
from gyri.training.template import load_template

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return PreparedCohort.read(tiny_cohort)


@pytest.fixture(scope="module")
def volumes(cohort):
    return load_split(cohort, "TRAIN", DataConfig(), CPU)


def test_the_mean_is_the_voxelwise_mean(cohort, volumes):
    everyone = torch.stack([volumes[row] for row in range(8)])
    assert torch.allclose(load_template("mean", volumes, cohort.grid), everyone.mean(0), atol=1e-5)


def test_mni_gets_the_cohorts_place_and_intensities(cohort, volumes):
    template = load_template("MNI", volumes, cohort.grid)
    assert template.shape == (1, *cohort.grid.shape)
    brain = template > -1
    assert 0.2 < float(brain.float().mean()) < 0.6
    mean = load_template("mean", volumes, cohort.grid)
    both = brain & (mean > -0.5)
    assert float(template[both].mean()) == pytest.approx(float(mean[both].mean()), abs=0.2)
    assert float(torch.corrcoef(torch.stack([template[both], mean[both]]))[0, 1]) > 0.5


def test_a_file_is_scaled_to_the_cohort_and_nothing_else(cohort, volumes, tmp_path):
    mean = load_template("mean", volumes, cohort.grid)
    shown = (mean[0].numpy() + 1) * 350
    write_volume(tmp_path / "t.nii.gz", shown, np.array(cohort.grid.affine), descrip="t")
    assert torch.allclose(
        load_template(str(tmp_path / "t.nii.gz"), volumes, cohort.grid), mean, atol=1e-3
    )


def test_a_template_that_lies_elsewhere_is_refused(cohort, volumes, tmp_path):
    affine = np.array(cohort.grid.affine)
    affine[:3, 3] += 150
    brain = load_template("mean", volumes, cohort.grid)[0].numpy() + 1
    write_volume(tmp_path / "t.nii.gz", brain, affine, descrip="t")
    with pytest.raises(DataError, match=r"covers \d+% of the cohort's mean brain"):
        load_template(str(tmp_path / "t.nii.gz"), volumes, cohort.grid)


def test_a_run_keeps_its_template(tiny_cohort, cohort, volumes, tmp_path):
    mapping = recipe("voxelmorph", steps=1).to_mapping()
    mapping["data"]["template"] = "MNI"
    run = train(parse_recipe(mapping), tiny_cohort, tmp_path / "run", quiet=True)
    method = Run.read(run.root).load(CPU).method
    assert torch.equal(method.template[0], load_template("MNI", volumes, cohort.grid))


def test_only_registrations_take_one(tiny_cohort, tmp_path):
    mapping = recipe("ddpm", steps=1).to_mapping()
    mapping["data"]["template"] = "mean"
    with pytest.raises(UsageError, match="ddpm registers nothing"):
        train(parse_recipe(mapping), tiny_cohort, tmp_path / "run", quiet=True)


def test_registrations_follow_no_conditions(tiny_cohort, tmp_path):
    mapping = {**recipe("voxelmorph", steps=1).to_mapping(), "conditions": ["age"]}
    with pytest.raises(UsageError, match="whatever they are"):
        train(parse_recipe(mapping), tiny_cohort, tmp_path / "run", quiet=True)


def test_a_file_is_looked_for_beside_its_recipe(tmp_path):
    mapping = recipe("voxelmorph").to_yaml()
    (tmp_path / "r.yaml").write_text(mapping.replace("template: null", "template: brain.nii.gz"))
    assert load_recipe(tmp_path / "r.yaml").data.template == str(tmp_path / "brain.nii.gz")
    assert load_recipe(tmp_path / "r.yaml", ["data.template=MNI"]).data.template == "MNI"
