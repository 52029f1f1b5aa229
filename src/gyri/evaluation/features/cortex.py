"""Thickness, area, folding and sulcal depth of the cortex."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation import cortex_geometry
from gyri.evaluation.cortex_geometry import (
    PIAL_LEVEL,
    WHITE_LEVEL,
    BoolArray,
    Field,
    Ribbon,
    Spacing,
    envelope_depth,
    level_area,
    transition_width,
)
from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import CSF, GM, WM, Segmented, bounding_box
from gyri.registry import FEATURES
from gyri.types import Grid

MAX_SPACING_MM = 2.0
CAP_MM = 6.0
"""Longest field line; longer ones run through grey matter that is no sheet."""
ENVELOPE_MM = 15.0
DEEPEST_MM = 20.0
AROUND = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
"""Levels around a surface's own over which its area is averaged."""
BAND = 0.25
"""Half-width of the band around a surface's level in which its transition is measured."""
CENTRAL_RADIUS = 0.5
"""Share of the brain's half-extents within which grey matter is deep and CSF ventricular."""
CEREBELLUM_SHARE = 0.3
"""Behind the middle and this share of the half-height below it lies the cerebellum."""
MIN_LABEL_SHARE = 0.01
"""A volume whose label holds less of the mask is read between TRAIN's own intensities."""
PSF_MM = 2.0
"""Standard deviation of the deconvolution's kernel; chosen by eye on two scans of OASIS-1."""
PERCENTILES = (10, 25, 50)
REGIONS = tuple(
    f"{side}_{end}_{height}"
    for side in ("left", "right")
    for end in ("posterior", "anterior")
    for height in ("inferior", "superior")
)
CORTEX_NAMES = (
    "thickness_mean_mm",
    "thickness_sd_mm",
    *(f"thickness_p{p}_mm" for p in PERCENTILES),
    *(f"thickness_{region}_mm" for region in REGIONS),
    "volume_per_area_mm",
    "pial_area_cm2",
    "white_area_cm2",
    "envelope_area_cm2",
    "gyrification_pial",
    "gyrification_white",
    "closed_share",
    "pial_transition_mm",
    "white_transition_mm",
    "sulcal_csf_ml",
    "sulcal_depth_mean_mm",
    "sulcal_depth_p50_mm",
)


def tissue_position(image: NDArray[np.float32], mask: BoolArray, levels: FloatArray) -> Field:
    """Return the tissue position: 0 CSF or outside, 1 grey, 2 white matter, mixed between.

    Parameters
    ----------
    image, mask : (I, J, K).
    levels : (3,) intensities of CSF, grey and white matter, rising or falling; where grey matter
        does not lie between the two (FLAIR), mixtures are ambiguous and read as they come.
    """
    csf, grey, white = (float(level) for level in levels)
    outer = np.clip((image - csf) / ((grey - csf) or 1.0), 0, 1)
    inner = np.clip((image - grey) / ((white - grey) or 1.0), 0, 1)
    return np.where(mask, outer + inner, np.float32(0)).astype(np.float32)


def deconvolved(image: NDArray[np.float32], spacing_mm: Spacing) -> NDArray[np.float32]:
    """Return (I, J, K) after one step of van Cittert's deconvolution with a Gaussian of `PSF_MM`.

    Blades of white matter and sulci narrower than two voxels reach no level in a voxel's mean; a
    straight edge keeps its place. Beyond the box lies background.
    """
    from scipy import ndimage

    sigma = [PSF_MM / step for step in spacing_mm]
    return np.asarray(2 * image - ndimage.gaussian_filter(image, sigma, mode="constant"))


def weighted_percentiles(
    values: NDArray[np.floating], weights: NDArray[np.floating], at: tuple[int, ...]
) -> FloatArray:
    """Return percentiles of (n,) values that count `weights` each; zeros where nothing counts."""
    order = np.argsort(values)
    share = np.cumsum(weights[order], dtype=np.float64)
    if not share.size or not share[-1] > 0:
        return np.zeros(len(at))
    found = np.searchsorted(share, np.array(at) / 100 * share[-1])
    return values[order][np.minimum(found, len(values) - 1)].astype(np.float64)


