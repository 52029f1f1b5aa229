from pathlib import Path

import pytest
import torch

from gyri.errors import DataError, UsageError
from gyri.recipe import build_view, load_recipe, parse_recipe
from gyri.registry import METHODS, NETWORKS
from gyri.types import ConditionLayout, Grid

GRID = Grid((8, 8, 8), ((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)))
MINIMAL = {
    "name": "x",
    "view": "slice",
    "method": "ddpm",
    "networks": {"denoiser": {"widths": [8, 8], "attention": [False, False]}},
    "training": {"steps": 3},
}


def test_yaml_round_trip_keeps_every_setting(tmp_path):
    recipe = parse_recipe({**MINIMAL, "conditions": ["age"], "seed": 4})
    path = tmp_path / "r.yaml"
    path.write_text(recipe.to_yaml())
    again = load_recipe(path)
    assert again.to_mapping() == recipe.to_mapping()
    assert again.sha256 == recipe.sha256
    assert again.networks["denoiser"].config.widths == (8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainning": {}}, "trainning: there is no such key. Did you mean 'training'"),
        ({"training": {"step": 3}}, "training.step: .*Did you mean 'steps'"),
        ({"method": {"name": "ddpm", "predicton": "v"}}, "method.predicton.*'prediction'"),
        ({"method": {"name": "dpm"}}, "no method 'dpm'. Did you mean 'ddpm'"),
        ({"view": "slices"}, "no view 'slices'. Did you mean 'slice'"),
        ({"networks": {"denoisr": {}}}, "networks.denoisr.*'denoiser'"),
        ({"networks": {"denoiser": {"width": [8]}}}, "networks.denoiser.width.*'widths'"),
        ({"method": {"name": "ddpm", "sampling": {"num_step": 3}}}, "sampling.num_step.*num_steps"),
        ({"method": {"name": "ddpm", "prediction": "x"}}, "method.prediction.*got 'x'"),
        ({"training": {"steps": "many"}}, "training.steps.*got 'many'"),
        ({"training": {}}, "exactly one of training.steps and training.budget_s"),
        ({"training": {"steps": 1, "batch_size": 0}}, "batch_size is 0"),
    ],
)
def test_wrong_keys_and_values_name_the_place_and_the_right_one(change, message):
    with pytest.raises(UsageError, match=message):
        parse_recipe({**MINIMAL, **change})


def test_missing_section_is_named():
    with pytest.raises(UsageError, match="no 'view'"):
        parse_recipe({k: v for k, v in MINIMAL.items() if k != "view"})


def test_overrides_are_read_as_yaml(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(parse_recipe(MINIMAL).to_yaml())
    recipe = load_recipe(
        path, ["training.steps=7", "networks.denoiser.widths=[8, 16]", "view.plane=coronal"]
    )
    assert recipe.training.steps == 7
    assert recipe.networks["denoiser"].config.widths == (8, 16)
    assert recipe.view.config.plane == "coronal"
    with pytest.raises(UsageError, match="not of the form"):
        load_recipe(path, ["training.steps"])
    with pytest.raises(UsageError, match="seed.*holds a value"):
        load_recipe(path, ["seed.x=1"])


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(DataError, match="There is no recipe"):
        load_recipe(tmp_path / "absent.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1")
    with pytest.raises(DataError, match="no valid YAML"):
        load_recipe(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(DataError, match="holds list"):
        load_recipe(path)


def test_needs_are_relative_to_the_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(parse_recipe(MINIMAL).to_yaml() + "\n")
    path.write_text(path.read_text().replace("needs: {}", "needs: {classifier: ../c.yaml}"))
    assert Path(load_recipe(path).needs["classifier"]) == tmp_path.parent / "c.yaml"


def test_needs_in_overrides_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    path = tmp_path / "r.yaml"
    path.write_text(parse_recipe(MINIMAL).to_yaml())
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    recipe = load_recipe(path, ["needs.classifier=run"])
    assert Path(recipe.needs["classifier"]) == here / "run"


RECIPES = Path(__file__).parents[1] / "recipes"
WIDE = Grid((32, 32, 32), GRID.affine)
"""A grid that every shipped generator of five doublings fits."""
SHIPPED = sorted(p for p in RECIPES.rglob("*.yaml") if p.parent.name != "prepare")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_builds_its_networks(path):
    recipe = load_recipe(path)
    view = build_view(recipe, len(recipe.data.channels), WIDE)
    layout = ConditionLayout(((0, 2),) if recipe.conditions else ())
    given = dict.fromkeys(recipe.data.context, len(recipe.data.channels))
    spec = view.item_spec(layout, num_train=4, context=given)
    kind = METHODS[recipe.method.name].component
    # Without content: the largest has half a billion weights.
    with torch.device("meta"):
        networks = {
            slot: NETWORKS[recipe.networks[slot].name].component(
                recipe.networks[slot].config, network_spec
            )
            for slot, network_spec in kind.network_specs(recipe.method.config, spec).items()
        }
    method = kind(recipe.method.config, spec, networks)
    assert recipe.name
    assert set(method.networks) == set(recipe.networks)
