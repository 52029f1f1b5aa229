"""Print what cortex-v1 finds in a prepared cohort: error, age, and whether blur is found.

python docs/results/cortex.py PREPARED [--cache FOLDER]

Four sets: TRAIN, HOLD, HOLD blurred by 2 mm (full width at half maximum), and the subjects with
two sessions in any split. The control of the test is TRAIN against HOLD.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.effects import cohens_d
from gyri.evaluation.features.extraction import Extractor
from gyri.evaluation.metrics.kernel import cubic_kernel, permutation_p_value, plain_distance

BLUR_FWHM_MM = 2.0
PERMUTATIONS = 1000
NAME = "cortex-v1"


def blurred(volumes: VolumeSet) -> VolumeSet:
    """Return the set blurred by a Gaussian of `BLUR_FWHM_MM`."""
    fwhm = np.sqrt(8 * np.log(2)) * np.array(volumes.grid.spacing_mm)
    sigma = (0.0, 0.0, *(BLUR_FWHM_MM / fwhm))
    return replace(volumes, volumes=ndimage.gaussian_filter(volumes.volumes, sigma))


def sessions(cohort: PreparedCohort) -> VolumeSet:
    """Return the first two sessions of everybody who has two, one after the other."""
    twice = cohort.table[cohort.table.index.duplicated(keep=False)]
    rows = twice.groupby(level=0, sort=False).head(2)
    channels = [i for i, c in enumerate(cohort.channels) if c.kind == "intensity"]
    volumes = cohort.unit_intensities(rows, channels)
    return VolumeSet(
        "sessions", volumes, rows, cohort.grid, tuple(cohort.channels[i].name for i in channels)
    )


def agreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the within-subject standard deviation and ICC(1, 1) of (n,) pairs."""
    within = float(((first - second) ** 2).mean() / 2)
    between = 2 * float(((first + second) / 2).var(ddof=1))
    return within**0.5, (between - within) / (between + within)


def distance(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the kernel distance of z-scored features and its permutation p-value."""
    pooled = np.concatenate([x, y])
    kernel = cubic_kernel(pooled, pooled)
    rng = np.random.default_rng(0)
    return plain_distance(kernel, len(x)), permutation_p_value(kernel, len(x), PERMUTATIONS, rng)


def main() -> None:
    """Measure and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    cohort = PreparedCohort.read(arguments.prepared)
    train, hold, pairs = cohort.volume_set("TRAIN"), cohort.volume_set("HOLD"), sessions(cohort)
    extractor = Extractor(train, arguments.cache, [NAME])
    sets = {"pairs": pairs, "hold": hold, "blurred": blurred(hold), "train": train}
    found = {key: extractor.extract(volumes)[NAME] for key, volumes in sets.items()}
    first, second = found["pairs"][::2], found["pairs"][1::2]
    age = hold.table["age"].to_numpy(float)
    known = np.isfinite(age)
    print(f"data {cohort.data_hash[:12]}, split {cohort.split_hash[:12]}, {len(first)} pairs, ")
    print(f"HOLD {len(hold)}, TRAIN {len(train)}\n")
    print("| feature | HOLD mean (sd) | error | ICC | r with age | d TRAIN | d blurred | / error |")
    print("|---" * 8 + "|")
    for column, name in enumerate(extractor.sets[NAME].names):
        real = found["hold"][:, column]
        error, icc = agreement(first[:, column], second[:, column])
        r = np.corrcoef(age[known], real[known])[0, 1]
        half = cohens_d(real, found["train"][:, column])
        blur = cohens_d(real, found["blurred"][:, column])
        shift = (found["blurred"][:, column] - real).mean() / error
        print(
            f"| {name} | {real.mean():.4g} ({real.std(ddof=1):.3g}) | {error:.3g} | {icc:.2f} "
            f"| {r:.2f} | {half:.2f} | {blur:.2f} | {shift:.1f} |"
        )
    centre, spread = found["train"].mean(0), found["train"].std(0, ddof=1)
    x, y, z = ((found[key] - centre) / spread for key in ("hold", "train", "blurred"))
    print("\n| against HOLD | kernel distance | p |")
    print("|---" * 3 + "|")
    half_train = np.sort(np.random.default_rng(0).permutation(len(y))[: len(x)])
    for label, other in (("TRAIN", y), ("TRAIN, as many", y[half_train]), ("blurred HOLD", z)):
        print("| {} | {:.3g} | {:.4f} |".format(label, *distance(x, other)))


if __name__ == "__main__":
    main()
