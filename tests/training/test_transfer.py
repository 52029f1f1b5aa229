"""Runs that begin with the weights of others."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cli import main
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError
from gyri.training.run import Run, train
from gyri.training.transfer import SEEN, hashed, refuse_overlap


@pytest.fixture(scope="module")
def base(tiny_cohort, tmp_path_factory):
    return train(recipe("ddpm", steps=4), tiny_cohort, tmp_path_factory.mktemp("base"), quiet=True)


def weights(run):
    return run.load(torch.device("cpu")).method.networks["denoiser"].state_dict()


def test_a_run_begins_with_the_averaged_weights_of_another(base, tiny_cohort, tmp_path):
    settings = {"lr": 0.0}
    still = recipe("ddpm", steps=1)
    (tmp_path / "still.yaml").write_text(still.to_yaml())
    overrides = tuple(f"method.optimiser.{k}={v}" for k, v in settings.items())
    run = api.train(
        tmp_path / "still.yaml", tiny_cohort, tmp_path / "run", overrides=overrides,
        begin_from=base.root,
    )  # fmt: skip
    begun, own = weights(run), weights(base)
    assert all(torch.equal(begun[key], own[key]) for key in own)
    assert run.info["begun_from"]["run"] == str(base.root)
    assert run.schema == base.schema


def test_a_run_remembers_whom_it_and_its_origin_have_seen(base, tiny_cohort, tmp_path):
    train_rows = PreparedCohort.read(tiny_cohort).rows("TRAIN")
    assert base.info[SEEN] == hashed(map(str, train_rows.index))
    assert str(train_rows.index[0]) not in (base.root / "run.json").read_text()
    base.info[SEEN] = sorted([*base.info[SEEN], "0" * 16])
    run = Run(base.root, base.recipe, base.info)
    refuse_overlap(PreparedCohort.read(tiny_cohort), run, private=False)


def test_a_held_out_subject_that_the_weights_know_is_refused(base, tiny_cohort):
    cohort = PreparedCohort.read(tiny_cohort)
    held_out = str(cohort.rows("HOLD").index[0])
    knowing = Run(base.root, base.recipe, {**base.info, SEEN: hashed([held_out])})
    with pytest.raises(UsageError, match=f"1 held-out subjects .*{held_out}.*better than it is"):
        refuse_overlap(cohort, knowing, private=False)
    with pytest.raises(UsageError, match="no budget of privacy would hold"):
        refuse_overlap(cohort, base, private=True)
    with pytest.raises(DataError, match="older version"):
        refuse_overlap(cohort, Run(base.root, base.recipe, {}), private=False)


def test_what_does_not_fit_is_refused(base, tiny_cohort, tmp_path):
    def begun(name, method, **changes):
        own = recipe(method, steps=1)
        (tmp_path / f"{name}.yaml").write_text(own.to_yaml())
        overrides = tuple(f"{key}={value}" for key, value in changes.items())
        api.train(
            tmp_path / f"{name}.yaml", tiny_cohort, tmp_path / name, overrides=overrides,
            begin_from=base.root,
        )  # fmt: skip

    with pytest.raises(UsageError, match="its weights read those"):
        begun("conditions", "ddpm", conditions="[age]")
    with pytest.raises(DataError, match="does not fit the network"):
        begun("widths", "ddpm", **{"networks.denoiser.widths": "[16, 16]"})
    with pytest.raises(UsageError, match="fitted once"):
        begun("pca", "pca_gaussian")


def test_another_beginning_is_another_run(base, tiny_cohort, tmp_path, capsys):
    arguments = ["train", str(base.root), "--data", str(tiny_cohort), "--out", str(tmp_path / "r")]
    assert main([*arguments, "--override", "training.steps=1", "--from", str(base.root)]) == 0
    assert main([*arguments, "--override", "training.steps=1"]) != 0
    assert "began from" in capsys.readouterr().err
