"""Shape of the brain and amounts of tissue."""

from __future__ import annotations

import numpy as np

from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import (
    CSF,
    GM,
    WM,
    BoolArray,
    Segmented,
    bounding_box,
    central_csf,
)
from gyri.registry import FEATURES

MORPH_NAMES = (
    "brain_ml",
    "gm_ml",
    "wm_ml",
    "csf_ml",
    "gm_fraction",
    "wm_fraction",
    "csf_fraction",
    "central_csf_ml",
    "asymmetry",
    "mirror_correlation",
    "components",
    "holes_ml",
    "surface_per_volume_mm",
    "centre_i_mm",
    "centre_j_mm",
    "centre_k_mm",
    "extent_i_mm",
    "extent_j_mm",
    "extent_k_mm",
)


def surface_mm2(mask: BoolArray, spacing_mm: tuple[float, float, float]) -> float:
    """Area of an (I, J, K) mask's voxel faces divided by 1.5, a sphere's excess over its surface.

    A staircase of faces covers a smooth surface 1.5 times, averaged over all directions.
    """
    padded = np.pad(mask, 1)
    area = 0.0
    for axis, thickness in enumerate(spacing_mm):
        faces = np.count_nonzero(np.diff(padded.view(np.int8), axis=axis))
        area += faces * float(np.prod(spacing_mm)) / thickness
    return area / 1.5


def mirror(array: np.ndarray, plane: float) -> np.ndarray:
    """Reflect an (I, J, K) array at index `plane` (a multiple of one half); zeros come in."""
    size = array.shape[0]
    source = np.rint(2 * plane - np.arange(size)).astype(int)
    inside = (source >= 0) & (source < size)
    out = np.zeros_like(array)
    out[inside] = array[source[inside]]
    return out


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two equally shaped arrays; 0 where one of them is constant."""
    a = a.astype(np.float64).ravel() - a.mean(dtype=np.float64)
    b = b.astype(np.float64).ravel() - b.mean(dtype=np.float64)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


@FEATURES.register("morph-v1")
class Morphometry(FeatureSet):
    """Volumes, fractions, symmetry, surface and place of the brain (19 features).

    Left and right are told apart at the sagittal plane through TRAIN's mean centre of mass; the
    asymmetry is 2 (L - R) / (L + R) of the brain mask and the mirror correlation is of
    intensities inside the mask and its mirror image. RAS+: low I is left.
    """

    name = "morph-v1"

    @property
    def names(self) -> tuple[str, ...]:
        """The 19 names, the same on every cohort."""
        return MORPH_NAMES

    def fit(self, train: Segmented) -> None:
        """Find the sagittal plane to half a voxel."""
        profile = train.mask.sum((0, 2, 3)).astype(np.float64)
        centre = (profile @ np.arange(len(profile))) / max(profile.sum(), 1.0)
        self.state = {"plane": np.array([round(2 * centre) / 2])}

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, 19); an empty mask gives zeros."""
        return np.array([self._row(segmented, row) for row in range(len(segmented))]).reshape(
            len(segmented), len(MORPH_NAMES)
        )

    def _row(self, segmented: Segmented, row: int) -> FloatArray:
        mask, labels = segmented.mask[row], segmented.labels[row]
        voxel_ml, spacing = segmented.voxel_ml, np.asarray(segmented.spacing_mm)
        brain = int(mask.sum())
        if not brain:
            return np.zeros(len(MORPH_NAMES))
        counts = np.bincount(labels.ravel(), minlength=4)
        gm, wm, csf = counts[GM], counts[WM], counts[CSF]
        plane = float(self.state["plane"][0])
        left, right = _halves(mask, plane)
        profiles = [
            mask.sum(axis=tuple(a for a in range(3) if a != axis)).astype(np.float64)
            for axis in range(3)
        ]
        centre = [(p @ np.arange(len(p))) / brain * s for p, s in zip(profiles, spacing)]
        extent = [(part.stop - part.start) * s for part, s in zip(bounding_box(mask), spacing)]
        return np.array(
            [
                *(voxel_ml * np.array([brain, gm, wm, csf])),
                *(np.array([gm, wm, csf]) / brain),
                central_csf(labels, mask).sum() * voxel_ml,
                2 * (left - right) / (left + right) if left + right else 0.0,
                _mirror_correlation(segmented.image[row], mask, plane),
                segmented.components[row],
                segmented.holes[row] * voxel_ml,
                surface_mm2(mask, segmented.spacing_mm) / (brain * voxel_ml * 1000.0),
                *centre,
                *extent,
            ]
        )


def _halves(mask: BoolArray, plane: float) -> tuple[float, float]:
    profile = mask.sum((1, 2)).astype(np.float64)
    index = np.arange(len(profile))
    return float(profile[index < plane].sum()), float(profile[index > plane].sum())


def _mirror_correlation(image: np.ndarray, mask: BoolArray, plane: float) -> float:
    both = mask | mirror(mask, plane)
    return correlation(image[both], mirror(image, plane)[both])
