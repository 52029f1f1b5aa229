"""Faults of known size in real volumes: what a metric must notice.

Every corruption has five severities in millimetres, degrees, shares of the intensity range or
shares of subjects, so that they mean the same on every grid; level 0 leaves the volumes as they
are. Each depends on its arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.runtime.seeding import numpy_rng

Images = NDArray[np.float32]
Spacing = tuple[float, float, float]
Change = Callable[[Images, Spacing, float], Images]

LEVELS = 5
JITTER = 1e-3
"""Noise that tells the copies of a dropped mode apart."""


@dataclass(frozen=True)
class Corruption:
    """One kind of fault.

    Parameters
    ----------
    name : how claims call it.
    unit : of the severities.
    severities : from slight to gross, five.
    apply : function of (N, C, I, J, K) volumes in [0, 1], their spacing in mm and a severity.
    """

    name: str
    unit: str
    severities: tuple[float, ...]
    apply: Change

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.apply.__doc__ or "").split("\n")[0]


CORRUPTIONS: dict[str, Corruption] = {}


def _corruption(unit: str, *severities: float) -> Callable[[Change], Change]:
    def add(function: Change) -> Change:
        assert len(severities) == LEVELS
        name = function.__name__
        CORRUPTIONS[name] = Corruption(name, unit, severities, function)
        return function

    return add


def corrupt(volumes: VolumeSet, name: str, level: int) -> VolumeSet:
    """Return the set under corruption `name` at level 1 (slight) to 5 (gross), 0 for none.

    Intensities change; label channels stay as they are.

    Parameters
    ----------
    volumes : finite, in [0, 1].
    """
    if not level:
        return volumes
    kind = CORRUPTIONS[name]
    severity = kind.severities[level - 1]
    images = kind.apply(volumes.volumes, volumes.grid.spacing_mm, severity)
    return replace(volumes, name=f"{name} {level}", volumes=images.astype(np.float32))


@_corruption("mm", 1.0, 2.0, 3.0, 5.0, 8.0)
def blur(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """Gaussian blur; the standard deviation in millimetres.

    Applied to the spectrum, where it is exact however few voxels it covers.
    """
    from scipy import fft

    shape = images.shape[-3:]
    spectrum = fft.rfftn(images, axes=(-3, -2, -1))
    for axis, (size, spacing) in enumerate(zip(shape, spacing_mm)):
        cycles = fft.rfftfreq(size, spacing) if axis == 2 else fft.fftfreq(size, spacing)
        gain = np.exp(-2 * (np.pi * severity * cycles) ** 2).astype(np.float32)
        spectrum *= gain.reshape([-1 if a == axis else 1 for a in range(3)])
    return np.asarray(fft.irfftn(spectrum, s=shape, axes=(-3, -2, -1))).clip(0, 1)


@_corruption("sd, share of the range", 0.02, 0.04, 0.08, 0.16, 0.32)
def noise(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """White noise in every voxel; its standard deviation as a share of the intensity range."""
    rng = numpy_rng("corruption", "noise")
    drawn = rng.standard_normal(images.shape, dtype=np.float32)
    return (images + np.float32(severity) * drawn).clip(0, 1)


@_corruption("log gain at 100 mm", 0.1, 0.2, 0.35, 0.55, 0.8)
def bias_field(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """Gain that grows exponentially from back to front."""
    size = images.shape[3]
    place = (np.arange(size) - (size - 1) / 2) * spacing_mm[1] / 100
    gain = np.exp(severity * place).astype(np.float32)
    return (images * gain[:, None]).clip(0, 1)


@_corruption("degrees", 5.0, 10.0, 20.0, 40.0, 80.0)
def rotation(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """Rotation in the axial plane, the same for every volume.

    Interpolated by cubic splines: linear interpolation would blur, which is another fault.
    """
    from scipy import ndimage

    angle = np.deg2rad(severity)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.asarray(spacing_mm[:2])
    matrix = turn * scale[None, :] / scale[:, None]
    centre = (np.asarray(images.shape[2:4]) - 1) / 2
    offset = centre - matrix @ centre
    full, shift = np.eye(3), np.zeros(3)
    full[:2, :2], shift[:2] = matrix, offset
    flat = images.reshape(-1, *images.shape[2:])
    turned = [ndimage.affine_transform(image, full, shift, order=3) for image in flat]
    return np.stack(turned).reshape(images.shape).clip(0, 1)


@_corruption("mm on each side", 8.0, 16.0, 24.0, 32.0, 40.0)
def repetition(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """One axial slice in the place of its neighbours, too."""
    middle = images.shape[4] // 2
    reach = max(1, round(severity / spacing_mm[2]))
    out = images.copy()
    out[..., max(0, middle - reach) : middle + reach + 1] = images[..., middle : middle + 1]
    return out


@_corruption("share of subjects left", 0.75, 0.5, 0.3, 0.15, 0.05)
def mode_dropping(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """Fewer subjects, each shown again with a noise of 0.001 until the set is full."""
    kept = max(1, round(severity * len(images)))
    rng = numpy_rng("corruption", "mode_dropping")
    jitter = JITTER * rng.standard_normal(images.shape, dtype=np.float32)
    repeated = images[np.arange(len(images)) % kept]
    return (repeated + jitter * (repeated > 0)).clip(0, 1)


@_corruption("share of volumes", 0.2, 0.4, 0.6, 0.8, 1.0)
def left_right_flip(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """Some volumes mirrored from left to right."""
    flipped = round(severity * len(images))
    out = images.copy()
    out[:flipped] = images[:flipped, :, ::-1]
    return out


@_corruption("share of the range kept", 0.9, 0.75, 0.6, 0.45, 0.3)
def clipping(images: Images, spacing_mm: Spacing, severity: float) -> Images:
    """Intensities cut off at the top."""
    return np.minimum(images, np.float32(severity))
