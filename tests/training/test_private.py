"""DP-SGD on a network whose gradients are known: account, bound on each subject, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from gyri.errors import ResumableStop, UsageError
from gyri.recipe import PrivateConfig, TrainingConfig, parse_recipe
from gyri.training.data import Feed, ResidentVolumes
from gyri.training.private import KEY, PrivateTrainer, refuse_unprivate
from gyri.types import Grid, ItemSpec, Loss, Method, OptimiserConfig, Phase
from gyri.views.volume import VolumeConfig, VolumeView

pytest.importorskip("opacus")

GRID = Grid((2, 2, 2), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))
LARGEST = 0.5
EXACT = 1e-9
"""A noise multiplier that hides nothing."""


class Plain(Method):
    """Its loss pulls the weights along each subject's own eight voxels, times `gain`."""

    phases = (Phase("fit", ("net",), "net"),)

    def __init__(self, gain: float = 1.0, keeps: bool = False) -> None:
        torch.manual_seed(0)
        super().__init__(None, ItemSpec(1, GRID.shape), {"net": nn.Linear(8, 1, bias=False)})
        self.optimisers = {"net": OptimiserConfig(lr=0.1)}
        self.gain, self.keeps, self.seen = gain, keeps, []

    def private_refusal(self) -> str | None:
        return None

    def calibrate(self, items):
        raise AssertionError("measured on TRAIN")

    def loss(self, phase, batch, progress, rng):
        self.seen.append((progress.step, batch.subject.tolist()))
        total = self.gain * self.networks["net"](batch.x.flatten(1)).mean()
        return Loss(total, statistics={"count": torch.ones(())} if self.keeps else {})


def feed(num: int = 40) -> Feed:
    stored = torch.randint(0, 1000, (num, 1, 2, 2, 2), generator=torch.Generator().manual_seed(1))
    volumes = ResidentVolumes(stored.to(torch.int16), 1 / 1000, (0.0, 1.0))
    return Feed(volumes, torch.zeros(num, 0), VolumeView(VolumeConfig(), 1, GRID), seed=0)


def trainer(root, method=None, source=None, noise=1.0, steps=6, **private) -> PrivateTrainer:
    settings = PrivateConfig(**{"noise_multiplier": noise, "max_grad_norm": LARGEST, **private})
    config = TrainingConfig(steps=steps, batch_size=10, private=settings)
    return PrivateTrainer(method or Plain(), source or feed(), config, 0, root)


def gradient(running: PrivateTrainer) -> torch.Tensor:
    """Return the gradient of the first step, before the optimiser acts."""
    parameters = list(running.method.networks["net"].parameters())
    running._gradients(running.method.phases[0], parameters, running.clock.progress)
    return parameters[0].grad.clone()


def test_the_account_is_that_of_opacus(tmp_path):
    from opacus.accountants import PRVAccountant, RDPAccountant

    said = trainer(tmp_path, noise=1.3, steps=50).statement()
    step_by_step = PRVAccountant()
    looser = RDPAccountant()
    for _ in range(50):
        step_by_step.step(noise_multiplier=1.3, sample_rate=10 / 40)
        looser.step(noise_multiplier=1.3, sample_rate=10 / 40)
    assert said["delta"] == 1 / (10 * 40)
    assert said["epsilon"] == pytest.approx(step_by_step.get_epsilon(said["delta"]), rel=1e-6)
    assert 1 < said["epsilon"] < looser.get_epsilon(said["delta"])


def test_noise_follows_from_the_epsilon_asked_for(tmp_path):
    running = trainer(tmp_path, noise=None, target_epsilon=4.0, steps=30)
    assert 3.98 < running.statement()["epsilon"] <= 4.0


def test_each_subject_counts_for_at_most_the_norm_and_small_ones_as_they_are(tmp_path):
    for gain in (1e-3, 1e3):
        running = trainer(tmp_path, Plain(gain), noise=EXACT)
        rows = running.drawn_at(0)
        assert 0 < len(rows) < 40
        own = gain * running.feed.take(rows, rows).x.flatten(1)
        norms = own.norm(dim=1, keepdim=True)
        expected = (own * (LARGEST / norms).clamp(max=1)).sum(0) / 10
        torch.testing.assert_close(gradient(running)[0], expected, rtol=1e-4, atol=1e-7)


def test_one_subject_however_loud_moves_the_gradient_by_no_more_than_the_norm(tmp_path):
    """Neighbouring cohorts: the drawn are the same but for one subject, who is there or not."""
    running = trainer(tmp_path, Plain(1e3), noise=EXACT)
    rows = running.drawn_at(0)
    everybody = gradient(running)
    for gone in range(len(rows)):
        left = torch.cat([rows[:gone], rows[gone + 1 :]])
        running.drawn_at = lambda step, left=left: left
        moved = (everybody - gradient(running)).norm() * 10
        assert float(moved) == pytest.approx(LARGEST, rel=1e-3)


def test_noise_has_the_size_that_the_account_assumes(tmp_path):
    running = trainer(tmp_path, noise=2.0)
    running.drawn_at = lambda step: torch.zeros(0, dtype=torch.int64)
    drawn = []
    for step in range(400):
        running.clock.step = step
        drawn.append(gradient(running).flatten())
    values = torch.cat(drawn) * 10
    assert float(values.std()) == pytest.approx(2.0 * LARGEST, rel=0.05)
    assert abs(float(values.mean())) < 0.06


