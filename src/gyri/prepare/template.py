"""The MNI152 brain that nilearn ships: what scans are registered to."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from gyri.runtime.cache import cache_folder

SPACING_MM = 2
CENTRE_MM = (0.0, -18.0, 4.0)
"""Middle of the window that holds a registered brain; the template's own box to 2 mm."""


@dataclass(frozen=True)
class Template:
    """A brain without its head.

    Parameters
    ----------
    image : (I, J, K) float32 T1-weighted values in [0, 1], 0 outside the brain.
    mask : (I, J, K) bool, the brain.
    affine : (4, 4) voxel to world, millimetres, RAS+.
    """

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray

    @property
    def centre_mm(self) -> np.ndarray:
        """(3,) the brain's centre of mass in the world."""
        return self.affine[:3, :3] @ np.argwhere(self.mask).mean(axis=0) + self.affine[:3, 3]


@lru_cache(maxsize=1)
def mni152() -> Template:
    """Return the symmetric MNI ICBM152 2009a T1 template and its brain mask at 2 mm.

    nilearn takes three seconds to load and to resample it, in every process of a preparation: it is
    kept in `gyri.runtime.cache.cache_folder`.

    Notes
    -----
    V. S. Fonov et al., "Unbiased nonlinear average age-appropriate brain templates from birth to
    adulthood", NeuroImage 47, S102 (2009).
    """
    file = cache_folder() / f"mni152-{SPACING_MM}mm-nilearn-{version('nilearn')}.npz"
    try:
        with np.load(file) as kept:
            return Template(kept["image"], kept["mask"], kept["affine"])
    except (OSError, ValueError, KeyError, BadZipFile):
        # Absent or damaged: made again.
        template = _from_nilearn()
    with suppress(OSError):
        _keep(template, file)
    return template


def _from_nilearn() -> Template:
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=SPACING_MM)
    mask = datasets.load_mni152_brain_mask(resolution=SPACING_MM).get_fdata() > 0
    values = np.clip(image.get_fdata(dtype=np.float32), 0, 1) * mask
    return Template(values.astype(np.float32), mask, np.asarray(image.affine, dtype=float))


def _keep(template: Template, file: Path) -> None:
    """Write `template` for the next process, in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    np.savez(temporary, image=template.image, mask=template.mask, affine=template.affine)
    temporary.replace(file)
