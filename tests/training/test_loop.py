"""The loop on a method whose every step is known in closed form."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

from gyri.errors import DataError, GyriError, ResumableStop
from gyri.recipe import TrainingConfig
from gyri.training import log
from gyri.training.data import Feed, ResidentVolumes
from gyri.training.loop import Trainer
from gyri.types import Grid, ItemSpec, Loss, Method, OptimiserConfig, Phase
from gyri.views.volume import VolumeConfig, VolumeView

GRID = Grid((2, 2, 2), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


class Counting(Method):
    """Two networks and two phases; records what it was asked for."""

    phases = (
        Phase("critic", ("d",), "d", repeats=2),
        Phase("generator", ("g",), "g", every=2, offset=1),
    )

    def __init__(self, group=1, bad_at=None):
        spec = ItemSpec(1, GRID.shape)
        super().__init__(None, spec, {"d": nn.Linear(1, 1), "g": nn.Linear(1, 1)})
        self.optimisers = {"d": OptimiserConfig(lr=0.1), "g": OptimiserConfig(lr=0.1)}
        self.group, self.bad_at, self.asked = group, bad_at, []
        self.state = {"seen": torch.zeros(())}

    def loss(self, phase, batch, progress, rng):
        self.asked.append((phase, progress.step, batch.subject.tolist()))
        other = {"critic": "g", "generator": "d"}[phase]
        assert not any(p.requires_grad for p in self.networks[other].parameters())
        own = self.networks[{"critic": "d", "generator": "g"}[phase]]
        total = own(batch.x.mean((1, 2, 3, 4))[:, None]).square().mean()
        if progress.step == self.bad_at:
            total = total * math.nan
        return Loss(total, {"twice": 2 * total}, {"count": torch.tensor(float(len(batch)))})

    def after_step(self, phase, statistics):
        self.state["seen"] = self.state["seen"] + statistics["count"]


def feed(num=6):
    stored = torch.arange(num * 8).reshape(num, 1, 2, 2, 2).to(torch.int16)
    volumes = ResidentVolumes(stored, 1 / (num * 8), (0.0, 1.0))
    return Feed(volumes, torch.zeros(num, 0), VolumeView(VolumeConfig(), 1, GRID), seed=0)


def trainer(tmp_path, method, **settings):
    config = TrainingConfig(**{"steps": 4, "batch_size": 4, "log_every": 1, **settings})
    return Trainer(method, feed(), config, 0, tmp_path)


def test_phases_run_when_due_with_fresh_batches(tmp_path):
    method = Counting()
    clock = trainer(tmp_path, method).run()
    phases = [(phase, step) for phase, step, _ in method.asked]
    critic = [("critic", 0), ("critic", 0)]
    assert phases[:2] == critic
    assert [p for p in phases if p[0] == "generator"] == [("generator", 1), ("generator", 3)]
    assert (clock.images_seen, clock.drawn) == (4 * 2 * 4, (4 * 2 + 2) * 4)
    assert method.asked[0][2] != method.asked[1][2]


def test_every_volume_is_drawn_once_an_epoch():
    source = feed(6)
    rows = source.batch(torch.arange(18)).subject
    for epoch in rows.split(6):
        assert sorted(epoch.tolist()) == list(range(6))
    assert rows[:6].tolist() != rows[6:12].tolist()
    assert source.batch(torch.arange(5, 9)).subject.tolist() == rows[5:9].tolist()


def test_statistics_are_summed_over_micro_batches(tmp_path):
    method = Counting()
    trainer(tmp_path, method, steps=2, micro_batch=2).run()
    assert float(method.state["seen"]) == (2 * 2 + 1) * 4


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    method = Counting(bad_at=2)
    running = trainer(tmp_path, method, save_every_s=0.0)
    with pytest.raises(GyriError, match=r"'critic' at step 2: loss, twice, gradient norm is not"):
        running.run()
    assert running.clock.step == 2
    assert all(torch.isfinite(p).all() for p in method.networks["d"].parameters())
    again = trainer(tmp_path, Counting())
    assert again.run().step == 4


def test_a_batch_that_splits_a_group_is_refused(tmp_path):
    with pytest.raises(DataError, match="whole groups of 4"):
        trainer(tmp_path, Counting(group=4), batch_size=4, micro_batch=2)


def test_resident_volumes_map_the_prepared_range_to_minus_one_and_one():
    volumes = ResidentVolumes(torch.tensor([[0, 32767]], dtype=torch.int16), 1 / 32767, (0.0, 1.0))
    assert torch.allclose(volumes[0], torch.tensor([-1.0, 1.0]))


def test_a_budget_becomes_a_horizon_once_and_is_saved(tmp_path):
    method = Counting()
    running = trainer(tmp_path, method, steps=None, budget_s=1.0)
    clock = running.run()
    assert clock.horizon == clock.step > 20
    assert clock.elapsed_s < 10
    again = trainer(tmp_path, Counting(), steps=None, budget_s=1.0)
    assert again.run().step == clock.step


def test_a_budget_of_processor_time_leaves_out_waiting(tmp_path):
    class Waiting(Counting):
        def loss(self, *args):
            time.sleep(0.01)
            return super().loss(*args)

    def horizon(budget_clock):
        (folder := tmp_path / budget_clock).mkdir()
        running = trainer(folder, Waiting(), steps=None, budget_s=1.0, budget_clock=budget_clock)
        with pytest.raises(ResumableStop):
            running.run(stop_asked=lambda: running.clock.horizon > 0)
        return running.clock.horizon

    assert horizon("processor") > 1.5 * horizon("wall")


def test_log_rows_are_cut_back_to_the_checkpoint(tmp_path):
    rows = log.JsonLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        rows.write({"step": step})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    rows.cut_back(2)
    assert [row["step"] for row in log.read(tmp_path / "log.jsonl")] == [1, 2]


def test_learning_rate_warms_up_and_falls(tmp_path):
    method = Counting()
    method.optimisers["d"] = OptimiserConfig(lr=1.0, warmup_steps=2, final_lr=0.0)
    trainer(tmp_path, method).run()
    rates = [row["critic/lr"] for row in log.read(tmp_path / "log.jsonl")]
    want = [0.5 * 1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.5 * (1 + math.cos(math.pi * 0.75))]
    assert rates == pytest.approx(want)


def test_snapshots_are_evenly_spaced_and_kept(tmp_path):
    trainer(tmp_path, Counting(), steps=8, snapshots=2).run()
    kept = sorted(int(f.name[5:]) for f in (tmp_path / "checkpoints").iterdir())
    assert kept == [4, 8]
