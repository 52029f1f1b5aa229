from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.methods.gan import a_batch, assert_phases_reach_their_own_network
from torch import Tensor, nn

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.stylegan2 import (
    StyleGAN2,
    StyleGAN2Config,
    mixed,
    path_lengths,
    scaled_gamma,
)
from gyri.methods.top_k import TopKConfig
from gyri.networks.stylegan2 import StyleGAN2Generator, StyleGAN2GeneratorConfig
from gyri.networks.stylegan2_discriminator import (
    QuantiseConfig,
    StyleGAN2Discriminator,
    StyleGAN2DiscriminatorConfig,
)
from gyri.nn.adaptive_augment import ADAConfig, AugmentationConfig
from gyri.recipe import build_method, parse_recipe
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, Items, ItemSpec, Loss, Progress

START = Progress(0, 0, 0.0)
LN2 = math.log(2)
LAYOUT = ConditionLayout(((0, 1), (2, 4)))
"""A number, and one of two levels; D = 5."""
SHAPES = [(8, 12), (8, 4, 8)]


class Linear(nn.Module):
    """``D(x) = w . x``."""

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.w = nn.Parameter(scale * torch.randn(1, *shape))

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        return (x * self.w).flatten(1).sum(1)


def build(
    shape: tuple[int, ...] = (8, 12),
    discriminator: nn.Module | None = None,
    generator: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
    **settings: Any,
) -> StyleGAN2:
    torch.manual_seed(0)
    spec = ItemSpec(1, shape, condition=LAYOUT, num_train=10)
    config = StyleGAN2Config(**{"latent_size": 8, **settings})
    specs = StyleGAN2.network_specs(config, spec)
    small = {"widths": (8, 8), "mapping_layers": 2}
    return StyleGAN2(
        config,
        spec,
        {
            "generator": StyleGAN2Generator(
                StyleGAN2GeneratorConfig(**small, w_size=8, **(generator or {})), specs["generator"]
            ),
            "discriminator": discriminator
            or StyleGAN2Discriminator(
                StyleGAN2DiscriminatorConfig(**{**small, "stddev_group": 2, **(judge or {})}),
                specs["discriminator"],
            ),
        },
    )


def loss_of(method: StyleGAN2, phase: str, batch: Batch, progress: Progress = START) -> Loss:
    return method.loss(phase, batch, progress, SampleRng(batch.seed))


def test_registration_phases_and_groups() -> None:
    assert METHODS["stylegan2"].component is StyleGAN2
    assert capabilities(StyleGAN2) == ["Sampler", "ContextSampler", "Stylist"]
    phases = [(p.name, p.networks, p.every) for p in build().phases]
    assert phases == [
        ("discriminator", ("discriminator",), 1),
        ("r1", ("discriminator",), 16),
        ("generator", ("generator",), 1),
        ("path", ("generator",), 4),
    ]
    plain = build(gamma=0.0, path_weight=0.0)
    assert [p.name for p in plain.phases] == ["discriminator", "generator"]
    assert plain.group == 2
    grouped = build(judge={"stddev_group": 4}, path_shrink=2, top_k=TopKConfig(group=3))
    assert grouped.group == 12
    assert "subject" in str(plain.private_refusal())


def test_adam_is_slowed_by_the_extra_steps() -> None:
    settings = build().optimisers
    for name, every in (("discriminator", 16), ("generator", 4)):
        ratio = every / (every + 1)
        assert settings[name].lr == pytest.approx(2.5e-3 * ratio)
        assert settings[name].betas == pytest.approx((0.0, 0.99**ratio))
    plain = build(gamma=0.0, path_weight=0.0).optimisers
    assert {(c.lr, c.betas) for c in plain.values()} == {(2.5e-3, (0.0, 0.99))}


def test_gamma_follows_the_published_rule() -> None:
    assert scaled_gamma((256, 256)) == pytest.approx(0.41, abs=0.005)
    assert build().gamma == scaled_gamma((8, 12))
    assert build(gamma=10.0).gamma == 10.0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_discriminator_gives_ln_2_a_term(shape: tuple[int, ...]) -> None:
    method = build(shape, Linear(shape, scale=0.0))
    batch = a_batch(method.spec)
    assert loss_of(method, "discriminator", batch).total.item() == pytest.approx(2 * LN2)
    assert loss_of(method, "generator", batch).total.item() == pytest.approx(LN2)
    assert loss_of(method, "r1", batch).total.item() == 0.0


