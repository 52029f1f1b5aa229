"""HA-GAN's networks: published parameter counts, and slabs that fit the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gyri.methods.ha_gan import HAGAN, HAGANConfig
from gyri.networks.ha_gan import (
    HAGANDiscriminator,
    HAGANDiscriminatorConfig,
    HAGANHalvingsConfig,
    HAGANHighHead,
    HAGANLowHead,
    HAGANLowHeadConfig,
    HAGANSlabEncoder,
    HAGANTrunk,
    HAGANTrunkConfig,
    strided,
)
from gyri.types import ItemSpec, NetworkSpec

LOW = {"widths": (32, 64, 128, 256), "features": 0}


def parameters(*networks: nn.Module) -> int:
    return sum(parameter.numel() for n in networks for parameter in n.parameters())


def discriminators(side: int, slab: dict[str, Any], low: dict[str, Any]) -> int:
    specs = HAGAN.network_specs(HAGANConfig(), ItemSpec(1, (side,) * 3))
    return parameters(
        HAGANDiscriminator(HAGANDiscriminatorConfig(**slab), specs["slab_discriminator"]),
        HAGANDiscriminator(HAGANDiscriminatorConfig(**low), specs["low_discriminator"]),
    )


def test_published_parameter_counts() -> None:
    specs = HAGAN.network_specs(HAGANConfig(), ItemSpec(1, (256,) * 3))
    with torch.device("meta"):
        generator = (
            HAGANTrunk(HAGANTrunkConfig(), specs["trunk"]),
            HAGANLowHead(HAGANLowHeadConfig(), specs["low_head"]),
            HAGANHighHead(HAGANHalvingsConfig(), specs["high_head"]),
        )
        encoder = HAGANSlabEncoder(HAGANHalvingsConfig(), specs["slab_encoder"])
        # Without the norm of the high-resolution head, of 32 gains and 32 biases.
        assert parameters(*generator) == 52_518_210 - 2 * 32
        assert parameters(encoder) == 161_152
        assert discriminators(256, {}, LOW) == 7_402_258
        of_128 = {"widths": (32, 64, 128, 256, 512)}, {**LOW, "widths": (64, 128, 256)}
        assert discriminators(128, *of_128) == 7_241_442


def test_discriminators_halve_until_one_voxel_and_see_all() -> None:
    assert [strided(size) for size in (1, 2, 3, 4, 5, 8)] == [
        (1, 1, 0),
        (2, 2, 0),
        (4, 2, 1),
        (2, 2, 0),
        (4, 2, 1),
        (4, 2, 1),
    ]
    for shape in ((5, 6, 2), (7, 3, 1), (9, 4)):
        torch.manual_seed(0)
        config = HAGANDiscriminatorConfig(widths=(4, 8), features=6, hidden=5)
        d = HAGANDiscriminator(config, NetworkSpec(1, 0, shape, 0, 1, latent_size=1))
        x = torch.randn(2, 1, *shape, requires_grad=True)
        (slope,) = torch.autograd.grad(d(x, torch.zeros(2, 0), torch.rand(2, 1)).sum(), x)
        assert slope.all()


def test_a_verdict_knows_condition_and_place() -> None:
    torch.manual_seed(0)
    config = HAGANDiscriminatorConfig(widths=(4, 8), features=6, hidden=5)
    d = HAGANDiscriminator(config, NetworkSpec(1, 0, (8, 8, 4), 3, 1, latent_size=2))
    x, condition, place = torch.randn(2, 1, 8, 8, 4), torch.rand(2, 3), torch.rand(2, 1)
    verdicts = d(x, condition, place)
    assert verdicts.shape == (2, 2)
    moved = d(x, condition + 1, place)
    assert not torch.allclose(moved[:, 0], verdicts[:, 0])
    assert torch.equal(moved[:, 1], verdicts[:, 1])
    assert not torch.allclose(d(x, condition, place + 1), verdicts)
    torch.testing.assert_close(d(x[1:], condition[1:], place[1:]), verdicts[1:])


@pytest.mark.parametrize("widths", [(), (6,), (6, 4)])
@pytest.mark.parametrize("shape", [(3, 4, 7), (3, 7)])
def test_rows_do_not_depend_on_how_many_are_made(
    shape: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    config = HAGANHalvingsConfig(widths=widths)
    head = HAGANHighHead(config, NetworkSpec(5, 2, shape))
    nn.init.normal_(head.layers[0].bias)  # what a border of zeros would show
    rows = nn.functional.pad(torch.randn(2, 5, *shape), (1, 1), value=3.0)
    inside = torch.ones(2, 9)
    inside[:, [0, -1]] = 0
    whole = head(rows, inside)
    assert whole.shape == (2, 2, *(config.scale * size for size in shape))
    for start, count in ((0, 2), (2, 3), (4, 3), (6, 1)):
        part = head(rows[..., start : start + count + 2], inside[:, start : start + count + 2])
        at = slice(start * config.scale, (start + count) * config.scale)
        torch.testing.assert_close(part, whole[..., at], rtol=1e-5, atol=1e-6)


def test_the_encoder_undoes_the_heads_change_of_grid() -> None:
    config = HAGANHalvingsConfig(widths=(8,))
    encoder = HAGANSlabEncoder(config, NetworkSpec(1, 16, (8, 12, 4)))
    assert encoder(torch.randn(2, 1, 8, 12, 4)).shape == (2, 16, 2, 3, 1)


def test_published_trunk_of_128_has_one_doubling_less() -> None:
    specs = HAGAN.network_specs(HAGANConfig(), ItemSpec(1, (128,) * 3))
    with torch.device("meta"):
        trunk = HAGANTrunk(HAGANTrunkConfig(widths=(512, 256, 128)), specs["trunk"])
    assert trunk.base == (512, 4, 4, 4)
