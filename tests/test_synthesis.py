"""Sampling a run into a synthetic cohort."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from tests.bids import bids_errors
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cohort.synthetic import SWEEP_BASE, SyntheticCohort
from gyri.errors import DataError, UsageError
from gyri.synthesis import sweep_values
from gyri.training.run import Run, train


@pytest.fixture(scope="module")
def run(tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(recipe("pca_gaussian"), tiny_cohort, folder, quiet=True).root


def test_samples_are_a_bids_derivative_that_says_what_it_is(run, tmp_path):
    cohort, warnings = api.sample(run, tmp_path / "s", num=2, condition={"age": "50", "sex": "F"})
    assert warnings == []
    assert bids_errors(tmp_path / "s") == []
    path = next((tmp_path / "s").rglob("sub-syn0001*_T1w.nii.gz"))
    image = nib.load(path)
    assert image.shape == (20, 24, 20)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert 0 <= image.get_fdata().min() <= image.get_fdata().max() <= 1
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Synthetic"] is True
    assert sidecar["Conditions"] == {"age": 50.0, "sex": "F"}
    assert cohort.table.loc["syn0001", "sex"] == "F"
    described = json.loads((tmp_path / "s" / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"


def test_the_same_request_goes_on_and_makes_only_what_is_lost(run, tmp_path):
    cohort, _ = api.sample(run, tmp_path / "a", num=3)
    before = cohort.volume_set().volumes
    written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.nii.gz")}
    next((tmp_path / "a").rglob("*syn0002*.json")).unlink()
    again, _ = api.sample(run, tmp_path / "a", num=3, batch=1)
    now = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.nii.gz")}
    assert [name for name in now if now[name] != written[name]] == [
        "sub-syn0002_desc-synthetic_T1w.nii.gz"
    ]
    # Matrix products of other sizes round differently in the last bits.
    assert np.allclose(again.volume_set().volumes, before, atol=1e-4)


def test_sample_k_does_not_depend_on_how_many_are_made(run, tmp_path):
    few, _ = api.sample(run, tmp_path / "few", num=2)
    many, _ = api.sample(run, tmp_path / "many", num=5)
    # Matrix products of other sizes round differently in the last bits.
    assert np.allclose(few.volume_set().volumes, many.volume_set().volumes[:2], atol=1e-4)


def test_another_request_into_the_same_folder_is_refused(run, tmp_path):
    api.sample(run, tmp_path / "a", num=2)
    with pytest.raises(UsageError, match="made otherwise.*seed"):
        api.sample(run, tmp_path / "a", num=2, seed=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        api.sample(run, tmp_path / "full", num=2)


def test_conditions_that_the_model_cannot_follow(run, tmp_path):
    with pytest.raises(UsageError, match="no condition 'agee'.*'age'"):
        api.sample(run, tmp_path / "a", num=1, condition={"agee": "70"})
    with pytest.raises(UsageError, match="sex='X' was never seen.*F, M"):
        api.sample(run, tmp_path / "a", num=1, condition={"sex": "X"})
    with pytest.raises(UsageError, match="Give one of"):
        api.sample(run, tmp_path / "a", condition={"sex": "F"}, like=tmp_path)
    _, warnings = api.sample(run, tmp_path / "old", num=1, condition={"age": "140"})
    assert "outside the range" in warnings[0]


def test_a_table_gives_one_sample_a_row(run, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("age,sex\n30,F\n60,M\n,F\n")
    cohort, _ = api.sample(run, tmp_path / "a", conditions=table)
    assert [row[1] for row in cohort.facts["conditions"]] == ["F", "M", "F"]
    assert cohort.facts["conditions"][2][0] is None
    table.write_text("age\n30\n")
    with pytest.raises(DataError, match="no column sex"):
        api.sample(run, tmp_path / "b", conditions=table)
    table.write_text("age,sex\n30,F\n")
    with pytest.raises(UsageError, match="1 rows and 5 samples"):
        api.sample(run, tmp_path / "b", conditions=table, num=5)


def test_like_draws_from_the_mix_of_a_split(run, tiny_cohort, tmp_path):
    from gyri.cohort.prepared import PreparedCohort

    cohort, _ = api.sample(run, tmp_path / "a", num=4, like=tiny_cohort, split="HOLD")
    ages = set(PreparedCohort.read(tiny_cohort).rows("HOLD")["age"])
    assert {row[0] for row in cohort.facts["conditions"]} <= ages | {None}


def test_older_samples_have_larger_ventricles_when_age_is_asked_for(tiny_cohort, run, tmp_path):
    young, _ = api.sample(run, tmp_path / "y", num=4, condition={"age": "25", "sex": "F"})
    old, _ = api.sample(run, tmp_path / "o", num=4, condition={"age": "85", "sex": "F"})
    centre = (slice(None), 0, slice(8, 12), slice(9, 15), slice(9, 13))
    young_level = young.volume_set().volumes[centre].mean()
    assert old.volume_set().volumes[centre].mean() < young_level


def test_a_folder_that_holds_no_samples(tmp_path):
    with pytest.raises(DataError, match="no synthetic data set"):
        SyntheticCohort.read(tmp_path)


def test_a_broken_sample_is_named(run, tmp_path):
    cohort, _ = api.sample(run, tmp_path / "a", num=2)
    path = next((tmp_path / "a").rglob("*syn0002*.nii.gz"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="syn0002"):
        cohort.volume_set()


def test_a_sweep_changes_one_condition_and_nothing_else(run, tmp_path):
    swept, _ = api.sample(run, tmp_path / "a", num=2, sweep="age=30:80:3")
    plain, _ = api.sample(run, tmp_path / "b", num=2)
    table = swept.table
    assert list(table[SWEEP_BASE]) == ["base0001"] * 3 + ["base0002"] * 3
    assert list(table["age"].astype(float)) == [30.0, 55.0, 80.0] * 2
    assert (table["sex"].to_numpy()[::3] == plain.table["sex"].to_numpy()).all()
    assert (table.groupby(SWEEP_BASE)["sex"].nunique() <= 1).all()
    assert swept.facts["sweep"] == {"column": "age", "values": [30.0, 55.0, 80.0], "bases": 2}
    sidecars = sorted((tmp_path / "a").rglob("*_T1w.json"))
    seeds = [json.loads(path.read_text())["Seed"] for path in sidecars]
    other = [json.loads(p.read_text())["Seed"] for p in sorted((tmp_path / "b").rglob("*w.json"))]
    assert seeds == [other[0]] * 3 + [other[1]] * 3
    assert bids_errors(tmp_path / "a") == []


def test_a_sweep_through_the_age_that_a_sample_had_gives_that_sample(run, tmp_path):
    plain, _ = api.sample(run, tmp_path / "a", num=1, condition={"age": "55", "sex": "F"})
    swept, _ = api.sample(
        run, tmp_path / "b", num=1, condition={"sex": "F"}, sweep="age=30:80:3", batch=1
    )
    assert np.allclose(plain.volume_set().volumes[0], swept.volume_set().volumes[1], atol=1e-4)
    assert not np.allclose(*swept.volume_set().volumes[:2], atol=1e-2)


def test_all_levels_are_swept_unless_some_are_named(run):
    schema = Run.read(run).schema
    assert sweep_values(schema, "sex") == ("sex", ["F", "M"])
    assert sweep_values(schema, "sex=M,F") == ("sex", ["M", "F"])
    assert sweep_values(schema, "age=20,71.5") == ("age", [20.0, 71.5])


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("aeg=20:90:8", "no condition 'aeg' to sweep.*'age'"),
        ("age=20:90", "'20:90' is no number"),
        ("age=20:90:1", "FIRST:LAST:COUNT"),
        ("age=old:90:8", "FIRST:LAST:COUNT"),
        ("age", "0 different values"),
        ("age=40", "1 different values"),
        ("sex=F,F", "1 different values"),
        ("sex=F,X", "sex='X' was never seen"),
    ],
)
def test_sweeps_that_cannot_be(run, sweep, reason):
    with pytest.raises(UsageError, match=reason):
        sweep_values(Run.read(run).schema, sweep)
