"""What diffusion and flow share: given images, residuals, penalties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.gan import Repeated
from torch import Tensor, nn

from gyri.errors import UsageError
from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.methods.denoising import Denoising
from gyri.methods.flow import Flow, FlowConfig, FlowSampling
from gyri.networks.unet import UNet, UNetConfig
from gyri.recipe import TrainingConfig
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig
from gyri.sampling.schedules import Level
from gyri.training.loop import Trainer
from gyri.types import Batch, ConditionLayout, Grid, Items, ItemSpec, OptimiserConfig, Progress
from gyri.views.base import View
from gyri.views.slice import SliceConfig, SliceView
from gyri.views.stack import StackConfig, StackView
from gyri.views.volume import VolumeConfig, VolumeView

START = Progress(0, 0, 0.0)
FAMILIES: dict[str, Callable[..., Any]] = {"ddpm": DDPMConfig, "flow": FlowConfig}
METHODS: dict[str, type[Denoising]] = {"ddpm": DDPM, "flow": Flow}
SAMPLING = {"ddpm": SamplingConfig, "flow": FlowSampling}
GRID = Grid((4, 5, 6), ((2.0, 0, 0, 0), (0, 2.0, 0, 0), (0, 0, 2.0, 0), (0, 0, 0, 1.0)))
VIEWS: dict[str, View] = {
    "slice": SliceView(SliceConfig(), 1, GRID),
    "stack": StackView(StackConfig(), 1, GRID),
}


class Reader(nn.Module):
    """One weight for each channel it reads, one bias and nothing else."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Tensor, position: Tensor | None
    ) -> Tensor:
        bias = self.bias.reshape(-1, *[1] * (x.ndim - 2))
        return torch.einsum("oc,bc...->bo...", self.weight, x) + bias


def build(family: str, spec: ItemSpec, **settings: Any) -> Denoising:
    config = FAMILIES[family](**settings)
    own = METHODS[family].network_specs(config, spec)["denoiser"]
    return METHODS[family](config, spec, {"denoiser": Reader(own.in_channels, own.out_channels)})


