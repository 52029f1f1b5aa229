from __future__ import annotations

import math

import pytest
import torch
from tests.methods.registration import SHAPE, batch_of, blobs, endpoint_error, fit, scans
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.diffusemorph import DiffuseMorph, DiffuseMorphConfig
from gyri.networks.registration_unet import RegistrationUNet, RegistrationUNetConfig
from gyri.networks.unet import UNet, UNetConfig
from gyri.nn.deformation import exponential
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.sampling.preconditioning import noise_level
from gyri.types import ItemSpec, NetworkSpec, Progress

START = Progress(0, 0, 0.0)


class Believes(nn.Module):
    """Takes scans for draws from a Gaussian around the scan given; exact for it at any level.

    Remembers what it was asked.
    """

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        self.asked = x, level
        x_noised, _, fixed = x.split(1, dim=1)
        ratio = (4 * level).exp().view(-1, 1, 1, 1, 1)
        alpha = (1 + ratio**2).rsqrt()
        sigma = alpha * ratio
        kept = sigma**2 + (alpha * self.spread) ** 2
        return sigma * (x_noised - alpha * fixed) / kept


class Scale(nn.Module):
    """Estimates noise as the scan times a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        return self.weight * x[:, 2:]


class Affine(nn.Module):
    """Makes a field that is constant in space: the code's mean times a slope, plus an offset."""

    def __init__(self, offset: float = 0.3) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor([offset, 0.0, -offset]))
        self.slope = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        code = x[:, 1:].mean((1, 2, 3, 4))[:, None]
        field = self.offset + code * self.slope
        return field[:, :, None, None, None].expand(-1, -1, *SHAPE)


def build(score: nn.Module, deformation: nn.Module | None = None, **settings) -> DiffuseMorph:
    networks = {"score": score, "deformation": deformation or Affine()}
    config = DiffuseMorphConfig(**{"window": 5, **settings})
    method = DiffuseMorph(config, ItemSpec(1, SHAPE), networks)
    method.take_template(blobs()[0])
    return method


def loss_of(method: DiffuseMorph, x: Tensor):
    batch = batch_of(x)
    return method.loss("register", batch, START, SampleRng(batch.seed))


def test_registration_and_its_networks():
    assert METHODS["diffusemorph"].component is DiffuseMorph
    assert [phase.networks for phase in DiffuseMorph.phases] == [("score", "deformation")]
    specs = DiffuseMorph.network_specs(DiffuseMorphConfig(), ItemSpec(1, SHAPE))
    assert specs == {"score": NetworkSpec(3, 1, SHAPE), "deformation": NetworkSpec(2, 3, SHAPE)}
    with pytest.raises(UsageError, match="Take the view volume"):
        DiffuseMorph.network_specs(DiffuseMorphConfig(), ItemSpec(1, (16, 16)))


def test_the_published_schedule():
    schedule = build(Believes(1.0)).schedule
    # ln abar = sum ln(1 - beta), beta linear: -(sum beta + sum beta^2 / 2 + ...)
    assert schedule.level(-1).alpha ** 2 == pytest.approx(math.exp(-10.001 - 0.0334), rel=1e-2)
    level = schedule.level(200)
    assert (level.alpha, level.sigma) == pytest.approx((0.951, 0.310), abs=1e-3)
    assert level.alpha**2 / level.sigma**2 == pytest.approx(9.4, abs=0.1)


@pytest.mark.parametrize("betas", [(0.0, 0.01), (0.02, 0.01), (1e-6, 1.0)])
def test_variances_that_are_none_are_refused(betas):
    with pytest.raises(UsageError, match="two rising variances between 0 and 1"):
        DiffuseMorphConfig(betas=betas)


def test_the_loss_is_noise_and_weighted_registration():
    x, _ = scans(4)
    # A spread of 0 knows the scan, so that what is left of the noised one is the noise.
    known = loss_of(build(Believes(0.0)), x)
    assert float(known.logs["noise_error"]) == pytest.approx(0, abs=1e-3)
    nothing = loss_of(build(Scale(0.0)), x)
    assert float(nothing.logs["noise_error"]) == pytest.approx(1, abs=0.05)
    for weight in (0.0, 20.0):
        method = build(Scale(0.0), registration_weight=weight, smoothness=0.7)
        loss = loss_of(method, x)
        # Without an estimate the field is that of no code, for all scans.
        register = method.registration_loss(
            x, method.networks["deformation"](0 * x.repeat(1, 2, 1, 1, 1))
        )
        expected = loss.logs["noise_error"] + weight * register[0].mean()
        torch.testing.assert_close(loss.total, expected)


def test_the_noise_levels_of_training_cover_the_schedule():
    method, x = build(Believes(0.0)), torch.zeros(64, 1, *SHAPE)
    levels = []
    for step in range(2):
        batch = batch_of(x, step)
        method.loss("register", batch, START, SampleRng(batch.seed))
        levels.append(method.networks["score"].asked[1])
    sigma = torch.cat(levels).mul(4).exp()
    ratios = torch.tensor([method.schedule.level(k).ratio for k in (500, 1000, 1500)])
    shares = (sigma[:, None] < ratios).float().mean(0)
    assert shares.tolist() == pytest.approx([0.25, 0.5, 0.75], abs=0.1)


