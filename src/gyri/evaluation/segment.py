"""Brain mask and three tissue classes from intensities alone, the same for real and synthetic.

No weights: a mask by Otsu's threshold, closing and largest component; the gain under which TRAIN's
three Gaussian classes explain the histogram best; a mixture fitted to each volume around them;
iterated conditional modes (Besag 1986) against speckle. A volume that cannot be segmented gets an
empty mask: it counts as a failure and is never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

CSF, GM, WM = 1, 2, 3
"""Label values; 0 is background."""

# Darkest to brightest class by the channel's contrast.
CLASS_ORDER = {
    "T1w": (CSF, GM, WM),
    "T1c": (CSF, GM, WM),
    "T2w": (WM, GM, CSF),
    "FLAIR": (CSF, WM, GM),
}
NUM_BINS = 256
MAX_INTENSITY = 2.5
CENTRES = (np.arange(NUM_BINS) + 0.5) * MAX_INTENSITY / NUM_BINS
"""Histogram bins of aligned intensities: 1 is about a brain's median."""
# Otsu separates brain from background; half of it keeps dark CSF inside.
THRESHOLD_SHARE = 0.5
CLOSING_MM = 4.0
SCALE_STEPS = np.arange(-0.3, 0.3001, 0.02)
ALIGNMENT_ROUNDS = 4
ALIGNMENT_VOXELS = 20_000
PRIOR = 0.25
ICM_WEIGHT = 0.6
ICM_SWEEPS = 5
EM_STEPS = 40
VARIANCE_FLOOR = 1e-4
# Ventricles lie inside this fraction of the brain's half-extents; sulci do not.
CENTRAL_RADIUS = 0.5


@dataclass(frozen=True)
class TissueModel:
    """Intensity classes of TRAIN after its gains are aligned; the prior of every volume's mixture.

    Parameters
    ----------
    means, variances, weights : (3,) of the classes in ascending order of mean.
    order : label of each class in that order.
    """

    means: FloatArray
    variances: FloatArray
    weights: FloatArray
    order: tuple[int, int, int] = (CSF, GM, WM)


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
    """Fill what is not connected with the grid's border; return the mask and the filled voxels."""
    from scipy import ndimage

    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    filled = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
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


