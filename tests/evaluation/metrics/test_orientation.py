from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics.orientation import (
    MIRROR,
    POSES,
    Orientation,
    SideModel,
    pose,
    pose_correlations,
    to_cube,
    upright,
)


def test_there_are_48_different_poses():
    cube = np.random.default_rng(0).random((3, 3, 3)).astype(np.float32)
    assert len({pose(cube, which).tobytes() for which in POSES}) == 48
    assert np.array_equal(pose(cube, POSES[0]), cube)
    assert np.array_equal(pose(cube, POSES[MIRROR]), cube[::-1])


def test_unseen_phantoms_are_upright(judge, cohort):
    scores = {
        s.key: s for s in Orientation().scores(judge.evidence(cohort["generated"]), judge.study)
    }
    assert scores["orientation"].value == 1.0


@pytest.mark.parametrize("which", [p for p in range(48) if p not in (0, MIRROR)])
def test_every_other_pose_is_wrong(which, judge, cohort):
    mean = cohort["TRAIN"].volumes[:, 0].mean(0)
    turned = np.stack([pose(c, POSES[which]) for c in to_cube(cohort["generated"].volumes[:4, 0])])
    assert not upright(pose_correlations(turned, to_cube(mean[None])[0])).any()


def test_flips_within_the_grid_are_wrong(judge, cohort, changed):
    for axis in (3, 4):
        flipped = changed(np.flip(cohort["generated"].volumes, axis))
        assert Orientation().samples(judge.evidence(flipped), judge.study)["orientation_ok"] == [
            False
        ] * len(flipped)


def test_left_and_right_are_reported_apart(judge, cohort, changed):
    flipped = judge.evidence(changed(cohort["generated"].volumes[:, :, ::-1]))
    scores = {s.key: s for s in Orientation().scores(flipped, judge.study)}
    assert scores["orientation"].value == 1.0
    plain = {
        s.key: s for s in Orientation().scores(judge.evidence(cohort["generated"]), judge.study)
    }
    both = scores["orientation/left_right"].value + plain["orientation/left_right"].value
    assert both == pytest.approx(1.0)


def test_a_mirrored_brain_is_told_from_its_original(cohort):
    rng = np.random.default_rng(0)
    volumes = cohort["TRAIN"].volumes[:, 0]
    tilt = np.linspace(0.9, 1.1, volumes.shape[1]).astype(np.float32)[:, None, None]
    lopsided = volumes * tilt + 0.05 * rng.standard_normal(volumes.shape).astype(np.float32)
    model = SideModel(lopsided[:20])
    sides = model.sides(lopsided[20:])
    assert (sides > 0).all()
    np.testing.assert_allclose(model.sides(lopsided[20:, ::-1]), -sides, atol=1e-9)


def test_an_empty_volume_fails():
    assert not upright(np.zeros((1, 48))).any()


def test_cubes_are_pooled_and_padded_evenly():
    assert to_cube(np.zeros((1, 80, 96, 80), np.float32)).shape == (1, 48, 48, 48)
    cube = to_cube(np.ones((1, 20, 24, 20), np.float32))[0]
    assert cube.shape == (24, 24, 24)
    assert np.array_equal(cube, cube[::-1, ::-1, ::-1])
