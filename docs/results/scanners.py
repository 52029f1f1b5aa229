"""Draw and tabulate a study by scanner, as s1-scanners.md shows it.

python docs/results/scanners.py STUDY PREPARED OUT [--column scanner]

Writes OUT-samples.png (real people and samples of every row, two a level), OUT-boxes.png (the 20
draws behind each distance) and prints a table of distances and one of how far samples follow the
level in blocks of 8 mm, which no blur touches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.estimators import MASK_SHARE, block_means
from gyri.evaluation.labels import levels, one_hot
from gyri.evaluation.metrics.conditioning import response

KEY = "fd_by_level/morph-v1"
A_LEVEL = 2


def finished(study: Path) -> list[tuple[str, Path]]:
    """Label and samples of the first finished trial of each row."""
    results = json.loads((study / "results.json").read_text())
    return [
        (row["label"] + (", as published" if row["faithful"] else ""), study / trial["samples"])
        for row in results["rows"]
        for trial in row["trials"][:1]
        if trial["state"] == "done"
    ]


def rows_of(volumes: VolumeSet, column: str, level: str) -> np.ndarray:
    """Rows of a level."""
    return np.flatnonzero(np.array(levels(volumes.table[column]), object) == level)


def strip(volumes: VolumeSet, column: str, names: list[str]) -> np.ndarray:
    """The middle axial slice of the first people of each level, side by side."""
    found = [row for name in names for row in rows_of(volumes, column, name)[:A_LEVEL]]
    images = volumes.volumes[found, 0]
    return np.concatenate([np.rot90(image[:, :, image.shape[2] // 2]) for image in images], axis=1)


def draw_samples(sets: dict[str, VolumeSet], column: str, names: list[str], out: Path) -> None:
    """A line of brains for real people and for each row."""
    figure, axes = plt.subplots(len(sets), 1, figsize=(0.8 * A_LEVEL * len(names), 1.2 * len(sets)))
    for axis, (label, volumes) in zip(axes, sets.items(), strict=True):
        axis.imshow(strip(volumes, column, names), cmap="gray", vmin=0, vmax=0.9)
        axis.set_title(label, fontsize=7, loc="left", pad=2)
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=90, facecolor="white")


def distances(samples: Path) -> dict[str, dict[str, Any]]:
    """Level -> score of `KEY` that has draws."""
    sheet = json.loads((samples / "evaluation" / "scores.json").read_text())
    return {
        score["key"].rpartition("=")[2]: score
        for score in sheet["scores"]
        if score["key"].startswith(KEY) and score["draws"]
    }


def draw_boxes(rows: list[tuple[str, Path]], names: list[str], out: Path) -> None:
    """One panel a level, one box a row, on a logarithmic axis."""
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.6 * len(names) + 2, 0.24 * len(rows) + 0.8), sharey=True
    )
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        scores = [distances(samples).get(name) for _, samples in rows]
        axis.boxplot(
            [score["draws"] if score else [] for score in scores], orientation="horizontal"
        )
        if known := [score["anchors"] for score in scores if score]:
            axis.axvline(known[0]["ceiling"], color="tab:green", linewidth=1)
            axis.axvline(known[0]["other_levels"], color="tab:orange", linewidth=1)
        axis.set_xscale("log")
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_yticks(range(1, len(rows) + 1), [label for label, _ in rows])
    np.atleast_1d(axes)[0].invert_yaxis()
    figure.savefig(out, dpi=90, facecolor="white", bbox_inches="tight")


def block_gain(train: VolumeSet, hold: VolumeSet, column: str) -> Any:
    """Return a function from volumes to how far their blocks follow the level, HOLD being 1."""

    def blocks(volumes: VolumeSet) -> np.ndarray:
        return block_means(volumes.volumes[:, 0], volumes.grid.spacing_mm)

    mean = blocks(train).mean(0)
    inside = mean > MASK_SHARE * mean.max()
    found = [name or "" for name in levels(train.table[column])]
    known = [row for row, name in enumerate(found) if name]
    names = sorted({found[row] for row in known})
    model = make_pipeline(
        PCA(40), StandardScaler(), LogisticRegression(C=0.3, class_weight="balanced", max_iter=2000)
    ).fit(blocks(train)[known][:, inside], [found[row] for row in known])

    def followed(volumes: VolumeSet) -> float:
        estimates = model.predict_proba(blocks(volumes)[:, inside])
        asked = one_hot([name or "" for name in levels(volumes.table[column])], names)
        use = np.isfinite(asked).all(1)
        return float(response(estimates[use], asked[use], np.ones((1, int(use.sum()))))[0])

    real = followed(hold)
    return lambda volumes: followed(volumes) / real


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--column", default="scanner")
    arguments = parser.parse_args()
    rows, column = finished(arguments.study), arguments.column
    cohort = PreparedCohort.read(arguments.prepared)
    train, hold = cohort.volume_set("TRAIN"), cohort.volume_set("HOLD")
    sets = {label: SyntheticCohort.read(samples).volume_set() for label, samples in rows}
    told = {label: made for label, made in sets.items() if column in made.table}
    names = sorted({name for name in levels(hold.table[column]) if name is not None})
    draw_samples({"Real people": hold} | told, column, names, Path(f"{arguments.out}-samples.png"))
    judged = sorted({name for _, samples in rows for name in distances(samples)})
    draw_boxes(rows, judged, Path(f"{arguments.out}-boxes.png"))
    print("| row |", " | ".join(judged), "|")
    print("|" + "---|" * (len(judged) + 1))
    for label, samples in rows:
        scores = distances(samples)
        cells = [
            f"{s['value']:.3g} ± {np.std(s['draws'], ddof=1):.2g} ({s['low']:.3g}, {s['high']:.3g})"
            for s in (scores[name] for name in judged if name in scores)
        ]
        print("|", label, "|", " | ".join(cells or ["–"] * len(judged)), "|")
    gain = block_gain(train, hold, column)
    for label, made in told.items():
        print(f"{label}: {gain(made):.2f}")


if __name__ == "__main__":
    main()
