"""Train StyleGAN2 on handwritten digits through gyri's own pipeline, and judge what it makes.

scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged to 32 x 32, become a prepared cohort of
volumes one slice thick. The recipe is trained on TRAIN's 1,197 and asked for one sample a digit of
HOLD. A support vector machine that learned TRAIN says whether a sample is the digit that was asked
for; precision, recall, density and coverage are measured on the same pixels against HOLD, beside
those of as many TRAIN digits.

python docs/results/digits.py OUT [--recipe R] [--seed 0] [--override KEY=VALUE] [--picture P.png]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch.nn.functional import interpolate

from gyri import api
from gyri.cohort.files import write_json
from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import (
    INT16_MAX,
    MANIFEST,
    PreparedCohort,
    file_hash,
    prepared_path,
    write_manifest,
)
from gyri.cohort.splits import split_subjects
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.table import ColumnType
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.metrics.manifold import prdc
from gyri.report.figures import png
from gyri.runtime.seeding import numpy_rng
from gyri.training.run import train
from gyri.types import Channel, Grid

RECIPE = Path(__file__).parents[2] / "recipes" / "digits" / "stylegan2.yaml"
SIDE = 32
SIZES = {"TRAIN": 1197, "HOLD": 600}
GRID = Grid((SIDE, SIDE, 1), tuple(tuple(row) for row in np.eye(4).tolist()))
CHANNEL = Channel("digit")
SHOWN = 8
"""Real and synthetic digits of each class in the picture."""


def prepare(out: Path) -> PreparedCohort:
    """Write the digits as a prepared cohort, stratified by digit, or read it if it is there."""
    if (out / MANIFEST).is_file():
        return PreparedCohort.read(out)
    digits = load_digits()
    small = torch.from_numpy(digits.images)[:, None] / 16
    large = interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    names = [f"{k:04d}" for k in range(len(large))]
    table = pd.DataFrame(
        {"session": "", "digit": digits.target.astype(str)}, index=pd.Index(names, name="subject")
    )
    table.insert(1, "split", split_subjects(table, SIZES, stratify=("digit",)))
    files = {}
    for name, image in zip(names, large[:, 0].numpy()):
        relative = prepared_path(name, "", CHANNEL)
        # Rows of an image run downwards, the second axis of a volume to the front.
        write_volume(
            out / relative, image.T[:, ::-1, None], np.eye(4), descrip="digit",
            dtype="int16", scale=1 / INT16_MAX,
        )  # fmt: skip
        write_json((out / relative).with_suffix(".json"), {"SkullStripped": True})
        files[str(relative)] = file_hash(out / relative)
    levels = {str(digit): "" for digit in range(10)}
    return write_manifest(
        out,
        name="digits",
        grid=GRID,
        channels=(CHANNEL,),
        intensity_range=(0.0, 1.0),
        table=table,
        columns={"digit": ColumnType(kind="categorical", description="Digit", levels=levels)},
        files=files,
        quarantine=[],
        settings={"source": "sklearn.datasets.load_digits", "enlarged": "bilinear"},
    )


def pixels(volumes: VolumeSet) -> np.ndarray:
    """Return a row of pixels a digit, (n, SIDE * SIDE)."""
    return volumes.volumes.reshape(len(volumes.volumes), -1).astype(np.float64)


def images(volumes: VolumeSet) -> np.ndarray:
    """Return images (n, SIDE, SIDE) that stand upright."""
    return volumes.volumes[:, 0, :, ::-1, 0].transpose(0, 2, 1)


def judge(train: VolumeSet, hold: VolumeSet, synthetic: VolumeSet) -> dict[str, float]:
    """Return accuracies of a classifier learned on `train`, and how the manifolds overlap."""
    classifier = SVC(gamma="scale", C=10).fit(pixels(train), train.table["digit"])
    found = {
        "accuracy_real_hold": classifier.score(pixels(hold), hold.table["digit"]),
        "accuracy_synthetic": classifier.score(pixels(synthetic), synthetic.table["digit"]),
    }
    rows = numpy_rng(0, "digits").permutation(len(train.volumes))[: len(hold.volumes)]
    for name, made in (("real", pixels(train)[rows]), ("synthetic", pixels(synthetic))):
        found |= {f"{key}_{name}": value for key, value in prdc(pixels(hold), made).items()}
    return found


def picture(real: VolumeSet, synthetic: VolumeSet) -> bytes:
    """Draw a row a digit: real ones on the left, synthetic ones on the right of a white line."""
    rows = []
    for digit in map(str, range(10)):
        halves = [
            np.concatenate(images(s)[(s.table["digit"] == digit).to_numpy()][:SHOWN], axis=1)
            for s in (real, synthetic)
        ]
        rows.append(np.concatenate([halves[0], np.ones((SIDE, SIDE // 4)), halves[1]], axis=1))
    shown = np.concatenate(rows).clip(0, 1).repeat(2, axis=0).repeat(2, axis=1)
    return png((255 * shown).round().astype(np.uint8))


def main() -> None:
    """Prepare, train, sample, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepared = prepare(arguments.out / "prepared")
    folder = arguments.out / f"seed-{arguments.seed}"
    overrides = (f"seed={arguments.seed}", *arguments.override)
    run = train(arguments.recipe, prepared.root, folder, overrides=overrides, quiet=True)
    made, _ = api.sample(
        run.root, num=SIZES["HOLD"], like=prepared.root, split="HOLD", seed=arguments.seed, batch=50
    )
    hold, synthetic = prepared.volume_set("HOLD"), SyntheticCohort.read(made.root).volume_set()
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    found = {name: last[name] for name in ("step", "images_seen", "cpu_s")}
    found |= judge(prepared.volume_set("TRAIN"), hold, synthetic)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}, indent=1))
    if arguments.picture is not None:
        arguments.picture.write_bytes(picture(hold, synthetic))


if __name__ == "__main__":
    main()