def test_registration_trains_the_score_network_too():
    method = build(Scale(0.2), registration_weight=1.0)
    x, _ = scans(2)
    losses, _ = method.registration_loss(x, method.field(x))
    losses.sum().backward()
    assert method.networks["score"].weight.grad.abs() > 0
    assert method.networks["deformation"].slope.grad.abs().sum() > 0


def test_a_scan_is_registered_in_one_pass_without_noise():
    method, (x, _) = build(Believes(0.5)), scans(2)
    field = method.field(x)
    read, level = method.networks["score"].asked
    assert torch.equal(read, torch.cat([x, blobs().expand_as(x), x], dim=1))
    first = method.schedule.level(0)
    expected = noise_level(torch.tensor(first.alpha), torch.tensor(first.sigma))
    torch.testing.assert_close(level, expected.expand(2))
    assert torch.equal(field, method.field(x))


def test_the_way_of_a_velocity_is_its_integral():
    method, (x, _) = build(Scale(0.5)), scans(2)
    assert torch.equal(method.trajectory(x, 0.0), torch.zeros(2, 3, *SHAPE))
    expected = exponential(0.4 * method.field(x))
    torch.testing.assert_close(method.trajectory(x, 0.4), expected)
    with torch.no_grad():
        ways = [method.trajectory(x, eta) for eta in (0.2, 0.6, 1.0)]
    lengths = [float(way.norm(dim=1).mean()) for way in ways]
    assert lengths == sorted(lengths)
    assert lengths[0] > 0


def test_the_published_way_scales_the_code_and_need_not_start_at_the_template():
    method, (x, _) = build(Scale(0.5), form="displacement"), scans(2)
    torch.testing.assert_close(method.trajectory(x, 1.0), method.displacement(method.field(x)))
    start = method.trajectory(x, 0.0)
    torch.testing.assert_close(start[0, :, 0, 0, 0], torch.tensor([0.3, 0.0, -0.3]))
    code = 0.5 * x.mean((1, 2, 3, 4))
    half = method.trajectory(x, 0.5) - start
    torch.testing.assert_close(half[:, 1, 0, 0, 0], 0.5 * code * -2.0, atol=1e-6, rtol=1e-4)


def test_no_step_leaves_the_template_and_a_step_makes_the_scan_of_one_who_knows_it():
    method, (x, _) = build(Believes(0.0)), scans(2)
    rng = SampleRng(torch.tensor([1, 2]))
    untouched = method.synthesise(x, rng, strength=0.0)
    torch.testing.assert_close(untouched, blobs().expand_as(x))
    made = method.synthesise(x.clamp(-1, 1), rng, strength=0.005)
    torch.testing.assert_close(made, x.clamp(-1, 1), atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="strength is 1.5"):
        method.synthesise(x, rng, strength=1.5)


def test_a_synthetic_image_has_the_moments_of_the_posterior():
    """A Gaussian belief N(scan, s^2): what 0.95 of the template leaves of it is in closed form."""
    spread, scan, template = 0.1, 0.2, -0.1
    method = build(Believes(spread))
    method.take_template(torch.full((1, *SHAPE), template))
    x = torch.full((3, 1, *SHAPE), scan)
    made = method.synthesise(x, SampleRng(torch.tensor([1, 2, 3])), num_steps=2000)
    alpha, sigma = method.schedule.level(199)
    precision = alpha**2 * spread**2 + sigma**2
    gain = alpha * spread**2 / precision
    mean = scan + gain * alpha * (template - scan)
    variance = gain**2 * sigma**2 + spread**2 * sigma**2 / precision
    assert float(made.mean()) == pytest.approx(mean, abs=0.005)
    assert float(made.std()) == pytest.approx(math.sqrt(variance), rel=0.05)
    alone = method.synthesise(x[1:2], SampleRng(torch.tensor([2])), num_steps=2000)
    torch.testing.assert_close(made[1:2], alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_it_finds_a_known_deformation():
    torch.manual_seed(0)
    x, truth = scans(3)
    unet = UNetConfig(widths=(4, 8), num_res_blocks=1, attention=(False, False))
    down = RegistrationUNetConfig(down=(8, 16), up=(16, 16), last=(8,))
    score = UNet(unet, NetworkSpec(3, 1, SHAPE))
    method = build(score, RegistrationUNet(down, NetworkSpec(2, 3, SHAPE)), smoothness=0.05)
    nothing = torch.zeros_like(truth)
    fit(method, x, steps=100, lr=3e-3)
    with torch.no_grad():
        u = method.trajectory(x, 1.0)
        alike, at_first = method.similarity(x, u).mean(), method.similarity(x, nothing).mean()
    assert alike > at_first + 0.03
    assert endpoint_error(u, truth) < 0.9 * endpoint_error(nothing, truth)
