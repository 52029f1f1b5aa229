"""Local correlation against what is known in closed form."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gyri.nn.local_correlation import local_correlation

SHAPE = (12, 14, 13)


def noise(seed: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gain", [1.0, 0.4, -0.7])
@pytest.mark.parametrize("window", [3, 9])
def test_a_line_of_itself_is_wholly_alike(gain, window):
    # Also at the border, where windows are cut.
    x = noise(0, batch=2)
    alike = local_correlation(x, gain * x + 0.3, window)
    torch.testing.assert_close(alike, torch.ones(2), atol=1e-3, rtol=0)


def test_faint_texture_is_as_much_alike():
    x = 0.04 * noise(0) - 0.5
    assert float(local_correlation(x, x, 9)) == pytest.approx(1, abs=1e-3)


def test_unrelated_noise_is_alike_by_chance():
    # The squared correlation of n independent pairs has the mean 1 / (n - 1).
    by_axis = [[2, *[3] * (n - 2), 2] for n in SHAPE]
    chance = [1 / (i * j * k - 1) for i, j, k in itertools.product(*by_axis)]
    found = local_correlation(noise(0, 8), noise(1, 8), window=3).mean()
    assert float(found) == pytest.approx(sum(chance) / len(chance), rel=0.05)


def test_background_neither_adds_nor_takes_away():
    x, y = noise(0), noise(1)
    half = torch.zeros(1, 1, *SHAPE)
    half[:, :, : SHAPE[0] // 2] = 1
    empty = torch.full_like(x, -1.0)
    x_half, y_half = (torch.where(half > 0, volume, empty) for volume in (x, x + 0.3 * y))
    assert float(local_correlation(x_half, x_half, 3)) == pytest.approx(1, abs=1e-3)
    whole = float(local_correlation(x, x + 0.3 * y, 3))
    assert float(local_correlation(x_half, y_half, 3)) == pytest.approx(whole, abs=0.03)
    assert float(local_correlation(empty, empty, 3)) == 0


def test_texture_beside_nothing_is_unlike():
    assert float(local_correlation(noise(0), torch.full((1, 1, *SHAPE), -1.0), 5)) == 0


def test_a_mask_chooses_the_windows():
    x, y = noise(0), noise(1)
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[:, :, :6] = True
    # Windows of 3 around planes 0 to 5 read up to plane 6.
    mixed = torch.cat([x[:, :, :7], y[:, :, 7:]], dim=2)
    assert float(local_correlation(x, mixed, 3, mask)) == pytest.approx(1, abs=1e-3)
    assert float(local_correlation(x, mixed, 3, ~mask)) < 0.4


def test_gradients_are_finite_where_nothing_varies():
    x = torch.full((1, 1, *SHAPE), -1.0)
    x[:, :, :4] = noise(0)[:, :, :4]
    moving = x.clone().requires_grad_()
    local_correlation(moving, noise(1), 3).sum().backward()
    assert moving.grad is not None
    assert moving.grad.isfinite().all()
    assert moving.grad.abs().sum() > 0