def a_batch(channels: int = 1, **context: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(6)
    return Batch(
        x=torch.randn(6, channels, 4, 5, generator=generator),
        condition=torch.zeros(6, 0),
        position=None,
        subject=rows,
        seed=rows + 100,
        context={
            name: torch.randn(6, count, 4, 5, generator=generator)
            for name, count in context.items()
        },
    )


def loss_of(method: Denoising, batch: Batch) -> Any:
    return method.loss("denoise", batch, START, SampleRng(batch.seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_read_in_the_order_of_the_recipe(family: str) -> None:
    spec = ItemSpec(2, (4, 5), context={"mask": 3, "other": 1})
    method = build(family, spec)
    network = method.networks["denoiser"]
    assert isinstance(network, Reader)
    assert network.weight.shape == (2, 6)
    batch = a_batch(2, other=1, mask=3)
    # A zero network's gradient is the covariance of what is missed with what is read.
    loss_of(method, batch).total.backward()
    by_name = network.weight.grad
    assert by_name is not None
    batch.context = dict(reversed(batch.context.items()))
    network.zero_grad()
    loss_of(method, batch).total.backward()
    assert torch.equal(network.weight.grad, by_name)
    batch.context["other"] = torch.zeros_like(batch.context["other"])
    network.zero_grad()
    loss_of(method, batch).total.backward()
    assert torch.equal(network.weight.grad[:, :5], by_name[:, :5])
    assert bool((network.weight.grad[:, 5] == 0).all())
    assert bool((by_name[:, 5] != 0).all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("view", ["slice", "stack"])
def test_samples_follow_images_cut_like_themselves(family: str, view: str) -> None:
    lift = VIEWS[view]
    spec = lift.item_spec(ConditionLayout(), 8, {"mask": 1})
    sampling = SAMPLING[family](num_steps=3, clip=0)
    settings: dict[str, Any] = {"prediction": "x0"} if family == "ddpm" else {}
    method = build(family, spec, sampling=sampling, **settings)
    network = method.networks["denoiser"]
    assert isinstance(network, Reader)
    channels = spec.channels
    with torch.no_grad():
        # Says "the mask": x0 itself, or the velocity (noise - mask) / std at pure noise.
        gain = 1.0 if family == "ddpm" else -1.0
        network.weight[:, channels:] = gain * torch.eye(channels)
    mask = torch.randn(2, 1, *GRID.shape, generator=torch.Generator().manual_seed(1))
    rng = SampleRng(torch.tensor([3, 4]))
    x = method.sample_given(lift, torch.zeros(2, 0), {"mask": mask}, rng)
    if family == "ddpm":
        torch.testing.assert_close(x, mask)
    else:
        noise = SampleRng(torch.tensor([3, 4])).normal((1, *GRID.shape))
        # dx/dt = std (-mask) - mean over a time of 1, from std eps.
        std = method.state["data_std"]
        torch.testing.assert_close(x, std * (noise + mask), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_follows_images_does_not_go_without(family: str) -> None:
    lift = StackView(StackConfig(), 1, GRID)
    method = build(family, lift.item_spec(ConditionLayout(), 8, {"mask": 1}))
    rng, volumes = SampleRng(torch.tensor([1])), torch.zeros(1, 1, *GRID.shape)
    with pytest.raises(UsageError, match="follow mask"):
        method.sample(lift, torch.zeros(1, 0), rng)
    with pytest.raises(UsageError, match="Editing takes none"):
        method.edit(lift, volumes, torch.zeros(1, 0), 0.5, rng)


class Masked(Repeated):
    """Cubes that are bright in their mask."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.mask = torch.randn(64, 1, 4, 4, 4, generator=generator).sign()
        super().__init__(0.5 * self.mask + 0.1 * torch.randn(self.mask.shape, generator=generator))

    def batch(self, positions: Tensor) -> Batch:
        batch = super().batch(positions)
        return replace(batch, context={"mask": self.mask[batch.subject]})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_model_follows_a_new_mask(family: str, tmp_path: Path) -> None:
    optimiser = OptimiserConfig(lr=1e-2, clip_norm=1.0, final_lr=0.1)
    config = FAMILIES[family](optimiser=optimiser, ema_half_life_images=0)
    lift = VolumeView(VolumeConfig(), 1, replace(GRID, shape=(4, 4, 4)))
    spec = lift.item_spec(ConditionLayout(), 64, {"mask": 1})
    torch.manual_seed(0)
    small = UNetConfig(widths=(8,), attention=(False,), num_res_blocks=1, norm_groups=4)
    network = UNet(small, METHODS[family].network_specs(config, spec)["denoiser"])
    method = METHODS[family](config, spec, {"denoiser": network})
    training = TrainingConfig(steps=80, batch_size=8, log_every=80, snapshots=1)
    Trainer(method, Masked(), training, 0, tmp_path).run()  # type: ignore[arg-type]
    mask = torch.randn(4, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1)).sign()
    rng = SampleRng(torch.arange(4))
    x = method.sample_given(lift, torch.zeros(4, 0), {"mask": mask}, rng)
    assert float(x[mask > 0].mean()) == pytest.approx(0.5, abs=0.15)
    assert float(x[mask < 0].mean()) == pytest.approx(-0.5, abs=0.15)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_residual_is_learned_from_and_added_to_its_image(family: str) -> None:
    """Items that are an image and a constant: the model learns of the constant alone."""
    lift = StackView(StackConfig(), 1, GRID)
    spec = lift.item_spec(ConditionLayout(), 8, {"coarse": 1})
    settings: dict[str, Any] = {"prediction": "edm"} if family == "ddpm" else {}
    sampling = SAMPLING[family](num_steps=20, clip=0)
    method = build(family, spec, residual="coarse", sampling=sampling, **settings)
    generator = torch.Generator().manual_seed(0)
    coarse = 10 * torch.randn(40, *[spec.channels, *spec.shape], generator=generator)
    detail = 0.3 + 0.1 * torch.randn(coarse.shape, generator=generator)
    method.calibrate(coarse + detail, {"coarse": coarse})
    assert float(method.state["data_mean"]) == pytest.approx(0.3, abs=0.01)
    assert float(method.state["data_std"]) == pytest.approx(0.1, abs=0.01)
    rows = torch.arange(40)
    batch = Batch(coarse + detail, torch.zeros(40, 0), None, rows, rows, {"coarse": coarse})
    # Targets of unit variance (of noise and item both, in a flow): the image, a hundred times as
    # large, is not in them.
    score = method.score(batch, SampleRng(rows)).mean()
    assert float(score) == pytest.approx(1.0 if family == "ddpm" else 2.0, abs=0.2)
    volumes = lift.decode(coarse[:2])
    x = method.sample_given(
        lift, torch.zeros(2, 0), {"coarse": volumes}, SampleRng(torch.tensor([1, 2]))
    )
    assert float((x - volumes).mean()) == pytest.approx(0.3, abs=0.05)
    assert float((x - volumes).std()) < 0.3


def test_the_prior_is_fitted_to_residuals() -> None:
    spec = ItemSpec(1, (4, 5), context={"coarse": 1}, num_train=30)
    method = build(
        "ddpm", spec, residual="coarse", prediction="edm", prior="gaussian", prior_components=3
    )
    generator = torch.Generator().manual_seed(0)
    coarse = 10 * torch.randn(30, 1, 4, 5, generator=generator)
    detail = torch.randn(30, 1, 4, 5, generator=generator)
    method.calibrate(coarse + detail, {"coarse": coarse})
    plain = build(
        "ddpm", replace(spec, context={}), prediction="edm", prior="gaussian", prior_components=3
    )
    plain.calibrate((coarse + detail) - coarse)
    assert method.state.keys() == plain.state.keys()
    for name, tensor in plain.state.items():
        assert torch.equal(method.state[name], tensor), name
    reads = DDPM.network_specs(method.config, spec)["denoiser"].in_channels
    assert reads == 3  # noised residual, the prior's answer, the image


@pytest.mark.parametrize(
    ("context", "message"),
    [({}, "none"), ({"coarse": 2}, r"coarse \(2\)"), ({"mask": 1}, r"mask \(1\)")],
)
def test_a_residual_that_fits_no_image_is_refused(context: dict[str, int], message: str) -> None:
    for family in FAMILIES:
        with pytest.raises(UsageError, match=message):
            build(family, ItemSpec(1, (4, 5), context=context), residual="coarse")


def test_a_classifier_does_not_guide_differences() -> None:
    method = build("ddpm", ItemSpec(1, (4, 5), context={"coarse": 1}), residual="coarse")
    with pytest.raises(UsageError, match="differences"):
        method.use({"classifier": object()})


# --- penalties ------------------------------------------------------------------------------------


def size(items: Tensor) -> dict[str, Tensor]:
    return {"size": items.square().flatten(1).mean(1), "ones": items.new_ones(len(items))}


@pytest.mark.parametrize("family", FAMILIES)
def test_penalties_count_by_their_weight_and_by_how_clean_an_item_is(family: str) -> None:
    spec = ItemSpec(1, (4, 5))
    batch = a_batch()
    plain = loss_of(build(family, spec), batch)
    method = build(family, spec, penalties={"ones": 0.5})
    method.penalise = size
    loss = loss_of(method, batch)
    alpha, sigma = method._draw_levels(SampleRng(batch.seed))
    trust = (alpha**2 / (alpha**2 + sigma**2)).mean()
    assert float(loss.logs["ones"]) == pytest.approx(float(trust), rel=1e-5)
    assert (loss.total - plain.total).item() == pytest.approx(0.5 * float(trust), rel=1e-4)
    assert set(loss.logs) == {"ones"}
    assert not plain.logs


@pytest.mark.parametrize("family", FAMILIES)
def test_penalties_see_predicted_clean_items_and_teach_the_network(family: str) -> None:
    spec = ItemSpec(1, (4, 5), context={"coarse": 1})
    method = build(family, spec, residual="coarse", penalties={"size": 1.0})
    seen: list[Tensor] = []

    def penalise(items: Tensor) -> dict[str, Tensor]:
        seen.append(items)
        return size(items)

    method.penalise = penalise
    batch = a_batch(coarse=1)
    loss_of(method, batch).total.backward()
    rng = SampleRng(batch.seed)
    alpha, sigma = (level[:, None, None, None] for level in method._draw_levels(rng))
    diffused = batch.x - batch.context["coarse"]
    x_noised = alpha * diffused + sigma * rng.normal((1, 4, 5))
    for row in range(6):
        level = Level(float(alpha[row]), float(sigma[row]))
        denoised = method.denoise(
            x_noised[row : row + 1],
            level,
            torch.zeros(1, 0),
            None,
            batch.context["coarse"][row : row + 1],
        )
        expected = denoised + batch.context["coarse"][row]
        torch.testing.assert_close(seen[0][row : row + 1], expected, rtol=1e-4, atol=1e-4)
    network = method.networks["denoiser"]
    assert isinstance(network, Reader)
    with_penalty = network.bias.grad.clone()
    network.zero_grad()
    free = build(family, spec, residual="coarse")
    loss_of(free, batch).total.backward()
    without = free.networks["denoiser"]
    assert isinstance(without, Reader)
    assert not torch.allclose(with_penalty, without.bias.grad)


def test_penalties_that_the_view_lacks_are_refused() -> None:
    method = build("ddpm", ItemSpec(1, (4, 5)), penalties={"folding": 1.0, "ones": 1.0})
    with pytest.raises(UsageError, match="names folding, ones, .* are: none"):
        loss_of(method, a_batch())
    method.penalise = size
    with pytest.raises(UsageError, match="names folding, .* are: size, ones"):
        loss_of(method, a_batch())


def test_items_are_what_a_view_that_does_not_lift_is_given() -> None:
    class Codes:
        volume_shape = (1, 4, 5, 6)
        item_channels, item_shape = 3, (2, 2)
        slice_axis: int | None = None
        lifts = False

        def encode(self, volumes: Tensor) -> Items:
            return Items(volumes.flatten(1)[:, :12].reshape(-1, 3, 2, 2))

        def decode(self, items: Tensor) -> Tensor:
            return torch.tanh(items.mean((1, 2, 3)))[:, None, None, None, None].expand(
                -1, *self.volume_shape
            )

    for family in FAMILIES:
        method = build(family, ItemSpec(3, (2, 2)), sampling=SAMPLING[family](num_steps=3))
        rng = SampleRng(torch.tensor([1, 2]))
        x = method.sample(Codes(), torch.zeros(2, 0), rng)
        assert x.shape == (2, 1, 4, 5, 6)
        edited = method.edit(Codes(), x, torch.zeros(2, 0), 0.5, rng)
        assert edited.shape == x.shape
