"""Laws of every registered method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.contracts.descend import plain_descent
from tests.contracts.tiny import RECIPES, recipe

from gyri import synthesis
from gyri.capabilities import FitOnce, Sampler, capabilities
from gyri.errors import ResumableStop
from gyri.registry import METHODS
from gyri.training import checkpoint, log, loop
from gyri.training.loop import Trainer
from gyri.training.run import Run, train
from gyri.types import Method

TRAINED = [name for name in METHODS if "FitOnce" not in capabilities(METHODS[name].component)]
SAMPLERS = [name for name in METHODS if "Sampler" in capabilities(METHODS[name].component)]


def tensors(run):
    folder = run.checkpoint()
    files, clock = checkpoint.load(folder)
    return {f"{file}.{key}": t for file, ts in files.items() for key, t in ts.items()}, clock


def same(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def test_every_method_is_under_the_contracts():
    assert set(METHODS) == set(RECIPES)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_does_something(name):
    kind = METHODS[name].component
    assert issubclass(kind, Method)
    assert capabilities(kind) or name == "noised_classifier"
    assert METHODS[name].summary


@pytest.mark.parametrize("name", TRAINED)
def test_ten_steps_equal_five_a_stop_and_five_more(name, tiny_cohort, tmp_path, monkeypatch):
    whole = train(recipe(name), tiny_cohort, tmp_path / "whole", quiet=True)
    asked = Trainer.run

    def stop_at_five(self, on_step=lambda c, l: None, stop_asked=lambda: False):
        return asked(self, on_step, lambda: self.clock.step == 5)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", stop_at_five)
        with pytest.raises(ResumableStop, match="step 5 of 10"):
            train(recipe(name), tiny_cohort, tmp_path / "halves", quiet=True)
    torch.manual_seed(99)
    halves = train(recipe(name), tiny_cohort, tmp_path / "halves", quiet=True)
    ours, our_clock = tensors(halves)
    theirs, their_clock = tensors(whole)
    same(ours, theirs)
    for clock in (our_clock, their_clock):
        del clock["elapsed_s"], clock["cpu_s"], clock["data_wait_s"]
    assert our_clock == their_clock
    assert [row["step"] for row in log.read(halves.root / "log.jsonl")] == [10]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in TRAINED])
def test_a_refit_is_equal(name, tiny_cohort, tmp_path):
    assert issubclass(METHODS[name].component, FitOnce)
    first = train(recipe(name), tiny_cohort, tmp_path / "a", quiet=True)
    second = train(recipe(name), tiny_cohort, tmp_path / "b", quiet=True)
    same(tensors(first)[0], tensors(second)[0])


def assert_same_updates(a, b):
    """Compare what two runs from the same start have added to the weights."""
    assert a.keys() == b.keys()
    for key, tensor in a.items():
        if key.startswith("network-"):
            assert torch.allclose(tensor, b[key], rtol=0, atol=1e-6), key


@pytest.mark.parametrize("name", TRAINED)
def test_micro_batches_give_the_same_update(name, tiny_cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_build_optimiser", plain_descent)
    whole = train(recipe(name, steps=2), tiny_cohort, tmp_path / "whole", quiet=True)
    parts = train(recipe(name, steps=2, micro_batch=2), tiny_cohort, tmp_path / "parts", quiet=True)
    assert_same_updates(tensors(parts)[0], tensors(whole)[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_depends_on_its_own_seed_alone(name, tiny_cohort, tmp_path):
    run = train(recipe(name, steps=2), tiny_cohort, tmp_path / "run", quiet=True)
    model = run.load(torch.device("cpu"))
    assert isinstance(model.method, Sampler)
    asked = [{"age": str(age), "sex": "F"} for age in (30, 50, 70)]
    known = run.schema.names  # none of a method that refuses conditions
    rows = [run.schema.assign({k: v for k, v in row.items() if k in known}) for row in asked]
    seeds = torch.tensor([5, 6, 7])
    together = synthesis.draw(model, rows, seeds)
    assert together.shape == (3, 1, 20, 24, 20)
    assert torch.equal(together, synthesis.draw(model, rows, seeds))
    alone = synthesis.draw(model, rows[1:2], seeds[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_follow_the_averaged_weights_of_the_checkpoint(name, tiny_cohort, tmp_path):
    run = train(recipe(name, steps=3), tiny_cohort, tmp_path / "run", quiet=True)
    model = run.load(torch.device("cpu"))
    for slot, network in model.method.networks.items():
        files, _ = checkpoint.load(run.checkpoint())
        stored = files.get(f"average-{slot}", files[f"network-{slot}"])
        assert all(torch.equal(p, stored[key]) for key, p in network.state_dict().items())


def on_two_processes(path, cohort, out):
    """Train a recipe by plain descent on two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.contracts.descend", str(path), str(cohort), str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return Run.read(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_give_what_one_gives(name, tiny_cohort, tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe(name, steps=2).to_yaml())
    two = on_two_processes(path, tiny_cohort, tmp_path / "two")
    assert two.info["cost"]["processes"] == 2
    monkeypatch.setattr(loop, "_build_optimiser", plain_descent)
    one = train(path, tiny_cohort, tmp_path / "one", quiet=True)
    assert_same_updates(tensors(two)[0], tensors(one)[0])