@pytest.mark.parametrize("shape", SHAPES)
def test_lazy_r1_of_a_linear_discriminator(shape: tuple[int, ...]) -> None:
    # Summed over every axis: averaging the last would divide by its length.
    discriminator = Linear(shape)
    method = build(shape, discriminator, gamma=3.0, r1_every=16)
    loss = loss_of(method, "r1", a_batch(method.spec))
    norm = discriminator.w.detach().square().sum().item()
    assert float(loss.logs["r1"]) == pytest.approx(norm, rel=1e-5)
    assert loss.total.item() == pytest.approx(3.0 / 2 * norm * 16, rel=1e-5)
    loss.total.backward()
    assert discriminator.w.grad is not None
    torch.testing.assert_close(discriminator.w.grad, 3.0 * 16 * discriminator.w.detach())


@pytest.mark.parametrize("shape", SHAPES)
def test_r1_is_taken_before_augmentation(shape: tuple[int, ...]) -> None:
    # A contrast of s multiplies the slope by s; the penalty sees it.
    contrast = AugmentationConfig(
        shift=0, isotropic=0, anisotropic=0, rotation=0, brightness=0, contrast=1.0
    )
    ada = ADAConfig(start=1.0, limit=1.0, images=0, augmentation=contrast)
    discriminator = Linear(shape)
    method = build(shape, discriminator, ada=ada)
    batch = a_batch(method.spec)
    norm = discriminator.w.detach().square().sum().item()
    rng = SampleRng(batch.seed)
    rng.uniform((6,))
    dims = len(shape)
    rng.uniform((dims + 2 * math.comb(dims, 2) + 1,))
    rng.normal((1 + dims,))
    rng.uniform((4,))
    slopes = 2 ** rng.normal((3,))[:, 0]
    expected = norm * slopes.square().mean().item()
    assert float(loss_of(method, "r1", batch).logs["r1"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 2)])
