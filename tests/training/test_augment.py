"""Augmentation: keyed by position, true to its name, off by default."""

from __future__ import annotations

import builtins
import logging

import numpy as np
import pytest
import torch

from gyri import recipe
from gyri.errors import UnavailableError, UsageError
from gyri.recipe import DataConfig
from gyri.settings import typed
from gyri.training.augment import Augmentation, build_augmentation
from gyri.training.data import Feed, ResidentVolumes
from gyri.training.labels import to_inside, to_outside
from gyri.types import Channel, Grid
from gyri.views.slice import SliceConfig, SliceView

SHAPE = (16, 20, 16)
GRID = Grid(SHAPE, ((8.0, 0, 0, 0), (0, 8.0, 0, 0), (0, 0, 8.0, 0), (0, 0, 0, 1.0)))
CHANNELS = (Channel("T1w"), Channel("tissue", "label", 3))
EVERY = (
    recipe.Flip(axis="left_right", p=1),
    recipe.Rotate(axis="foot_head", degrees=(20, 20)),
    recipe.Zoom(factor=(1.2, 1.2)),
    recipe.Crop(share=0.7),
    recipe.Elastic(sigma=(2, 2), magnitude=(40, 40)),
    recipe.Shift(offset=(0.1, 0.1)),
    recipe.Scale(factor=(1.2, 1.2)),
    recipe.Gamma(gamma=(0.7, 0.7)),
    recipe.BiasField(coefficients=(-0.5, 0.5)),
)


