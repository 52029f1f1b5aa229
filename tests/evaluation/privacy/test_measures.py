"""T26, T27 and T28: closed forms, brute force, and what they say about copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu

from gyri.evaluation.privacy import measures
from gyri.evaluation.privacy.measures import Sides


def sides(made: np.ndarray, train: np.ndarray, hold: np.ndarray) -> Sides:
    among = cdist(train, train)
    np.fill_diagonal(among, np.inf)
    return Sides(
        cdist(made, train),
        cdist(made, hold),
        among,
        cdist(hold, train),
        np.zeros(len(made), np.int64),
        np.zeros(len(hold), np.int64),
        train.shape[1],
    )


def points(*sizes: int, d: int = 6, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, d)) for n in sizes]


@pytest.mark.parametrize("sizes", [(40, 40, 40), (40, 60, 30), (40, 30, 60)])
def test_a_second_holdout_reaches_what_is_expected(sizes):
    found = [sides(*points(*sizes, seed=seed)) for seed in range(60)]
    assert np.mean([measures.closer_share(s) for s in found]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([measures.copy_rate(s) for s in found]) == pytest.approx(0.05, abs=0.025)
    assert np.mean([measures.data_copying(s) for s in found]) == pytest.approx(0, abs=0.4)
    ours = np.mean([measures.authenticity(s) for s in found])
    theirs = np.mean([measures.hold_authenticity(s) for s in found])
    assert ours == pytest.approx(theirs, abs=0.03)


def test_copies_are_at_the_other_end():
    _, train, hold = points(1, 60, 40)
    copies = train + 1e-3 * np.random.default_rng(1).standard_normal(train.shape)
    found = sides(copies, train, hold)
    assert measures.closer_share(found) == 1.0
    assert measures.copy_rate(found) == 1.0
    assert measures.authenticity(found) == 0.0
    assert measures.data_copying(found) < -3
    assert measures.distance_ratio(found.to_train).max() < 0.01
    assert measures.likelihood_gap(found) < measures.likelihood_gap(sides(hold, train, hold)) - 10


@pytest.mark.parametrize(("n_made", "n_train"), [(7, 20), (50, 20), (20, 20)])
def test_authenticity_matches_brute_force_for_any_number_of_samples(n_made, n_train):
    made, train = points(n_made, n_train, seed=n_made)
    among = cdist(train, train)
    np.fill_diagonal(among, np.inf)
    expected = []
    for sample in made:
        distances = [np.linalg.norm(sample - t) for t in train]
        nearest = int(np.argmin(distances))
        others = [np.linalg.norm(train[nearest] - t) for k, t in enumerate(train) if k != nearest]
        expected.append(distances[nearest] > min(others))
    assert measures.authentic(cdist(made, train), among).tolist() == expected


@pytest.mark.parametrize(("d", "expected"), [(2, 0.38), (16, 0.68)])
def test_authenticity_of_unseen_points_depends_on_the_dimension(d, expected):
    shares = []
    for seed in range(10):
        train, made = points(200, 200, d=d, seed=seed)
        among = cdist(train, train)
        np.fill_diagonal(among, np.inf)
        shares.append(measures.authentic(cdist(made, train), among).mean())
    assert np.mean(shares) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("d", "expected"), [(1, 1 / 2), (2, 2 / 3), (3, 3 / 4)])
def test_distance_ratio_where_points_are_locally_uniform(d, expected):
    """E[U^(1/d)] = d / (d + 1)."""
    train, made = np.random.default_rng(d).random((2, 2000, d))
    assert measures.distance_ratio(cdist(made, train)).mean() == pytest.approx(expected, abs=0.02)


def test_mann_whitney_is_scipys():
    ours, theirs = points(30, 25, d=1)
    u = mannwhitneyu(ours[:, 0], theirs[:, 0]).statistic
    z = (u - 375) / np.sqrt(30 * 25 * 56 / 12)
    assert measures.mann_whitney_z(ours[:, 0], theirs[:, 0]) == pytest.approx(z)
    assert measures.mann_whitney_z(np.zeros(5), np.zeros(5)) == 0.0


def test_small_cells_are_left_out_and_large_ones_weigh_by_hold():
    made, train, hold = points(80, 60, 80)
    base = sides(made, train, hold)
    cells = np.repeat([0, 1, 2], [35, 35, 10])
    hold_cells = np.repeat([0, 1, 2], [30, 45, 5])
    parts = Sides(base.to_train, base.to_hold, base.train, base.hold_to_train, cells, hold_cells)
    ours, theirs = base.to_train.min(1), base.hold_to_train.min(1)
    z = [measures.mann_whitney_z(ours[cells == c], theirs[hold_cells == c]) for c in (0, 1)]
    assert measures.data_copying(parts) == pytest.approx((30 * z[0] + 45 * z[1]) / 75)


def test_the_likelihood_gap_only_where_there_are_coordinates():
    found = sides(*points(20, 30, 20))
    assert "likelihood_gap" in measures.statistics(found)
    flat = Sides(*[getattr(found, n) for n in list(vars(found))[:-1]])
    assert "likelihood_gap" not in measures.statistics(flat)
