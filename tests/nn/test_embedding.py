"""Embeddings agree with their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from gyri.nn.embedding import (
    ConditionEmbedding,
    FourierFeatures,
    NoiseEmbedding,
    timestep_embedding,
)


def test_unit_range_is_a_thousand_steps_of_period_ten_thousand() -> None:
    t = torch.tensor([0.0, 0.25, 1.0])
    embedding = timestep_embedding(t, 8)
    for row, level in enumerate(t.tolist()):
        for i in range(4):
            angle = 1000 * level * 10_000 ** (-i / 4)
            assert embedding[row, i].item() == pytest.approx(math.cos(angle), abs=1e-4)
            assert embedding[row, 4 + i].item() == pytest.approx(math.sin(angle), abs=1e-4)


def test_odd_width_ends_in_a_zero() -> None:
    embedding = timestep_embedding(torch.rand(3), 7)
    assert embedding.shape == (3, 7)
    assert not embedding[:, -1].any()


def test_fourier_features_have_unit_mean_square_and_keep_ends_apart() -> None:
    features = FourierFeatures(2, num_frequencies=6)
    position = torch.stack([torch.linspace(-1, 1, 49), torch.linspace(1, -1, 49)], 1)
    embedded = features(position)
    assert embedded.shape == (49, features.out_size) == (49, 24)
    torch.testing.assert_close(embedded.square().mean(1), torch.ones(49))
    distance = torch.cdist(embedded, embedded)
    distance.fill_diagonal_(torch.inf)
    nearest = distance.argmin(1)
    assert ((nearest - torch.arange(49)).abs() == 1).all()


def test_condition_embedding_sums_its_parts() -> None:
    torch.manual_seed(0)
    both = ConditionEmbedding(3, 1, 8)
    condition, position = torch.randn(4, 3), torch.rand(4, 1)
    assert both.of_condition is not None
    assert both.of_position is not None
    expected = both.of_condition(condition) + both.of_position(position)
    torch.testing.assert_close(both(condition, position), expected)


def test_nothing_to_embed_is_zero() -> None:
    nothing = ConditionEmbedding(0, 0, 8)
    assert not list(nothing.parameters())
    assert torch.equal(nothing(torch.zeros(2, 0)), torch.zeros(2, 8))


def test_missing_position_is_refused() -> None:
    with pytest.raises(ValueError, match="position"):
        ConditionEmbedding(0, 1, 8)(torch.zeros(2, 0))


def test_noise_embedding_sees_all_three() -> None:
    torch.manual_seed(0)
    embed = NoiseEmbedding(8, 2, 1)
    level, condition, position = torch.rand(3), torch.randn(3, 2), torch.rand(3, 1)
    reference = embed(level, condition, position)
    assert reference.shape == (3, 32)
    assert not torch.allclose(embed(level + 0.1, condition, position), reference)
    assert not torch.allclose(embed(level, condition + 0.1, position), reference)
    assert not torch.allclose(embed(level, condition, position + 0.1), reference)


def test_a_raw_one_hot_position_looks_up_a_table() -> None:
    torch.manual_seed(0)
    embed = ConditionEmbedding(0, 40, 64, position="raw")
    assert isinstance(embed.of_position, torch.nn.Linear)
    table = embed.of_position.weight.T
    assert torch.equal(embed(torch.zeros(40, 0), torch.eye(40)), table)
    assert abs(float(table.detach().std()) - 1) < 0.05