def brains(num: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (num, I, J, K) values in [0, 1] with a background of 0, and their labels 0, 1, 2."""
    rng = np.random.default_rng(0)
    i, j, k = np.indices(SHAPE)
    radius = ((i - 7) / 6) ** 2 + ((j - 10) / 8) ** 2 + ((k - 8) / 6) ** 2
    labels = np.select([radius < 0.3, radius < 1], [2, 1], 0)
    values = np.where(labels > 0, 0.35 * labels + rng.uniform(-0.1, 0.1, (num, *SHAPE)), 0)
    return torch.tensor(values, dtype=torch.float32), torch.tensor(labels).repeat(num, 1, 1, 1)


def inside() -> torch.Tensor:
    values, labels = brains()
    return to_inside([values * 2 - 1, labels], CHANNELS)


def seeds(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def change(config: recipe.Augment, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values in [0, 1] and labels after one augmentation."""
    values, labels = to_outside(Augmentation([config], CHANNELS)(x, seeds(1, 2)), CHANNELS)
    return (values + 1) / 2, labels


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.name)
def test_ranges_hold_and_labels_stay_labels(config):
    x = inside()
    before = x.clone()
    changed = Augmentation([config], CHANNELS)(x, seeds(1, 2))
    assert torch.equal(x, before)
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)
    assert changed.min() >= -1
    assert changed.max() <= 1
    hot = changed[:, 1:]
    assert set(hot.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(hot.sum(1), torch.full_like(hot[:, 0], -1.0))


def test_the_seed_alone_decides():
    augment = Augmentation([recipe.Elastic(), recipe.Rotate(axis="left_right")], CHANNELS)
    x = inside()
    both = augment(x, seeds(5, 9))
    assert torch.equal(both[1:], augment(x[1:], seeds(9)))
    assert torch.equal(both, augment(x, seeds(5, 9)))
    assert not torch.equal(both, augment(x, seeds(6, 9)))


def test_one_more_augmentation_leaves_the_others_as_they_were():
    x, first = inside(), recipe.Rotate(axis="foot_head")
    rotated = Augmentation([first], CHANNELS)(x, seeds(1, 2))
    flip = recipe.Flip(axis="back_front", p=1)
    assert torch.equal(Augmentation([first, flip], CHANNELS)(x, seeds(1, 2)), rotated.flip(3))


@pytest.mark.parametrize(
    ("axis", "place"), [("left_right", 1), ("back_front", 2), ("foot_head", 3)]
)
def test_flip_mirrors_exactly(axis, place):
    values, labels = brains()
    mirrored = change(recipe.Flip(axis=axis, p=1), inside())
    torch.testing.assert_close(mirrored[0], values.flip(place), atol=1e-6, rtol=0)
    assert torch.equal(mirrored[1], labels.flip(place))


def test_probability():
    x, augment = inside()[:1], Augmentation([recipe.Flip(axis="foot_head", p=0.25)], CHANNELS)
    flipped = [not torch.equal(augment(x, seeds(n)), x) for n in range(80)]
    assert 10 <= sum(flipped) <= 32
    never = Augmentation([recipe.Flip(axis="foot_head", p=0)], CHANNELS)
    torch.testing.assert_close(never(x, seeds(1)), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("axis", "plane"), [("foot_head", (1, 2)), ("left_right", (2, 3))])
def test_a_quarter_turn_is_exact_in_its_plane(axis, plane):
    cube = torch.zeros(1, 4, 12, 12, 12)
    cube[:, 0, 3:6, 2:9, 4:10] = 0.5
    labels = (cube[:, 0] > 0).long() * 2
    x = to_inside([cube[:, 0] * 2 - 1, labels], CHANNELS)
    config = recipe.Rotate(axis=axis, degrees=(90, 90))
    values, turned = to_outside(Augmentation([config], CHANNELS)(x, seeds(1)), CHANNELS)
    expected = [torch.rot90(cube[:, 0], turns, plane) for turns in (1, -1)]
    gaps = [float(((values + 1) / 2 - known).abs().max()) for known in expected]
    assert min(gaps) < 1e-4
    known = torch.rot90(labels, (1, -1)[int(np.argmin(gaps))], plane)
    assert torch.equal(turned, known)


def test_zoom_and_crop_enlarge_by_their_factor():
    values, labels = brains()
    inner = int((labels == 2).sum())
    _, zoomed = change(recipe.Zoom(factor=(1.25, 1.25)), inside())
    assert int((zoomed == 2).sum()) == pytest.approx(inner * 1.25**3, rel=0.15)
    _, shrunk = change(recipe.Zoom(factor=(0.75, 0.75)), inside())
    assert int((shrunk == 2).sum()) == pytest.approx(inner * 0.75**3, rel=0.2)
    whole, _ = change(recipe.Crop(share=1.0), inside())
    torch.testing.assert_close(whole, values, atol=1e-6, rtol=0)
    _, cropped = change(recipe.Crop(share=0.75), inside())
    assert int((cropped == 2).sum()) == pytest.approx(inner / 0.75**3, rel=0.25)


def test_intensities_follow_their_equations_and_the_background_stays():
    values, labels = brains()
    brain = (values > 0).float()
    top = values.amax((1, 2, 3), keepdim=True)
    expected = {
        recipe.Shift(offset=(0.1, 0.1)): ((values + 0.1) * brain).clamp(0, 1),
        recipe.Scale(factor=(1.1, 1.1)): (values * 1.1).clamp(0, 1),
        recipe.Gamma(gamma=(0.5, 0.5)): top * (values / top) ** 0.5,
    }
    for config, known in expected.items():
        changed, kept = change(config, inside())
        torch.testing.assert_close(changed, known, atol=1e-5, rtol=0)
        assert torch.equal(kept, labels)


def test_a_bias_field_is_a_smooth_factor():
    values, labels = brains()
    changed, kept = change(recipe.BiasField(coefficients=(-0.2, 0.0)), inside())
    assert torch.equal(kept, labels)
    inside_brain = values[0] > 0
    field = torch.where(inside_brain, changed[0] / values[0].clamp_min(1e-3), torch.nan).log()
    bend = field[:-2] - 2 * field[1:-1] + field[2:]
    assert field.nan_to_num().abs().max() > 0.1
    assert bend.nan_to_num().abs().max() < 0.1


def test_elastic_bends_and_keeps_the_amount():
    values, labels = brains()
    changed, bent = change(recipe.Elastic(sigma=(2, 2), magnitude=(30, 30)), inside())
    assert 0.001 < float((bent != labels).float().mean()) < 0.2
    assert float(changed.sum()) == pytest.approx(float(values.sum()), rel=0.25)


def feed(configs: tuple[recipe.Augment, ...]) -> Feed:
    values, labels = brains(3)
    stored = torch.stack([(values * 32767).round().short(), labels.short()], 1)
    volumes = ResidentVolumes(stored, 1 / 32767, (0.0, 1.0), CHANNELS)
    view = SliceView(SliceConfig(plane="axial"), volumes.shape[1], GRID)
    view.fit(volumes)
    augment = build_augmentation(configs, CHANNELS)
    return Feed(volumes, torch.zeros(3, 0), view, seed=4, augment=augment)


def test_batches_do_not_depend_on_their_size_or_where_a_run_goes_on():
    configs = (recipe.Rotate(axis="foot_head"), recipe.Gamma())
    whole = feed(configs).batch(torch.arange(6))
    again = feed(configs)
    parts = [again.batch(torch.arange(start, start + 2)).x for start in (4, 0, 2)]
    assert torch.equal(whole.x, torch.cat([parts[1], parts[2], parts[0]]))


def test_off_leaves_batches_untouched_and_the_slices_the_same():
    plain, flipped = feed(()), feed((recipe.Flip(axis="left_right", p=1),))
    assert plain.augment is None
    a, b = plain.batch(torch.arange(6)), flipped.batch(torch.arange(6))
    assert torch.equal(a.position, b.position)
    torch.testing.assert_close(a.x.flip(2), b.x, atol=1e-6, rtol=0)
    assert torch.equal(plain.everything()[0], flipped.everything()[0])


def test_left_right_flips_warn(caplog):
    with caplog.at_level(logging.WARNING):
        build_augmentation([recipe.Flip(axis="back_front")], CHANNELS)
        assert not caplog.records
        build_augmentation([recipe.Flip(axis="left_right")], CHANNELS)
    assert "laterality is lost" in caplog.text


def test_without_monai_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.startswith("monai"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UnavailableError, match=r"gyri\[augment\]"):
        build_augmentation([recipe.Gamma()], CHANNELS)
    assert build_augmentation([], CHANNELS) is None


def test_the_recipe_is_strict():
    def read(*augment):
        return typed({"augment": list(augment)}, DataConfig, "data").augment

    assert read({"name": "flip", "axis": "left_right"}) == (recipe.Flip(axis="left_right"),)
    assert read({"name": "rotate", "axis": "foot_head", "degrees": [-5, 5]})[0].degrees == (-5, 5)
    for wrong, said in (
        ({"name": "flip"}, "axis"),
        ({"name": "flop"}, "flop"),
        ({"name": "gamma", "gama": [1, 2]}, "gama"),
        ({"name": "gamma", "gamma": [2, 1]}, "lowest"),
        ({"name": "zoom", "p": 2}, "probability"),
        ({"name": "crop", "share": 0}, "share"),
    ):
        with pytest.raises(UsageError, match=said):
            read(wrong)
