from __future__ import annotations

import math

import pytest
import torch

from gyri.nn.quantise import Quantiser, perplexity


def build(num_codes: int = 4, channels: int = 3, feed: bool = True) -> Quantiser:
    torch.manual_seed(0)
    return Quantiser(channels, num_codes, decay=0.8, feed_quantised=feed)


def on_codes(quantiser: Quantiser, *shape: int) -> torch.Tensor:
    which = torch.arange(math.prod(shape)) % len(quantiser.codes)
    return quantiser.codes[which].reshape(*shape, -1).movedim(-1, 1)


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 2, 3)])
def test_features_on_codes_cost_nothing(shape: tuple[int, ...]) -> None:
    quantiser = build()
    h = on_codes(quantiser, *shape)
    found = quantiser(h)
    torch.testing.assert_close(found.commitment, torch.zeros(2), atol=1e-10, rtol=0)
    torch.testing.assert_close(found.features, h)
    assert found.counts.tolist() == [h[:, 0].numel() / 4] * 4
    expected = quantiser.codes * found.counts[:, None]
    torch.testing.assert_close(found.sums, expected.double())


def test_commitment_is_the_mean_squared_distance_of_each_item() -> None:
    quantiser = build()
    h = on_codes(quantiser, 2, 4, 4)
    moved = h + torch.tensor([0.01, 0.02])[:, None, None, None]
    expected = torch.tensor([0.01, 0.02]) ** 2
    torch.testing.assert_close(quantiser(moved).commitment, expected, rtol=1e-3, atol=0)


def test_codes_follow_a_constant_geometrically() -> None:
    quantiser = build(num_codes=1)
    value = torch.tensor([1.0, -2.0, 0.5])
    start = quantiser.codes.clone()
    h = value[None, :, None, None].expand(2, 3, 4, 4)
    for step in range(1, 6):
        found = quantiser(h)
        quantiser.update(found.counts, found.sums)
        expected = value + 0.8**step * (start - value)
        torch.testing.assert_close(quantiser.codes, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_passes_straight_through() -> None:
    quantiser = build()
    h = torch.randn(1, 3, 2, 2, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: quantiser(x).features, h)
    assert torch.equal(jacobian.reshape(12, 12), torch.eye(12))
    codes = quantiser(h).features.movedim(1, -1).reshape(-1, 3)
    assert torch.cdist(codes, quantiser.codes).min(1).values.max() < 1e-5


def test_a_commitment_alone_leaves_the_features() -> None:
    h = torch.randn(1, 3, 2, 2)
    found = build(feed=False)(h)
    assert found.features is h
    assert float(found.commitment) > 0


def test_features_that_pass_change_no_code() -> None:
    quantiser = build()
    before = {name: tensor.clone() for name, tensor in quantiser.state_dict().items()}
    for training in (True, False):
        quantiser.train(training)
        quantiser(torch.randn(2, 3, 4, 4))
    assert all(torch.equal(before[name], t) for name, t in quantiser.state_dict().items())


def test_first_codes_are_features_that_differ() -> None:
    quantiser = build()
    # Background nearly everywhere, and three other features.
    h = torch.zeros(2, 3, 40, 40)
    others = torch.randn(3, 3)
    h[0, :, 3, 4], h[1, :, 30, 20], h[1, :, 0, 0] = others
    quantiser.start(h)
    features = torch.cat([torch.zeros(1, 3), others])
    assert torch.cdist(features, quantiser.codes).min(1).values.max() < 1e-5
    assert sorted(quantiser(h).counts.tolist()) == [1, 1, 1, 2 * 1600 - 3]


def test_sums_do_not_show_how_items_were_cut() -> None:
    quantiser = build()
    h = on_codes(quantiser, 4, 64, 64)
    parts = [quantiser(part).sums for part in h.split(1)]
    torch.testing.assert_close(sum(parts), quantiser(h).sums, rtol=1e-12, atol=1e-12)


def test_perplexity_counts_the_codes_in_use() -> None:
    assert float(perplexity(torch.tensor([7.0, 0.0, 0.0, 0.0]))) == pytest.approx(1.0)
    assert float(perplexity(torch.full((4,), 3.0))) == pytest.approx(4.0)
    assert 1 < float(perplexity(torch.tensor([5.0, 1.0, 1.0, 0.0]))) < 4


def test_codes_that_restart_lie_at_their_features_with_an_even_share():
    quantiser = Quantiser(2, 4, 0.9, feed_quantised=True)
    before = quantiser.codes.clone()
    at = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], dtype=torch.float64)
    quantiser.share[2] = 1e-6
    quantiser.restart(torch.tensor([False, False, True, False]), at)
    assert torch.allclose(quantiser.codes[2], torch.tensor([5.0, 6.0]), atol=1e-5)
    assert float(quantiser.share[2]) == 0.25
    assert torch.equal(quantiser.codes[[0, 1, 3]], before[[0, 1, 3]])
