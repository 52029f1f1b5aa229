"""Cohorts as cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.utility.folders import write_samples

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError
from gyri.evaluation.utility.data import (
    Reader,
    average_blocks,
    block_size,
    majority_blocks,
    trained_on,
)
from gyri.evaluation.utility.fraction import write_fraction
from gyri.evaluation.utility.judge import task_of
from gyri.types import Grid


def grid(spacing_mm: float) -> Grid:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    return Grid((4, 4, 4), tuple(map(tuple, affine.tolist())))


def test_blocks_are_whole_voxels_up_to_four_millimetres():
    assert [block_size(grid(s)) for s in (1.0, 1.5, 2.0, 3.0, 4.0, 8.0)] == [4, 2, 2, 1, 1, 1]


def test_blocks_are_averaged_and_labels_vote():
    volume = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    means = average_blocks(volume, 2)
    assert means.shape == (1, 2, 2, 2)
    assert means[0, 0, 0, 0] == volume[0, :2, :2, :2].mean()
    assert means[0, 1, 1, 1] == volume[0, 2, 2, 2] / 8  # the rest is background
    labels = np.zeros((1, 2, 2, 2), np.int16)
    labels[0, 0], labels[0, 1, 0, 0] = 2, 1
    assert majority_blocks(labels, 2, 3).tolist() == [[[[2]]]]


@pytest.fixture
def cohort(tiny_cohort) -> PreparedCohort:
    return PreparedCohort.read(tiny_cohort)


def test_cases_of_splits_and_samples(cohort, tmp_path):
    task = task_of(cohort, "age")
    reader = Reader(cohort, task, ["T1w"])
    real = reader.real(["TEST", "HOLD"])
    assert len(real) == 5
    ages = cohort.table.loc[list(real.subjects), "age"].astype(float)
    np.testing.assert_allclose(real.target, ages)
    samples = SyntheticCohort.read(write_samples(tmp_path / "s", cohort, 4, seed=3))
    made = reader.synthetic(samples)
    assert (made.num, len(made.cases)) == (4, 4)
    np.testing.assert_allclose(made.cases.target, samples.table["age"].astype(float), atol=1e-6)
    assert made.trained_on == frozenset(cohort.rows("TRAIN").index)


def test_tissues_come_from_the_same_segmenter_on_both_sides(cohort, tmp_path):
    reader = Reader(cohort, task_of(cohort, "tissue"), ["T1w"])
    real = reader.real(["HOLD"])
    made = reader.synthetic(
        SyntheticCohort.read(write_samples(tmp_path / "s", cohort, 2, seed=3))
    ).cases
    for cases in (real, made):
        assert set(np.unique(cases.target)) == {0, 1, 2, 3}
        brain = (cases.target > 0).mean((1, 2, 3))
        assert ((brain > 0.1) & (brain < 0.7)).all()


def test_another_grid_or_channel_is_refused(cohort, tmp_path):
    root = write_samples(tmp_path / "s", cohort, 2, seed=3, spacing_mm=4.0)
    reader = Reader(cohort, task_of(cohort, "age"), ["T1w"])
    with pytest.raises(DataError, match="one grid"):
        reader.synthetic(SyntheticCohort.read(root))
    with pytest.raises(DataError, match="no channel FLAIR"):
        Reader(cohort, task_of(cohort, "age"), ["FLAIR"]).real(["TEST"])


def test_a_fraction_is_a_cohort_of_its_own(cohort, tmp_path):
    task = task_of(cohort, "age")
    half = write_fraction(cohort, task, 0.5, tmp_path / "half")
    assert len(half.rows("TRAIN")) == 4
    assert set(half.rows("TRAIN").index) < set(cohort.rows("TRAIN").index)
    for split in ("VAL", "HOLD", "TEST"):
        assert list(half.rows(split).index) == list(cohort.rows(split).index)
    np.testing.assert_array_equal(
        half.volume_set("HOLD").volumes, cohort.volume_set("HOLD").volumes
    )
    quarter = write_fraction(cohort, task, 0.25, tmp_path / "quarter")
    assert set(quarter.rows("TRAIN").index) < set(half.rows("TRAIN").index)
    assert half.skull_stripped


def test_whom_a_generator_saw_is_read_from_its_run(cohort, tmp_path):
    half = write_fraction(cohort, task_of(cohort, "age"), 0.5, tmp_path / "half")
    run = tmp_path / "run"
    root = write_samples(tmp_path / "s", half, 2, seed=3, run=run)
    samples = SyntheticCohort.read(root)
    assert trained_on(samples, cohort) is None  # there is no run
    run.mkdir()
    Path(run / "run.json").write_text(f'{{"data": "{half.root}"}}')
    assert trained_on(samples, cohort) == frozenset(half.rows("TRAIN").index)
    Path(run / "run.json").write_text(f'{{"data": "{cohort.root}"}}')
    assert trained_on(samples, cohort) is None  # another split than the one it names


@pytest.mark.slow
def test_label_channels_on_both_sides(tmp_path):
    from gyri import api

    api.import_cohort(
        "phantom", None, tmp_path / "raw", num_subjects=8, spacing_mm=8.0, tumours=1.0
    )
    sizes = {"TRAIN": 4, "VAL": 1, "HOLD": 2, "TEST": 1}
    api.prepare(
        tmp_path / "raw",
        tmp_path / "prepared",
        spacing_mm=8.0,
        channels=("T1w", "tumour"),
        sizes=sizes,
    )
    cohort = PreparedCohort.read(tmp_path / "prepared")
    reader = Reader(cohort, task_of(cohort, "tumour"), ["T1w"])
    real = reader.real(["TRAIN"])
    stored, _ = cohort.load(cohort.rows("TRAIN"))
    np.testing.assert_array_equal(real.target, stored[:, 1])
    root = write_samples(tmp_path / "s", cohort, 2, seed=3, labels=real.target[:2])
    made = reader.synthetic(SyntheticCohort.read(root)).cases
    np.testing.assert_array_equal(made.target, real.target[:2])
