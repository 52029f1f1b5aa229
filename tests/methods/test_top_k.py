from __future__ import annotations

import math

import pytest
import torch

from gyri.errors import UsageError
from gyri.methods.top_k import TopKConfig, top_k_weights

LOGITS = torch.tensor([0.3, 2.0, -1.0, 0.5, 7.0, -2.0, 1.0, 0.0])


def test_the_largest_logits_are_kept() -> None:
    weights = top_k_weights(LOGITS, None, 0.5, group=8)
    assert weights.nonzero()[:, 0].tolist() == [1, 3, 4, 6]
    assert weights[weights > 0].tolist() == [0.25] * 4


def test_the_sign_matters() -> None:
    kept = top_k_weights(LOGITS, None, 0.5, group=8) > 0
    flipped = top_k_weights(-LOGITS, None, 0.5, group=8) > 0
    assert not (kept & flipped).any()


def test_numbers_are_rounded_up_and_everything_is_kept_at_first() -> None:
    assert int((top_k_weights(LOGITS, None, 0.51, group=8) > 0).sum()) == 5
    assert torch.equal(top_k_weights(LOGITS, None, 1.0, group=8), torch.full((8,), 1 / 8))


def test_groups_are_ranked_apart() -> None:
    whole = top_k_weights(LOGITS, None, 0.5, group=4)
    halves = [top_k_weights(part, None, 0.5, group=4) / 2 for part in LOGITS.split(4)]
    assert torch.equal(whole, torch.cat(halves))
    assert float(whole.sum()) == pytest.approx(1.0)


def test_rare_levels_keep_their_share() -> None:
    levels = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0])
    assert not (top_k_weights(LOGITS, None, 0.5, group=8)[[2, 5]] > 0).any()
    within = top_k_weights(LOGITS, levels, 0.5, group=8) > 0
    assert within.nonzero()[:, 0].tolist() == [1, 2, 4, 6]


def test_the_share_falls_to_its_floor() -> None:
    config = TopKConfig()
    assert config.share(0) == 1.0
    assert config.share(10) == pytest.approx(0.99**10)
    reached = math.log(0.5) / math.log(0.99)
    assert config.share(reached - 1) > 0.5
    assert config.share(reached + 1) == 0.5
    with pytest.raises(UsageError, match="above 0"):
        TopKConfig(floor=0.0)
