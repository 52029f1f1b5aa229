"""Print, as Markdown, how well the judge's segmenter agrees with DLMUSE on IXI.

Scans and labels go through one preparation, the labels by nearest neighbour:

    gyri cohort import folder IXI-AND-DLMUSE raw --scans T1w=T1 --labels dlmuse=DLMUSE
    gyri prepare raw PREPARED --spacing 2 --channels T1w dlmuse
    python docs/results/segmentation.py PREPARED
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.segment import CSF, GM, WM, central_csf, fit_tissue_model, segment

# Regions of MUSE and the tissues that its own composite regions 601, 604, 600 and 509 give them.
WHITE = (40, 41, 61, 62, *range(81, 96))
VENTRICLES = (4, 11, 49, 50, 51, 52)
FLUID = (1, 46, *VENTRICLES)
# The composites leave brain stem and optic chiasm out; so does the comparison.
NEITHER = (35, 69)
IGNORED = 255


def tissues(regions: np.ndarray) -> np.ndarray:
    """Return tissue labels of regions; every region that is named nowhere is grey matter."""
    found = np.where(regions > 0, GM, 0).astype(np.uint8)
    for numbers, label in ((WHITE, WM), (FLUID, CSF), (NEITHER, IGNORED)):
        found[np.isin(regions, numbers)] = label
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (N,) Dice coefficients of (N, I, J, K) masks."""
    both = (a & b).sum((1, 2, 3))
    return 2 * both / (a.sum((1, 2, 3)) + b.sum((1, 2, 3)))


def main() -> None:
    """Segment every scan and print one row a tissue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    cohort = PreparedCohort.read(parser.parse_args().prepared)
    names = [channel.name for channel in cohort.channels]
    regions = cohort.load(cohort.table)[0][:, names.index("dlmuse")]
    images = cohort.unit_intensities(cohort.table, [names.index("T1w")])
    volumes = VolumeSet("IXI", images, cohort.table, cohort.grid, ("T1w",))
    with threadpool_limits(1):
        model = fit_tissue_model(volumes)
        start = time.process_time()
        found = segment(volumes, model)
        seconds = (time.process_time() - start) / len(volumes)
    truth = tissues(regions)
    counted = truth != IGNORED
    central = np.stack([central_csf(a, b) for a, b in zip(found.labels, found.mask)])
    pairs = {
        "brain mask": (found.mask, truth > 0),
        "grey matter": ((found.labels == GM) & counted, truth == GM),
        "white matter": ((found.labels == WM) & counted, truth == WM),
        "CSF": ((found.labels == CSF) & counted, truth == CSF),
        "central CSF, ventricles": (central, np.isin(regions, VENTRICLES)),
    }
    print(f"{len(volumes)} scans, {seconds:.2f} processor seconds each.\n")
    print("| | Dice, median | least | ours, ml | DLMUSE, ml | r of the volumes |")
    print("|---|---|---|---|---|---|")
    for name, (ours, theirs) in pairs.items():
        dice = overlap(ours, theirs)
        a, b = (m.sum((1, 2, 3)) * found.voxel_ml for m in (ours, theirs))
        print(
            f"| {name} | {np.median(dice):.3f} | {dice.min():.3f} | {a.mean():.0f} "
            f"| {b.mean():.0f} | {np.corrcoef(a, b)[0, 1]:.3f} |"
        )


if __name__ == "__main__":
    main()
