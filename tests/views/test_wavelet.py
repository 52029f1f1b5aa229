"""Haar bands as items: what lifts, what scales do, and bounds."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig, draw_volumes
from gyri.sampling.schedules import karras_levels
from gyri.types import ConditionLayout, Grid

GRID = Grid((5, 8, 6), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))


def wavelet(channels=1, **settings):
    entry = VIEWS["wavelet"]
    return entry.component(entry.config(**settings), channels, GRID)


def smooth(num=6, channels=1):
    """Volumes whose high bands are faint."""
    x = torch.randn(num, channels, *GRID.shape, generator=torch.Generator().manual_seed(0))
    return x.cumsum(2).cumsum(3).cumsum(4) / 20


@pytest.mark.parametrize("scale", ["none", "band", "published"])
def test_nothing_is_lost(scale):
    view, x = wavelet(2, scale=scale), smooth(3, 2)
    view.fit(x)
    torch.testing.assert_close(view.decode(view.encode(x).x), x, rtol=0, atol=1e-5)


def test_only_orthonormal_bands_lift_and_keep_noise_white():
    view = wavelet()
    assert view.lifts
    noise = torch.randn(4000, 1, *GRID.shape, generator=torch.Generator().manual_seed(0))
    items = view.encode(noise).x
    assert float((items.var(0) - 1).abs().max()) < 0.2
    assert not wavelet(scale="band").lifts
    assert not wavelet(scale="published").lifts


def test_bands_are_brought_to_unit_spread_up_to_the_cap():
    x = smooth(40)
    free, capped = wavelet(scale="band", cap=1e6), wavelet(scale="band", cap=2)
    free.fit(x)
    capped.fit(x)
    std = free.encode(x).x.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(std, torch.ones(8), rtol=0.01, atol=0)
    gain = capped.state["gain"].flatten()
    assert float(gain.max() / gain.min()) == pytest.approx(2)
    assert float(capped.encode(x).x[:, 0].std()) == pytest.approx(1, rel=0.01)


def test_a_constant_is_about_itself_as_published():
    view = wavelet(scale="published")
    items = view.encode(torch.ones(1, 1, *GRID.shape)).x
    torch.testing.assert_close(items[:, 0], torch.full((1, 3, 4, 3), 8**0.5 / 3))
    assert float(items[:, 1:].abs().max()) < 1e-6
    plain = wavelet().encode(smooth(1)).x
    torch.testing.assert_close(view.encode(smooth(1)).x[:, 1:], plain[:, 1:])


@pytest.mark.parametrize("scale", ["band", "published"])
def test_bounds_are_the_volume_s_and_bounding_twice_changes_nothing(scale):
    view, x = wavelet(scale=scale), smooth()
    view.fit(x)
    items = 5 * view.encode(x).x
    once = view.bounded(items, 1.0)
    assert float(view.decode(once).abs().max()) <= 1 + 1e-5
    torch.testing.assert_close(view.bounded(once, 1.0), once, rtol=0, atol=1e-5)
    torch.testing.assert_close(view.decode(once), view.decode(items).clamp(-1, 1))


@pytest.mark.parametrize("scale", ["none", "published"])
def test_what_is_drawn_stays_inside_the_bounds(scale):
    view, x = wavelet(scale=scale), 3 * smooth(2)

    def far(x_noised, level, condition, position):
        return view.encode(x).x

    rng = SampleRng(torch.tensor([1, 2]))
    config = SamplingConfig(clip=1.0)
    drawn = draw_volumes(far, view, torch.zeros(2, 0), karras_levels(4), config, rng)
    torch.testing.assert_close(drawn, x.clamp(-1, 1), rtol=0, atol=1e-4)


def test_images_follow_orthonormal_bands_alone():
    assert wavelet().item_spec(ConditionLayout(), 3, {"mask": 2}).context == {"mask": 16}
    with pytest.raises(UsageError, match="gives mask, and view.scale is band"):
        wavelet(scale="band").item_spec(ConditionLayout(), 3, {"mask": 2})


def test_a_cap_that_shrinks_is_refused():
    with pytest.raises(UsageError, match=r"cap is 0\.5"):
        wavelet(cap=0.5)