def test_subjects_are_drawn_each_with_the_same_chance(tmp_path):
    running = trainer(tmp_path)
    counts = torch.zeros(40)
    sizes = []
    for step in range(1000):
        rows = running.drawn_at(step)
        counts[rows] += 1
        sizes.append(len(rows))
    assert float((counts / 1000 - 0.25).abs().max()) < 0.06
    assert len(set(sizes)) > 10, "batches of a fixed size are not what the account assumes"


def test_ten_steps_are_five_a_stop_and_five_more(tmp_path):
    whole = Plain()
    trainer(tmp_path / "one", whole, steps=10).run()
    stopped = tmp_path / "two"
    stopped.mkdir()
    (stopped / KEY).write_text((tmp_path / "one" / KEY).read_text())
    first = trainer(stopped, steps=10)
    with pytest.raises(ResumableStop):
        first.run(stop_asked=lambda: first.clock.step == 5)
    again = Plain()
    trainer(stopped, again, steps=10).run()
    torch.testing.assert_close(
        again.networks["net"].weight, whole.networks["net"].weight, rtol=0, atol=0
    )
    assert min(step for step, _ in again.seen) >= 5


def test_who_was_drawn_and_the_noise_cannot_be_told_from_the_recipe(tmp_path):
    one, two = trainer(tmp_path / "one"), trainer(tmp_path / "two")
    assert one.drawn_at(0).tolist() != two.drawn_at(0).tolist()
    key = tmp_path / "one" / KEY
    assert key.stat().st_mode & 0o077 == 0
    assert trainer(tmp_path / "one").drawn_at(0).tolist() == one.drawn_at(0).tolist()


def test_delta_and_statistics_of_batches_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"1 / \(10 x 40\) = 0.0025"):
        trainer(tmp_path, delta=0.01)
    with pytest.raises(UsageError, match="keeps statistics"):
        gradient(trainer(tmp_path, Plain(keeps=True)))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"steps": 5, "private": {}}, "exactly one of"),
        ({"steps": 5, "private": {"target_epsilon": 1, "noise_multiplier": 1}}, "exactly one of"),
        ({"steps": 5, "private": {"target_epsilon": -1}}, "above 0"),
        ({"budget_s": 5, "private": {"target_epsilon": 1}}, "needs training.steps"),
        ({"steps": 5, "micro_batch": 2, "private": {"target_epsilon": 1}}, "no micro_batch"),
    ],
)
def test_settings_that_mean_nothing_are_refused(training, said):
    with pytest.raises(UsageError, match=said):
        parse_recipe({"name": "r", "view": "volume", "method": "ddpm", "training": training})


def recipe(method, **changes):
    training = {"steps": 5, "batch_size": 4, "private": {"target_epsilon": 3}}
    made = {"name": "r", "view": "volume", "method": method, "training": training}
    return parse_recipe({**made, **changes})


def test_a_diffusion_model_without_a_prior_is_served():
    from gyri.methods.ddpm import DDPM, DDPMConfig

    spec = ItemSpec(1, GRID.shape)
    refuse_unprivate(
        recipe("ddpm"), DDPM(DDPMConfig(), spec, {"denoiser": nn.Linear(1, 1)}), feed()
    )


def test_what_learns_from_train_beside_the_gradients_is_refused():
    from gyri.methods.ddpm import DDPM, DDPMConfig

    plain = Plain()
    config = DDPMConfig(prediction="x0", prior="gaussian")
    prior = DDPM(config, ItemSpec(1, GRID.shape), {"denoiser": nn.Linear(1, 1)})
    normed = Plain()
    normed.networks["net"] = nn.BatchNorm3d(1)
    twice = Plain()
    twice.phases = (replace(Plain.phases[0], repeats=2),)
    cases = [
        (recipe("ddpm"), prior, feed(), "prior is fitted to TRAIN"),
        (recipe("r3gan"), Method(None, ItemSpec(1, GRID.shape), {}), feed(), "one subject"),
        (recipe("ddpm"), normed, feed(), "running statistics"),
        (recipe("ddpm"), twice, feed(), "one update a step"),
        (recipe("ddpm"), plain, feed(3), "more than the 3 subjects"),
        (recipe("ddpm", data={"sessions": "all"}), plain, feed(), "one scan a subject"),
        (recipe("ddpm", needs={"classifier": "x"}), plain, feed(), "needs classifier"),
    ]
    for made, method, source, said in cases:
        with pytest.raises(UsageError, match=said):
            refuse_unprivate(made, method, source)


def test_a_run_keeps_its_account_and_measures_nothing_beside_it(tiny_cohort, tmp_path):
    from tests.contracts.tiny import recipe as tiny

    from gyri.report.cards import privacy_promise
    from gyri.training import checkpoint
    from gyri.training.run import train

    private = {"noise_multiplier": 2.0, "max_grad_norm": 0.1}
    run = train(tiny("ddpm", steps=2, private=private), tiny_cohort, tmp_path / "run", quiet=True)
    said = run.info["differential_privacy"]
    assert (said["noise_multiplier"], said["steps"], said["unit"]) == (2.0, 2, "subject")
    assert said["sample_rate"] == 4 / run.num_train
    files, clock = checkpoint.load(run.checkpoint())
    assert clock["step"] == 2
    assert float(files["state"]["data_mean"]) == 0
    assert float(files["state"]["data_std"]) == 0.5
    assert files["view"]["draw"].unique().numel() == 1
    promise = "\n".join(privacy_promise(run.info))
    assert f"epsilon {said['epsilon']:.3g} at delta {said['delta']:.2g}" in promise
    assert "conditions" in promise
    assert privacy_promise({}) == []