def test_path_lengths_of_a_linear_generator(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    voxels = math.prod(shape)
    matrix = torch.randn(3, 5, voxels)
    w = torch.randn(2, 3, 5, requires_grad=True)
    items = torch.einsum("blw,lwv->bv", w, matrix).reshape(2, 1, *shape)
    direction = torch.randn(2, 1, *shape)
    slope = torch.einsum("lwv,bv->blw", matrix, direction.flatten(1)) / math.sqrt(voxels)
    expected = slope.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(path_lengths(items, w, direction), expected)


def test_path_penalty_and_its_mean() -> None:
    method = build(path_shrink=2, path_every=4, path_weight=2.0)
    batch = a_batch(method.spec, 8)
    method.state["path_mean"] = torch.tensor(0.5)
    loss = loss_of(method, "path", batch)
    assert loss.total.item() == pytest.approx(2.0 * 4 * float(loss.logs["penalty"]))
    # One of two items, wherever micro-batches are cut.
    assert float(loss.statistics["lengths"][1]) == 4
    halves = [loss_of(method, "path", batch[slice(k, k + 4)]) for k in (0, 4)]
    assert loss.total.item() == pytest.approx(sum(h.total.item() for h in halves) / 2, rel=1e-4)
    method.after_step("path", loss.statistics)
    length = float(loss.logs["length"])
    assert float(method.state["path_mean"]) == pytest.approx(0.5 + 0.01 * (length - 0.5))
    loss.total.backward()
    generator = method.networks["generator"]
    assert isinstance(generator, StyleGAN2Generator)
    assert generator.mapping.layers[0].weight.grad.abs().sum() > 0


def test_phases_reach_their_own_network() -> None:
    method = build(path_weight=0.0, gamma=0.0)
    for module in method.networks["generator"].modules():
        if hasattr(module, "strength"):
            nn.init.ones_(module.strength)
    assert_phases_reach_their_own_network(method, a_batch(method.spec))


def test_styles_are_mixed_behind_a_layer_of_each_item_s_own() -> None:
    w, other = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    found = mixed(w, other, torch.tensor([1, 3, 4]))[..., 0]
    assert found.tolist() == [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]

    def share(probability: float) -> float:
        method = build(style_mixing=probability)
        layers, w = method.styles(a_batch(method.spec, 200), SampleRng(torch.arange(200)))
        assert torch.equal(layers[:, 0], w)
        return float((layers[:, 0] != layers[:, -1]).any(1).float().mean())

    assert share(0.0) == 0.0
    assert share(1.0) == 1.0
    assert share(0.9) == pytest.approx(0.9, abs=0.06)


def test_the_mean_w_is_tracked_by_the_generator_s_phase_alone() -> None:
    method = build(w_decay=0.9)
    generator = method.networks["generator"]
    assert isinstance(generator, StyleGAN2Generator)
    batch = a_batch(method.spec)
    for phase in ("discriminator", "r1", "path"):
        method.after_step(phase, loss_of(method, phase, batch).statistics)
    assert not generator.w_average.any()
    halves = [loss_of(method, "generator", batch[slice(k, k + 2)]).statistics for k in (0, 2, 4)]
    method.after_step("generator", {"w": sum(h["w"] for h in halves)})
    _, w = method.styles(batch, SampleRng(batch.seed))
    torch.testing.assert_close(generator.w_average, 0.1 * w.mean(0).detach())


def test_ada_changes_what_both_phases_see_and_follows_the_reals() -> None:
    batch, shown = a_batch(build().spec), ("discriminator", "r1", "generator")
    losses = []
    for start in (0.0, 0.8):
        method = build(ada=ADAConfig(start=start, every=2, images=24))
        losses.append([loss_of(method, phase, batch).total.item() for phase in shown])
    off = build()
    expected = [loss_of(off, phase, batch).total.item() for phase in shown]
    assert losses[0] == expected
    assert all(a != b for a, b in zip(*losses, strict=True))
    for _ in range(2):
        method.after_step("discriminator", {"signs": torch.tensor([0.0, 6.0])})
    assert float(method.state["ada_p"]) == pytest.approx(0.8 - 12 / 24)
    method.after_step("generator", loss_of(method, "generator", batch).statistics)
    assert float(method.state["ada_p"]) == pytest.approx(0.8 - 12 / 24)


def test_the_generator_learns_through_the_augmentation() -> None:
    method = build(ada=ADAConfig(start=0.8))
    loss_of(method, "generator", a_batch(method.spec)).total.backward()
    generator = method.networks["generator"]
    assert isinstance(generator, StyleGAN2Generator)
    assert generator.constant.grad is not None
    assert generator.constant.grad.any()


class Marked(nn.Module):
    """Logits by the place in the batch; what it is shown has a slope of 1."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.shown: Tensor | None = None

    def forward(self, x: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        self.shown = x
        x.retain_grad()
        return x.flatten(1).mean(1) * 1e-3 + self.logits


def test_what_top_k_leaves_out_has_no_gradient() -> None:
    logits = [0.0, 3.0, -1.0, 2.0]
    late = Progress(10**6, 10**6, 0.5)
    # Items 0, 1 and 3 have the first level, item 2 the second.
    condition = torch.zeros(4, 5)
    condition[[0, 1, 2, 3], [2, 2, 3, 2]] = 1.0
    for column, kept in ((None, [1, 3]), (1, [1, 2, 3])):
        marked = Marked(logits)
        method = build(discriminator=marked, top_k=TopKConfig(group=4, column=column))
        batch = a_batch(method.spec, 4)
        batch.condition = condition
        early = loss_of(method, "generator", batch).total.item()
        expected = torch.nn.functional.softplus(-torch.tensor(logits)).mean().item()
        assert early == pytest.approx(expected, abs=2e-3)
        loss_of(method, "generator", batch, late).total.backward()
        assert marked.shown is not None
        assert marked.shown.grad is not None
        taught = marked.shown.grad.flatten(1).abs().sum(1).nonzero()[:, 0]
        assert taught.tolist() == kept


def test_top_k_asks_for_a_categorical_column() -> None:
    with pytest.raises(UsageError, match="Top-k"):
        build(top_k=TopKConfig(column=0))


def test_codes_move_in_the_discriminator_s_phase_alone() -> None:
    quantise = QuantiseConfig(stages=(0,), num_codes=8)
    method = build(judge={"feature_quantisation": quantise}, commitment=0.5)
    network = method.networks["discriminator"]
    assert isinstance(network, StyleGAN2Discriminator)
    batch = a_batch(method.spec)
    method.calibrate(batch.x)
    before = network.codebooks["0"].codes.clone()
    for phase in ("r1", "generator", "path"):
        method.after_step(phase, loss_of(method, phase, batch).statistics)
    assert torch.equal(network.codebooks["0"].codes, before)
    loss = loss_of(method, "discriminator", batch)
    logs = loss.logs
    expected = float(logs["adversarial"]) + 0.5 * float(logs["commitment"])
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert 1 <= float(logs["perplexity_0"]) <= 8
    # Reals and fakes, voxels of the smallest grid.
    assert float(loss.statistics["counts_0"].sum()) == 2 * 6 * 4 * 6
    method.after_step("discriminator", loss.statistics)
    assert not torch.equal(network.codebooks["0"].codes, before)


def test_the_average_starts_fast() -> None:
    method = build(ema_half_life_images=1000.0, ema_ramp=0.05)
    assert method.ema_half_life("discriminator", START) is None
    assert method.ema_half_life("generator", START) == 1e-8
    assert method.ema_half_life("generator", Progress(1, 2000, 0.1)) == pytest.approx(100.0)
    assert method.ema_half_life("generator", Progress(1, 10**6, 0.1)) == 1000.0
    assert build(ema_half_life_images=0.0).ema_half_life("generator", START) is None


class Whole:
    """A lift of volumes that are one item each."""

    volume_shape = (1, 8, 4, 8)
    slice_axis = None

    def encode(self, volumes: Tensor) -> Items:
        return Items(volumes)

    def decode(self, items: Tensor) -> Tensor:
        return items.float()


def sampled(method: StyleGAN2) -> Tensor:
    for module in method.networks["generator"].modules():
        if hasattr(module, "strength"):
            nn.init.ones_(module.strength)
    condition = a_batch(method.spec, 3).condition
    return method.sample(Whole(), condition, SampleRng(torch.arange(3)))


def test_truncation_leads_to_the_mean_of_the_condition_or_of_all() -> None:
    shape = (8, 4, 8)
    still: dict[str, Any] = {"sampling_noise": "none", "truncation": 0.0}
    own = sampled(build(shape, **still))
    assert not torch.allclose(own[0], own[1])
    method = build(shape, truncation_centre="all", **still)
    all_one = sampled(method)
    assert torch.allclose(all_one[0], all_one[1], atol=1e-6)
    spread = [
        float(sampled(build(shape, truncation=psi, sampling_noise="none")).std(0).mean())
        for psi in (0.3, 1.0)
    ]
    assert spread[0] < spread[1]


def test_noise_of_samples() -> None:
    shape = (8, 4, 8)
    made = {
        kind: sampled(build(shape, sampling_noise=kind))  # type: ignore[arg-type]
        for kind in ("random", "constant", "none")
    }
    assert not torch.allclose(made["random"], made["constant"])
    assert not torch.allclose(made["random"], made["none"])
    assert not torch.allclose(made["constant"], made["none"])


def test_networks_that_do_not_fit_are_refused() -> None:
    recipe = parse_recipe(
        {
            "name": "wrong",
            "view": "volume",
            "method": "stylegan2",
            "networks": {"generator": {"name": "dcgan_generator", "widths": [8, 8]}},
            "training": {"steps": 1},
        }
    )
    with pytest.raises(UsageError, match="stylegan2_generator"):
        build_method(recipe, ItemSpec(1, (8, 8, 8)))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"r1_every": 0}, "gamma=0"),
        ({"path_shrink": 0}, "path_weight=0"),
        ({"style_mixing": 2}, "1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(**settings)
    with pytest.raises(UsageError, match="mapping_layers"):
        build(judge={"mapping_layers": 0})


@pytest.mark.parametrize(
    ("section", "key"), [("ada", "p"), ("top_k", "k"), ("ada.augmentation", "luma")]
)
def test_unknown_keys_of_the_switches_are_refused(section: str, key: str) -> None:
    inner: dict[str, Any] = {key: 1}
    for name in reversed(section.split(".")):
        inner = {name: inner}
    recipe = {
        "name": "wrong",
        "view": "volume",
        "method": {"name": "stylegan2", **inner},
        "training": {"steps": 1},
    }
    with pytest.raises(UsageError, match=key):
        parse_recipe(recipe)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_gives_about_the_same_losses(shape: tuple[int, ...]) -> None:
    quantise = QuantiseConfig(stages=(0,), num_codes=8)
    method = build(
        shape,
        generator={"attention": (1,)},
        judge={"attention": (1,), "feature_quantisation": quantise},
        ada=ADAConfig(start=0.5),
        top_k=TopKConfig(group=2),
    )
    batch = a_batch(method.spec)
    method.calibrate(batch.x)
    for phase in ("discriminator", "r1", "generator", "path"):
        exact = loss_of(method, phase, batch).total.item()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(method, phase, batch)
        loss.total.backward()
        assert loss.total.item() == pytest.approx(exact, rel=0.1)
