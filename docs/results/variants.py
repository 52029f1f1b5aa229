"""Draw and tabulate a study of StyleGAN2's variants, as s2-variants.md shows it.

python docs/results/variants.py STUDY PREPARED OUT

Writes OUT-samples.png (for three held-out masks the person's own scans and what every row makes of
them; without given masks the first samples), OUT-course.png (distance to VAL over items seen) and
prints a table of what the judge says, the artefacts of each row among it, and one of the training
seeds where there are several.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from table import cell, finished, number

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.metrics.artefacts import Artefacts
from gyri.evaluation.protocol import Judge, without_nan
from gyri.report.charts import courses
from gyri.report.figures import png

SHOWN = 3
KEYS = (
    "fd/morph-v1", "fd/radiomics-v1", "kid/morph-v1", "kid/radiomics-v1", "coverage/morph-v1",
    "msssim/delta", "nearest/copy_rate", "components", "label_agreement/tumour/whole",
    "label_agreement/tumour/ratio", "label_anatomy/tumour/w1", "label_anatomy/tumour/place",
)  # fmt: skip


def case(volumes: VolumeSet, row: int, depth: int) -> np.ndarray:
    """All modalities of a slice and its label, side by side."""
    labels = [label[row, :, :, depth] / max(label.max(), 1) for label in volumes.labels.values()]
    images = [*volumes.volumes[row, :, :, :, depth], *labels]
    return np.concatenate([np.rot90(image) for image in images], axis=1)


def draw_samples(study: Path, cohort: PreparedCohort, out: Path) -> None:
    """One line a row: three cases, each at the depth where its label is largest."""
    hold = cohort.volume_set("HOLD")
    lines: list[tuple[str, np.ndarray]] = []
    real: list[np.ndarray] = []
    for row, trial in finished(study):
        samples = SyntheticCohort.read(study / trial["samples"])
        made = samples.volume_set()
        people = samples.facts.get("given", {}).get("subjects", hold.ids)
        shown = range(SHOWN)
        depths = [_depth(made, k) for k in shown]
        lines.append(
            (row["label"], np.concatenate([case(made, k, d) for k, d in zip(shown, depths)], 1))
        )
        if not real:
            places = [hold.ids.index(people[k]) for k in shown]
            real = [case(hold, place, _depth(hold, place)) for place in places]
    lines.insert(0, ("real", np.concatenate(real, axis=1)))
    rows, columns = lines[0][1].shape
    size = min(15.0, 1.1 * columns / rows), 1.25 * len(lines)
    figure, axes = plt.subplots(len(lines), 1, figsize=size)
    for axis, (label, line) in zip(np.atleast_1d(axes), lines, strict=True):
        axis.imshow(line, cmap="gray", vmin=0, vmax=1)
        axis.set_title(label, fontsize=8, loc="left", pad=2)
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(f"{out}-samples.png", dpi=80, facecolor="white")


def _depth(volumes: VolumeSet, row: int) -> int:
    """Where a label is largest; the middle without one."""
    for label in volumes.labels.values():
        if (label[row] > 0).any():
            return int((label[row] > 0).sum((0, 1)).argmax())
    return volumes.volumes.shape[-1] // 2


def draw_course(study: Path, out: Path) -> None:
    """Distance to VAL at every kept checkpoint, over items seen."""
    lines = {}
    for row, trial in finished(study):
        found = trial["checkpoint"]["distances"]
        steps = sorted(found, key=int)
        each = trial["cost"]["images_seen"] / trial["cost"]["steps"]
        seen = [int(step) * each / 1000 for step in steps]
        lines[row["label"]] = seen, [found[step]["fd/morph-v1"] for step in steps]
    figure = courses(lines, "items seen, thousands", "Fréchet distance to VAL, morph-v1")
    Path(f"{out}-course.png").write_bytes(png(figure, dpi=90))


def print_seeds(study: Path) -> None:
    """Print what every training seed of a row came to."""
    rows = json.loads((study / "results.json").read_text())["rows"]
    if all(len(row["trials"]) < 2 for row in rows):
        return
    keys = [key for key in KEYS if key in finished(study)[0][1]["scores"]]
    print("\n| row, a value a seed | " + " | ".join(keys) + " |")
    print("|---" * (len(keys) + 1) + "|")
    for row in rows:
        done = [trial["scores"] for trial in row["trials"] if trial["state"] == "done"]
        values = [
            [number(scores[k]["value"]) if k in scores else "–" for scores in done] for k in keys
        ]
        print(f"| {row['label']} | " + " | ".join(", ".join(each) for each in values) + " |")


def artefacts(study: Path, cohort: PreparedCohort) -> dict[str, list[str]]:
    """Share of volumes with a hole and signal outside, of every row and of HOLD."""
    train, hold = cohort.volume_set("TRAIN"), cohort.volume_set("HOLD")
    judge = Judge(train, hold, len(hold), 0, None, 2000, None, features=["morph-v1"])
    sets = {"real": hold}
    for row, trial in finished(study):
        sets[row["label"]] = SyntheticCohort.read(study / trial["samples"]).volume_set()
    return {
        name: [
            cell(vars(score))
            for score in Artefacts().scores(judge.evidence(*without_nan(volumes)), judge.study)
        ]
        for name, volumes in sets.items()
    }


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    cohort = PreparedCohort.read(arguments.prepared)
    draw_samples(arguments.study, cohort, arguments.out)
    draw_course(arguments.study, arguments.out)
    flaws = artefacts(arguments.study, cohort)
    rows = finished(arguments.study)
    keys = [key for key in KEYS if any(key in trial["scores"] for _, trial in rows)]
    print("| row | " + " | ".join([*keys, "volumes with a hole", "signal outside"]) + " |")
    print("|---" * (len(keys) + 3) + "|")
    for row, trial in rows:
        cells = [cell(trial["scores"][key]) if key in trial["scores"] else "–" for key in keys]
        print(f"| {row['label']} | " + " | ".join([*cells, *flaws[row["label"]]]) + " |")
    first = rows[0][1]["scores"]
    for anchor in ("ceiling", "mean_image", "phase_random", "noise"):
        values = [first[key]["anchors"].get(anchor) if key in first else None for key in keys]
        cells = ["–" if value is None else number(value) for value in values]
        print(f"| *{anchor}* | " + " | ".join(cells) + " | | |")
    print(f"| *HOLD* | {'| ' * len(keys)}{flaws['real'][0]} | {flaws['real'][1]} |")
    print_seeds(arguments.study)


if __name__ == "__main__":
    main()
