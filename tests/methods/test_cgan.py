"""The conditional GAN: what it makes follows the label, and its discriminator reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.gan import (
    Repeated,
    a_batch,
    assert_phases_reach_their_own_network,
    build,
    generated,
    loss_of,
)
from torch import Tensor

from gyri.capabilities import capabilities
from gyri.errors import UsageError
from gyri.methods.cgan import CGAN
from gyri.methods.latent_gan import ClassicGANConfig, LatentGAN
from gyri.registry import METHODS
from gyri.types import ConditionLayout, ItemSpec

SPEC = ItemSpec(1, (8, 8), condition=ConditionLayout(((0, 2),)))
LEVELS = torch.tensor([-0.6, 0.4])
CONDITIONS = pytest.mark.parametrize("condition", ["concatenate", "projection"])


def a_cgan(condition: str, spec: ItemSpec = SPEC, **settings: Any) -> LatentGAN:
    config = ClassicGANConfig(**{"latent_size": 4, **settings})
    return build(CGAN, config, spec, {"norm": "none"}, {"norm": "none", "condition": condition})


def labels(classes: Tensor) -> Tensor:
    """One-hot with an unset missing bit, as a condition vector is."""
    return torch.nn.functional.one_hot(classes, 3)[:, :3].float()


def test_registration() -> None:
    assert METHODS["cgan"].component is CGAN
    assert capabilities(CGAN) == ["Sampler"]


def two_classes() -> Repeated:
    x = LEVELS[:, None, None, None].expand(2, 1, 8, 8)
    return Repeated(x, labels(torch.tensor([0, 1])))


def test_images_follow_the_label(tmp_path: Path) -> None:
    method = a_cgan("concatenate", lr=2e-3, final_lr=0.0, ema_half_life_images=300)
    asked = torch.tensor([0, 1]).repeat(8)
    made = generated(method, two_classes(), 300, tmp_path, labels(asked))
    for level, number in zip(LEVELS.tolist(), (0, 1)):
        assert made[asked == number].mean().item() == pytest.approx(level, abs=0.05)


@CONDITIONS
def test_the_discriminator_reads_the_label(condition: str, tmp_path: Path) -> None:
    # Labels of the other class make it wrong about reals.
    feed = two_classes()
    method = a_cgan(condition, lr=3e-3)
    generated(method, feed, 100, tmp_path, labels(torch.tensor([0])))
    batch = feed.batch(torch.arange(8))
    right = loss_of(method, "discriminator", batch).logs["real"]
    batch.condition = batch.condition.roll(1, 0)
    assert float(loss_of(method, "discriminator", batch).logs["real"]) > float(right) + 0.05


@CONDITIONS
@pytest.mark.parametrize("shape", [(8, 8), (6, 8, 5)])
def test_each_phase_reaches_its_own_network(shape: tuple[int, ...], condition: str) -> None:
    spec = ItemSpec(2, shape, 1, SPEC.condition)
    assert_phases_reach_their_own_network(a_cgan(condition, spec), a_batch(spec))


@CONDITIONS
def test_fakes_carry_the_labels_of_the_batch(condition: str) -> None:
    method, batch = a_cgan(condition), a_batch(SPEC)
    seen: list[tuple[str, Tensor]] = []
    for name, network in method.networks.items():
        network.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.append((name, inputs[1]))
        )
    for phase in ("discriminator", "generator"):
        loss_of(method, phase, batch)
    assert [name for name, _ in seen] == [
        *("generator", "discriminator", "discriminator"),
        *("generator", "discriminator"),
    ]
    assert all(torch.equal(given, batch.condition) for _, given in seen)


def test_a_recipe_without_conditions_is_refused() -> None:
    with pytest.raises(UsageError, match="method dcgan"):
        a_cgan("concatenate", ItemSpec(1, (8, 8)))
