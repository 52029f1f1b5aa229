"""Label channels: one-hot inside, argmax outside, through training and sampling."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.contracts.tiny import UNET

from gyri import api
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, ResumableStop, UsageError
from gyri.recipe import DataConfig, parse_recipe
from gyri.training.data import ResidentVolumes, load_split
from gyri.training.labels import to_inside, to_outside, width
from gyri.training.loop import Trainer
from gyri.training.run import train
from gyri.types import Channel
from gyri.views.base import foreground

CHANNELS = (Channel("seg", "label", 4), Channel("T1w"))
METHODS = {
    "pca_gaussian": {"method": {"name": "pca_gaussian", "components": 3}},
    "ddpm": {
        "method": {"name": "ddpm", "sampling": {"num_steps": 2}},
        "networks": {"denoiser": UNET},
    },
}


@pytest.fixture(scope="module")
def tumours(tmp_path_factory) -> PreparedCohort:
    """Eight phantoms with tumours at 8 mm, T1w and segmentation."""
    root = tmp_path_factory.mktemp("tumours")
    api.import_cohort("phantom", None, root / "raw", num_subjects=8, spacing_mm=8.0, tumours=1.0)
    return api.prepare(
        root / "raw",
        root / "prepared",
        spacing_mm=8.0,
        channels=("T1w", "tumour"),
        sizes={"TRAIN": 5, "VAL": 1, "HOLD": 1, "TEST": 1},
        jobs=1,
    )


def stored(seed: int = 0) -> tuple[ResidentVolumes, torch.Tensor]:
    rng = np.random.default_rng(seed)
    both = np.stack([rng.integers(0, 4, (3, 4, 5, 6)), rng.integers(0, 32768, (3, 4, 5, 6))], 1)
    raw = torch.from_numpy(both.astype(np.int16))
    return ResidentVolumes(raw, 1 / 32767, (0.0, 1.0), CHANNELS), raw


def test_inside_and_outside_are_inverse():
    volumes, raw = stored()
    assert volumes.shape == (3, 5, 4, 5, 6)
    assert width(CHANNELS) == 5
    labels, values = to_outside(volumes[:], CHANNELS)
    assert torch.equal(labels, raw[:, 0].long())
    torch.testing.assert_close(values, raw[:, 1].float() / 32767 * 2 - 1)
    assert torch.equal(to_inside([labels, values], CHANNELS), volumes[:])
    hot = volumes[:, ...][:, :4]
    assert torch.equal(hot.sum(1), torch.full_like(hot[:, 0], -2.0))


def test_every_way_of_indexing_keeps_the_channel_axis():
    volumes, _ = stored()
    whole, rows, at = volumes[:], torch.tensor([2, 0]), torch.tensor([1, 3])
    everything = slice(None)
    assert torch.equal(volumes[1], whole[1])
    assert torch.equal(volumes[1:2], whole[1:2])
    assert torch.equal(volumes[rows], whole[rows])
    for axis in range(3):
        index = [rows, everything, everything, everything, everything]
        index[2 + axis] = at
        assert torch.equal(volumes[tuple(index)], whole[tuple(index)])


def test_the_background_label_is_no_foreground():
    values = torch.full((4, 4, 4), -1.0)
    values[1:3, 1:3, 1:3] = 0.4
    labels = torch.zeros(4, 4, 4, dtype=torch.int64)
    labels[1, 1, 1] = 2
    inside = to_inside([labels, values], CHANNELS, axis=0)
    assert torch.equal(foreground(inside), values > -1)
    assert torch.equal(foreground(values[None]), values > -1)


def test_the_split_is_delivered_as_the_recipe_orders_it(tumours):
    data = DataConfig(channels=("tumour", "T1w"))
    volumes = load_split(tumours, "TRAIN", data, torch.device("cpu"))
    labels, _ = to_outside(volumes[:], volumes.channels)
    raw, _ = tumours.load(tumours.rows("TRAIN"))
    assert torch.equal(labels, torch.from_numpy(raw[:, 1]).long())
    with pytest.raises(DataError, match="intensities"):
        load_split(tumours, "TRAIN", DataConfig(channels=("tumour",)), torch.device("cpu"))


def a_recipe(method: str, view: str, **data: object):
    return parse_recipe(
        {
            "name": f"labels-{method}",
            "view": view,
            "data": {"channels": ["T1w", "tumour"], **data},
            "training": {"steps": 2, "batch_size": 2, "snapshots": 1},
            **METHODS[method],
        }
    )


@pytest.mark.parametrize(
    ("method", "view"), [("pca_gaussian", "volume"), ("ddpm", "volume"), ("ddpm", "slice")]
)
def test_samples_have_integer_labels_and_intensities(tumours, tmp_path, method, view):
    run = api.train(a_recipe(method, view), tumours.root, tmp_path / "run", device="cpu")
    num_labels = tumours.channels[1].num_labels
    assert [channel.kind for channel in run.channels] == ["intensity", "label"]
    synthetic, _ = api.sample(tmp_path / "run", num=2, batch=1)
    alone, _ = api.sample(tmp_path / "run", tmp_path / "both", num=2, batch=2)
    for name in ("syn0001", "syn0002"):
        path = f"sub-{name}/anat/sub-{name}_desc-synthetictumour_dseg.nii.gz"
        image = nib.load(synthetic.root / path)
        labels = np.asarray(image.dataobj)
        assert labels.dtype.kind in "iu"
        assert 0 <= labels.min() <= labels.max() < num_labels
        sidecar = json.loads((synthetic.root / path.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Synthetic"] is True
        np.testing.assert_array_equal(labels, np.asarray(nib.load(alone.root / path).dataobj))
    judged = synthetic.volume_set()
    assert judged.channels == tumours.volume_set("HOLD").channels == ("T1w",)
    assert judged.volumes.shape == (2, 1, *tumours.grid.shape)
    assert 0 <= judged.volumes.min() <= judged.volumes.max() <= 1


def test_a_stop_with_labels_and_augmentation_changes_nothing(tumours, tmp_path, monkeypatch):
    augment = [{"name": "rotate", "axis": "foot_head"}, {"name": "flip", "axis": "back_front"}]
    recipe = a_recipe("ddpm", "slice", augment=augment)
    whole = train(recipe, tumours.root, tmp_path / "whole", quiet=True)
    asked = Trainer.run
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda self, **given: asked(self, stop_asked=lambda: True))
        with pytest.raises(ResumableStop):
            train(recipe, tumours.root, tmp_path / "cut", quiet=True)
    cut = train(recipe, tumours.root, tmp_path / "cut", quiet=True)
    first, second = ((run.checkpoint() / "network-denoiser.safetensors") for run in (whole, cut))
    assert first.read_bytes() == second.read_bytes()


def test_a_method_that_is_fitted_once_refuses_augmentation(tumours, tmp_path):
    recipe = a_recipe("pca_gaussian", "volume", augment=[{"name": "gamma"}])
    with pytest.raises(UsageError, match="fitted once"):
        train(recipe, tumours.root, tmp_path / "run", quiet=True)
