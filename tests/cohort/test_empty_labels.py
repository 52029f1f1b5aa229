"""Label maps of people without a lesion: all 0, and no fault of the file."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from gyri import api
from gyri.cohort.nifti import read_volume
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import FileFault


@pytest.fixture
def files(tmp_path):
    """One person with a lesion and one without."""
    rng, folder = np.random.default_rng(0), tmp_path / "files"
    folder.mkdir()
    for name, lesion in (("ill", 1), ("well", 0)):
        brain = rng.uniform(0.5, 1, (12, 14, 12)).astype(np.float32)
        label = np.zeros((12, 14, 12), np.int16)
        label[4:6, 4:6, 4:6] = lesion
        for ending, array in (("T1w", brain), ("lesion", label)):
            image = nib.Nifti1Image(array, np.diag([8.0, 8, 8, 1]))
            nib.save(image, folder / f"{name}_{ending}.nii.gz")
    return folder


def test_nobody_is_left_out_for_being_well(files, tmp_path):
    api.import_cohort("folder", files, tmp_path / "raw", scans=("T1w",), labels=("lesion",))
    steps = tmp_path / "steps.yaml"
    steps.write_text("- reorient\n- {name: resample, spacing_mm: 8}\n- intensity\n")
    api.prepare(
        tmp_path / "raw", tmp_path / "prepared", steps=steps, channels=("T1w", "lesion"),
        sizes={"TRAIN": 2}, jobs=1, allow_faces=True,
    )  # fmt: skip
    cohort = PreparedCohort.read(tmp_path / "prepared")
    assert cohort.quarantine == []
    labels = cohort.volume_set("TRAIN").labels["lesion"]
    assert sorted(int(one.max()) for one in labels) == [0, 1]


def test_an_image_of_one_value_is_still_a_fault(files):
    with pytest.raises(FileFault, match="the same value"):
        read_volume(files / "well_lesion.nii.gz")
    assert read_volume(files / "well_lesion.nii.gz", constant=True)[0].max() == 0


def test_a_synthetic_case_without_a_lesion_is_read(tiny_cohort, tmp_path):
    cohort = PreparedCohort.read(tiny_cohort)
    channels = [{"name": "T1w"}, {"name": "lesion", "kind": "label", "num_labels": 2}]
    facts = {
        "grid": {"shape": cohort.grid.shape, "affine": cohort.grid.affine},
        "channels": channels,
        "checkpoint_sha256": "0",
        "recipe_name": "r",
        "recipe": {},
        "seed": 0,
        "num": 1,
        "skull_stripped": True,
        "conditions": [[]],
    }
    made = SyntheticCohort.create(tmp_path / "made", facts, pd.DataFrame(index=["syn0001"]), {})
    brain = cohort.volume_set("HOLD").volumes[0, 0]
    made.write("syn0001", [brain, np.zeros(cohort.grid.shape, np.int64)], {"Seed": 1})
    assert SyntheticCohort.read(made.root).volume_set().labels["lesion"].max() == 0
