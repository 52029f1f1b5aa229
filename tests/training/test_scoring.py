"""Losses of members and non-members: repeatable, of the averaged weights, refused where unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import UsageError
from gyri.training.run import train
from gyri.training.scoring import read_scores
from gyri.views.slice import SliceConfig


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored") / "run"
    return train(recipe("ddpm", steps=2), tiny_cohort, folder, quiet=True)


def test_every_subject_has_a_loss_that_follows_from_the_seed(run, tiny_cohort, tmp_path):
    table = api.score(run.root, tiny_cohort, tmp_path / "a.tsv", draws=1)
    assert table["split"].value_counts().to_dict() == {"TRAIN": 8, "HOLD": 4}
    cohort = PreparedCohort.read(tiny_cohort)
    assert set(table["subject"]) == {*cohort.rows("TRAIN").index, *cohort.rows("HOLD").index}
    assert (table["loss"] > 0).all()
    again = api.score(run.root, tiny_cohort, tmp_path / "b.tsv", draws=1, splits=("HOLD",))
    held = table[table["split"] == "HOLD"].reset_index(drop=True)
    assert again["loss"].tolist() == held["loss"].tolist()
    other = api.score(run.root, tiny_cohort, tmp_path / "c.tsv", draws=1, seed=1, splits=("HOLD",))
    assert other["loss"].tolist() != again["loss"].tolist()


def test_the_table_is_read_back_while_it_is_of_this_checkpoint(run, tiny_cohort):
    cohort = PreparedCohort.read(tiny_cohort)
    assert read_scores(run, cohort) is None
    api.score(run.root, tiny_cohort, draws=1, splits=("HOLD",))
    assert read_scores(run, cohort) is None
    table = api.score(run.root, tiny_cohort, draws=1)
    found = read_scores(run, cohort)
    assert found["subject"].tolist() == table["subject"].tolist()
    assert found["loss"].to_numpy() == pytest.approx(table["loss"].to_numpy())
    sidecar = run.root / "scores.json"
    sidecar.write_text(sidecar.read_text().replace(cohort.split_hash, "0" * 64))
    assert read_scores(run, cohort) is None


def test_a_method_without_losses_and_another_cohort_are_refused(run, tiny_cohort, tmp_path):
    linear = train(recipe("pca_gaussian"), tiny_cohort, tmp_path / "linear", quiet=True)
    with pytest.raises(UsageError, match="pca_gaussian, which gives no loss.*ddpm"):
        api.score(linear.root, tiny_cohort)
    info = run.root / "run.json"
    text = info.read_text()
    info.write_text(text.replace(run.info["split_hash"], "0" * 64))
    with pytest.raises(UsageError, match="split_hash.*other people"):
        api.score(run.root, tiny_cohort)
    info.write_text(text)


def test_a_level_that_train_never_held_counts_as_missing(run):
    import pandas as pd

    from gyri.training.scoring import known_conditions

    row = pd.Series({"age": 70.0, "sex": "X"})
    assert known_conditions(run.schema, row) == {"age": 70.0, "sex": None}
    assert torch.isfinite(run.schema.encode([known_conditions(run.schema, row)])).all()


def test_slices_left_out_of_a_subject_have_rows_of_their_own(tiny_cohort, tmp_path):
    settings = recipe("vae", steps=2)
    view = replace(settings.view, config=SliceConfig(left_out=0.2))
    leaky = train(replace(settings, view=view), tiny_cohort, tmp_path / "leaky", quiet=True)
    table = api.score(leaky.root, tiny_cohort, draws=1)
    assert table["split"].value_counts().to_dict() == {"TRAIN": 8, "LEAKY": 8, "HOLD": 4}
    means = table.groupby("split")["loss"].mean()
    assert means["TRAIN"] != means["LEAKY"]


@pytest.mark.parametrize("kind", ["slice", "stack"])
def test_scans_are_scored_beside_the_images_that_they_follow(kind):
    """A flow that reads a mask's two labels: items of one channel, three read."""
    from gyri.methods.flow import Flow, FlowConfig
    from gyri.registry import VIEWS
    from gyri.training.data import ResidentVolumes
    from gyri.training.run import Model
    from gyri.training.scoring import _losses
    from gyri.types import Channel, ConditionLayout, Grid

    class Mask(torch.nn.Module):
        def forward(self, x, noise_level, condition, position):
            made = x.shape[1] // 3
            # Where the mask says so, the answer is far off.
            return x[:, :made] + 100 * (x[:, 2 * made :] > 0)

    grid = Grid((4, 5, 6), ((2.0, 0, 0, 0), (0, 2.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)))
    stored = torch.zeros(2, 2, *grid.shape, dtype=torch.int16)
    stored[1, 1] = 1
    channels = (Channel("T1w"), Channel("mask", "label", 2))
    volumes = ResidentVolumes(stored, 1.0, (0.0, 1.0), channels, num_given=1)
    entry = VIEWS[kind]
    view = entry.component(entry.config(), 1, grid)
    spec = view.item_spec(ConditionLayout(), 2, {"mask": 2})
    model = Model(Flow(FlowConfig(), spec, {"denoiser": Mask()}), view, None, torch.device("cpu"))
    losses = _losses(model, volumes, torch.zeros(2, 0), 0, 1, "HOLD")
    assert losses.shape == (2, view.items_per_volume)
    assert losses[0].max() < 100 < losses[1].min()
