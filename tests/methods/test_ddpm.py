from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig, last_levels
from gyri.sampling.preconditioning import SCALINGS, over_items
from gyri.sampling.schedules import Level
from gyri.types import Batch, ConditionLayout, Items, ItemSpec, Progress

START = Progress(0, 0, 0.0)
LAYOUT = ConditionLayout(((0, 2), (3, 4)))
MEAN, STD = -0.3, 0.4


class Whole:
    slice_axis: int | None = None
    lifts = True

    def __init__(self, *volume_shape: int) -> None:
        self.volume_shape = volume_shape

    def encode(self, volumes: Tensor) -> Items:
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        return items


class Denoiser(nn.Module):
    """A convolution and what it is told, added."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, told: int = 0) -> None:
        super().__init__()
        convolution = nn.Conv3d if dims == 3 else nn.Conv2d
        self.image = convolution(in_channels, out_channels, 3, padding=1)
        self.told = nn.Linear(1 + told, out_channels)

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
    ) -> Tensor:
        told = self.told(torch.cat([noise_level[:, None], condition], 1))
        return self.image(x) + told.reshape(*told.shape, *[1] * (x.ndim - 2))


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
    ) -> Tensor:
        return self.function(x, noise_level)


def zero(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


def build(network: nn.Module, shape: tuple[int, ...] = (4, 4, 4), **settings: Any) -> DDPM:
    channels = settings.pop("channels", 1)
    condition = settings.pop("condition", ConditionLayout())
    spec = ItemSpec(channels, shape, condition=condition)
    return DDPM(DDPMConfig(**settings), spec, {"denoiser": network})


def oracle_network(prediction: str, data_std: float) -> nn.Module:
    """The exact denoiser of N(MEAN, STD^2), written as what the network must predict."""

    def function(network_input: Tensor, noise_level: Tensor) -> Tensor:
        ratio = (4 * noise_level.double()).exp()
        alpha = torch.ones_like(ratio) if prediction == "edm" else 1 / (1 + ratio**2).sqrt()
        sigma = ratio * alpha
        c_skip, c_out, c_in = (
            over_items(c, network_input) for c in SCALINGS[prediction](alpha, sigma, data_std)
        )
        a, s = over_items(alpha, network_input), over_items(sigma, network_input)
        shift = MEAN if prediction == "edm" else 0.0
        x_noised = network_input / c_in + a * shift
        denoised = MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (x_noised - a * MEAN)
        base = shift + c_skip * (x_noised - a * shift)
        return ((denoised - base) / c_out).float()

    return Function(function)


def oracle(prediction: str, **settings: Any) -> DDPM:
    method = build(oracle_network(prediction, STD), prediction=prediction, **settings)
    method.state |= {"data_mean": torch.tensor(MEAN), "data_std": torch.tensor(STD)}
    return method


def a_batch(size: int = 6, channels: int = 1, shape: tuple[int, ...] = (4, 4, 4)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    condition = torch.zeros(size, LAYOUT.size)
    condition[:, 0] = 1.0
    condition[:, 3] = torch.randn(size, generator=generator)
    return Batch(
        x=MEAN + STD * torch.randn(size, channels, *shape, generator=generator),
        condition=condition,
        position=None,
        subject=torch.arange(size),
        seed=torch.arange(size) + 100,
    )


def without_condition(batch: Batch) -> Batch:
    return replace(batch, condition=batch.condition[:, :0])


def test_capabilities_and_registration() -> None:
    assert METHODS["ddpm"].component is DDPM
    assert capabilities(DDPM) == ["Sampler", "ContextSampler", "Editor", "Scorer"]


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "edm"])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "ancestral", "heun"])
def test_every_prediction_and_sampler_samples_the_gaussian(prediction: str, sampler: str) -> None:
    sampling = SamplingConfig(sampler=sampler, num_steps=50, clip=0)
    method = oracle(prediction, sampling=sampling)
    x = method.sample(Whole(1, 15, 15, 15), torch.zeros(2, 0), SampleRng(torch.tensor([1, 2])))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(x.std()) == pytest.approx(STD, abs=0.06)


def test_predictions_of_the_same_denoiser_are_the_same() -> None:
    x_noised = torch.randn(3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    level = Level(0.6, 0.8)
    by_x0 = oracle("x0").denoise(x_noised, level, torch.zeros(3, 0))
    for other in ("eps", "v", "edm"):
        denoised = oracle(other).denoise(x_noised, level, torch.zeros(3, 0))
        torch.testing.assert_close(denoised, by_x0, rtol=1e-4, atol=1e-5)
        # the same item of another process
        scaled = oracle(other).denoise(3 * x_noised, Level(1.8, 2.4), torch.zeros(3, 0))
        torch.testing.assert_close(scaled, denoised, rtol=1e-4, atol=1e-5)


def test_min_snr_makes_the_three_losses_one() -> None:
    losses = []
    for prediction in ("eps", "x0", "v"):
        batch = without_condition(a_batch(40))
        method = oracle(prediction, loss_weighting="min_snr")
        losses.append(method.loss("denoise", batch, START, SampleRng(batch.seed)).total.item())
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-3)


def test_losses_of_the_exact_denoiser_have_their_closed_form() -> None:
    """``E (x - E[x | x_noised])^2 = STD^2 sigma^2 / (alpha^2 STD^2 + sigma^2)``, over c_out^2."""
    batch = without_condition(a_batch(400))
    method = oracle("v")
    measured = method.loss("denoise", batch, START, SampleRng(batch.seed)).total.item()
    assert method.schedule is not None
    alpha, sigma = method.schedule.coefficients(torch.arange(1000))
    expected = (STD**2 / (alpha**2 * STD**2 + sigma**2)).mean()
    assert measured == pytest.approx(float(expected), rel=0.1)


@pytest.mark.parametrize("prediction", ["v", "edm"])
@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 4, 4)), (3, (5, 6))])
def test_loss_is_the_mean_of_the_items_own_losses(
    prediction: str, channels: int, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    network = Denoiser(channels, channels, len(shape), LAYOUT.size)
    method = build(network, shape, channels=channels, condition=LAYOUT, prediction=prediction)
    batch = a_batch(6, channels, shape)

    def loss_of(part: Batch) -> float:
        return method.loss("denoise", part, START, SampleRng(part.seed)).total.item()

    parts = [loss_of(batch[slice(start, start + 2)]) for start in (0, 2, 4)]
    assert loss_of(batch) == pytest.approx(sum(parts) / 3, rel=1e-5)


def test_two_volumes_of_one_channel_do_not_mix() -> None:
    # A coefficient of rank 4 would multiply volume 0 by the noise level of volume 1.
    method = build(zero(Denoiser(1, 1, 3)), prediction="edm")
    batch = without_condition(a_batch(2))
    far = replace(batch, x=torch.stack([batch.x[0], batch.x[1] * 100]))
    near = method.score(batch, SampleRng(batch.seed))
    torch.testing.assert_close(method.score(far, SampleRng(batch.seed))[0], near[0])


def test_columns_are_dropped_each_and_together() -> None:
    method = build(Denoiser(1, 1, 3, 5), condition=LAYOUT, condition_dropout=0.25)
    condition = a_batch(1).condition.repeat(4000, 1)
    dropped = method._drop(condition, SampleRng(torch.arange(4000)))
    first, second = dropped[:, 2] == 1, dropped[:, 4] == 1
    alone = 1 - 0.75**2
    assert float(first.float().mean()) == pytest.approx(alone, abs=0.03)
    assert float((first & second).float().mean()) == pytest.approx(0.25 + 0.75 / 16, abs=0.03)
    assert bool((dropped[first, :2] == 0).all())


def test_guidance_of_one_is_the_plain_conditional_sample() -> None:
    torch.manual_seed(0)
    network = Denoiser(1, 1, 3, LAYOUT.size)
    condition = a_batch(2).condition
    samples = {}
    for scale in (0.0, 1.0, 2.0):
        sampling = SamplingConfig(num_steps=5, guidance_scale=scale)
        method = build(network, condition=LAYOUT, sampling=sampling)
        rng = SampleRng(torch.tensor([1, 2]))
        samples[scale] = method.sample(Whole(1, 4, 4, 4), condition, rng)
    plain = build(network, condition=LAYOUT, sampling=SamplingConfig(num_steps=5))
    nobody = plain.sample(
        Whole(1, 4, 4, 4), LAYOUT.null(condition), SampleRng(torch.tensor([1, 2]))
    )
    assert torch.equal(samples[0.0], nobody)
    assert not torch.allclose(samples[0.0], samples[1.0])
    assert not torch.allclose(samples[1.0], samples[2.0])


def test_samples_stay_inside_the_clip() -> None:
    torch.manual_seed(0)
    for sampler in ("ddim", "dpmpp_2m", "ancestral", "heun"):
        sampling = SamplingConfig(sampler=sampler, num_steps=4, clip=0.5)
        method = build(Denoiser(1, 1, 3), sampling=sampling)
        x = method.sample(Whole(1, 4, 4, 4), torch.zeros(3, 0), SampleRng(torch.arange(3)))
        assert float(x.abs().max()) <= 0.5 + 1e-6


def test_calibration_centres_and_scales_edm() -> None:
    method = build(zero(Denoiser(1, 1, 3)), prediction="edm")
    items = MEAN + STD * torch.randn(50, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    method.calibrate(items)
    assert float(method.state["data_mean"]) == pytest.approx(MEAN, abs=0.03)
    assert float(method.state["data_std"]) == pytest.approx(STD, abs=0.03)
    batch = replace(without_condition(a_batch(50)), x=items)
    # A network of zeros misses a target of unit variance at every level.
    assert float(method.score(batch, SampleRng(batch.seed)).mean()) == pytest.approx(1.0, abs=0.1)


def test_score_tells_what_the_denoiser_explains() -> None:
    method = oracle("v")
    usual, odd = without_condition(a_batch(10)), without_condition(a_batch(10))
    odd.x = 2 * odd.x + 1
    rng = SampleRng(usual.seed)
    assert bool((method.score(usual, rng) < method.score(odd, SampleRng(odd.seed))).all())


def test_moving_average_ramps_up() -> None:
    method = build(Denoiser(1, 1, 3), ema_half_life_images=1000, ema_ramp=0.05)
    assert method.ema_half_life("denoiser", Progress(10, 200, 0.1)) == pytest.approx(10)
    assert method.ema_half_life("denoiser", Progress(10, 10**6, 0.1)) == 1000
    assert build(Denoiser(1, 1, 3), ema_half_life_images=0).ema_half_life("denoiser", START) is None


# --- the linear prior -----------------------------------------------------------------------------


def linear_cohort(num: int = 120) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(5, 64, generator=generator)
    x = 0.15 * torch.randn(num, 5, generator=generator) @ directions
    x = x + 0.05 * torch.randn(num, 64, generator=generator) - 0.3
    return x.reshape(num, 1, 4, 4, 4)


def with_prior(prediction: str, **settings: Any) -> DDPM:
    method = build(
        zero(Denoiser(2, 1, 3)),
        prediction=prediction,
        prior="gaussian",
        prior_components=5,
        **settings,
    )
    method.calibrate(linear_cohort())
    return method


@pytest.mark.parametrize("prediction", ["x0", "edm"])
def test_untrained_model_with_prior_samples_the_gaussian(prediction: str) -> None:
    method = with_prior(prediction, sampling=SamplingConfig(num_steps=300, clip=0))
    num = 600
    sampled = method.sample(Whole(1, 4, 4, 4), torch.zeros(num, 0), SampleRng(torch.arange(num)))
    sampled, cohort = sampled.flatten(1), linear_cohort().flatten(1)
    spread = cohort.std(0).mean()
    assert float((sampled.mean(0) - cohort.mean(0)).abs().max() / spread) < 0.15
    prior = method.prior
    assert prior is not None
    basis = prior.full.basis
    variance = ((sampled - cohort.mean(0)) @ basis).var(0)
    torch.testing.assert_close(variance, prior.full.variance, rtol=0.15, atol=0)
    outside = (sampled - sampled.mean(0)) @ (torch.eye(64) - basis @ basis.T)
    residual = outside.square().sum(1).mean() / (64 - 5)
    held_out = prior.residual.amplitude.square().mean() * 64 / (64 - 5)
    assert float(residual) == pytest.approx(float(held_out), rel=0.1)


@pytest.mark.parametrize("prediction", ["x0", "edm"])
def test_what_is_left_to_learn_has_unit_variance_at_every_level(prediction: str) -> None:
    method = with_prior(prediction)
    items = linear_cohort()
    batch = Batch(items, torch.zeros(120, 0), None, torch.arange(120), torch.arange(120))
    for ratio in (0.02, 0.2, 1.0, 5.0):
        scale = 1.0 if prediction == "edm" else (1 + ratio**2) ** 0.5
        alpha, sigma = torch.full((120,), 1 / scale), torch.full((120,), ratio / scale)
        eps = SampleRng(batch.seed).normal((1, 4, 4, 4))
        asked = method._asked(batch, alpha, sigma, eps, batch.subject)
        error = method._errors(batch, alpha, sigma, *asked)
        assert error.mean().item() == pytest.approx(1.0, abs=0.1)


def test_prior_survives_in_the_state_alone() -> None:
    trained = with_prior("edm", sampling=SamplingConfig(num_steps=3))
    loaded = build(zero(Denoiser(2, 1, 3)), **vars(trained.config))
    with pytest.raises(UsageError, match="call calibrate"):
        loaded.sample(Whole(1, 4, 4, 4), torch.zeros(1, 0), SampleRng(torch.tensor([1])))
    loaded.state = {name: tensor.clone() for name, tensor in trained.state.items()}
    samples = [
        m.sample(Whole(1, 4, 4, 4), torch.zeros(1, 0), SampleRng(torch.tensor([1])))
        for m in (trained, loaded)
    ]
    assert torch.equal(*samples)


def test_prior_adds_its_answer_to_the_networks_input() -> None:
    spec = ItemSpec(3, (4, 4))
    config = DDPMConfig(prediction="edm", prior="gaussian")
    assert DDPM.network_specs(config, spec)["denoiser"].in_channels == 6
    assert DDPM.network_specs(DDPMConfig(), spec)["denoiser"].in_channels == 3


def test_prior_is_refused_for_views_of_several_items() -> None:
    config = DDPMConfig(prediction="edm", prior="gaussian")
    with pytest.raises(UsageError, match="one item a volume"):
        DDPM.network_specs(config, ItemSpec(1, (4, 4), items_per_volume=7))


def test_prior_wants_all_of_train() -> None:
    config = DDPMConfig(prediction="edm", prior="gaussian", prior_components=5)
    spec = ItemSpec(1, (4, 4, 4), num_train=200)
    method = DDPM(config, spec, {"denoiser": zero(Denoiser(2, 1, 3))})
    with pytest.raises(UsageError, match="each of the 200"):
        method.calibrate(linear_cohort())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction": "eps", "zero_terminal_snr": True}, "Set prediction to v or x0"),
        ({"prediction": "edm", "zero_terminal_snr": True}, "leave it out"),
        ({"prediction": "edm", "logsnr_shift": -1.0}, "set p_mean"),
        ({"prediction": "edm", "loss_weighting": "min_snr"}, "set it to none"),
        ({"prediction": "v", "prior": "gaussian"}, "Set it to x0 or edm"),
        (
            {"prediction": "x0", "prior": "gaussian", "loss_weighting": "min_snr"},
            "unit variance at every level",
        ),
    ],
)
def test_what_cannot_work_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DDPMConfig(**settings)


def test_unknown_needs_and_a_missing_classifier_are_refused() -> None:
    method = build(Denoiser(1, 1, 3), sampling=SamplingConfig(classifier_scale=1.0))
    with pytest.raises(UsageError, match="got autoencoder"):
        method.use({"autoencoder": None})
    with pytest.raises(UsageError, match="no classifier"):
        method.sample(Whole(1, 4, 4, 4), torch.zeros(1, 0), SampleRng(torch.tensor([1])))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "heun"])
@pytest.mark.parametrize("prediction", ["v", "edm"])
def test_editing_the_gaussian_keeps_as_much_as_the_noise_leaves(
    prediction: str, sampler: str
) -> None:
    """With the exact denoiser, x and its edit correlate by ``alpha STD / hypot(alpha STD, sigma)``.

    (The ODE keeps standard scores.) So strength 0 is the volume itself, strength 1 a new draw.
    """
    method = oracle(prediction, sampling=SamplingConfig(sampler=sampler, num_steps=50, clip=0))
    lift = Whole(1, 15, 15, 15)
    volumes = MEAN + STD * SampleRng(torch.tensor([7, 8])).normal(lift.volume_shape)
    levels = method._levels()
    for strength in (0.0, 0.5, 0.7, 1.0):
        rng = SampleRng(torch.tensor([1, 2]))
        x = method.edit(lift, volumes, torch.zeros(2, 0), strength, rng)
        here = last_levels(levels, strength)[0]
        kept = here.alpha * STD / math.hypot(here.alpha * STD, here.sigma)
        both = torch.stack([volumes.flatten(), x.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(kept, abs=0.03)
        assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
        assert float(x.std()) == pytest.approx(STD, abs=0.06)
        if strength == 0:
            assert torch.equal(x, volumes)
    assert kept < 0.05


def test_strength_is_a_share_of_the_steps() -> None:
    levels = oracle("edm", sampling=SamplingConfig(num_steps=4))._levels()
    counts = [len(last_levels(levels, s)) - 1 for s in (0, 0.01, 0.25, 0.3, 0.75, 1)]
    assert counts == [0, 1, 1, 2, 3, 4]
    with pytest.raises(UsageError, match=r"strength is 1.2.*from 0"):
        last_levels(levels, 1.2)
