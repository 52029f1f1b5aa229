"""Training sets of the arms."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.utility.conftest import SEX, blobs

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.utility.arms import (
    AUGMENTED,
    DUPLICATED,
    REAL,
    SYNTHETIC_ONLY,
    all_arms,
    balanced,
    compose,
    mixed,
)
from gyri.evaluation.utility.tasks import Task


@pytest.fixture
def sets():
    return blobs(20, 0, "real", share=0.2), blobs(60, 1, "syn")


def made(arm, sets, seed=0):
    return compose(arm, SEX, *sets, np.random.default_rng(seed), seed)


def test_sizes(sets):
    assert len(made(REAL, sets).cases) == 20
    assert made(AUGMENTED, sets).augment
    assert len(made(DUPLICATED, sets).cases) == 40
    assert made(mixed(2), sets).num_synthetic == 40
    only = made(SYNTHETIC_ONLY, sets)
    assert len(only.cases) == only.num_synthetic == 20
    assert all(name.startswith("syn") for name in only.cases.subjects)


def test_smaller_alphas_are_inside_larger_ones(sets):
    small, large = made(mixed(0.5), sets).cases.subjects, made(mixed(2), sets).cases.subjects
    assert set(small) < set(large)
    assert made(mixed(0.5), sets, seed=1).cases.subjects != small


def test_too_few_synthetic_cases_say_how_many_are_needed(sets):
    with pytest.raises(Refusal, match="needs 80 synthetic cases.*there are 60"):
        made(mixed(4), sets)


@pytest.mark.parametrize("kind", ["oversample", "smote", "synthetic"])
def test_filling_up_ends_at_equal_shares(kind, sets):
    if kind == "smote":
        pytest.importorskip("imblearn")
    training = made(balanced(kind), sets)
    np.testing.assert_array_equal(np.bincount(training.cases.target), [16, 16])
    np.testing.assert_array_equal(training.weights, 1)


def test_weights_end_at_equal_shares(sets):
    training = made(balanced("weights"), sets)
    assert training.weights.mean() == pytest.approx(1)
    by_class = np.bincount(training.cases.target, training.weights)
    assert by_class[0] == pytest.approx(by_class[1])


def test_smote_makes_points_between_its_own_class(sets):
    pytest.importorskip("imblearn")
    training = made(balanced("smote"), sets)
    real = sets[0].volumes[sets[0].target == 1].reshape(4, -1)
    new = training.cases.volumes[20:].reshape(12, -1)
    assert (new >= real.min(0) - 1e-6).all()
    assert (new <= real.max(0) + 1e-6).all()


def test_balancing_says_what_is_missing(sets):
    real, synthetic = sets
    few = synthetic.take(np.flatnonzero(synthetic.target == 0))
    with pytest.raises(Refusal, match="12 synthetic cases of sex M are needed, there are 0"):
        made(balanced("synthetic"), (real, few))
    age = Task("age", "regression", "age")
    with pytest.raises(Refusal, match="regression"):
        compose(balanced("weights"), age, real, synthetic, np.random.default_rng(0), 0)


def test_names_are_unique():
    names = [
        arm.name for arm in all_arms((0.5, 1), ("weights", "oversample", "smote", "synthetic"))
    ]
    assert len(names) == len(set(names)) == 11
