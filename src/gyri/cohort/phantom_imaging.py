"""How a phantom scanner sees an anatomy: contrast, bias field, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.cohort.phantom_anatomy import spline_upsample
from gyri.errors import UsageError, nearest


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """One level of the scanner column.

    Parameters
    ----------
    name : level.
    gain : intensity of a tissue of unit signal.
    gamma : exponent on the signal; below 1 flattens the contrast of bright tissues.
    noise : standard deviation of each of the two Rician channels, in units of signal.
    bias : standard deviation of the logarithm of the bias field.
    blur_mm : full width at half maximum of the point spread.
    """

    name: str
    gain: float
    gamma: float
    noise: float
    bias: float
    blur_mm: float


SCANNERS = (
    Scanner(name="A", gain=1000.0, gamma=1.0, noise=0.012, bias=0.03, blur_mm=0.8),
    Scanner(name="B", gain=600.0, gamma=0.75, noise=0.020, bias=0.07, blur_mm=2.0),
    Scanner(name="C", gain=1400.0, gamma=1.25, noise=0.016, bias=0.10, blur_mm=1.4),
    Scanner(name="D", gain=300.0, gamma=0.9, noise=0.028, bias=0.05, blur_mm=3.0),
)
"""The four scanners, named by letter; a cohort of k scanners uses the first k."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Signal of each tissue in one modality.

    Parameters
    ----------
    csf, grey, white : signal of pure tissue; white matter of a T1w is near 0.9.
    core, oedema, rim : signal of the tumour's parts.
    texture : how much of the template T1's own detail shows; negative where it inverts.
    """

    csf: float
    grey: float
    white: float
    core: float
    oedema: float
    rim: float
    texture: float


CONTRASTS = {
    "T1w": Contrast(csf=0.24, grey=0.64, white=0.90, core=0.36, oedema=0.58, rim=0.66, texture=1.0),
    "T1c": Contrast(csf=0.24, grey=0.65, white=0.88, core=0.34, oedema=0.56, rim=1.25, texture=1.0),
    "T2w": Contrast(
        csf=1.10, grey=0.62, white=0.44, core=0.95, oedema=0.82, rim=0.66, texture=-0.6
    ),
    "FLAIR": Contrast(
        csf=0.12, grey=0.66, white=0.52, core=0.38, oedema=1.02, rim=0.78, texture=-0.3
    ),
}
"""Contrast of each modality the phantom can show."""


def contrast_of(modality: str) -> Contrast:
    """Return the contrast of `modality`; raises `UsageError` for one the phantom has not."""
    if modality not in CONTRASTS:
        raise UsageError(
            f"The phantom has no modality {modality!r}.{nearest(modality, CONTRASTS)} "
            f"Known: {', '.join(CONTRASTS)}."
        )
    return CONTRASTS[modality]


def scanner_of(name: object) -> Scanner:
    """Return the scanner called `name`; raises `UsageError` for an unknown one."""
    for scanner in SCANNERS:
        if scanner.name == name:
            return scanner
    raise UsageError(
        f"The phantom has no scanner {name!r}. Known: {', '.join(s.name for s in SCANNERS)}."
    )


def _bias_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: float, strength: float
) -> np.ndarray:
    """Smooth positive field (I, J, K) with a B-spline node every 70 mm."""
    positions = [np.arange(n) * spacing_mm / 70.0 + 1 for n in shape]
    nodes = rng.standard_normal((1, *(int(p[-1]) + 4 for p in positions)))
    return np.exp(strength * (315 / 151) ** 1.5 * spline_upsample(nodes, positions)[0])


def acquire(
    signal: np.ndarray,
    brain_mask: np.ndarray,
    scanner: Scanner,
    rng: np.random.Generator,
    spacing_mm: float,
) -> np.ndarray:
    """Scan a noise-free signal.

    Parameters
    ----------
    signal : (I, J, K), tissue signal near 1.
    brain_mask : (I, J, K) boolean; the scan is 0 outside.
    scanner : whose contrast, bias field, blur and noise are applied, in this order.
    rng : stream of this scan.
    spacing_mm : voxel size. The noise of a voxel does not depend on it.

    Returns
    -------
    (I, J, K) float32, at least 0; Rician (Gudbjartsson & Patz 1995).
    """
    from scipy.ndimage import gaussian_filter

    seen = signal**scanner.gamma
    seen = seen * _bias_field(rng, signal.shape, spacing_mm, scanner.bias)
    seen = gaussian_filter(seen, scanner.blur_mm / 2.355 / spacing_mm, truncate=3.0)
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32) * scanner.noise
    magnitude = np.hypot(seen + noise[0], noise[1])
    gain = scanner.gain * np.exp(0.05 * rng.standard_normal())
    return (gain * magnitude * brain_mask).astype(np.float32)
