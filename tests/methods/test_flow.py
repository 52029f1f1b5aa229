from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.flow import EARLIEST, Flow, FlowConfig, FlowSampling
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import last_levels
from gyri.sampling.schedules import CLEAN, Level
from gyri.types import Batch, Items, ItemSpec, Progress

START = Progress(0, 0, 0.0)
MEAN, STD = -0.3, 0.4


class Whole:
    slice_axis: int | None = None
    lifts = True

    def __init__(self, *volume_shape: int) -> None:
        self.volume_shape = volume_shape
        self.item_channels, self.item_shape = volume_shape[0], volume_shape[1:]

    def encode(self, volumes: Tensor) -> Items:
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        return items


class Velocity(nn.Module):
    """The exact ``E[eps - y | y_t]`` of y from N(mean, std^2)."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
    ) -> Tensor:
        ratio = (4 * noise_level.double()).exp()
        t = (ratio / (1 + ratio)).reshape(-1, *[1] * (x.ndim - 1))
        mean, s2 = self.mean, self.std**2
        # MONAI's sign is the opposite: E[y - eps | y_t].
        slope = ((1 - t) * s2 - t) / ((1 - t) ** 2 * s2 + t**2)
        return -(mean + slope * (x - (1 - t) * mean)).float()


class Nothing(nn.Module):
    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
    ) -> Tensor:
        return torch.zeros_like(x)


def build(network: nn.Module, mean: float = 0.0, std: float = 1.0, **settings: Any) -> Flow:
    method = Flow(FlowConfig(**settings), ItemSpec(1, (4, 4, 4)), {"denoiser": network})
    method.state |= {"data_mean": torch.tensor(mean), "data_std": torch.tensor(std)}
    return method


def exact(standardised: bool = True, **settings: Any) -> Flow:
    if standardised:
        return build(Velocity(0.0, 1.0), MEAN, STD, **settings)
    return build(Velocity(MEAN, STD), **settings)


def a_batch(size: int = 6) -> Batch:
    rows = torch.arange(size)
    x = MEAN + STD * SampleRng(rows + 7).normal((1, 4, 4, 4))
    return Batch(x, torch.zeros(size, 0), None, rows, rows + 100)


def drawn(method: Flow, *shape: int, volumes: int = 2) -> Tensor:
    rng = SampleRng(torch.arange(volumes))
    return method.sample(Whole(1, *shape), torch.zeros(volumes, 0), rng)


def test_capabilities_and_registration() -> None:
    assert METHODS["flow"].component is Flow
    assert capabilities(Flow) == ["Sampler", "ContextSampler", "Editor", "Scorer"]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("standardised", [True, False])
def test_the_exact_velocity_samples_the_gaussian_from_the_same_noise(
    standardised: bool, sampler: str, shift: float
) -> None:
    sampling = FlowSampling(sampler=sampler, num_steps=200, clip=0)  # type: ignore[arg-type]
    x = drawn(exact(standardised, sampling=sampling, shift=shift), 6, 6, 6)
    z = SampleRng(torch.arange(2)).normal((1, 6, 6, 6))
    torch.testing.assert_close(x, MEAN + STD * z, rtol=0, atol=0.03)


def test_standard_scores_need_few_steps() -> None:
    """Of standardised white items even 5 steps keep what the noise had."""
    for sampler, atol in (("heun", 0.02), ("euler", 0.25)):
        sampling = FlowSampling(sampler=sampler, num_steps=5, clip=0)  # type: ignore[arg-type]
        x = drawn(exact(sampling=sampling), 15, 15, 15)
        assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
        assert float(x.std() / STD) == pytest.approx(1.0, abs=atol)


def test_the_denoiser_is_exact_at_the_levels_of_any_process() -> None:
    x_noised = torch.randn(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for level in (Level(0.6, 0.8), Level(1.0, 3.0), Level(0.7, 0.3 * STD), Level(0.0, 1.0)):
        gain = level.alpha * STD**2 / (level.alpha**2 * STD**2 + level.sigma**2)
        expected = MEAN + gain * (x_noised - level.alpha * MEAN)
        for method in (exact(), exact(standardised=False)):
            denoised = method.denoise(x_noised, level, torch.zeros(3, 0))
            torch.testing.assert_close(denoised, expected, rtol=1e-3, atol=1e-4)


def test_the_target_is_the_velocity_towards_noise() -> None:
    batch, method = a_batch(), build(Nothing(), MEAN, STD)
    rng = SampleRng(batch.seed)
    alpha, sigma = method._draw_levels(rng)
    eps = rng.normal((1, 4, 4, 4))
    velocity = eps - (batch.x - MEAN) / STD
    expected = velocity.square().mean()
    loss = method.loss("denoise", batch, START, SampleRng(batch.seed))
    assert loss.total.item() == pytest.approx(float(expected), rel=1e-3)
    torch.testing.assert_close(alpha + sigma / STD, torch.ones(6))


def test_loss_is_the_mean_of_the_items_own_losses() -> None:
    batch, method = a_batch(), exact(standardised=False)
    parts = [
        method.loss("denoise", part, START, SampleRng(part.seed)).total.item()
        for part in (batch[slice(start, start + 2)] for start in (0, 2, 4))
    ]
    whole = method.loss("denoise", batch, START, SampleRng(batch.seed)).total.item()
    assert whole == pytest.approx(sum(parts) / 3, rel=1e-5)


def test_losses_of_the_exact_velocity_have_their_closed_form() -> None:
    """``Var(eps - y | y_t) = 1 / ((1 - t)^2 + t^2)`` for standard y."""
    batch, method = a_batch(2000), exact(times="uniform")
    measured = method.loss("denoise", batch, START, SampleRng(batch.seed)).total.item()
    # the integral over [0, 1] is pi / 2
    assert measured == pytest.approx(math.pi / 2, rel=0.03)


@pytest.mark.parametrize(
    ("settings", "quantiles"),
    [
        ({"times": "uniform"}, (0.1, 0.5, 0.9)),
        ({}, (0.217, 0.5, 0.783)),
        ({"loc": 1.0, "scale": 0.5}, (0.589, 0.731, 0.838)),
        ({"times": "uniform", "shift": 3.0}, (0.25, 0.75, 0.964)),
    ],
)
def test_times_follow_their_distribution(
    settings: dict[str, Any], quantiles: tuple[float, ...]
) -> None:
    method = build(Nothing(), std=2.0, **settings)
    alpha, sigma = method._draw_levels(SampleRng(torch.arange(20000)))
    torch.testing.assert_close(alpha + sigma / 2, torch.ones(20000))
    for share, expected in zip((0.1, 0.5, 0.9), quantiles):
        assert float(sigma.quantile(share)) / 2 == pytest.approx(expected, abs=0.02)
        level = method._level_at(share)
        assert level.sigma / 2 == pytest.approx(expected, abs=2e-3)
        assert level.alpha == pytest.approx(1 - level.sigma / 2)
    assert float(sigma.min()) >= 2 * EARLIEST * (1 - 1e-6)


def test_calibration_measures_the_items() -> None:
    method = build(Nothing())
    method.calibrate(a_batch(200).x)
    assert float(method.state["data_mean"]) == pytest.approx(MEAN, abs=0.02)
    assert float(method.state["data_std"]) == pytest.approx(STD, abs=0.02)
    assert set(method.state) == {"data_mean", "data_std"}


def test_score_tells_what_the_flow_explains() -> None:
    method, usual, odd = exact(), a_batch(), a_batch()
    odd.x = 2 * odd.x + 1
    told = [method.score(batch, SampleRng(batch.seed)) for batch in (usual, odd)]
    assert bool((told[0] < told[1]).all())


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_editing_keeps_as_much_as_the_noise_leaves(sampler: str) -> None:
    sampling = FlowSampling(sampler=sampler, num_steps=100, clip=0)  # type: ignore[arg-type]
    method, lift = exact(sampling=sampling), Whole(1, 12, 12, 12)
    volumes = MEAN + STD * SampleRng(torch.tensor([7, 8])).normal(lift.volume_shape)
    for strength in (0.0, 0.4, 0.8, 1.0):
        rng = SampleRng(torch.tensor([1, 2]))
        x = method.edit(lift, volumes, torch.zeros(2, 0), strength, rng)
        here = last_levels(method._levels(), strength)[0]
        kept = here.alpha * STD / math.hypot(here.alpha * STD, here.sigma)
        both = torch.stack([volumes.flatten(), x.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(kept, abs=0.04)
        if strength == 0:
            assert torch.equal(x, volumes)
    assert kept == 0


def test_levels_of_sampling() -> None:
    method = build(Nothing(), std=STD, shift=2.0, sampling=FlowSampling(num_steps=4))
    levels = method._levels()
    assert levels[0] == Level(0.0, pytest.approx(STD))
    assert levels[-1] == CLEAN
    assert levels[-2].sigma < 2.1 * EARLIEST * STD
    own = build(Nothing(), shift=2.0, sampling=FlowSampling(sampler="euler", num_steps=2, shift=1))
    assert own._levels() == [(0.0, 1.0), (0.5, 0.5), CLEAN]
    assert FlowSampling(num_steps=13).network_calls == 25
    assert FlowSampling(sampler="euler", num_steps=25, guidance_scale=2.0).network_calls == 50


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FlowConfig, {"shift": 0.0}, "above 0"),
        (FlowConfig, {"scale": 0.0}, "standard deviation"),
        (FlowSampling, {"shift": -1.0}, "above 0"),
        (FlowSampling, {"num_steps": 0}, "at least 1"),
        (FlowSampling, {"shared_noise": 1.0}, "shared_noise"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    kind: type, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**settings)


def test_optimal_transport_deals_the_noise_that_is_nearest() -> None:
    method = build(Nothing(), pairing="optimal_transport", pairing_group=3)
    batch = a_batch(6)
    eps = batch.x[torch.tensor([2, 0, 1, 5, 3, 4])] + 0.01
    same, dealt = method._paired(batch, eps, SampleRng(batch.seed))
    assert same is batch
    torch.testing.assert_close(dealt, batch.x + 0.01)
    assert method.group == 3


def taught(student: Flow, teacher: Flow) -> Flow:
    student.use({"teacher": teacher})
    student.calibrate(torch.zeros(1, 1, 4, 4, 4))
    return student


def test_a_teacher_pairs_noise_with_what_it_makes_of_it() -> None:
    student = taught(build(Nothing(), teacher_steps=40), exact())
    batch = a_batch()
    eps = SampleRng(batch.seed).normal((1, 4, 4, 4))
    made, same = student._paired(batch, eps, SampleRng(batch.seed))
    assert same is eps
    torch.testing.assert_close(made.x, MEAN + STD * eps, rtol=0, atol=0.03)
    assert float(student.state["data_std"]) == pytest.approx(STD)


def test_a_student_begins_as_its_teacher() -> None:
    teacher, student = build(nn.Linear(2, 2), 0.2, 0.3), build(nn.Linear(2, 2))
    taught(student, teacher)
    assert torch.equal(student.networks["denoiser"].weight, teacher.networks["denoiser"].weight)
    taught(build(nn.Linear(3, 2)), teacher)  # Another network begins as it was built.


def test_other_teachers_are_refused() -> None:
    with pytest.raises(UsageError, match="noise 0.1; it must be a flow of"):
        build(Nothing()).use({"teacher": build(Nothing(), noise=0.1)})
    with pytest.raises(UsageError, match="set pairing to independent"):
        build(Nothing(), pairing="optimal_transport").use({"teacher": exact()})
    with pytest.raises(UsageError, match="pairing_group is 1"):
        FlowConfig(pairing_group=1)
