"""HA-GAN: slabs are pieces of the whole, real and fake share their place, encoders move nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.auto_encoding import build, moved_by_each_phase
from tests.methods.gan import START, a_batch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.ha_gan import (
    DISCRIMINATORS,
    GENERATORS,
    HAGAN,
    HAGANConfig,
    auxiliary_error,
    rows_from,
)
from gyri.registry import METHODS
from gyri.runtime.streams import SampleRng
from gyri.types import Batch, ConditionLayout, Items, ItemSpec, Loss

LAYOUT = ConditionLayout(((0, 3), (4, 5)))
"""A column of three levels and a number, with their missing bits."""
SPEC = ItemSpec(1, (8, 16, 24), condition=LAYOUT)
PHASES = ("discriminator", "generator", "slab_encoder", "code_encoder")


def small(scale: int = 4) -> dict[str, Any]:
    between = [6] * (int(math.log2(scale)) - 1)
    return {
        "trunk": {"widths": [8]},
        "low_head": {"widths": [6]},
        "high_head": {"widths": between},
        "slab_encoder": {"widths": between},
        "slab_discriminator": {"widths": [4, 8], "features": 8, "hidden": 8},
        "low_discriminator": {"widths": [4], "features": 0},
        "code_encoder": {"widths": [8]},
    }


def a_ha_gan(spec: ItemSpec = SPEC, **settings: Any) -> HAGAN:
    settings = {"latent_size": 5, "feature_channels": 8, "slab": 8, **settings}
    method = build({"name": "ha_gan", **settings}, small(settings.get("scale", 4)), spec)
    assert isinstance(method, HAGAN)
    return method


def loss_of(method: HAGAN, phase: str, batch: Batch) -> Loss:
    return method.loss(phase, batch, START, SampleRng(batch.seed))


def test_registration_and_capabilities() -> None:
    assert METHODS["ha_gan"].component is HAGAN
    assert capabilities(HAGAN) == ["Sampler", "Reconstructor", "Autoencoder"]
    method = a_ha_gan()
    assert method.optimisers["discriminator"].lr == 4 * method.optimisers["generator"].lr
    assert [(phase.name, phase.every) for phase in a_ha_gan(encoder_every=3).phases] == [
        ("discriminator", 1),
        ("generator", 1),
        ("slab_encoder", 3),
        ("code_encoder", 3),
    ]


def test_each_network_sees_its_grid() -> None:
    specs = HAGAN.network_specs(HAGANConfig(), ItemSpec(1, (256,) * 3, condition=LAYOUT))
    shapes = {name: spec.shape for name, spec in specs.items()}
    slab, low = (256, 256, 32), (64, 64, 64)
    assert shapes == {
        **dict.fromkeys(("high_head", "slab_discriminator", "slab_encoder"), slab),
        **dict.fromkeys(("trunk", "low_head", "low_discriminator", "code_encoder"), low),
    }
    assert specs["code_encoder"].in_channels == specs["trunk"].out_channels == 64


@pytest.mark.parametrize("phase", ["train", "eval"])
def test_a_slab_is_what_the_whole_volume_has_there(phase: str) -> None:
    method, batch = a_ha_gan(), a_batch(SPEC, 5)
    getattr(method.networks["high_head"], phase)()
    for layer in method.networks["high_head"].layers:
        nn.init.normal_(layer.bias)
    z = torch.randn(5, 5)
    whole = method.decode(z, batch.condition, None)
    assert whole.shape == batch.x.shape
    start = torch.tensor([0, 1, 2, 3, 4])  # both borders are among them
    with torch.no_grad():
        slab, _ = method._pair(z, batch, start)
    torch.testing.assert_close(slab, method.slab(whole, start), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 16, 24), (8, 24)])
def test_sampling_by_slabs_changes_nothing(shape: tuple[int, ...]) -> None:
    spec, z = ItemSpec(1, shape), torch.randn(2, 5)
    condition = torch.zeros(2, 0)
    at_once, in_parts = (
        a_ha_gan(spec, slab_in_sampling=thickness).decode(z, condition, None)
        for thickness in (None, 4)
    )
    assert at_once.shape == (2, 1, *shape)
    torch.testing.assert_close(at_once, in_parts, rtol=1e-5, atol=1e-6)


def test_rows_are_cut_at_a_place_of_their_own() -> None:
    x = torch.arange(6.0).expand(3, 2, 4, 6)
    rows, inside = rows_from(x, torch.tensor([-1, 2, 4]), 3)
    assert rows[:, 1, 3].tolist() == [[0, 0, 1], [2, 3, 4], [4, 5, 5]]
    assert inside.tolist() == [[False, True, True], [True] * 3, [True, True, False]]


def test_slabs_begin_anywhere_on_the_coarse_grid() -> None:
    method = a_ha_gan()
    starts = method.starts(SampleRng(torch.arange(300)))
    assert sorted(set(starts.tolist())) == [0, 1, 2, 3, 4]
    assert torch.equal(starts[7:9], method.starts(SampleRng(torch.arange(7, 9))))
    assert set(a_ha_gan(slab=24).starts(SampleRng(torch.arange(9))).tolist()) == {0}


class Where(nn.Module):
    """Remembers the slabs and the places that it has been shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, condition: Tensor, position: Tensor) -> Tensor:
        self.shown.append((x, position))
        return x.flatten(1).sum(1)[:, None]


