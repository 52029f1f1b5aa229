"""Run folders: what is refused, what goes on, what is needed first."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tests.contracts.tiny import RECIPES, recipe

from gyri import api
from gyri.errors import DataError, UsageError
from gyri.recipe import parse_recipe
from gyri.training import checkpoint
from gyri.training.run import Run, train


def test_a_run_holds_recipe_facts_and_cost(tiny_cohort, tmp_path):
    run = train(recipe("ddpm", steps=2), tiny_cohort, tmp_path / "run", quiet=True)
    again = Run.read(tmp_path / "run")
    assert again.recipe == run.recipe
    assert again.grid.shape == (20, 24, 20)
    assert again.schema.names == ("age", "sex")
    assert again.info["cost"]["steps"] == 2
    assert again.info["cost"]["parameters"]["denoiser"] > 1000
    assert again.num_train == 8


def test_the_same_command_on_a_finished_run_changes_nothing(tiny_cohort, tmp_path):
    first = train(recipe("ddpm", steps=2), tiny_cohort, tmp_path, quiet=True)
    before = checkpoint.digest(first.checkpoint())
    second = train(recipe("ddpm", steps=2), tiny_cohort, tmp_path, quiet=True)
    assert checkpoint.digest(second.checkpoint()) == before


def test_a_folder_of_another_recipe_is_refused_with_the_difference(tiny_cohort, tmp_path):
    train(recipe("ddpm", steps=2), tiny_cohort, tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"another recipe.*training.steps \(2.* there, 3"):
        train(recipe("ddpm", steps=3), tiny_cohort, tmp_path, quiet=True)


def test_a_checkpoint_of_another_recipe_is_refused_and_named(tiny_cohort, tmp_path):
    one = train(recipe("ddpm", steps=2), tiny_cohort, tmp_path / "one", quiet=True)
    mapping = recipe("ddpm", steps=2).to_mapping()
    mapping["networks"]["denoiser"]["widths"] = [16, 16]
    other = parse_recipe(mapping)
    wrong = dataclasses.replace(one, recipe=other)
    with pytest.raises(DataError, match=r"denoiser does not fit.*tensors differ, the first is"):
        wrong.load(torch.device("cpu"))


def test_a_folder_of_other_data_is_refused(tiny_cohort, tmp_path):
    run = train(recipe("ddpm", steps=2), tiny_cohort, tmp_path, quiet=True)
    facts = {**run.info, "split_hash": "0" * 64}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="trained on other data"):
        train(recipe("ddpm", steps=2), tiny_cohort, tmp_path, quiet=True)


def test_a_folder_in_use_is_refused(tiny_cohort, tmp_path):
    lock = FileLock(tmp_path / ".lock")
    with lock, pytest.raises(UsageError, match="in use by another run"):
        train(recipe("ddpm", steps=2), tiny_cohort, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": ["agee"]}, "no column 'agee'. Did you mean 'age'"),
        ({"data": {"channels": ["T2w"]}}, "asks for T2w"),
        ({"data": {"spacing_mm": 2}}, "made for 2 mm"),
    ],
)
def test_a_recipe_that_does_not_fit_the_cohort(change, message, tiny_cohort, tmp_path):
    wrong = parse_recipe({**recipe("ddpm").to_mapping(), **change})
    with pytest.raises((UsageError, DataError), match=message):
        train(wrong, tiny_cohort, tmp_path, quiet=True)


def test_folders_that_are_not_what_they_should_be(tiny_cohort, tmp_path):
    with pytest.raises(DataError, match="no prepared cohort"):
        train(recipe("ddpm"), tmp_path / "absent", tmp_path / "run", quiet=True)
    with pytest.raises(DataError, match="is no run"):
        Run.read(tiny_cohort)


def test_an_absent_checkpoint_lists_those_that_exist(tiny_cohort, tmp_path):
    run = train(recipe("ddpm", steps=4), tiny_cohort, tmp_path, quiet=True)
    assert run.checkpoint(2).name == "step-00000002"
    with pytest.raises(DataError, match="no whole checkpoint 3; it has: 2, 4"):
        run.checkpoint(3)


def test_what_a_recipe_needs_is_trained_first_on_the_same_subjects(tiny_cohort, tmp_path):
    (tmp_path / "classifier.yaml").write_text(recipe("noised_classifier", steps=2).to_yaml())
    guided = {
        **recipe("ddpm", steps=2).to_mapping(),
        **RECIPES["ddpm"],
        "view": "volume",
        "method": {"name": "ddpm", "sampling": {"num_steps": 2, "classifier_scale": 1.0}},
        "needs": {"classifier": str(tmp_path / "classifier.yaml")},
    }
    run = train(parse_recipe(guided), tiny_cohort, tmp_path / "run", quiet=True)
    needed = Run.read(tmp_path / "run" / "needs" / "classifier")
    assert needed.info["split_hash"] == run.info["split_hash"]
    assert run.info["needs"]["classifier"]["checkpoint_sha256"] == checkpoint.digest(
        needed.checkpoint()
    )
    cohort, _ = api.sample(tmp_path / "run", num=1, condition={"sex": "F"})
    assert cohort.volume_set().volumes.shape == (1, 1, 20, 24, 20)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_training_ends_as_if_it_had_not_been(number, tiny_cohort, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe("ddpm", steps=60, save_every_s=0.2).to_yaml())
    whole = train(path, tiny_cohort, tmp_path / "whole", quiet=True)
    command = [sys.executable, "-m", "gyri", "train", str(path), "--data", str(tiny_cohort)]
    command += ["--out", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while len(checkpoint.numbered(tmp_path / "killed" / "checkpoints")) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 75
        assert "everything is saved" in errors
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    ours, _ = checkpoint.load(checkpoint.latest(Path(tmp_path / "killed" / "checkpoints")))
    theirs, _ = checkpoint.load(whole.checkpoint())
    for file, tensors in theirs.items():
        for key, tensor in tensors.items():
            assert torch.equal(ours[file][key], tensor), (file, key)
