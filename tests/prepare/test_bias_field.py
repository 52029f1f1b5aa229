from __future__ import annotations

import numpy as np
import pytest
from tests.prepare.heads import phantom_head, scan_of

from gyri.errors import DataError, UsageError
from gyri.prepare.bias_field import BiasFieldConfig, bias_field
from gyri.prepare.scan import PreparedScan


def test_a_known_field_is_taken_out() -> None:
    values, affine, truth = phantom_head()
    brain = values * truth
    even = bias_field(scan_of(brain, affine), BiasFieldConfig(iterations=20)).image[0]
    ramp = np.exp(np.linspace(-0.4, 0.4, brain.shape[0]))[:, None, None].astype(np.float32)
    before = scan_of(brain * ramp, affine)
    after = bias_field(before, BiasFieldConfig(iterations=20))
    left = np.log(after.image[0][truth] / even[truth])
    assert np.log(ramp * np.ones_like(brain))[truth].std() > 0.08
    assert left.std() < 0.03
    assert (after.image[0][~truth] == 0).all()
    np.testing.assert_allclose(
        np.log(after.image[0][truth]).mean(), np.log(before.image[0][truth]).mean(), atol=1e-3
    )


def test_unusable() -> None:
    values, affine, _ = phantom_head()
    scan = scan_of(values, affine)
    dark = PreparedScan(-scan.image, scan.channels, affine, scan.foreground)
    with pytest.raises(DataError, match="brighter than 0"):
        bias_field(dark, BiasFieldConfig())
    with pytest.raises(UsageError, match="levels 0"):
        BiasFieldConfig(levels=0)
