"""Styles: walks end at samples, mixtures at their sources, projections near what was made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.contracts.tiny import recipe
from tests.methods.test_stylegan2 import build

from gyri.cohort.prepared import PreparedCohort
from gyri.errors import UsageError
from gyri.evaluation.paired import Original
from gyri.recipe import parse_recipe
from gyri.runtime.seeding import derive_seed
from gyri.style_walk import (
    STEPS,
    between,
    distance,
    interpolations,
    load_stylist,
    mix,
    mixings,
    paired_scores,
    project,
    projections,
    shown,
)
from gyri.synthesis import draw
from gyri.training.run import Run, train

VIEWS: dict[str, Any] = {
    "slice": {"name": "slice", "plane": "coronal"},
    "stack": "stack",
    "volume": "volume",
}
SEED = 5


@pytest.fixture(scope="module", params=VIEWS)
def run(request, tiny_cohort, tmp_path_factory) -> Run:
    """Three steps of a small StyleGAN2 in each view, whose noise is constant."""
    small = {"widths": [8, 8, 4], "mapping_layers": 2}
    made = parse_recipe(
        {
            "name": "tiny-styles",
            "view": VIEWS[request.param],
            "conditions": ["age", "sex"],
            "method": {"name": "stylegan2", "latent_size": 8, "sampling_noise": "constant"},
            "networks": {
                "generator": {**small, "w_size": 8},
                "discriminator": {**small, "stddev_group": 1},
            },
            "training": {"steps": 3, "batch_size": 2},
        }
    )
    return train(made, tiny_cohort, tmp_path_factory.mktemp("styles") / "run", quiet=True)


ROWS = [
    {"age": 30.0, "sex": "F"},
    {"age": 80.0, "sex": "M"},
    {"age": 50.0, "sex": "F"},
]


def samples(model: Any, rows: list[Any], chosen: list[int]) -> np.ndarray:
    seeds = torch.tensor([derive_seed(SEED, "sample", k) for k in chosen])
    return shown(draw(model, rows, seeds))


def test_walks_begin_and_end_at_samples(run):
    model = load_stylist(run)
    both, held, told = interpolations(model, ROWS[:2], SEED)
    made = samples(model, ROWS[:2], [0, 1])
    swapped = samples(model, [ROWS[1], ROWS[0]], [0, 1])
    for walk, first, last in (
        (both, made[0], made[1]),
        (held, made[0], swapped[1]),
        (told, made[0], swapped[0]),
    ):
        assert len(walk.stops) == len(walk.volumes) == STEPS
        np.testing.assert_allclose(walk.volumes[0], first, atol=1e-5)
        np.testing.assert_allclose(walk.volumes[-1], last, atol=1e-5)
    assert not np.allclose(both.volumes[0], both.volumes[-1], atol=1e-4)
    (alone,) = interpolations(model, [ROWS[0], ROWS[0]], SEED)
    assert alone.label == "sample 1 to sample 2"


def test_mixtures_of_one_sample_are_the_sample(run):
    model = load_stylist(run)
    made = samples(model, ROWS, [0, 1, 2])
    found = mixings(model, ROWS, SEED)
    stages = model.method.style_stages()
    assert [mixing.grid for mixing in found] == [stage.grid for stage in stages[1:]]
    for mixing in found:
        for k, row in enumerate(mixing.rows):
            np.testing.assert_allclose(row.volumes[k], made[k], atol=1e-5)
            other = (k + 1) % 3
            assert not np.allclose(row.volumes[other], made[k], atol=1e-5)
            assert not np.allclose(row.volumes[other], made[other], atol=1e-5)


def test_a_projected_scan_is_nearer_than_the_mean(run, tiny_cohort):
    cohort = PreparedCohort.read(tiny_cohort)
    model, steps = load_stylist(run), []
    found = projections(
        model, run, cohort, subjects=2, iterations=20, advance=lambda: steps.append(1)
    )
    scans, rows = cohort.volume_set("HOLD").volumes[:, 0], cohort.rows("HOLD")
    assert [p.name for p in found] == [f"sub-{rows.index[k]}" for k in (0, 3)]
    assert len(steps) == 2
    for p, k in zip(found, (0, 3)):
        np.testing.assert_allclose(p.scan, scans[k], atol=1e-4)
        errors = [float(np.square(arm - p.scan).mean()) for arm in (p.projected, p.mean)]
        assert errors[0] < 0.8 * errors[1]
        assert p.reach > 0
        own = Original.of(p.scan, run.grid.spacing_mm, p.name)
        assert p.scores["projection"] == paired_scores(own, p.projected)
        assert p.scores["mean styles"] == paired_scores(own, p.mean)
    few = projections(model, run, cohort, subjects=1, iterations=1)
    np.testing.assert_allclose(few[0].mean, found[0].mean, atol=1e-5)


def test_stages_name_their_layers_and_mixing_starts_there():
    method = build(shape=(8, 12))
    stages = method.style_stages()
    assert [(stage.grid, stage.first) for stage in stages] == [((4, 6), 0), ((8, 12), 1)]
    coarse, fine = torch.zeros(4, 8), torch.ones(3, 4, 8)
    mixed = mix(coarse, fine, stages[1])
    assert mixed.shape == (3, 4, 8)
    assert mixed[..., 0].tolist() == [[0, 1, 1, 1]] * 3
    assert not coarse.any()
    halves = between(coarse, fine[0], 3)
    assert halves[:, 0, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(("shape", "noise"), [((8, 12), "constant"), ((8, 4, 8), "none")])
def test_an_item_that_the_generator_made_is_found_again(shape, noise):
    method = build(shape, sampling_noise=noise)
    for parameter in method.networks["generator"].parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(2, 1, 8, generator=generator).repeat(1, 4, 1)
    own = start + torch.randn(2, 4, 8, generator=generator)
    items = method.from_styles(own)
    found, course = project(method, items, start, 150)
    before = distance(method.from_styles(start), items)
    after = distance(method.from_styles(found), items)
    assert (after < 0.05 * before).all()
    assert course[0] == pytest.approx(float(before.mean()), rel=1e-4)
    assert len(course) == 150
    alone, _ = project(method, items[1:], start[1:], 150)
    assert float(distance(method.from_styles(alone), items[1:])) < 0.05 * float(before[1])


def test_scores_of_a_darker_scan_are_known():
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 24, 20)), indexing="ij")
    radius = np.sqrt(sum((axis / 0.8) ** 2 for axis in axes))
    volume = np.select([radius < 0.7, radius < 1], [0.8, 0.5], 0).astype(np.float32)
    original = Original.of(volume, (8.0, 8.0, 8.0), "one")
    scores = paired_scores(original, volume * np.float32(0.9))
    assert scores["nrmse"] == pytest.approx(0.1, rel=1e-4)


def test_a_method_without_styles_is_refused(tiny_cohort, tmp_path):
    other = train(recipe("pca_gaussian"), tiny_cohort, tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match=r"no styles \(methods with styles: stylegan2\)"):
        load_stylist(other)
