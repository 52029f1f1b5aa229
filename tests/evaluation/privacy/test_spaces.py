from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.evaluation.privacy.spaces import (
    Brain,
    Space,
    feature_distances,
    find_cells,
    merge_scans,
    voxel_distances,
)


def brute_force(real, made, mask) -> np.ndarray:
    """Correlate residuals with the mean of everybody else, one pair at a time."""
    everyone = np.concatenate([real.volumes, made.volumes])[:, 0]
    distances = np.empty((len(everyone), len(real)))
    for i, first in enumerate(everyone):
        for j in range(len(real)):
            others = [k for k in range(len(real)) if k not in (i, j)]
            mean = everyone[others].mean(0)
            mean = ((mean + mean[::-1]) / 2)[mask]
            best = -1.0
            for second in (everyone[j], everyone[j][::-1]):
                pair = np.corrcoef(first[mask] - mean, second[mask] - mean)
                best = max(best, pair[0, 1])
            distances[i, j] = np.sqrt(2 - 2 * best)
    return distances


def test_voxel_distances_leave_both_out_of_the_mean(make_people):
    real, made = make_people("A", 7, 1), make_people("B", 3, 2)
    found = voxel_distances([real.take(np.arange(4)), real.take(np.arange(4, 7))], [made])
    expected = brute_force(real, made, Brain.of([real]).mask)
    away = ~np.eye(10, 7, dtype=bool)
    assert np.allclose(found[away], expected[away], atol=2e-4)


def test_mirrored_and_brighter_copies_are_near(make_people):
    real = make_people("A", 20, 1)
    mirrored = replace(real, volumes=real.volumes[:, :, ::-1])
    found = voxel_distances([real], [mirrored])[20:]
    assert np.diagonal(found).max() < 0.01
    assert (found + 2 * np.eye(20)).min() > 0.5


def test_an_empty_or_average_sample_is_near_nobody(make_people):
    real = make_people("A", 30, 1)
    flat = np.stack([np.zeros_like(real.volumes[0]), real.volumes.mean(0)])
    found = voxel_distances([real], [replace(real.take(np.arange(2)), volumes=flat)])[30:]
    assert np.isfinite(found).all()
    assert found.min() > 0.8


def test_all_channels_are_read(make_people):
    real, other = make_people("A", 12, 1), make_people("B", 12, 2)
    two = replace(
        real,
        volumes=np.concatenate([real.volumes, other.volumes], 1),
        channels=("T1w", "FLAIR"),
    )
    half = replace(two, volumes=np.concatenate([real.volumes, other.volumes[::-1]], 1))
    near = voxel_distances([two], [two])[12:].diagonal()
    half_near = voxel_distances([two], [half])[12:].diagonal()
    assert near.max() < 0.01
    assert half_near.min() > 0.5


def test_features_are_scaled_by_all_real_people_and_constants_dropped():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((10, 3)) * [1, 100, 0] + [0, 5, 7]
    made = rng.standard_normal((4, 3))
    found = feature_distances(real, made)
    z = (np.concatenate([real, made]) - real.mean(0))[:, :2] / real.std(0, ddof=1)[:2]
    assert np.allclose(found, np.linalg.norm(z[:, None] - z[None, :10], axis=-1))


def test_scans_of_a_person_count_as_one():
    distances = np.random.default_rng(0).random((6, 4)) + 0.1
    merged = merge_scans(distances, ["a", "a", "b", "c"])
    assert merged.shape == (5, 3)
    assert merged[3, 0] == min(distances[4, :2])
    assert merged[1, 0] == min(distances[2, :2])
    assert np.isinf(np.diagonal(merged)).all()
    alone = merge_scans(distances, ["a", "b", "c", "d"])
    assert np.isinf(np.diagonal(alone[:4])).all()
    assert np.isfinite(distances).all()


def test_cells_separate_groups_and_samples_follow_their_neighbour():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (50, 3)), rng.normal(20, 1, (50, 3))])
    distances = feature_distances(points, points[[3, 70]] + 0.01)
    real = distances[:100].copy()
    np.fill_diagonal(real, np.inf)
    space = Space.build("x", np.concatenate([real, distances[100:]]), 3)
    assert len(set(space.cells[:50])) == 1
    assert len(set(space.cells[50:100])) == 1
    assert space.cells[0] != space.cells[99]
    assert space.cells[100:].tolist() == [space.cells[3], space.cells[70]]
    assert (find_cells(real[:30, :30]) == 0).all()


@pytest.mark.parametrize("rows", [[60, 61], [5]])
def test_sides_are_cut_from_the_same_distances(rows):
    rng = np.random.default_rng(0)
    distances = feature_distances(rng.standard_normal((60, 3)), rng.standard_normal((2, 3)))
    space = Space.build("x", distances, 3)
    train, hold = np.arange(10, 30), np.arange(30, 60)
    sides = space.sides(np.array(rows), train, hold)
    assert sides.to_train.shape == (len(rows), 20)
    assert sides.hold_to_train[2, 4] == distances[32, 14]
