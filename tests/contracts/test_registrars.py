"""Law: a registration brings its template nearer to people it has not seen, without folds."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.test_samplers import phantom_cohort

from gyri.capabilities import Registrar, capabilities
from gyri.cohort.prepared import PreparedCohort
from gyri.nn.deformation import folded, warp
from gyri.nn.local_correlation import local_correlation
from gyri.recipe import parse_recipe
from gyri.registry import METHODS
from gyri.training.data import load_split
from gyri.training.run import train

REGISTRARS = [name for name in METHODS if "Registrar" in capabilities(METHODS[name].component)]
WINDOW = 5
"""Voxels of 8 mm; in windows of 9 there is hardly a local contrast left."""
MAX_FOLDED = 1e-3
DOWN = {"down": [8, 16, 16], "up": [16, 16, 16], "last": [8]}
REGISTRATION = {"window": WINDOW, "smoothness": 0.1}
PHANTOMS = {
    "voxelmorph": {
        "method": {
            "name": "voxelmorph",
            "optimiser": {"lr": 3e-3, "final_lr": 0.1},
            **REGISTRATION,
        },
        "networks": {"registration": DOWN},
        "training": {"steps": 250, "batch_size": 4},
    },
    "diffusemorph": {
        "method": {
            "name": "diffusemorph",
            "optimiser": {"lr": 2e-3, "clip_norm": 1.0, "final_lr": 0.1},
            "registration_weight": 300.0,
            **REGISTRATION,
        },
        "networks": {
            "score": {
                "patch": 2,
                "widths": [16, 16],
                "num_res_blocks": 1,
                "attention": [False, False],
            },
            "deformation": DOWN,
        },
        "training": {"steps": 600, "batch_size": 2},
    },
}


def test_every_registrar_is_under_the_law():
    assert set(REGISTRARS) == set(PHANTOMS)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    return phantom_cohort(root, 38, TRAIN=28, VAL=1, HOLD=8, TEST=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", REGISTRARS)
def test_a_registrar_brings_the_template_nearer_to_held_out_people(name, phantoms, tmp_path):
    recipe = parse_recipe({"name": name, "view": "volume", **PHANTOMS[name]})
    run = train(recipe, phantoms, tmp_path / "run", quiet=True)
    method = run.load(torch.device("cpu")).method
    assert isinstance(method, Registrar)
    people = load_split(PreparedCohort.read(phantoms), "HOLD", recipe.data, torch.device("cpu"))[:]
    u = method.displacement(method.field(people))
    alike = local_correlation(warp(method.template, u), people, WINDOW)
    before = local_correlation(method.template.expand_as(people), people, WINDOW)
    assert (alike > before).all()
    if method.form == "velocity":
        assert folded(u).float().mean() < MAX_FOLDED
