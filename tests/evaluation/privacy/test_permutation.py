"""The test holds its level, sees copies, and is not moved by samples that are merely smooth."""

from __future__ import annotations

import numpy as np

from gyri.evaluation.privacy.permutation import permute_membership
from gyri.evaluation.privacy.spaces import Space, feature_distances

TRAIN, HOLD = np.arange(40), np.arange(40, 80)


def smallest_p(made: np.ndarray, real: np.ndarray, seed: int) -> float:
    distances = feature_distances(real, made)
    np.fill_diagonal(distances[:80], np.inf)
    space = Space.build("x", distances, real.shape[1])
    rows = np.arange(80, 80 + len(made))
    rng = np.random.default_rng(seed)
    tested = permute_membership([space], rows, TRAIN, HOLD, 99, rng)
    return min(test.p_value for test in tested.values())


def test_unseen_samples_rarely_alarm():
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        real, made = rng.standard_normal((80, 6)), rng.standard_normal((30, 6))
        found.append(smallest_p(made, real, seed))
    assert np.mean(np.array(found) <= 0.05) <= 0.15
    assert min(found) >= 0.01


def test_smooth_samples_are_near_everybody_and_do_not_alarm():
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        real, made = rng.standard_normal((80, 6)), 0.2 * rng.standard_normal((30, 6))
        found.append(smallest_p(made, real, seed))
    assert np.mean(np.array(found) <= 0.05) <= 0.15


def test_copies_alarm_and_a_fifth_of_copies_mostly_does():
    whole, fifth = [], []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        real, made = rng.standard_normal((80, 6)), rng.standard_normal((50, 6))
        copies = real[rng.permutation(40)[:20]] + 0.05 * rng.standard_normal((20, 6))
        whole.append(smallest_p(copies, real, seed))
        made[:10] = copies[:10]
        fifth.append(smallest_p(made, real, seed))
    assert max(whole) <= 0.05
    assert np.mean(np.array(fifth) <= 0.05) >= 0.8


def test_the_same_seed_gives_the_same_numbers():
    rng = np.random.default_rng(0)
    real, made = rng.standard_normal((80, 6)), rng.standard_normal((30, 6))
    assert smallest_p(made, real, 1) == smallest_p(made, real, 1)
