from __future__ import annotations

import numpy as np
import pytest
from tests.prepare.heads import phantom_head, scan_of

from gyri.errors import DataError, UsageError
from gyri.prepare.brain_mask import BrainMaskConfig, brain_mask
from gyri.prepare.deface import DefaceConfig, deface
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel


def test_the_face_goes_and_the_brain_stays() -> None:
    values, affine, truth = phantom_head()
    channels = (Channel("T1w"), Channel("brain", "label", 2))
    image = np.stack([values, truth.astype(np.float32)])
    before = PreparedScan(image, channels, affine, np.ones_like(values))
    marked = brain_mask(before, BrainMaskConfig(channel="brain", apply=False))
    after = deface(marked, DefaceConfig())
    np.testing.assert_array_equal(after.image[0][truth], values[truth])
    where = np.argwhere(truth)
    (i, j, k), front = where.mean(0).astype(int), where.max(0)[1]
    low = where.min(0)[2]
    nose = (slice(i - 2, i + 3), slice(front - 2, None), slice(low, low + 5))
    assert (values[nose] > 50).any()
    assert (after.image[0][nose] == 0).all()
    # The back of the head is left as it was.
    np.testing.assert_array_equal(after.image[0][:, : j - 10, k:], values[:, : j - 10, k:])
    assert after.history[-1]["removed_ml"] > 100


def test_the_brain_must_be_marked() -> None:
    values, affine, _ = phantom_head()
    with pytest.raises(DataError, match="brain_mask with apply=False"):
        deface(scan_of(values, affine), DefaceConfig())
    with pytest.raises(UsageError, match="margin_mm"):
        DefaceConfig(margin_mm=-1)
