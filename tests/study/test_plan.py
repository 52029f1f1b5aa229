from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tests.contracts.tiny import UNET

from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError
from gyri.registry import METHODS
from gyri.sampling.draw import SamplingConfig, draw_volumes
from gyri.sampling.samplers import make_sampler
from gyri.sampling.schedules import karras_levels
from gyri.study.plan import load_study, trials

PCA = {
    "name": "pca",
    "view": "volume",
    "method": {"name": "pca_gaussian", "components": 6},
    "conditions": ["age", "sex"],
    "training": {"steps": 1},
}
DDPM = {
    "name": "ddpm",
    "view": "slice",
    "method": {"name": "ddpm", "sampling": {"num_steps": 2}},
    "networks": {"denoiser": UNET},
    "conditions": ["age", "sex"],
    "training": {"steps": 5, "batch_size": 4},
}
COARSE = {**DDPM, "name": "coarse", "view": {"name": "low_rank", "components": 2}} | {
    "method": {"name": "ddpm", "prediction": "edm", "sampling": {"num_steps": 2, "clip": 0}},
    "networks": {"denoiser": {"name": "dense_denoiser", "width": 8}},
}
DETAIL = {**DDPM, "name": "detail", "view": {"name": "detail", "slab": {"neighbours": 1}}} | {
    "needs": {"coarse": "coarse.yaml"},
    "method": {"name": "flow", "residual": "coarse", "sampling": {"sampler": "euler"}},
}
STUDY = {
    "name": "tiny",
    "protocol": {"steps": 2, "num": 8, "network_calls": 2, "judge": {"bootstrap": 20}},
    "rows": [{"name": "pca", "recipe": "pca.yaml"}, {"name": "ddpm", "recipe": "ddpm.yaml"}],
}


def write(folder, **changes):
    for recipe in (PCA, DDPM, COARSE, DETAIL):
        path = folder / f"{recipe['name']}.yaml"
        if not path.exists():
            path.write_text(yaml.safe_dump(recipe))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


def rows(*changes):
    return [{"name": "pca", "recipe": "pca.yaml", **change} for change in changes]


def protocol(**changes):
    return {**STUDY["protocol"], **changes}


def test_rows_get_the_protocols_budget_and_fitted_rows_none(tmp_path):
    study = load_study(write(tmp_path))
    assert study.recipes["ddpm"].training.steps == 2
    assert study.recipes["pca"].training.steps == 1
    assert dict(study.calls) == {"pca": 0, "ddpm": 2}


def test_a_budget_given_by_hand_scales_rows_with_their_own(tmp_path):
    own = [*STUDY["rows"], {"name": "own", "recipe": "ddpm.yaml", "budget_s": 200}]
    path = write(
        tmp_path,
        protocol={**{k: v for k, v in STUDY["protocol"].items() if k != "steps"}, "budget_s": 100},
        rows=own,
    )
    assert load_study(path).recipes["own"].training.budget_s == 200
    scaled = load_study(path, budget_s=10)
    assert scaled.recipes["ddpm"].training.budget_s == 10
    assert scaled.recipes["own"].training.budget_s == 20


def test_seeds_given_by_hand_stand_for_the_protocols(tmp_path):
    own = [*STUDY["rows"], {"name": "own", "recipe": "ddpm.yaml", "seeds": [7]}]
    study = load_study(write(tmp_path, rows=own), seeds=(1, 2))
    seeds = {row.name: row.seeds or study.protocol.seeds for row in study.rows}
    assert seeds == {"pca": (1, 2), "ddpm": (1, 2), "own": (7,)}
    with pytest.raises(UsageError, match="different numbers"):
        load_study(tmp_path / "study.yaml", seeds=(1, 1))


def detail(**needs):
    return [{"name": "detail", "recipe": "detail.yaml", "needs": needs, "steps": 10}]


