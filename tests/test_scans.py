"""Volumes go through a model item by item and come back in their places."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.tiny import recipe

from gyri.cohort.prepared import PreparedCohort
from gyri.scans import by_items
from gyri.training.data import encode_conditions, load_split
from gyri.training.run import train


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe("cyclegan", steps=1), tiny_cohort, folder, quiet=True)


def test_every_item_comes_with_its_place_and_its_persons_condition(run, tiny_cohort):
    model, cohort = run.load(torch.device("cpu")), PreparedCohort.read(tiny_cohort)
    volumes = load_split(cohort, "HOLD", run.recipe.data, model.device)[:3]
    condition = encode_conditions(cohort, model.schema, "HOLD", run.recipe.data)[:3]
    sizes = []

    def make(batch):
        sizes.append(len(batch))
        assert (batch.subject == -1).all()
        told = batch.condition[:, 0] + 10 * batch.position[:, 0]
        return batch.x + told[:, None, None, None]

    made = by_items(model, volumes, condition, make)
    assert max(sizes) <= 16
    assert sum(sizes) == 3 * volumes.shape[-1]
    place = model.view.encode(volumes[:1]).position[:, 0]
    added = condition[:, 0, None] + 10 * place
    expected = volumes + added[:, None, None, None, :]
    torch.testing.assert_close(made, expected)
