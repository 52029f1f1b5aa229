"""The loss of VAL while training: what it is, and that it changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.contracts.tiny import recipe
from torch import nn

from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, ResumableStop, UsageError
from gyri.training import checkpoint, log
from gyri.training.data import Feed, ResidentVolumes, encode_conditions, load_split
from gyri.training.loop import Trainer
from gyri.training.run import train
from gyri.training.scoring import NO_ROW
from gyri.training.validation import Validation, build_validation
from gyri.types import Grid, ItemSpec, Loss, Method, Phase, Progress
from gyri.views.volume import VolumeConfig, VolumeView

GRID = Grid((2, 2, 2), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


class Noisy(Method):
    """A network whose output depends on its mode; the loss is the batch's mean plus noise."""

    phases = (Phase("first", ("net",), "net"), Phase("second", ("net",), "net"))

    def __init__(self, group=1):
        net = nn.Sequential(nn.BatchNorm1d(1), nn.Dropout(0.5))
        super().__init__(None, ItemSpec(1, GRID.shape), {"net": net})
        self.group, self.asked = group, []

    def loss(self, phase, batch, progress, rng):
        self.asked.append((phase, progress.step, batch.subject.tolist(), len(batch)))
        mean = batch.x.mean((1, 2, 3, 4))[:, None]
        noise = rng.normal((1,))
        total = (self.networks["net"](mean) + 0.01 * noise).mean()
        return Loss(total, {"noise": noise.mean()})


def held_out(num: int) -> Feed:
    stored = torch.arange(num * 8).reshape(num, 1, 2, 2, 2).to(torch.int16)
    volumes = ResidentVolumes(stored, 1 / (num * 8), (0.0, 1.0))
    return Feed(volumes, torch.zeros(num, 0), VolumeView(VolumeConfig(), 1, GRID), seed=7)


def test_every_subject_counts_alike_whatever_the_batches():
    method, feed = Noisy(), held_out(3)
    found = Validation(method, feed, 5)(Progress(4, 9, 0.5))
    assert found == pytest.approx(Validation(method, feed, 12)(Progress(4, 9, 0.5)), abs=1e-6)
    norm = method.networks["net"][0]
    expected = float(feed.volumes[:].mean()) / np.sqrt(1 + norm.eps)  # at rest: mean 0, variance 1
    assert found["loss"] - 0.01 * found["noise"] == pytest.approx(expected, abs=1e-6)
    assert [entry[3] for entry in method.asked[:3]] == [5, 5, 2]
    assert all(phase == "first" and step == 4 for phase, step, _, _ in method.asked)
    assert {row for _, _, rows, _ in method.asked for row in rows} == {NO_ROW}


def test_modes_and_statistics_stay_as_they_were():
    method = Noisy()
    norm, dropout = method.networks["net"]
    norm.eval()
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    Validation(method, held_out(3), 4)(Progress(0, 0, 0.0))
    assert dropout.training
    assert not norm.training
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


def test_batches_are_whole_groups():
    method = Noisy(group=8)
    Validation(method, held_out(3), 8)(Progress(0, 0, 0.0))
    assert [entry[3] for entry in method.asked] == [8, 8]  # 3 subjects x 4 draws, made even


def ended(run):
    files, _ = checkpoint.load(run.checkpoint())
    return {f"{file}.{key}": t for file, tensors in files.items() for key, t in tensors.items()}


def curve(run):
    rows = log.read(run.root / "log.jsonl")
    return [(row["step"], row["validation/loss"]) for row in rows if "validation/loss" in row]


@pytest.mark.parametrize("name", ["ddpm", "r3gan"])
def test_weights_stay_and_the_curve_survives_a_stop(name, tiny_cohort, tmp_path, monkeypatch):
    plain = train(recipe(name, steps=5), tiny_cohort, tmp_path / "plain", quiet=True)
    asked = recipe(name, steps=5, validate_every=2)
    whole = train(asked, tiny_cohort, tmp_path / "whole", quiet=True)
    ours, theirs = ended(whole), ended(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [step for step, _ in curve(whole)] == [2, 4, 5]
    assert not curve(plain)

    usual = Trainer.run

    def stop_at_three(self, on_step=lambda c, l: None, stop_asked=lambda: False):
        return usual(self, on_step, lambda: self.clock.step == 3)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", stop_at_three)
        with pytest.raises(ResumableStop):
            train(asked, tiny_cohort, tmp_path / "halves", quiet=True)
    torch.manual_seed(5)
    halves = train(asked, tiny_cohort, tmp_path / "halves", quiet=True)
    assert curve(halves) == curve(whole)


def test_the_last_value_is_that_of_the_averaged_weights(tiny_cohort, tmp_path):
    asked = recipe("ddpm", steps=3, validate_every=100)
    run = train(asked, tiny_cohort, tmp_path, quiet=True)
    cohort, cpu = PreparedCohort.read(tiny_cohort), torch.device("cpu")
    model = run.load(cpu)
    volumes = load_split(cohort, "TRAIN", asked.data, cpu)
    condition = encode_conditions(cohort, run.schema, "TRAIN", asked.data)
    feed = Feed(volumes, condition, model.view, asked.seed)
    validation = build_validation(asked, cohort, run.schema, model.method, feed)
    ((step, value),) = curve(run)
    last = log.read(run.root / "log.jsonl")[-1]
    found = validation(Progress(3, last["images_seen"], 1.0))["loss"]
    assert step == 3
    assert found == pytest.approx(value, rel=1e-6)
    assert found != pytest.approx(last["denoise/loss"], rel=1e-3)


def test_a_cohort_without_val_is_refused_at_once(tiny_cohort, tmp_path, monkeypatch):
    cohort = PreparedCohort.read(tiny_cohort)
    cohort.table["split"] = cohort.table["split"].replace("VAL", "TEST")
    monkeypatch.setattr(PreparedCohort, "read", lambda path: cohort)
    asked = recipe("ddpm", steps=2, validate_every=1)
    with pytest.raises(DataError, match=r"no subject in VAL.*--split.*validate_every=0"):
        train(asked, tiny_cohort, tmp_path, quiet=True)
    assert not (tmp_path / "run.json").exists()


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(UsageError, match="validate_every is -1"):
        recipe("ddpm", validate_every=-1)
