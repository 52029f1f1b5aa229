"""RadImageNet features: what the network is shown."""

from __future__ import annotations

import numpy as np
import torch

from gyri.registry import FEATURES


def test_slices_stay_in_their_range_at_the_size_of_training():
    features = FEATURES["radimagenet-resnet50-sagittal-5x20mm"].component()
    slices = np.full((5, 48, 48), 0.25, np.float32)
    slices[2] = np.linspace(0, 1, 48, dtype=np.float32)
    images = features.images(slices)
    assert images.shape == (5, 3, 224, 224)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images[0], torch.full((3, 224, 224), 0.25))
    ramp = images[2, 0, 100]
    assert (ramp.diff() >= -1e-6).all()
    assert abs(float(ramp.mean()) - 0.5) < 1e-3
    assert len(ramp.unique()) > 200
