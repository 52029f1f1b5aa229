"""What every estimator has to do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tests.evaluation.utility.conftest import SEX, blobs

from gyri.errors import UsageError
from gyri.evaluation.metrics import Refusal
from gyri.evaluation.utility.arms import Training
from gyri.evaluation.utility.estimators import Place, build_estimator
from gyri.evaluation.utility.tasks import Cases, Task

AGE = Task("age", "regression", "age", unit="year")
SEGMENTS = Task("seg", "segmentation", "seg", ("core", "rim"))
VAL = blobs(20, 9, "val", 0.3)


def ask(name, task, training, val, asked, seed=0, steps=60):
    return build_estimator(name, task, Place(steps))[1].answer(task, training, val, asked, seed)


def plain(cases: Cases, augment: bool = False) -> Training:
    return Training(cases, np.ones(len(cases)), augment)


@pytest.mark.parametrize("name", ["linear", "cnn"])
@pytest.mark.parametrize("augment", [False, True])
def test_classes_are_learned_and_the_answer_repeats(name, augment):
    train, test = blobs(60, 0, "train", 0.3), blobs(40, 1, "test", 0.3)
    answers = ask(name, SEX, plain(train, augment), VAL, test)
    probability = answers["probability"]
    assert probability.shape == (40, 2)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    # Mirroring hides half of the corner's place.
    assert roc_auc_score(test.target, probability[:, 1]) > (0.7 if augment else 0.95)
    again = ask(name, SEX, plain(train, augment), VAL, test)
    np.testing.assert_array_equal(again["probability"], probability)


def aged(num: int, seed: int) -> Cases:
    rng = np.random.default_rng(seed)
    years = rng.uniform(20, 90, num)
    volumes = 0.5 + 0.05 * rng.standard_normal((num, 1, 8, 8, 8))
    volumes[:, :, :4, :4, :4] += 0.3 * (years / 90)[:, None, None, None, None]
    names = tuple(f"{seed}-{k}" for k in range(num))
    return Cases(volumes.clip(0, 1).astype(np.float32), years, names, (4.0, 4.0, 4.0))


@pytest.mark.parametrize(("name", "steps", "worst"), [("linear", None, 3), ("cnn", 150, 8)])
def test_values_are_learned_in_their_unit(name, steps, worst):
    test = aged(40, 1)
    answers = ask(name, AGE, plain(aged(80, 0)), aged(20, 2), test, steps=steps)
    assert np.abs(answers["prediction"] - test.target).mean() < worst
    assert np.abs(test.target - test.target.mean()).mean() > 2 * worst


def test_copies_change_nothing_in_the_linear_model():
    train, test = blobs(40, 0, "train"), blobs(20, 1, "test")
    twice = train.take(np.tile(np.arange(40), 2))
    one, two = (ask("linear", SEX, plain(c), VAL, test)["probability"] for c in (train, twice))
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "cnn"])
def test_weights_move_the_answers_towards_a_class(name):
    train = blobs(40, 0, "train", 0.05, share=0.25)
    weights = np.where(train.target == 1, 2.0, 2 / 3)
    test = blobs(40, 1, "test", 0.05)
    light = ask(name, SEX, plain(train), VAL, test, steps=30)["probability"][:, 1].mean()
    heavy = ask(name, SEX, Training(train, weights), VAL, test, steps=30)["probability"][:, 1]
    assert heavy.mean() > light + 0.01


@pytest.mark.parametrize("name", ["linear", "cnn"])
def test_one_class_alone_is_refused(name):
    train = blobs(10, 0, "train", share=0)
    with pytest.raises(Refusal, match="the same sex"):
        ask(name, SEX, plain(train), VAL, VAL)


def shells(num: int, seed: int) -> Cases:
    """Return spheres of two brightnesses at random places on a grid of odd size."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (13, 12, 12)), indexing="ij"))
    centre = rng.uniform(5, 7, (num, 3, 1, 1, 1))
    distance = np.sqrt(((grid - centre) ** 2).sum(1))
    labels = np.where(distance < 2.5, 1, np.where(distance < 4.5, 2, 0)).astype(np.uint8)
    volumes = np.array([0.1, 0.9, 0.5])[labels] + 0.05 * rng.standard_normal(labels.shape)
    names = tuple(f"{seed}-{k}" for k in range(num))
    return Cases(volumes[:, None].clip(0, 1).astype(np.float32), labels, names, (4.0, 4.0, 4.0))


def test_structures_are_learned():
    test = shells(4, 1)
    answers = ask("unet", SEGMENTS, plain(shells(8, 0)), test, test, steps=40)
    assert answers["dice"].shape == (4, 2)
    assert answers["dice"].mean() > 0.7
    assert answers["hd95_mm"].mean() < 8


def test_wrong_names_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'linear'"):
        build_estimator("liner", SEX, Place())
    with pytest.raises(UsageError, match="cannot do sex"):
        build_estimator("unet", SEX, Place())
    assert build_estimator(None, SEGMENTS, Place())[0] == "unet"