def test_real_and_fake_slabs_are_of_one_place() -> None:
    method, batch = a_ha_gan(), a_batch(SPEC)
    judge = method.networks["slab_discriminator"] = Where()
    # The intensity is the row, for real items, so that a slab tells where it is from.
    batch.x = (torch.arange(24.0) / 24).expand(batch.x.shape).contiguous()
    loss_of(method, "discriminator", batch)
    (real, place), (fake, same) = judge.shown
    assert torch.equal(place, same)
    assert real.shape == fake.shape == (6, 1, 8, 16, 8)
    first = real[:, 0, 0, 0, 0] * 24
    torch.testing.assert_close(first, place[:, 0] * 16)
    assert len(set(first.round().tolist())) > 1
    assert not (first.round() % 4).any()


def test_the_coarse_image_is_an_average_over_cubes() -> None:
    method, x = a_ha_gan(), torch.rand(2, 1, 8, 16, 24)
    cubes = x.reshape(2, 1, 2, 4, 4, 4, 6, 4).mean((3, 5, 7))
    torch.testing.assert_close(method.coarse(x), cubes)


@pytest.mark.parametrize("condition", ["projection", "auxiliary"])
def test_each_phase_moves_its_own_networks_alone(condition: str, tmp_path: Path) -> None:
    # The encoders' phases leave the generator as it is: reconstruction never trains it.
    method = a_ha_gan(condition=condition)
    assert moved_by_each_phase(method, a_batch(SPEC), tmp_path) == {
        "discriminator": set(DISCRIMINATORS),
        "generator": set(GENERATORS),
        "slab_encoder": {"slab_encoder"},
        "code_encoder": {"code_encoder"},
    }


def test_losses_where_the_discriminators_are_undecided() -> None:
    method, batch = a_ha_gan(), a_batch(SPEC)
    for name in DISCRIMINATORS:
        for part in (method.networks[name].out, method.networks[name].label):
            for parameter in part.parameters():
                nn.init.zeros_(parameter)
    losses = [loss_of(method, phase, batch).total.item() for phase in PHASES[:2]]
    assert losses == pytest.approx([2 * math.log(2), math.log(2)])


def test_the_logit_is_the_mean_of_both() -> None:
    method, batch = a_ha_gan(), a_batch(SPEC)
    start = method.starts(SampleRng(batch.seed))
    slab, low = pair = method._real(batch, start)
    at = (start / 4)[:, None]
    of_slab = method.networks["slab_discriminator"](slab, batch.condition, at)
    of_low = method.networks["low_discriminator"](low, batch.condition, None)
    verdicts = method._verdicts(pair, batch, start)
    torch.testing.assert_close(verdicts, (of_slab + of_low) / 2)


def test_what_is_missing_is_not_guessed() -> None:
    condition = torch.tensor([[0, 1, 0, 0, 0.5, 0], [0, 0, 0, 1, 0.5, 0], [1, 0, 0, 0, 0, 1]])
    guessed = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    levels = cross_entropy(guessed[:, :3], torch.tensor([1, 0, 0]), reduction="none")
    number = (guessed[:, 4] - torch.tensor([0.5, 0.5, 0.0])).square() / 2
    expected = torch.stack([levels[0] + number[0], number[1], levels[2]])
    torch.testing.assert_close(auxiliary_error(LAYOUT, guessed, condition), expected)


