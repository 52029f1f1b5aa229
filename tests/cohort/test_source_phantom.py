"""The phantom source: a valid data set with its truth, that goes on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from tests.bids import bids_errors

from gyri.cohort import bids as raw
from gyri.cohort.phantom_truth import TISSUES
from gyri.cohort.sources import phantom as source
from gyri.errors import DataError, UsageError
from gyri.registry import SOURCES


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def make(out: Path, **changes: object):
    settings = {"num_subjects": 4, "seed": 1, "spacing_mm": 8.0, **changes}
    return SOURCES["phantom"].component(None, out, **settings)


def test_data_set_is_valid_bids_and_tells_its_truth(tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    cohort = make(root, modalities=("T1w", "T1c", "T2w", "FLAIR"), tumours=0.6, scanners=3)
    assert bids_errors(root) == []
    assert bids_errors(root / "derivatives" / "phantom") == []
    assert len(cohort.subjects) == 4
    assert {"T1w", "T1c", "T2w", "FLAIR", "tumour"} == set(cohort.scans["modality"])
    ill = cohort.subjects.index[cohort.subjects["group"] == "tumour"]
    segmented = cohort.scans.loc[cohort.scans["modality"] == "tumour", "subject"]
    assert sorted(ill) == sorted(segmented)
    assert list(tmp_path.iterdir()) == [root]  # nothing is left beside it

    volumes = pd.read_csv(root / "derivatives/phantom/truth.tsv", sep="\t", na_values="n/a")
    assert list(volumes["participant_id"]) == [f"sub-{label}" for label in cohort.subjects.index]
    assert np.allclose(volumes["icv_ml"], cohort.subjects["etiv"], rtol=2e-3)
    declared = json.loads((root / "derivatives/phantom/truth.json").read_text())
    assert set(declared["GivenEtiv"]) == set(TISSUES)

    image = nibabel.load(cohort.scans["path"].iloc[0])
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == (8.0, 8.0, 8.0)


def test_interrupted_it_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "whole")
    calls: list[int] = []
    genuine = source.make_subject

    def third_fails(*args: object, **options: object):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return genuine(*args, **options)

    monkeypatch.setattr(source, "make_subject", third_fails)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "parts")
    assert not list((tmp_path / "parts").iterdir())
    make(tmp_path / "parts")
    assert len(calls) == 3 + 2
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    make(tmp_path / "parts")
    assert len(calls) == 3 + 2


def test_a_subject_does_not_depend_on_the_size_of_the_cohort(tmp_path: Path) -> None:
    make(tmp_path / "four")
    make(tmp_path / "two", num_subjects=2)
    scan = Path("sub-phantom0002/anat/sub-phantom0002_T1w.nii.gz")
    assert (tmp_path / "four" / scan).read_bytes() == (tmp_path / "two" / scan).read_bytes()


@pytest.mark.slow
def test_jobs_change_nothing(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two", jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_it_cannot_do_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    with pytest.raises(UsageError, match="reads nothing"):
        SOURCES["phantom"].component(tmp_path, out)
    for wrong in ({"modalities": ("T1",)}, {"modalities": ()}, {"spacing_mm": 0.5},
                  {"scanners": 9}):  # fmt: skip
        with pytest.raises(UsageError):
            make(out, **wrong)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        make(out)
    assert (out / "mine.txt").read_text() == "keep"


def test_another_request_does_not_overwrite(tmp_path: Path) -> None:
    make(tmp_path / "cohort", num_subjects=2)
    before = contents(tmp_path / "cohort")
    with pytest.raises(DataError, match="not empty"):
        make(tmp_path / "cohort", num_subjects=3)
    assert contents(tmp_path / "cohort") == before
    assert len(raw.read(tmp_path / "cohort").subjects) == 2
