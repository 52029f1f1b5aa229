"""Inception features of volumes, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.evaluation.pretrained import randomised

from gyri.evaluation import weights
from gyri.evaluation.extractors.inception import InceptionV3
from gyri.evaluation.features.pretrained import NUM_FEATURES, plane_slices, rotation
from gyri.evaluation.segment import TissueModel, segment
from gyri.registry import FEATURES

MODEL = TissueModel(np.array([0.5, 0.9, 1.3]), np.full(3, 0.03), np.full(3, 1 / 3))


@pytest.fixture
def random_weights(monkeypatch):
    """Random weights in the place of those that were added."""
    network = randomised(InceptionV3(), gain=2.0)
    manifest = weights.Manifest("inception-tf", "", "", "0" * 64, "", "")
    monkeypatch.setattr(weights, "load", lambda name: network)
    monkeypatch.setattr(weights, "read_manifest", lambda name: manifest)
    return network


def test_slices_are_rounded_to_bytes_in_three_equal_channels():
    features = FEATURES["inception-tf-axial-5x20mm"].component()
    slices = np.array([0.0, 0.5, 1.0, 1.7, -0.2, 0.25], np.float32).reshape(1, 2, 3)
    images = features.images(slices)
    assert images.dtype == torch.uint8
    assert images.shape == (1, 3, 2, 3)
    assert images[0, 0].flatten().tolist() == [0, 128, 255, 255, 0, 64]
    assert torch.equal(images[:, 0], images[:, 2])


def test_a_row_is_the_networks_features_of_each_slice(cohort, random_weights):
    part = segment(cohort["generated"].take(np.arange(1)), MODEL)
    rows = {}
    for resize in ("tf", "clean"):
        features = FEATURES[f"inception-{resize}-coronal-5x20mm"].component()
        features.fit(part)
        rows[resize] = features.extract(part)
        assert rows[resize].shape == (1, 5 * NUM_FEATURES)
    slices = plane_slices(part.image[0], 1, part.spacing_mm[1])
    bytes_ = torch.from_numpy(np.rint(slices[3:4] * 255).astype(np.uint8))
    random_weights.resize = "clean"
    third = random_weights(bytes_[:, None].expand(-1, 3, -1, -1)).double().numpy() @ rotation()
    width = slice(3 * NUM_FEATURES, 4 * NUM_FEATURES)
    np.testing.assert_allclose(rows["clean"][:, width], third, rtol=1e-4, atol=1e-5)
    assert np.abs(rows["clean"] - rows["tf"]).max() > 1e-2