def fit_mixture(
    counts: FloatArray, start: TissueModel, prior: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit a three-class Gaussian mixture to a histogram over `CENTRES` (MAP by EM).

    Parameters
    ----------
    counts : (NUM_BINS,) histogram of aligned intensities.
    start : where the iteration starts and the centre of the conjugate prior.
    prior : pseudo-observations of the prior as a multiple of the observations; 0 is maximum
        likelihood. Class weights have no prior: they are what is measured.

    Returns
    -------
    means, variances, weights : (3,) each, ascending in the mean.
    """
    means, variances, weights = start.means, start.variances, start.weights
    pseudo = prior * counts.sum() * start.weights
    for _ in range(EM_STEPS):
        log_p = _log_density(CENTRES, means, variances, weights)
        joint = np.exp(log_p - log_p.max(1, keepdims=True))
        share = counts[:, None] * joint / joint.sum(1, keepdims=True)
        mass = share.sum(0)
        means = (share.T @ CENTRES + pseudo * start.means) / (mass + pseudo + 1e-9)
        spread = (share * (CENTRES[:, None] - means) ** 2).sum(0)
        expected = pseudo * (start.variances + (means - start.means) ** 2)
        variances = (spread + expected) / (mass + pseudo + 1e-9) + VARIANCE_FLOOR
        weights = mass / mass.sum()
    rank = np.argsort(means)
    return means[rank], variances[rank], weights[rank]


def _log_density(
    x: NDArray[np.floating], means: FloatArray, variances: FloatArray, weights: FloatArray
) -> FloatArray:
    constant = np.log(weights + 1e-12) - 0.5 * np.log(variances)
    return np.asarray(constant - 0.5 * (x[..., None] - means) ** 2 / variances)


def _histogram(values: NDArray[np.floating], scale: float) -> FloatArray:
    counts, _ = np.histogram(values, bins=NUM_BINS, range=(0.0, scale * MAX_INTENSITY))
    return counts.astype(np.float64)


def align_intensity(
    values: NDArray[np.floating], model: TissueModel, start: float | None = None
) -> float:
    """Return the scale by which in-mask `values` are divided to lie as TRAIN's classes do.

    Scans differ in gain, and one bright remnant of the skull shifts any percentile: the scale is
    the one under which the class mixture explains the histogram best, searched around `start`
    (the median where none is given) in steps of 2 %.
    """
    centre = float(np.median(values)) if start is None else start
    if not centre > 0:
        return 1.0
    log_p = _log_density(CENTRES, model.means, model.variances, model.weights)
    likelihood = np.log(np.exp(log_p).sum(1) + 1e-6)
    values = values[:: max(1, values.size // ALIGNMENT_VOXELS)]
    steps = centre * np.exp(SCALE_STEPS)
    totals = [_histogram(values, s) @ likelihood - values.size * np.log(s) for s in steps]
    return float(steps[int(np.argmax(totals))])


def fit_tissue_model(train: VolumeSet, max_volumes: int = 40) -> TissueModel:
    """Fit the class intensities of TRAIN's first channel, pooled over evenly spaced subjects.

    Gains and classes are found in turn. Channels without a known contrast are ordered as T1w.
    """
    rows = np.unique(np.linspace(0, len(train) - 1, max_volumes).round().astype(int))
    spacing_mm = train.grid.spacing_mm
    inside = [image[brain_mask(image, spacing_mm)[0]] for image in train.volumes[rows, 0]]
    inside = [values for values in inside if values.size and np.median(values) > 0]
    order = CLASS_ORDER.get(train.channels[0], CLASS_ORDER["T1w"])
    model = TissueModel(
        np.array([0.5, 0.9, 1.3]), np.full(3, 0.03), np.array([0.15, 0.5, 0.35]), order
    )
    scales = [float(np.median(values)) for values in inside]
    for _ in range(ALIGNMENT_ROUNDS if inside else 0):
        pooled = np.sum([_histogram(v, s) for v, s in zip(inside, scales)], axis=0)
        model = TissueModel(*fit_mixture(pooled, model, prior=0.0), order)
        scales = [align_intensity(v, model, s) for v, s in zip(inside, scales)]
    return model


def _icm(log_p: NDArray[np.floating], mask: BoolArray) -> NDArray[np.int64]:
    """Iterated conditional modes with a Potts prior over 6 neighbours, checkerboard order.

    Parameters
    ----------
    log_p : (3, I, J, K) class log-densities.
    mask : (I, J, K); neighbours outside it do not vote.
    """
    padded = np.pad(mask, 1)
    strides = [padded.shape[1] * padded.shape[2], padded.shape[2], 1]
    inside = np.flatnonzero(padded)
    parity = np.indices(padded.shape).sum(0).ravel()[inside] % 2
    halves = [np.flatnonzero(parity == p) for p in (0, 1)]
    neighbours = [[inside[half] + step * s for s in strides for step in (-1, 1)] for half in halves]
    log_inside = log_p[:, mask].astype(np.float32)
    # Class 3 stands for "outside" and casts no vote that counts.
    label = np.full(padded.size, 3, np.uint8)
    label[inside] = log_inside.argmax(0)
    for _ in range(ICM_SWEEPS):
        for half, around in zip(halves, neighbours):
            votes = np.zeros((3, len(half)), np.float32)
            for places in around:
                votes += label[places] == np.arange(3, dtype=np.uint8)[:, None]
            label[inside[half]] = (log_inside[:, half] + ICM_WEIGHT * votes).argmax(0)
    return np.where(mask, label.reshape(padded.shape)[1:-1, 1:-1, 1:-1], 0).astype(np.int64)


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
    image: NDArray[np.float32], mask: BoolArray, model: TissueModel
) -> NDArray[np.uint8]:
    """Return (I, J, K) tissue labels inside `mask`."""
    labels = np.zeros(mask.shape, np.uint8)
    if not mask.any():
        return labels
    box = bounding_box(mask)
    part, inside = image[box], mask[box]
    scale = align_intensity(part[inside], model)
    counts = _histogram(part[inside], scale)
    if not counts.any():
        return labels
    means, variances, weights = fit_mixture(counts, model, PRIOR)
    aligned = part / np.float32(scale)
    log_p = np.moveaxis(_log_density(aligned, means, variances, weights), -1, 0)
    classes = np.asarray(model.order, np.uint8)[_icm(log_p, inside)]
    labels[box] = np.where(inside, classes, 0)
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
        labels[row] = label_tissues(image, mask[row], model)
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
