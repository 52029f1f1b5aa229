"""Compare translated phantoms with the same people truly scanned by the other scanner.

python docs/results/rescanned.py PREPARED TRANSLATED PIPELINE.yaml [--seed 0]

PREPARED: the prepared phantoms at 4 mm that were translated. TRANSLATED: what `gyri translate`
wrote. Each person's anatomy is scanned again by the scanner that he was translated to, and prepared
by the same pipeline. Prints the change of each tissue in ml from the original to the true
scan (the error of scanning twice, tissues segmented by classes of each scanner's own TRAIN scans),
the change from the original to the translation, and what voxels differ by.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from gyri.cohort.nifti import write_volume
from gyri.cohort.phantom import make_subject, phantom_grid, subject_seed
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.segment import fit_tissue_model
from gyri.evaluation.translation import TISSUES, tissue_volumes
from gyri.prepare.pipeline import prepare

SPACING_MM = 4.0


def rescanned(table: pd.DataFrame, pipeline: Path, seed: int) -> VolumeSet:
    """Scan everybody of the table anew, by the scanner that it names."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        affine = np.array(phantom_grid(SPACING_MM).affine)
        for label, row in table.replace("n/a", np.nan).iterrows():
            subject = make_subject(row, subject_seed(seed, str(label)), SPACING_MM)
            anat = raw / f"sub-{label}" / "anat"
            anat.mkdir(parents=True)
            write_volume(
                anat / f"sub-{label}_T1w.nii.gz", subject.images["T1w"], affine, descrip="phantom"
            )
        made = prepare(raw, Path(folder) / "prepared", steps=pipeline, sizes={"HOLD": 1.0})
        return made.volume_set("HOLD")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("translated", type=Path)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cohort = PreparedCohort.read(arguments.prepared)
    translated = SyntheticCohort.read(arguments.translated).volume_set()
    truth = rescanned(translated.table, arguments.pipeline, arguments.seed)
    order = [truth.ids.index(name) for name in translated.ids]
    truth = truth.take(np.array(order))
    split = cohort.volume_set(str(translated.table["split"].iloc[0]))
    originals = split.take(np.array([split.ids.index(name) for name in translated.ids]))

    train = cohort.volume_set("TRAIN")
    scanner = train.table["scanner"].to_numpy()
    old, new = originals.table["scanner"].iloc[0], translated.table["scanner"].iloc[0]
    own = {
        name: fit_tissue_model(train.take(np.flatnonzero(scanner == name))) for name in (old, new)
    }
    before = tissue_volumes(originals, own[old])
    print(f"{len(translated)} people of {old} as {new}; ml, mean (mean size) of the change")
    for what, volumes in (("scanned again", truth), ("translated", translated)):
        change = tissue_volumes(volumes, own[new]) - before
        cells = [f"{t} {change[t].mean():+.1f} ({change[t].abs().mean():.1f})" for t in TISSUES]
        print(f"{what}: {', '.join(cells)}")
    brain = truth.volumes > 0
    for what, volumes in (("original", originals), ("translated", translated)):
        error = np.abs(volumes.volumes - truth.volumes)[brain].mean()
        print(f"{what}: mean difference from the true scan inside the brain {error:.4f}")


if __name__ == "__main__":
    main()
