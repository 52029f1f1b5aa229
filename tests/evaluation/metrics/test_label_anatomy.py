"""Cubes whose volume, place and pieces are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.effects import wasserstein
from gyri.evaluation.metrics import Evidence, Refusal, Score, Study
from gyri.evaluation.metrics.label_anatomy import LabelAnatomy, weighted_median, weighted_w1
from gyri.types import Grid

SHAPE, SPACING_MM = (20, 24, 20), 4.0
GRID = Grid(SHAPE, tuple(map(tuple, np.diag([SPACING_MM] * 3 + [1.0]))))
VOXEL_ML = SPACING_MM**3 / 1000
NUM = 12


def cubes(seed: int, name: str) -> VolumeSet:
    """Boxes of random place and size, of value 1 with a slab of value 2, in a bright block."""
    rng = np.random.default_rng(seed)
    images = np.zeros((NUM, 1, *SHAPE), np.float32)
    images[:, :, 2:18, 2:22, 2:18] = 0.8
    labels = np.zeros((NUM, *SHAPE), np.int16)
    for row in labels:
        (i, j, k), size = rng.integers(6, 9, 3), rng.integers(3, 6)
        row[i : i + size, j : j + size, k : k + size] = 1
        row[i, j : j + size, k : k + size] = 2
    table = pd.DataFrame(index=[f"{name}{k:02d}" for k in range(NUM)])
    return VolumeSet(name, images, table, GRID, ("T1w",), {"lesion": labels})


def evidence(volumes: VolumeSet) -> Evidence:
    return Evidence(volumes, np.zeros(len(volumes), bool), {}, {}, np.ones((len(volumes), 2)))


@pytest.fixture
def hold() -> VolumeSet:
    return cubes(1, "HOLD")


@pytest.fixture
def study(hold) -> Study:
    return Study(evidence(cubes(0, "TRAIN")), evidence(hold), NUM, resamples=200)


def judge(hold: VolumeSet, study: Study, labels: np.ndarray) -> dict[str, Score]:
    made = replace(hold, name="generated", labels={"lesion": labels})
    found = LabelAnatomy().scores(evidence(made), study)
    return {s.key.removeprefix("label_anatomy/lesion/"): s for s in found}


def test_the_same_labels_have_no_distance(hold, study):
    scores = judge(hold, study, hold.labels["lesion"])
    assert scores["place"].value == scores["w1"].value == scores["ks"].value == 0
    assert scores["place_energy"].value < 0.5
    assert scores["place_energy"].p_value > 0.5
    for key in ("median_ml", "pieces", "empty"):
        assert scores[key].value == scores[key].target, key
        assert scores[key].low - 1e-9 <= scores[key].value <= scores[key].high
    assert scores["outside"].value == 0
    assert scores["pieces"].value == 1


def test_labels_moved_by_20_mm_are_20_mm_away(hold, study):
    moved = np.roll(hold.labels["lesion"], 5, axis=2)
    scores = judge(hold, study, moved)
    place = scores["place"]
    assert place.value == pytest.approx(20.0)
    assert place.low < 20.0 < place.high
    assert "back-front +20.0" in place.note
    assert scores["place_energy"].p_value < 0.01
    assert scores["w1"].value == 0


def test_a_turned_grid_is_measured_in_the_world(hold):
    """Axes exchanged and shrunk: millimetres follow the affine."""
    affine = np.array([[0, 2.0, 0, 5], [2.0, 0, 0, -7], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    turned = replace(hold, grid=Grid(SHAPE, tuple(map(tuple, affine))))
    study = Study(evidence(turned), evidence(turned), NUM, resamples=0)
    scores = judge(turned, study, np.roll(hold.labels["lesion"], 5, axis=2))
    assert scores["place"].value == pytest.approx(10.0)
    assert "left-right +10.0" in scores["place"].note


def test_half_the_volume_is_seen_in_millilitres(hold, study):
    doubled = hold.labels["lesion"]
    half = doubled.copy()
    half[:, :, :, 1::2] = 0
    made, real = ((m > 0).sum((1, 2, 3)) * VOXEL_ML for m in (half, doubled))
    scores = judge(hold, study, half)
    assert scores["median_ml"].value == pytest.approx(np.median(made))
    assert scores["median_ml"].target == pytest.approx(np.median(real))
    assert scores["w1"].value == pytest.approx(wasserstein(real, made))
    assert scores["w1"].low > 0
    part = [(m == 2).sum((1, 2, 3)) * VOXEL_ML for m in (doubled, half)]
    assert scores["2/w1"].value == pytest.approx(wasserstein(*part))


def test_empty_labels_are_counted_and_keep_their_zero(hold, study):
    labels = hold.labels["lesion"].copy()
    labels[:6] = 0
    scores = judge(hold, study, labels)
    assert scores["empty"].value == 0.5
    assert scores["empty"].target == 0
    assert 0.2 < scores["empty"].low < 0.5 < scores["empty"].high
    assert scores["place"].n_generated == 6
    assert not scores["place"].reliable
    labels[:] = 0
    scores = judge(hold, study, labels)
    assert scores["empty"].value == 1
    assert scores["w1"].value == pytest.approx(scores["median_ml"].target, rel=0.5)
    assert not {"place", "pieces", "outside"} & set(scores)


def test_pieces_touch_by_corners_and_scattered_voxels_do_not(hold, study):
    labels = np.zeros_like(hold.labels["lesion"])
    labels[:, 5, 5, 5] = labels[:, 6, 6, 6] = labels[:, 10, 10, 10] = 1
    labels[:, 14, 14, 14] = 1
    assert judge(hold, study, labels)["pieces"].value == 3


def test_labels_outside_the_brain_are_a_fault(hold, study):
    labels = np.zeros_like(hold.labels["lesion"])
    labels[:, 0:4, 10, 10] = 1
    assert judge(hold, study, labels)["outside"].value == pytest.approx(0.5)


def test_single_slices_are_measured(hold):
    flat = replace(
        hold,
        volumes=hold.volumes[..., 9:10],
        labels={"lesion": hold.labels["lesion"][..., 9:10]},
        grid=replace(GRID, shape=(*SHAPE[:2], 1)),
    )
    study = Study(evidence(flat), evidence(flat), NUM, resamples=50)
    scores = judge(flat, study, np.roll(flat.labels["lesion"], 2, axis=1))
    assert scores["place"].value == pytest.approx(8.0)
    assert scores["outside"].value == 0


def test_resampled_statistics_of_one_resample_are_the_plain_ones():
    rng = np.random.default_rng(0)
    x, y = rng.random(7), rng.random(9) + 1
    ones = np.ones((1, 7)), np.ones((1, 9))
    assert weighted_w1(x, y, *ones)[0] == pytest.approx(wasserstein(x, y))
    assert weighted_median(x, ones[0])[0] == np.median(x)
    drawn = np.array([[2.0, 0, 1, 3, 0, 0, 1]])
    repeated = np.repeat(x, drawn[0].astype(int))
    assert weighted_median(x, drawn)[0] == np.median(repeated)
    assert weighted_w1(x, y, drawn, ones[1])[0] == pytest.approx(wasserstein(repeated, y))


def test_sets_without_labels_are_refused_and_fill_no_column(hold, study):
    bare = evidence(replace(hold, labels={}))
    with pytest.raises(Refusal, match="no label channel"):
        LabelAnatomy().scores(bare, study)
    assert LabelAnatomy().samples(bare, study) == {}
    columns = LabelAnatomy().samples(evidence(hold), study)
    assert set(columns) == {"lesion_ml", "lesion_pieces"}
    assert columns["lesion_pieces"] == [1] * NUM
