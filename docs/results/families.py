"""Draw and tabulate a study of families of volume generators, as s3-baselines.md shows it.

python docs/results/families.py STUDY PREPARED OUT.png [--num 6]

Draws the first people of HOLD and the first samples of every row that is done (three planes),
and prints the tables of the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from table import ANCHORS, cell, finished, number

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort

COLUMNS = {
    "fd/morph-v1": "Fréchet, morph-v1",
    "fd/radiomics-v1": "Fréchet, radiomics-v1",
    "kid/morph-v1": "kernel, morph-v1",
    "kid/radiomics-v1": "kernel, radiomics-v1",
    "coverage/morph-v1": "coverage, morph-v1",
    "msssim/delta": "MS-SSIM delta",
    "coherence": "coherent",
    "components": "one brain",
    "nearest/copy_rate": "copy rate",
    "nearest/closer": "nearer to TRAIN",
    "conditioning/age/gain": "age: gain",
}
FEATURES = ("morph-v1", "radiomics-v1", "spectrum-v1", "ssl-v1", "sw-v1")
INFINITY = {f"fd_infinity/{name}": name for name in FEATURES}


def strip(volumes: np.ndarray) -> np.ndarray:
    """Mid-slices of (N, I, J, K) side by side: axial, coronal, sagittal."""
    i, j, k = (n // 2 for n in volumes.shape[1:])
    planes = (volumes[:, :, :, k], volumes[:, :, j], volumes[:, i])
    lines = [[np.rot90(one) for one in slices] for slices in planes]
    width = max(one.shape[1] for line in lines for one in line)
    padded = [
        np.concatenate([np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in line], axis=1)
        for line in lines
    ]
    return np.concatenate(padded)


def draw(study: Path, cohort: PreparedCohort, out: Path, num: int) -> None:
    """One strip a row, people first."""
    strips = [("people", strip(cohort.volume_set("HOLD").volumes[:num, 0]))]
    for row, trial in finished(study):
        made = SyntheticCohort.read(study / trial["samples"]).volume_set()
        strips.append((row["label"], strip(made.volumes[:num, 0])))
    columns = 2
    lines = -(-len(strips) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(12, 2.9 * lines))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (label, image) in zip(axes.flat, strips):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(label, fontsize=9, loc="left", pad=2)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=60, facecolor="white")


def line(cells: Iterable[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def tabulate(study: Path, columns: dict[str, str], facts: Sequence[str]) -> None:
    """Print the scores `columns` of every row that is done, then the anchors.

    The name of a row, its steps and its seconds a sample come first, as many as `facts` heads.
    """
    heads = [*facts, *columns.values()]
    print(line(heads))
    print("|---" * len(heads) + "|")
    scores: dict[str, Any] = {}
    for row, trial in finished(study):
        scores, cost = trial["scores"], trial["cost"]
        known = [row["label"], str(cost["steps"]), number(cost["seconds_a_sample"])]
        found = [cell(scores[key]) if key in scores else "" for key in columns]
        print(line([*known[: len(facts)], *found]))
    for anchor in ANCHORS:
        of = [scores.get(key, {}).get("anchors", {}).get(anchor) for key in columns]
        known = [f"*{anchor}*", "", ""]
        print(line([*known[: len(facts)], *(f"*{number(a)}*" if a else "" for a in of)]))


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=6)
    given = parser.parse_args()
    tabulate(given.study, COLUMNS, ("row", "steps", "s a sample"))
    print()
    tabulate(given.study, INFINITY, ("FD-infinity",))
    draw(given.study, PreparedCohort.read(given.prepared), given.out, given.num)


if __name__ == "__main__":
    main()
