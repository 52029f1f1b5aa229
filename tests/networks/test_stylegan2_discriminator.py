from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.networks.stylegan2_discriminator import (
    QuantiseConfig,
    StyleGAN2Discriminator,
    StyleGAN2DiscriminatorConfig,
    with_deviation,
)
from gyri.types import NetworkSpec

SHAPES = [(12, 16), (8, 12, 8)]


def build(shape: tuple[int, ...] = (12, 16), **settings: Any) -> StyleGAN2Discriminator:
    torch.manual_seed(0)
    settings = {"widths": (16, 8), "mapping_layers": 2, "stddev_group": 2, **settings}
    spec = NetworkSpec(2, 0, shape, condition_size=3, position_size=1)
    return StyleGAN2Discriminator(StyleGAN2DiscriminatorConfig(**settings), spec)


def inputs(shape: tuple[int, ...] = (12, 16), count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 2, *shape), torch.randn(count, 3), torch.rand(count, 1)


@pytest.mark.parametrize(
    ("channels", "labels", "expected"), [(3, 0, 24_001_089), (1, 0, 24_000_961), (1, 3, 26_366_400)]
)
def test_the_published_network_has_the_published_size(
    channels: int, labels: int, expected: int
) -> None:
    with torch.device("meta"):
        network = StyleGAN2Discriminator(
            StyleGAN2DiscriminatorConfig(), NetworkSpec(channels, 0, (256, 256), labels)
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["residual", "skip", "plain"])
def test_every_form_gives_logits_and_every_weight_learns(shape: tuple[int, ...], form: str) -> None:
    network = build(shape, form=form, feature_quantisation=QuantiseConfig(stages=(0,)))
    logits = network(*inputs(shape))
    assert logits.shape == (4,)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_identical_items_deviate_by_nothing() -> None:
    one = torch.randn(1, 5, 4, 4)
    same = with_deviation(one.expand(4, -1, -1, -1), 4)
    torch.testing.assert_close(same[:, 5], torch.full((4, 4, 4), 1e-4))
    assert torch.equal(same[:, :5], one.expand(4, -1, -1, -1))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4)])
def test_deviations_are_those_of_neighbours_in_the_batch(shape: tuple[int, ...]) -> None:
    x = torch.randn(4, 5, *shape)
    x[2:] *= 3
    channel = with_deviation(x, 2)[:, 5]
    expected = torch.stack([x[:2], x[2:]]).var(1, unbiased=False).sqrt().flatten(1).mean(1)
    for item in range(4):
        torch.testing.assert_close(
            channel[item], expected[item // 2].expand(shape), rtol=1e-4, atol=1e-5
        )


def test_only_items_of_a_group_depend_on_each_other() -> None:
    network = build()
    x, condition, position = inputs()
    whole = network(x, condition, position)
    half = network(x[2:], condition[2:], position[2:])
    torch.testing.assert_close(whole[2:], half, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(x[1:3], condition[1:3], position[1:3])[1], whole[2])
    alone = build(stddev_group=1)
    assert alone.group == 1
    torch.testing.assert_close(
        alone(x, condition, position)[:1],
        alone(x[:1], condition[:1], position[:1]),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("feed", ["commitment", "straight_through"])
def test_codebooks_start_on_features_and_cost_less_there(feed: str) -> None:
    settings = QuantiseConfig(stages=(0, 1), num_codes=32, feed=feed)  # type: ignore[arg-type]
    network = build(feature_quantisation=settings)
    x, condition, position = inputs()
    before = network.judge(x, condition, position)
    network.start_codes(x)
    after = network.judge(x, condition, position)
    assert (after.commitment < before.commitment).all()
    # Codes that are not passed on have no say in the logits.
    assert torch.equal(after.logits, before.logits) == (feed == "commitment")
    assert set(after.codes) == {"0", "1"}
    assert [int(after.codes[n].counts.sum()) for n in "01"] == [4 * 6 * 8, 4 * 12 * 16]
    network.update_codes("1", after.codes["1"].counts, after.codes["1"].sums)
    assert (network.judge(x, condition, position).commitment < after.commitment).float().mean() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_slopes_are_of_every_axis_and_survive_checkpointing(shape: tuple[int, ...]) -> None:
    found = []
    for checkpointing in (False, True):
        network = build(shape, attention=(1,), gradient_checkpointing=checkpointing)
        x, condition, position = inputs(shape)
        x.requires_grad_()
        logits = network(x, condition, position)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        slope.square().flatten(1).sum(1).mean().backward()
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    assert found[0]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_stages_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="feature_quantisation.stages"):
        build(feature_quantisation=QuantiseConfig())
    with pytest.raises(UsageError, match="attention"):
        build(attention=(-1,))
