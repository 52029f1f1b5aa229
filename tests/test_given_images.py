"""Samples that follow images of a prepared cohort: masks in, whole cases out."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from gyri import api
from gyri.cli import main
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError, UsageError
from gyri.given_images import GivenImages
from gyri.recipe import parse_recipe
from gyri.runtime.streams import SampleRng
from gyri.training.run import Run, train

GAN = {
    "method": {"name": "stylegan2", "latent_size": 8, "ada": {"start": 0.5}},
    "networks": {
        "generator": {"widths": [8, 8], "w_size": 8, "mapping_layers": 1},
        "discriminator": {"widths": [8, 8], "stddev_group": 2, "mapping_layers": 1},
    },
}


@pytest.fixture(scope="module")
def tumours(tmp_path_factory) -> PreparedCohort:
    root = tmp_path_factory.mktemp("tumours")
    api.import_cohort(
        "phantom",
        None,
        root / "raw",
        num_subjects=10,
        spacing_mm=8.0,
        tumours=1.0,
        modalities=("T1w", "FLAIR"),
    )
    return api.prepare(
        root / "raw",
        root / "prepared",
        spacing_mm=8.0,
        channels=("T1w", "FLAIR", "tumour"),
        sizes={"TRAIN": 5, "VAL": 1, "HOLD": 3, "TEST": 1},
        jobs=1,
    )


def a_recipe(view: str = "slice", context: tuple[str, ...] = ("tumour",), **settings):
    return parse_recipe(
        {
            "name": "given",
            "view": view,
            "conditions": ["scanner"],
            "data": {"channels": ["T1w", "FLAIR"], "context": list(context)},
            "training": {"steps": 4, "batch_size": 4, "snapshots": 1, "preview_every": 2},
            **GAN,
            **settings,
        }
    )


@pytest.fixture(scope="module")
def run(tumours, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "run"
    return api.train(a_recipe(), tumours.root, folder, device="cpu")


def test_a_case_has_the_mask_of_a_held_out_person(tumours, run, tmp_path):
    made, _ = api.sample(run.root, tmp_path / "s", num=4)
    assert [channel.name for channel in made.channels] == ["T1w", "FLAIR", "tumour"]
    hold = tumours.rows("HOLD")
    assert set(made.facts["given"]["subjects"]) == set(map(str, hold.index))
    masks, _ = tumours.load(hold)
    for name in made.table.index:
        path = made.root / f"sub-{name}/anat/sub-{name}_desc-synthetictumour_dseg.nii.gz"
        about = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        row = list(map(str, hold.index)).index(about["GivenOf"])
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), masks[row, 2])
        assert about["Conditions"]["scanner"] == hold["scanner"].iloc[row]
    assert list((run.root / "previews").glob("*.png"))


def test_one_mask_under_every_level_of_a_condition(tumours, run, tmp_path):
    made, _ = api.sample(run.root, tmp_path / "s", num=2, sweep="scanner", split="VAL")
    assert len(made.table) == 4
    assert set(made.facts["given"]["subjects"]) == set(map(str, tumours.rows("VAL").index))
    assert made.table["scanner"].nunique() == 2
    same, _ = api.sample(
        run.root, tmp_path / "c", num=2, condition={"scanner": "A"}, like=tumours.root
    )
    assert set(same.table["scanner"]) == {"A"}
    assert set(same.facts["given"]["subjects"]) <= set(map(str, tumours.rows("HOLD").index))


@pytest.mark.parametrize("view", ["slice", "stack", "volume"])
def test_samples_depend_on_what_they_are_given(tumours, tmp_path, view):
    model = train(a_recipe(view), tumours.root, tmp_path, quiet=True).load(torch.device("cpu"))
    images = GivenImages.read(Run.read(tmp_path), tumours.root).of([0, 1])
    assert images["tumour"].shape == (2, 4, *tumours.grid.shape)
    condition = model.schema.encode([model.schema.assign({})] * 2)

    def made(given):
        rng = SampleRng(torch.tensor([5, 6]))
        return model.method.sample_given(model.view, condition, given, rng)

    volumes = made(images)
    assert volumes.shape == (2, 2, *tumours.grid.shape)
    torch.testing.assert_close(made(images), volumes)
    other = made({"tumour": images["tumour"].flip(0)})
    assert not torch.allclose(other, volumes)


def test_what_is_given_is_learned_to_be_followed(tumours, tmp_path):
    """The discriminator sees mask and image together, so where the mask is the image changes."""
    recipe = a_recipe(training={"steps": 150, "batch_size": 8, "snapshots": 1})
    made, _ = api.sample(api.train(recipe, tumours.root, tmp_path, device="cpu").root, num=9)
    flair = made.volume_set().volumes[:, 1]
    masks = made.label_maps("tumour") > 0
    assert flair[masks].mean() > flair[(flair > 0.1) & ~masks].mean()


def test_what_cannot_be_given_is_refused(tumours, run, tmp_path):
    with pytest.raises(UsageError, match=r"r3gan takes no images .*stylegan2"):
        api.train(a_recipe(method={"name": "r3gan"}, networks={}), tumours.root, tmp_path / "a")
    with pytest.raises(UsageError, match="either made or given"):
        a_recipe(context=("T1w",))
    with pytest.raises(UsageError, match="not several"):
        api.sample(run.root, condition={"scanner": "A"}, conditions=tmp_path / "t.csv")
    made, _ = api.sample(run.root, tmp_path / "s", num=2)
    with pytest.raises(DataError, match="tumour of real people of HOLD"):
        api.release(run.root, made.root, tumours.root)
    model = run.load(torch.device("cpu"))
    with pytest.raises(UsageError, match="follow tumour"):
        model.method.sample(model.view, torch.zeros(1, 3), SampleRng(torch.tensor([1])))


def test_cases_under_brats_names_are_read_as_brats(tmp_path):
    modalities = ("T1w", "T1c", "T2w", "FLAIR")
    api.import_cohort(
        "phantom",
        None,
        tmp_path / "raw",
        num_subjects=6,
        spacing_mm=8.0,
        tumours=1.0,
        modalities=modalities,
    )
    cohort = api.prepare(
        tmp_path / "raw",
        tmp_path / "prepared",
        spacing_mm=8.0,
        channels=(*modalities, "tumour"),
        sizes={"TRAIN": 4, "VAL": 0, "HOLD": 2, "TEST": 0},
        jobs=1,
    )
    train(a_recipe(data={"channels": [*modalities, "tumour"]}), cohort.root, tmp_path / "run")
    main(["sample", str(tmp_path / "run"), "--num", "2", "--brats", str(tmp_path / "cases")])
    samples = SyntheticCohort.read(tmp_path / "run" / "samples")
    again = api.import_cohort("brats", tmp_path / "cases", tmp_path / "again", labels="2023")
    assert list(again.subjects.index) == ["BraTSSYN00001", "BraTSSYN00002"]
    scan = again.scans[again.scans["modality"] == "FLAIR"].iloc[0]
    values = nib.load(scan["path"]).get_fdata()
    np.testing.assert_allclose(values, samples.volume_set().volumes[0, 3], atol=1e-4)


def test_what_is_no_brats_case_is_refused_before_it_is_made(run, tmp_path, capsys):
    folder = tmp_path / "cases"
    assert main(["sample", str(run.root), "--out", str(tmp_path / "s"), "--brats", str(folder)])
    assert "lacks T1c, T2w" in capsys.readouterr().err
    assert not folder.exists()
    assert not (tmp_path / "s").exists()
