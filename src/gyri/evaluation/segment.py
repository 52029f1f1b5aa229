"""Brain mask and three tissue classes from intensities alone, the same for real and synthetic.

No weights: a mask by Otsu's threshold, closing and largest component; TRAIN's tissue classes, found
with each scan's gain and bias field (`gyri.evaluation.tissue`); a mixture fitted to each volume
around them; iterated conditional modes (Besag 1986) against speckle. A volume that cannot be
segmented gets an empty mask: it counts as a failure and is never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.tissue import (
    ALIGNMENT_ROUNDS,
    BIAS_ROUNDS,
    CENTRES,
    CLASS_ORDER,
    FRACTIONS,
    NUM_BINS,
    BiasField,
    bins_of,
    fit_mixture,
    flatten,
    histogram,
)
from gyri.evaluation.tissue import CSF as CSF
from gyri.evaluation.tissue import GM as GM
from gyri.evaluation.tissue import WM as WM
from gyri.evaluation.tissue import TissueModel as TissueModel
from gyri.evaluation.tissue import align_intensity as align_intensity

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Otsu separates brain from background; half of it keeps dark CSF inside.
THRESHOLD_SHARE = 0.5
CLOSING_MM = 4.0
ICM_WEIGHT = 0.3
ICM_SWEEPS = 5
# Ventricles lie inside this fraction of the brain's half-extents; sulci do not.
CENTRAL_RADIUS = 0.5


@dataclass(frozen=True)
class Segmented:
    """Volumes with their masks and tissue labels.

    Parameters
    ----------
    image : (N, I, J, K) float32.
    mask : (N, I, J, K) brain mask, holes filled.
    labels : (N, I, J, K) uint8, see `CSF`, `GM`, `WM`.
    components : (N,) 6-connected pieces that hold at least 1 % of the thresholded voxels.
    largest_share : (N,) share of the thresholded voxels in the largest piece; 0 if there is none.
    holes : (N,) voxels that were enclosed and filled.
    spacing_mm : along I, J, K.
    """

    image: NDArray[np.float32]
    mask: BoolArray
    labels: NDArray[np.uint8]
    components: NDArray[np.int64]
    largest_share: FloatArray
    holes: NDArray[np.int64]
    spacing_mm: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.image)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0


def otsu_threshold(values: NDArray[np.float32]) -> float:
    """Return the threshold that maximises the variance between two classes (Otsu 1979).

    A constant image gives its own value, so that nothing lies above.
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return high
    counts, edges = np.histogram(values, bins=NUM_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    mass = np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def _shifted(mask: BoolArray, axis: int, step: int, fill: bool) -> BoolArray:
    out = np.full_like(mask, fill)
    source: list[slice] = [slice(None)] * mask.ndim
    target: list[slice] = [slice(None)] * mask.ndim
    source[axis], target[axis] = (
        (slice(None, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(None, -1))
    )
    out[tuple(target)] = mask[tuple(source)]
    return out


def dilate(mask: BoolArray) -> BoolArray:
    """Dilate (I, J, K) by the 6-neighbourhood."""
    out = mask.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            out |= _shifted(mask, axis, step, False)
    return out


def erode(mask: BoolArray) -> BoolArray:
    """Erode (I, J, K) by the 6-neighbourhood; outside the grid counts as inside."""
    out = mask.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            out &= _shifted(mask, axis, step, True)
    return out


def _largest(mask: BoolArray) -> tuple[BoolArray, int, float]:
    """Return the largest 6-connected piece, the number of pieces and the largest one's share."""
    from scipy import ndimage

    labelled, count = ndimage.label(mask)
    if not count:
        return mask, 0, 0.0
    sizes = np.bincount(labelled.ravel())[1:]
    largest = labelled == 1 + int(sizes.argmax())
    return largest, int((sizes >= 0.01 * sizes.sum()).sum()), float(sizes.max() / sizes.sum())


def _fill(mask: BoolArray) -> tuple[BoolArray, int]:
    """Fill what no axial slice connects with its border; return the mask and the filled voxels.

    Slice by slice, because ventricles reach the outside through the cut brain stem.
    """
    from scipy import ndimage

    within = np.zeros((3, 3, 3), bool)
    within[:, 1, 1] = within[1, :, 1] = True
    empty = np.pad(~mask, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    pieces, count = ndimage.label(empty, within)
    outside = np.zeros(count + 1, bool)
    outside[pieces[0, 0]] = True
    filled = ~outside[pieces[1:-1, 1:-1]]
    return filled, int(filled.sum() - mask.sum())


def brain_mask(
    image: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> tuple[BoolArray, int, float, int]:
    """Return mask, number of pieces, share of the largest piece and filled voxels.

    Parameters
    ----------
    image : (I, J, K), skull-stripped, brain brighter than background.
    spacing_mm : along I, J, K; closing reaches `CLOSING_MM`, at least one voxel.
    """
    bright = image > THRESHOLD_SHARE * otsu_threshold(image)
    largest, pieces, share = _largest(bright)
    reach = max(1, round(CLOSING_MM / float(np.mean(spacing_mm))))
    closed = np.pad(largest, reach)
    for _ in range(reach):
        closed = dilate(closed)
    for _ in range(reach):
        closed = erode(closed)
    inside = (slice(reach, -reach),) * 3
    filled, holes = _fill(closed[inside])
    return filled, pieces, share, holes


def fit_tissue_model(train: VolumeSet, max_volumes: int = 40) -> TissueModel:
    """Fit the class intensities of TRAIN's first channel, pooled over evenly spaced subjects.

    Gains, bias fields and classes are found in turn. Channels without a known contrast are
    ordered as T1w.
    """
    rows = np.unique(np.linspace(0, len(train) - 1, max_volumes).round().astype(int))
    spacing_mm = train.grid.spacing_mm
    inside, fields = [], []
    for image in train.volumes[rows, 0]:
        mask = brain_mask(image, spacing_mm)[0]
        if mask.any() and np.median(image[mask]) > 0:
            inside.append(image[mask])
            fields.append(BiasField(mask, spacing_mm))
    order = CLASS_ORDER.get(train.channels[0], CLASS_ORDER["T1w"])
    model = TissueModel(
        np.array([0.5, 0.9, 1.3]), np.full(3, 0.03), np.array([0.15, 0.5, 0.35]), order
    )
    flat = [values / np.float32(np.median(values)) for values in inside]
    for _ in range(ALIGNMENT_ROUNDS if inside else 0):
        pooled = np.sum([histogram(values) for values in flat], axis=0)
        model = fit_mixture(pooled, model, None)
        flat = [flatten(v, f, model, 2) for v, f in zip(inside, fields)]
    return model


def _icm(log_p: NDArray[np.float32], mask: BoolArray) -> NDArray[np.uint8]:
    """Iterated conditional modes with a Potts prior over 6 neighbours, checkerboard order.

    Parameters
    ----------
    log_p : (3, n) class log-densities of the voxels in `mask`.
    mask : (I, J, K); neighbours outside it do not vote.

    Returns
    -------
    classes : (n,) 0, 1 or 2.
    """
    padded = np.pad(mask, 1)
    strides = [padded.shape[1] * padded.shape[2], padded.shape[2], 1]
    inside = np.flatnonzero(padded)
    parity = np.indices(padded.shape).sum(0).ravel()[inside] % 2
    halves = [np.flatnonzero(parity == p) for p in (0, 1)]
    neighbours = [[inside[half] + step * s for s in strides for step in (-1, 1)] for half in halves]
    # Class 3 stands for "outside" and casts no vote that counts.
    label = np.full(padded.size, 3, np.uint8)
    label[inside] = log_p.argmax(0)
    for _ in range(ICM_SWEEPS):
        for half, around in zip(halves, neighbours):
            votes = np.zeros((3, len(half)), np.float32)
            for places in around:
                votes += label[places] == np.arange(3, dtype=np.uint8)[:, None]
            label[inside[half]] = (log_p[:, half] + ICM_WEIGHT * votes).argmax(0)
    return label[inside]


def bounding_box(mask: BoolArray) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds an (I, J, K) mask; the whole grid if it is empty."""
    if not mask.any():
        return (slice(None),) * 3
    box = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return box[0], box[1], box[2]


def label_tissues(
    image: NDArray[np.float32],
    mask: BoolArray,
    model: TissueModel,
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Return (I, J, K) tissue labels inside `mask`."""
    labels = np.zeros(mask.shape, np.uint8)
    if not mask.any():
        return labels
    box = bounding_box(mask)
    inside = mask[box]
    values = image[box][inside]
    if not np.median(values) > 0:
        return labels
    flat = flatten(values, BiasField(inside, spacing_mm), model, BIAS_ROUNDS)
    own = fit_mixture(histogram(flat), model, model)
    log_p = np.log(FRACTIONS.T @ own.joint(CENTRES).T + 1e-12).astype(np.float32)
    found = _icm(log_p[:, bins_of(flat)], inside)
    labels[box][inside] = np.asarray(model.order, np.uint8)[found]
    return labels


def segment(volumes: VolumeSet, model: TissueModel) -> Segmented:
    """Segment the first channel of every volume; non-finite volumes get an empty mask."""
    images = volumes.volumes[:, 0]
    spacing_mm = volumes.grid.spacing_mm
    mask = np.zeros(images.shape, bool)
    labels = np.zeros(images.shape, np.uint8)
    pieces = np.zeros(len(images), np.int64)
    share = np.zeros(len(images))
    holes = np.zeros(len(images), np.int64)
    for row, image in enumerate(images):
        if not np.isfinite(image).all():
            continue
        mask[row], pieces[row], share[row], holes[row] = brain_mask(image, spacing_mm)
        labels[row] = label_tissues(image, mask[row], model, spacing_mm)
    return Segmented(images, mask, labels, pieces, share, holes, spacing_mm)


def central_csf(labels: NDArray[np.uint8], mask: BoolArray) -> BoolArray:
    """Return the CSF voxels of an (I, J, K) volume near the brain's middle: the ventricles.

    Near means inside the ellipsoid of `CENTRAL_RADIUS` times the mask's half-extents.
    """
    distance = np.zeros(mask.shape, np.float32)
    for axis, part in enumerate(bounding_box(mask)):
        start = part.start or 0
        stop = mask.shape[axis] if part.stop is None else part.stop
        scaled = (np.arange(mask.shape[axis]) - (start + stop - 1) / 2) / max(stop - start, 1) * 2
        shape = [1, 1, 1]
        shape[axis] = -1
        distance = distance + scaled.reshape(shape).astype(np.float32) ** 2
    return np.asarray((labels == CSF) & (distance < CENTRAL_RADIUS**2))
