"""A glioma for the phantom: necrotic core, enhancing rim, oedema that follows white matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.cohort.phantom_anatomy import sigmoid
from gyri.cohort.phantom_imaging import Contrast
from gyri.runtime.seeding import numpy_rng

LABELS = {1: "core", 2: "oedema", 3: "enhancing rim"}
_BORDER_MM = 0.8
_BLOB_MM = 60.0


@dataclass
class Tumour:
    """Shares of each point that are core, oedema and rim.

    Parameters
    ----------
    shares : (3, N) float32 in [0, 1], summing to at most 1.
    """

    shares: np.ndarray

    def paint(self, signal: np.ndarray, contrast: Contrast) -> np.ndarray:
        """Mix the tumour's signal into the tissue's `signal` (N,)."""
        core, oedema, rim = self.shares
        healthy = signal * (1 - self.shares.sum(0))
        return healthy + contrast.core * core + contrast.oedema * oedema + contrast.rim * rim

    @staticmethod
    def label(shares: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
        """Turn shares (3, I, J, K) into labels (I, J, K) uint8: the largest of four parts."""
        parts = np.concatenate([1 - shares.sum(0, keepdims=True), shares])
        return (parts.argmax(0) * brain_mask).astype(np.uint8)


def place_tumour(position_mm: np.ndarray, scale: float, tissues: np.ndarray, seed: int) -> Tumour:
    """Put a tumour of random place, size and shape into deep white matter.

    Parameters
    ----------
    position_mm : (3, N) world positions of the head scaled to the template's size.
    scale : linear size of the head; sizes are in mm of the real head.
    tissues : (4 or more, N) csf, gm, wm and brain-mask probabilities.
    seed : the subject's seed.
    """
    rng = numpy_rng(seed, "tumour")
    side = rng.choice([-1.0, 1.0])
    centre = np.array([side * rng.uniform(22, 38), rng.uniform(-60, 25), rng.uniform(8, 42)])
    core_mm = rng.uniform(5.0, 13.0)
    rim_mm = rng.uniform(2.5, 5.0)
    oedema_mm = rng.uniform(7.0, 16.0)
    offset = (position_mm - centre[:, None].astype(np.float32)) * np.float32(scale)
    radius = np.sqrt((offset**2).sum(0)) * np.exp(0.25 * _blob(rng, offset))
    csf, _, white, brain = tissues[:4]
    solid = brain * (1 - csf)
    core = sigmoid((core_mm - radius) / _BORDER_MM) * brain
    tumour = sigmoid((core_mm + rim_mm - radius) / _BORDER_MM) * brain
    reach = core_mm + rim_mm + oedema_mm * (0.35 + 0.65 * white)
    swollen = sigmoid((reach - radius) / _BORDER_MM) * solid
    oedema = np.maximum(swollen - tumour, 0)
    return Tumour(np.stack([core, oedema, tumour - core]).astype(np.float32))


def _blob(rng: np.random.Generator, offset_mm: np.ndarray) -> np.ndarray:
    """Smooth unit noise around the tumour's centre at `offset_mm` (3, N)."""
    waves = rng.standard_normal((12, 3)) / 14.0
    phases = rng.uniform(0, 2 * np.pi, 12)
    angle = waves.astype(np.float32) @ offset_mm + phases[:, None].astype(np.float32)
    return np.cos(angle).sum(0) / np.sqrt(6.0)
