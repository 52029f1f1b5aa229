"""A head made of a phantom's brain, fluid, skull and scalp, with a neck and a nose."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt

from gyri.cohort.phantom import make_subject
from gyri.prepare.scan import PreparedScan, foreground
from gyri.types import Channel

SPACING_MM = 4.0
PADDING = 16


@lru_cache(maxsize=1)
def phantom_head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values (I, J, K), (4, 4) affine and the brain's mask."""
    row = pd.Series({"age": 40.0, "sex": "F", "etiv": 1450.0})
    subject = make_subject(row, 3, SPACING_MM)
    brain = np.pad(subject.images["T1w"], PADDING)
    mask = brain > 0
    affine = subject.affine.copy()
    affine[:3, 3] -= PADDING * SPACING_MM
    away = distance_transform_edt(~mask, sampling=[SPACING_MM] * 3)
    white = np.percentile(brain[mask], 90)
    i, j, k = np.indices(brain.shape)
    middle, low, front = (
        np.argwhere(mask).mean(0),
        np.argwhere(mask).min(0),
        np.argwhere(mask).max(0),
    )
    neck = (np.hypot(i - middle[0], j - middle[1] + 4) < 13) & (k < middle[2]) & (away > 14)
    nose = (np.hypot(i - middle[0], k - low[2] - 2) < 3) & (j > middle[1]) & (j < front[1] + 7)
    values = np.where(mask, brain, 0)
    values = np.where((away > 0) & (away <= 4), 0.2 * white, values)
    values = np.where((away > 10) & (away <= 18), 1.1 * white, values)
    values = np.where(neck | (nose & (away > 10)), 0.7 * white, values)
    noise = np.random.default_rng(0).normal(0, 0.02 * white, (2, *brain.shape))
    return np.hypot(values + noise[0], noise[1]).astype(np.float32), affine, mask


def scan_of(values: np.ndarray, affine: np.ndarray) -> PreparedScan:
    """Return values as a scan of one channel, as `read_session` does."""
    mask = foreground(values, affine).astype(np.float32)
    return PreparedScan(values[None], (Channel("T1w"),), affine, mask)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return ``2 |a and b| / (|a| + |b|)``."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
