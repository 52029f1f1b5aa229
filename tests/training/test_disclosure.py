from __future__ import annotations

import pytest
from tests.contracts.tiny import recipe

from gyri.registry import METHODS
from gyri.training.disclosure import kept_directions, with_training_data
from gyri.training.run import train


@pytest.fixture(scope="module")
def runs(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disclosure")
    return {
        name: train(recipe(name, steps=2), tiny_cohort, folder / name, quiet=True)
        for name in ("pca_gaussian", "r3gan")
    }


def test_principal_directions_are_named_and_weights_are_not(runs):
    assert kept_directions(runs["pca_gaussian"]) == [
        "pca_gaussian: gaussian.basis (room for 6 volumes)"
    ]
    assert kept_directions(runs["r3gan"]) == []


def test_methods_made_of_training_voxels_are_named(runs, monkeypatch):
    assert with_training_data(runs["r3gan"]) == []
    monkeypatch.setattr(METHODS["r3gan"].component, "contains_training_data", True)
    assert with_training_data(runs["r3gan"]) == ["r3gan"]


def test_needs_count_as_well(runs, monkeypatch):
    run = runs["r3gan"]
    needs = {"prior": {"run": str(runs["pca_gaussian"].root)}}
    monkeypatch.setitem(run.info, "needs", needs)
    monkeypatch.setattr(METHODS["pca_gaussian"].component, "contains_training_data", True)
    assert with_training_data(run) == ["pca_gaussian (prior)"]
    assert kept_directions(run) == ["pca_gaussian (prior): gaussian.basis (room for 6 volumes)"]
