"""Networks that are spread over processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from tests.contracts.tiny import recipe

from gyri.errors import UsageError
from gyri.recipe import parse_recipe
from gyri.training import checkpoint
from gyri.training.run import Run, train


def sharded(steps, **training):
    mapping = recipe("ddpm", steps=steps, **training).to_mapping()
    mapping["method"]["optimiser"] = {"lr": 1e-3, "clip_norm": 0.1}
    return parse_recipe(mapping)


def on_two_processes(own, cohort, folder):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(own.to_yaml())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "gyri", "train", str(folder / "recipe.yaml"), "--data", str(cohort),
         "--out", str(folder / "run"), "--device", "cpu"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Run.read(folder / "run")


def weights(run, step):
    return checkpoint.load(run.checkpoint(step))[0]


@pytest.mark.slow
def test_spread_over_two_processes_a_run_ends_as_on_one(tiny_cohort, tmp_path):
    settings = {"shard": True, "preview_every": 0, "snapshots": 2}
    two = on_two_processes(sharded(4, **settings), tiny_cohort, tmp_path / "two")
    assert two.info["cost"]["processes"] == 2
    one = train(sharded(4, **settings), tiny_cohort, tmp_path / "one", quiet=True)
    for step in (2, 4):
        theirs, ours = weights(two, step), weights(one, step)
        assert theirs.keys() == ours.keys()
        for name in ("network-denoiser", "average-denoiser", "optimiser-denoiser"):
            for key, tensor in ours[name].items():
                torch.testing.assert_close(theirs[name][key], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_spread_run_goes_on_where_it_stopped(tiny_cohort, tmp_path):
    settings = {"shard": True, "preview_every": 0, "snapshots": 2}
    whole = on_two_processes(sharded(4, **settings), tiny_cohort, tmp_path / "whole")
    part = on_two_processes(sharded(4, **settings), tiny_cohort, tmp_path / "part")
    for folder in (part.root / "checkpoints").glob("step-00000004"):
        (folder / "manifest.json").unlink()
    again = on_two_processes(sharded(4, **settings), tiny_cohort, tmp_path / "part")
    for name, tensors in weights(whole, 4).items():
        for key, tensor in tensors.items():
            assert torch.equal(weights(again, 4)[name][key], tensor), (name, key)


def test_what_one_process_does_alone_is_refused(tiny_cohort):
    with pytest.raises(UsageError, match="no process with whole networks"):
        sharded(2, shard=True, preview_every=1)