def test_auxiliary_classifiers_read_the_condition_off_the_item() -> None:
    method, batch = a_ha_gan(condition="auxiliary", auxiliary_weight=0.25), a_batch(SPEC)
    batch.condition = torch.tensor([0.0, 1, 0, 0, 0.7, 0]).expand(6, 6)
    assert all(method.networks[name].label is None for name in DISCRIMINATORS)
    for phase, weight in (("discriminator", 1.0), ("generator", 0.25)):
        loss = loss_of(method, phase, batch)
        logs = {name: float(value) for name, value in loss.logs.items()}
        assert logs["auxiliary"] > 0
        rest = loss.total.item() - weight * logs["auxiliary"]
        if phase == "generator":
            assert rest == pytest.approx(logs["adversarial"], rel=1e-5)
        else:
            assert rest == pytest.approx(2 * math.log(2), rel=0.3)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("condition", ["projection", "auxiliary"])
def test_loss_is_the_mean_of_micro_batches(phase: str, condition: str) -> None:
    method, batch = a_ha_gan(condition=condition), a_batch(SPEC)
    parts = [batch[slice(start, start + 2)] for start in (0, 2, 4)]
    losses = [loss_of(method, phase, part).total.item() for part in parts]
    assert loss_of(method, phase, batch).total.item() == pytest.approx(sum(losses) / 3, rel=1e-4)


def test_encoders_find_what_the_generator_has_made() -> None:
    spec = ItemSpec(1, (8, 16, 16))
    method = a_ha_gan(spec)
    with torch.no_grad():
        for layer in method.networks["high_head"].layers:
            layer.weight *= 2
    z = torch.randn(1, 5)
    batch = a_batch(spec, 1)
    batch.x = method.decode(z, batch.condition, None)
    for phase, network in (("slab_encoder", "slab_encoder"), ("code_encoder", "code_encoder")):
        adam = torch.optim.Adam(method.networks[network].parameters(), 1e-2)
        losses = []
        for _ in range(60):
            loss = loss_of(method, phase, batch).total
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
        assert losses[-1] < 0.6 * losses[0]
    assert method.codes(batch).shape == (1, 5)
    assert method.reconstruct(batch).shape == batch.x.shape


class Slices:
    volume_shape = (1, 8, 16, 3)
    slice_axis = 2

    def encode(self, volumes: Tensor) -> Items:
        position = torch.linspace(-1, 1, 3)[:, None].repeat(len(volumes), 1)
        return Items(volumes.movedim(-1, 1).flatten(0, 1), position)

    def decode(self, items: Tensor) -> Tensor:
        return items.unflatten(0, (-1, 3)).movedim(1, -1)


def test_slices_with_positions_are_made_too() -> None:
    spec = ItemSpec(1, (8, 16), position_size=1, items_per_volume=3)
    method, batch = a_ha_gan(spec), a_batch(spec)
    for phase in PHASES:
        assert math.isfinite(loss_of(method, phase, batch).total.item())
    volumes = method.sample(Slices(), torch.zeros(2, 0), SampleRng(torch.tensor([4, 5])))
    assert volumes.shape == (2, 1, 8, 16, 3)
    alone = method.sample(Slices(), torch.zeros(1, 0), SampleRng(torch.tensor([5])))
    torch.testing.assert_close(alone[0], volumes[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slab": 6}, r"one of 4, 8, 12, 24"),
        ({"slab": 16}, r"slab is 16 of the 24 voxels"),
        ({"slab": None}, r"slab is 3 of the 24 voxels"),
        ({"slab_in_sampling": 5}, r"slab_in_sampling is 5"),
        ({"scale": 16}, r"no coarse image at scale 16"),
    ],
)
def test_slabs_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    config = HAGANConfig(**{"slab": 8, **settings})
    with pytest.raises(UsageError, match=words):
        HAGAN.network_specs(config, SPEC)


def test_heads_of_another_scale_and_encoders_never_due_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        HAGANConfig(encoder_every=0)
    with pytest.raises(UsageError, match=r"scale is 2 and networks\.high_head .* by 4"):
        build({"name": "ha_gan", "scale": 2, "slab": 8, "feature_channels": 8}, small(4), SPEC)