@dataclass(frozen=True)
class Parts:
    """Where in a box of the grid what is counted.

    Parameters
    ----------
    central : (I, J, K) the ellipsoid of deep grey matter and ventricles.
    cerebrum : (I, J, K) all but cerebellum and brain stem.
    region : (I, J, K) index into `REGIONS`.
    """

    central: BoolArray
    cerebrum: BoolArray
    region: NDArray[np.uint8]


@FEATURES.register("cortex-v1")
class Cortex(FeatureSet):
    """Thickness, area, folding and sulcal depth of the cerebral cortex (25 features).

    Intensities, deconvolved, become a tissue position between TRAIN's CSF, grey and white matter
    (after one gain a volume). Surfaces are its level sets, found between voxels: hard labels are
    too coarse for a sheet of 2 to 3 mm. Thickness is the length of Laplace's field lines (Jones
    et al. 2000; Yezzi and Prince 2003), each line counted by the area that it stands for and cut
    at 6 mm; sulci whose banks touch are parted where fronts from the two white banks meet.
    Gyrification is the area of the pial (or white) surface over that of the envelope, a closing
    by 15 mm (Schaer et al. 2008). Sulcal depth is that of the CSF below the envelope. The
    transitions are how many millimetres one step of tissue takes at either surface.

    Shells of 2 to 4 mm at 2 mm come out within 0.4 mm of their thickness, whether the scan was
    smoothed by up to 1.5 mm (standard deviation) or not at all.

    Deep grey matter and ventricles are left out by an ellipsoid, cerebellum and brain stem by a
    box, both fitted on TRAIN: thickness and area are comparable within a cohort, not with a
    surface reconstruction. Made for T1w: where CSF is bright, its mixture with the background at
    the mask's rim reads as brain. An octant is named after its side; RAS+: low I is left. Spacing
    at most 2 mm.
    """

    name = "cortex-v1"

    @classmethod
    def refusal(cls, grid: Grid) -> str | None:
        """Refuse grids on which the cortex is thinner than a voxel."""
        coarsest = max(grid.spacing_mm)
        if coarsest <= MAX_SPACING_MM + 1e-3:
            return None
        return (
            f"not measurable: the spacing is {coarsest:g} mm and the cortex 2 to 3 mm thick; at "
            f"most {MAX_SPACING_MM:g} mm is needed. Prepare the cohort with `--spacing 2`."
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The 25 names, the same on every cohort."""
        return CORTEX_NAMES

    def fit(self, train: Segmented) -> None:
        """Find the brain's middle and half-extents, as shares of the grid, and the intensities."""
        shape = np.array(train.mask.shape[1:])
        boxes = [bounding_box(mask) for mask in train.mask]
        edges = np.array([[(p.start or 0, p.stop or n) for p, n in zip(b, shape)] for b in boxes])
        half = (edges[..., 1] - edges[..., 0]).mean(0) / 2 / shape
        middle = edges.mean((0, 2)) / shape
        levels = [[self._level(train, row, t) for t in (CSF, GM, WM)] for row in range(len(train))]
        known = np.where(np.isfinite(levels).any(0), levels, (0.2, 0.6, 0.9))
        self.state = {"middle": middle, "half": half, "levels": np.nanmedian(known, axis=0)}

    def _level(self, segmented: Segmented, row: int, tissue: int) -> float:
        """Median intensity of a label, NaN where it holds too little."""
        inside = segmented.image[row][segmented.labels[row] == tissue]
        enough = inside.size > MIN_LABEL_SHARE * segmented.mask[row].sum()
        return float(np.median(inside)) if enough else float("nan")

    def definition(self) -> str:
        """SHA-256 of the features' code, of the geometry's and of the fitted state."""
        geometry = inspect.getsource(cortex_geometry)
        return hashlib.sha256((super().definition() + geometry).encode()).hexdigest()

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, 25); zeros where nothing is found to measure, as in an empty mask."""
        rows = [self._row(segmented, row) for row in range(len(segmented))]
        return np.array(rows).reshape(len(segmented), len(CORTEX_NAMES))

    def _parts(self, shape: tuple[int, ...], box: tuple[slice, slice, slice]) -> Parts:
        """Return what lies where in the box, by places in half-extents from the middle."""
        i, j, k = np.ix_(
            *(
                (((np.arange(size) + 0.5) / size - middle) / half)[part]
                for size, part, middle, half in zip(
                    shape, box, self.state["middle"], self.state["half"]
                )
            )
        )
        region = 4 * (i > 0) + 2 * (j > 0) + (k > 0)
        behind_below = (j < 0) & (k < -CEREBELLUM_SHARE) & np.isfinite(i)
        return Parts(i**2 + j**2 + k**2 < CENTRAL_RADIUS**2, ~behind_below, region.astype(np.uint8))

    def _row(self, segmented: Segmented, row: int) -> FloatArray:
        mask, spacing_mm = segmented.mask[row], segmented.spacing_mm
        if not mask.any():
            return np.zeros(len(CORTEX_NAMES))
        box = bounding_box(mask)
        parts = self._parts(mask.shape, box)
        white = self._level(segmented, row, WM)
        own = self.state["levels"][2]
        gain = white / own if np.isfinite(white) and white > 0 and own > 0 else 1.0
        levels = self.state["levels"] * gain
        sharp = deconvolved(segmented.image[row][box], spacing_mm)
        position = tissue_position(sharp, mask[box], levels)
        filled = np.where(parts.central & (position < 1), np.float32(2), position)
        ribbon = Ribbon(filled, spacing_mm)
        sheet = (parts.cerebrum & ~parts.central).ravel()[ribbon.voxels]
        closed_mm2 = float(ribbon.close_sulci(spacing_mm)[sheet].sum())
        thickness = _thickness(ribbon, sheet, parts.region.ravel()[ribbon.voxels])
        surfaces = _surfaces(filled, parts, closed_mm2, spacing_mm)
        return np.array([*thickness, *surfaces])


def _thickness(ribbon: Ribbon, sheet: BoolArray, region: NDArray[np.uint8]) -> FloatArray:
    """Return mean, sd, percentiles and the octants' means over the area of the sheet.

    A voxel on a line of length t stands for 1 / t of area, so that means are harmonic.
    """
    length = ribbon.thickness(CAP_MM)
    used = sheet & np.isfinite(length) & (length > 0)
    values, region = length[used].astype(np.float64), region[used]
    area = 1 / values
    count = np.bincount(region, minlength=len(REGIONS))
    by_region = np.bincount(region, area, minlength=len(REGIONS))
    octants = np.divide(count, by_region, out=np.zeros(len(REGIONS)), where=by_region > 0)
    total = max(float(area.sum()), 1e-12)
    mean = len(values) / total
    sd = np.sqrt(float(area @ (values - mean) ** 2) / total)
    return np.array([mean, sd, *weighted_percentiles(values, area, PERCENTILES), *octants])


def _surfaces(position: Field, parts: Parts, closed_mm2: float, spacing_mm: Spacing) -> FloatArray:
    """Return the features after the thickness, in the order of `CORTEX_NAMES`."""
    cerebrum, sheet = parts.cerebrum, parts.cerebrum & ~parts.central
    depth = envelope_depth(position > PIAL_LEVEL, spacing_mm, ENVELOPE_MM, DEEPEST_MM)
    open_mm2 = level_area(position, PIAL_LEVEL + AROUND, spacing_mm, cerebrum)
    white_mm2 = level_area(position, WHITE_LEVEL + AROUND, spacing_mm, cerebrum)
    envelope_mm2 = level_area(depth, (0.0,), spacing_mm, cerebrum)
    pial_mm2 = open_mm2 + closed_mm2
    voxel_mm3 = float(np.prod(spacing_mm))
    inner = np.clip(position - 1, 0, 1)
    outer = np.clip(position, 0, 1)
    grey_mm3 = float((outer - inner)[sheet].sum()) * voxel_mm3
    hull = (depth > 0) & cerebrum
    csf, below = 1 - outer[hull], depth[hull]
    csf_sum = float(csf.sum())
    return np.array(
        [
            _ratio(grey_mm3, white_mm2),
            pial_mm2 / 100,
            white_mm2 / 100,
            envelope_mm2 / 100,
            _ratio(pial_mm2, envelope_mm2),
            _ratio(white_mm2, envelope_mm2),
            _ratio(closed_mm2, pial_mm2),
            transition_width(position, PIAL_LEVEL, BAND, spacing_mm, sheet),
            transition_width(position, WHITE_LEVEL, BAND, spacing_mm, sheet),
            csf_sum * voxel_mm3 / 1000,
            _ratio(float(csf @ below), csf_sum),
            *weighted_percentiles(below, csf, (50,)),
        ]
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
