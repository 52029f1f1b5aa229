"""Every metric gets worse, monotonically, under the corruptions that it claims to see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gyri.registry import METRICS

LEVELS = 5


def blur(volumes: np.ndarray, level: int) -> np.ndarray:
    sigma = 0.3 * level
    return ndimage.gaussian_filter(volumes, (0, 0, sigma, sigma, sigma))


def noise(volumes: np.ndarray, level: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    sd = 0.0 if level == 0 else 0.02 * 2 ** (level - 1)
    return (volumes + sd * rng.standard_normal(volumes.shape)).clip(0, 1)


def repetition(volumes: np.ndarray, level: int) -> np.ndarray:
    """Show one axial slice in the place of its 2 * level neighbours, too."""
    out = volumes.copy()
    out[..., 10 - level : 10 + level + 1] = volumes[..., 10:11]
    return out


def mode_dropping(volumes: np.ndarray, level: int) -> np.ndarray:
    kept = (16, 12, 8, 5, 3, 1)[level]
    rng = np.random.default_rng(1)
    jitter = 1e-3 * rng.standard_normal(volumes.shape) * (volumes > 0)
    return volumes[np.arange(16) % kept] + jitter


def bias_field(volumes: np.ndarray, level: int) -> np.ndarray:
    ramp = np.linspace(-1, 1, volumes.shape[3])[:, None]
    return (volumes * np.exp(0.2 * level * ramp)).clip(0, 1)


def rotation(volumes: np.ndarray, level: int) -> np.ndarray:
    turned = ndimage.rotate(volumes, 18.0 * level, axes=(2, 3), reshape=False, order=1)
    return turned.clip(0, 1)


CORRUPTIONS = {
    f.__name__: f for f in (blur, noise, repetition, mode_dropping, bias_field, rotation)
}
# Where a score saturates, ties are fine; a step back is not.
CLAIMS = [
    ("fd", "fd/radiomics-v1", "blur", 1),
    ("fd", "fd/spectrum-v1", "blur", 1),
    ("fd", "fd/radiomics-v1", "noise", 1),
    ("kid", "kid/radiomics-v1", "blur", 1),
    ("kid", "kid/radiomics-v1", "noise", 1),
    ("kid", "kid/radiomics-v1", "bias_field", 1),
    ("kid", "kid/spectrum-v1", "blur", 1),
    ("kid", "kid/spectrum-v1", "noise", 1),
    ("kid", "kid/morph-v1", "rotation", 1),
    ("prdc", "coverage/radiomics-v1", "blur", -1),
    ("prdc", "coverage/spectrum-v1", "noise", -1),
    ("prdc", "coverage/radiomics-v1", "mode_dropping", -1),
    ("prdc", "recall/radiomics-v1", "mode_dropping", -1),
    ("msssim", "msssim/delta", "mode_dropping", 1),
    ("msssim", "msssim/delta", "blur", 1),
    ("msssim", "msssim/delta", "noise", -1),
    ("coherence", "coherence/plateau", "repetition", 1),
    ("coherence", "coherence/position", "repetition", -1),
    ("coherence", "coherence/spectrum", "noise", -1),
    ("coherence", "coherence/spectrum", "blur", -1),
    ("nearest", "nearest/correlation", "noise", -1),
    ("volumes", "volumes/csf_ml/w1", "blur", 1),
    ("orientation", "orientation", "rotation", -1),
]


@pytest.fixture(scope="module")
def corrupted(judge, cohort):
    """Evidence on every corruption at every level, measured when first asked for."""
    kept = {}

    def evidence(name: str, level: int):
        if (name, level) not in kept:
            made = cohort["generated"]
            volumes = CORRUPTIONS[name](made.volumes, level).astype(np.float32)
            kept[name, level] = judge.evidence(
                type(made)(made.name, volumes, made.table, made.grid, made.channels)
            )
        return kept[name, level]

    return evidence


@pytest.mark.parametrize(("metric", "key", "name", "sign"), CLAIMS)
def test_worse_with_every_level(metric, key, name, sign, judge, corrupted):
    from scipy.stats import spearmanr

    study = judge.study.without_intervals()
    values = [
        next(
            s.value
            for s in METRICS[metric].component().scores(corrupted(name, level), study)
            if s.key == key
        )
        for level in range(LEVELS + 1)
    ]
    signed = sign * np.array(values)
    assert signed[-1] > signed[0], values
    ties = len(set(values)) < len(values)
    if ties:
        assert (np.diff(signed) >= 0).all(), values
    else:
        assert spearmanr(np.arange(LEVELS + 1), signed).statistic >= 0.9, values