def test_what_a_row_needs_may_share_its_budget(tmp_path, tiny_cohort):
    path = write(tmp_path, rows=detail(coarse=0.3), protocol=protocol(network_calls=13))
    study = load_study(path)
    assert study.recipes["detail"].training.steps == 7
    assert study.needed["detail"]["coarse"].training.steps == 3
    (trial,) = trials(study, study.rows, PreparedCohort.read(tiny_cohort))
    assert trial.needed["coarse"].seed == trial.seed
    other = load_study(
        write(tmp_path, rows=detail(coarse=0.4), protocol=protocol(network_calls=13))
    )
    (another,) = trials(other, other.rows, PreparedCohort.read(tiny_cohort))
    assert trial.keys["train"] != another.keys["train"]


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"coarse": 1.2}, "less than 1 together"),
        ({"teacher": 0.2}, "needs coarse, and no 'teacher'"),
    ],
)
def test_wrong_shares_are_refused(tmp_path, needs, message):
    with pytest.raises(UsageError, match=message):
        load_study(write(tmp_path, rows=detail(**needs), protocol=protocol(network_calls=13)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocl": {}}, "protocl: there is no such key. Did you mean 'protocol'"),
        ({"protocol": protocol(nim=3)}, "protocol.nim: .*Did you mean 'num'"),
        ({"protocol": protocol(judge={"bootstrp": 3})}, "judge.bootstrp.*'bootstrap'"),
        ({"protocol": protocol(choose={"checkpoint": 3})}, "checkpoint.*'checkpoints'"),
        ({"protocol": protocol(budget_s=3)}, "exactly one of protocol.budget_s and"),
        ({"protocol": protocol(seeds=[1, 1])}, "give different numbers"),
        ({"rows": rows({"recpe": "x"})}, "rows.pca.recpe.*'recipe'"),
        ({"rows": rows({}, {})}, "pca comes twice"),
        ({"rows": rows({"name": "A b"})}, "a row's name is its folder"),
        ({"rows": rows({"overrides": ["method.component=3"]})}, "rows.pca: .*'components'"),
        ({"rows": rows({"recipe": "ddpm.yaml", "sampling": {"num_step": 2}})}, "'num_steps'"),
        ({"rows": []}, "the study has no rows"),
    ],
)
def test_wrong_keys_and_values_name_the_place(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        load_study(write(tmp_path, **changes))


def test_files_that_are_no_study(tmp_path):
    with pytest.raises(DataError, match="There is no study"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(DataError, match="There is no recipe"):
        load_study(write(tmp_path, rows=rows({"recipe": "absent.yaml"})))
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(DataError, match="holds list"):
        load_study(tmp_path / "list.yaml")


def test_iterative_rows_take_the_protocols_calls_unless_they_are_faithful(tmp_path):
    row = {"name": "ddpm", "recipe": "ddpm.yaml", "sampling": {"num_steps": 9}}
    with pytest.raises(UsageError, match=r"9 times .* `sampling: \{num_steps: 2\}`"):
        load_study(write(tmp_path, rows=[row]))
    study = load_study(write(tmp_path, rows=[{**row, "faithful": True}]))
    assert study.calls["ddpm"] == 9
    few = {**row, "sampling": {"num_steps": 1}}
    with pytest.raises(UsageError, match="calls the network 1 times"):
        load_study(write(tmp_path, rows=[few]))
    heun = {**row, "sampling": {"num_steps": 3, "sampler": "heun"}}
    study = load_study(write(tmp_path, rows=[heun], protocol=protocol(network_calls=6)))
    assert study.calls["ddpm"] == 5


class Volumes:
    volume_shape = (1, 4, 4, 4)
    slice_axis = None
    lifts = True

    def encode(self, volumes):
        from gyri.types import Items

        return Items(volumes)

    def decode(self, items):
        return items


@pytest.mark.parametrize("name", ["dpmpp_2m", "ddim", "ancestral", "heun", "euler"])
def test_counted_calls_are_those_that_the_sampler_makes(name):
    from gyri.runtime.streams import SampleRng

    config = SamplingConfig(sampler=name, num_steps=7)
    make_sampler(name, 0.0, config.noise)
    asked = []

    def denoise(x_noised, level, condition, position):
        asked.append(len(x_noised))
        return x_noised * 0

    draw_volumes(
        denoise,
        Volumes(),
        torch.zeros(1, 0),
        karras_levels(7, 0.01, 10.0, 7.0),
        config,
        SampleRng(torch.tensor([1])),
    )
    assert len(asked) == config.network_calls


def test_guidance_asks_the_network_twice():
    assert SamplingConfig(num_steps=5, guidance_scale=2.0).network_calls == 10


def test_a_row_that_is_not_there_is_named_with_the_nearest(tmp_path):
    study = load_study(write(tmp_path))
    assert [row.name for row in study.select(["ddpm"])] == ["ddpm"]
    with pytest.raises(UsageError, match="no row 'ddmp'. Did you mean 'ddpm'"):
        study.select(["ddmp"])


def test_a_key_changes_with_what_decides_its_stage_and_no_earlier(tmp_path, tiny_cohort):
    cohort = PreparedCohort.read(tiny_cohort)

    def keys(**changes):
        study = load_study(write(tmp_path, **changes))
        return {t.name: t.keys for t in trials(study, study.rows, cohort)}

    def changed(after, name):
        return [stage for stage in before[name] if before[name][stage] != after[name][stage]]

    before = keys()
    assert keys() == before
    judged = keys(protocol=protocol(judge={"bootstrap": 30}))
    assert changed(judged, "ddpm/seed-0") == ["judge"]
    sampled = keys(protocol=protocol(num=9))
    assert changed(sampled, "ddpm/seed-0") == ["sample", "judge"]
    trained = keys(
        rows=[STUDY["rows"][0], {**STUDY["rows"][1], "overrides": ["view.plane=coronal"]}]
    )
    assert changed(trained, "ddpm/seed-0") == ["train", "choose", "sample", "judge"]
    assert changed(trained, "pca/seed-0") == []
    aged = replace(cohort, table=cohort.table.assign(age=1.0))
    study = load_study(write(tmp_path))
    other = {t.name: t.keys for t in trials(study, study.rows, aged)}
    assert changed(other, "pca/seed-0") == ["train", "choose", "sample", "judge"]


def test_keys_hold_what_a_row_needs_and_not_where_it_lies(tmp_path, tiny_cohort):
    cohort = PreparedCohort.read(tiny_cohort)

    def keys(folder):
        folder.mkdir(exist_ok=True)
        row = {"name": "detail", "recipe": "detail.yaml", "needs": {"coarse": 0.5}}
        study = load_study(write(folder, rows=[row], protocol=protocol(network_calls=13)))
        return trials(study, study.rows, cohort)[0].keys

    here = keys(tmp_path / "here")
    assert keys(tmp_path / "there") == here
    coarse = tmp_path / "there" / "coarse.yaml"
    coarse.write_text(coarse.read_text().replace("components: 2", "components: 3"))
    assert keys(tmp_path / "there")["train"] != here["train"]


def test_first_all_rows_with_one_seed_then_with_the_next(tmp_path, tiny_cohort):
    study = load_study(write(tmp_path, protocol=protocol(seeds=[0, 1])))
    found = trials(study, study.rows, PreparedCohort.read(tiny_cohort))
    assert [t.name for t in found] == ["pca/seed-0", "ddpm/seed-0", "pca/seed-1", "ddpm/seed-1"]
    assert [t.recipe.seed for t in found] == [0, 0, 1, 1]


STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_shipped_study_and_its_recipes_parse(path):
    study = load_study(path)
    assert all(study.recipes[row.name].method.name in METHODS for row in study.rows)
    assert all(row.family and row.label for row in study.rows)
    shared = [r.name for r in study.rows if not (r.faithful or r.network_calls)]
    assert len({study.calls[name] for name in shared if study.calls[name] > 1}) <= 1
    assert all(study.calls[r.name] == r.network_calls for r in study.rows if r.network_calls)
