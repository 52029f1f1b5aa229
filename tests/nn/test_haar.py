"""Haar bands: identity, energy, order, odd grids."""

from __future__ import annotations

import pytest
import torch

from gyri.nn.haar import BANDS, haar, half_shape, inverse_haar


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 6, 8), (4, 7, 3), (5, 7, 3), (1, 2, 2)])
def test_the_inverse_gives_back_the_volume(shape):
    x = noise(2, 3, *shape)
    bands = haar(x)
    assert bands.shape == (2, 24, *half_shape(shape))
    assert float((inverse_haar(bands, shape) - x).abs().max()) < 1e-6


def test_energy_is_kept():
    x = noise(2, 3, 4, 6, 8)
    torch.testing.assert_close(haar(x).square().sum(), x.square().sum())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_impulse_is_in_every_band_with_the_sign_of_its_place(axis):
    low, high = torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
    place = [2, 2, 2]
    low[0, 0, *place] = 1
    place[axis] = 3
    high[0, 0, *place] = 1
    first, second = haar(low)[0, :, 1, 1, 1], haar(high)[0, :, 1, 1, 1]
    torch.testing.assert_close(first, torch.full((8,), 8**-0.5))
    signs = torch.tensor([-1.0 if band[axis] == "H" else 1.0 for band in BANDS])
    torch.testing.assert_close(second, first * signs)
    assert float(haar(low).abs().sum()) == pytest.approx(8**0.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_changes_along_one_axis_is_in_the_band_named_after_it(axis):
    shape = [1, 1, 1]
    shape[axis] = 4
    x = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, *shape).expand(1, 1, 4, 4, 4)
    found = haar(x)[0].abs().amax((1, 2, 3))
    name = "".join("H" if k == axis else "L" for k in range(3))
    assert BANDS[int(found.argmax())] == name
    assert int((found > 1e-6).sum()) == 1
    assert float(found.max()) == pytest.approx(8**0.5)


def test_the_bands_of_a_channel_stay_together():
    x = torch.zeros(1, 2, 4, 4, 4)
    x[:, 1] = 1
    found = haar(x)[0].abs().amax((1, 2, 3))
    assert (found > 1e-6).nonzero()[:, 0].tolist() == [8]


def test_white_noise_stays_white_on_odd_grids_too():
    bands = haar(noise(4000, 1, 3, 2, 5)).flatten(1)
    assert float((bands.var(0) - 1).abs().max()) < 0.15
