from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import UsageError
from gyri.prepare.denoise import DenoiseConfig, denoise
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel


def test_noise_goes_edges_and_background_stay() -> None:
    rng = np.random.default_rng(0)
    clean = np.zeros((20, 20, 20), np.float32)
    clean[4:16, 4:16, 4:16], clean[10:16, 4:16, 4:16] = 100, 200
    noisy = np.where(clean > 0, clean + rng.normal(0, 10, clean.shape), 0).astype(np.float32)
    labels = (clean > 150).astype(np.float32)
    channels = (Channel("T1w"), Channel("dseg", "label", 2))
    scan = PreparedScan(np.stack([noisy, labels]), channels, np.eye(4), clean > 0)
    after = denoise(scan, DenoiseConfig())
    inner = np.s_[6:9, 6:14, 6:14]
    assert (after.image[0] - clean)[inner].std() < 0.6 * (noisy - clean)[inner].std()
    assert after.image[0][12, 8, 8] - after.image[0][7, 8, 8] > 85
    assert (after.image[0][clean == 0] == 0).all()
    np.testing.assert_array_equal(after.image[1], labels)


def test_unstable_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="time_step 0.2"):
        DenoiseConfig(time_step=0.2)
