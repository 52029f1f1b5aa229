"""Coefficients on principal components, cross-fitted."""

from __future__ import annotations

import pytest
import torch

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, Grid
from gyri.views.base import Changed

GRID = Grid((4, 5, 6), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))
RNG = SampleRng(torch.arange(2))


def volumes(num=30, rank=3, noise=0.1):
    """Volumes of a few directions and noise of their own."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(rank, 120, generator=generator)
    flat = torch.randn(num, rank, generator=generator) @ directions
    flat = flat + noise * torch.randn(num, 120, generator=generator)
    return flat.reshape(num, 1, *GRID.shape)


def fitted(x, components=3, fwhm_mm=0.0, mirror=False):
    entry = VIEWS["low_rank"]
    config = entry.config(components=components, fwhm_mm=fwhm_mm, mirror=mirror)
    view = entry.component(config, 1, GRID)
    view.fit(x)
    return view


def test_volumes_of_that_rank_come_back():
    x = volumes(noise=0.0)
    view = fitted(x)
    torch.testing.assert_close(view.decode(view.encode(x).x), x, atol=1e-4, rtol=0)


def test_coefficients_of_the_split_have_unit_spread():
    x = volumes()
    view = fitted(x)
    items = torch.cat([view.items_of(x, row).x for row in range(len(x))])
    assert items.shape == (30, 3, 1, 1, 1)
    torch.testing.assert_close(items.square().mean(0).flatten(), torch.ones(3))


def test_nobody_is_described_by_components_that_know_them():
    x, new = volumes(num=60, rank=1, noise=1.0).split(30)
    view = fitted(x, components=20)

    def lost(kept, volume):
        return float((kept - volume).square().mean())

    own = torch.cat([view.kept(x, row) for row in range(len(x))])
    unknown = lost(view.decode(view.encode(new).x), new)
    assert lost(view.decode(view.encode(x).x), x) < 0.6 * unknown
    assert lost(own, x) > 0.9 * unknown


def test_mirrored_components_know_mirror_images():
    x = volumes(rank=2, noise=0.0)
    plain, mirrored = fitted(x, 4), fitted(x, 4, mirror=True)
    turned = x.flip(2) - x.mean(0) + x.mean(0).flip(1)

    def lost(view):
        return float((view.decode(view.encode(turned).x) - turned).square().mean())

    assert lost(mirrored) < 0.01 * lost(plain)


def test_smoothed_components_are_smooth_and_lean_less_towards_their_people():
    x, new = volumes(num=60, rank=1, noise=1.0).split(30)

    def lean(view):
        lost = [float((view.decode(view.encode(v).x) - v).square().mean()) for v in (x, new)]
        return lost[1] - lost[0]

    def roughness(view):
        basis = view.state["all.basis"].T.reshape(-1, *GRID.shape)
        return float(basis.diff(dim=3).square().mean())

    plain, smooth = fitted(x, 15), fitted(x, 15, fwhm_mm=14.0)
    assert roughness(smooth) < 0.3 * roughness(plain)
    assert lean(smooth) < 0.5 * lean(plain)
    torch.testing.assert_close(smooth.state["all.mean"], x.mean(0).flatten())


def test_folds_speak_of_the_same_directions():
    x = volumes(rank=3, noise=0.01)
    view = fitted(x)
    own = torch.cat([view.items_of(x, row).x for row in range(len(x))])
    assert torch.corrcoef(torch.stack([own.flatten(), view.encode(x).x.flatten()]))[0, 1] > 0.99


def test_changed_volumes_keep_the_fold_of_their_subject():
    x = volumes(rank=1, noise=1.0)
    view = fitted(x, components=10)
    subject = torch.tensor([7, 4])
    changed = Changed(x[subject], subject)
    found = view.training_items(changed, torch.arange(2), RNG).x
    assert torch.equal(found, view.training_items(x, subject, RNG).x)
    assert not torch.equal(found, view.training_items(x[subject], torch.arange(2), RNG).x)


def test_too_many_components_and_given_images_are_refused():
    with pytest.raises(UsageError, match="Set it to 12 or less"):
        fitted(volumes(), components=24)
    with pytest.raises(UsageError, match="follow no image"):
        fitted(volumes()).item_spec(ConditionLayout(), 30, {"mask": 2})
    with pytest.raises(UsageError, match="at least"):
        VIEWS["low_rank"].config(num_folds=1)
    with pytest.raises(UsageError, match="at least"):
        VIEWS["low_rank"].config(fwhm_mm=-1.0)
