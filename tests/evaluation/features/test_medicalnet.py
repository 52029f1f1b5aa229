"""MedicalNet features: what the network is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gyri.evaluation.extractors.medicalnet import znz0
from gyri.evaluation.features.pretrained import NUM_FEATURES
from gyri.registry import FEATURES


@pytest.mark.parametrize("name", [n for n in FEATURES if n.startswith("medicalnet")])
def test_the_network_sees_the_normalised_volume_with_the_axial_axis_first(name):
    shown: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        shown.append(x)
        return torch.ones(1, NUM_FEATURES)

    features = FEATURES[name].component()
    features._network = network
    rng = np.random.default_rng(0)
    image = rng.random((4, 5, 6), dtype=np.float32)
    mask = image > 0.3
    row = features.row(image, mask)
    assert row.shape == (NUM_FEATURES,)
    assert shown[0].shape == (1, 1, 6, 5, 4)
    np.testing.assert_array_equal(shown[0][0, 0].numpy(), znz0(image, mask).transpose(2, 1, 0))
