"""Later scans beside a person's first."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tests.bids import bids_errors

from gyri import api
from gyri.cli import main
from gyri.cohort.derived import derive
from gyri.cohort.follow_up import pair_visits
from gyri.cohort.prepared import PreparedCohort, prepared_path
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError, UsageError
from gyri.recipe import load_recipe

RECIPE = """
name: later
view: {name: slab, neighbours: 1}
data: {channels: [T1w], context: [baselineT1w], sessions: all}
method: {name: flow, residual: baselineT1w, noise: 0.1, sampling: {num_steps: 2, clip: 0}}
networks: {denoiser: {widths: [8, 8], num_res_blocks: 1, attention: [false, false]}}
conditions: [interval, sex]
training: {steps: 2, batch_size: 4}
"""


@pytest.fixture(scope="module")
def visits(tiny_cohort, tmp_path_factory):
    """A cohort whose people came twice, years apart; everybody's neighbour is their past."""
    cohort = PreparedCohort.read(tiny_cohort)
    rows, files, people = [], {}, []
    for split in ("TRAIN", "HOLD"):
        own = cohort.table[cohort.table["split"] == split]
        for number, (subject, row) in enumerate(own.iterrows()):
            person, session = str(own.index[number // 2 * 2]), f"{number % 2 + 1}"
            people.append(person)
            age = 60.0 + number % 2 * (2 + number // 2)
            rows.append({**row, "session": session, "age": age})
            for channel in cohort.channels:
                source = cohort.path(str(subject), row["session"], channel)
                files[prepared_path(person, session, channel)] = source
    table = pd.DataFrame(rows, index=pd.Index(people, name="subject"))[cohort.table.columns]
    out = tmp_path_factory.mktemp("visits") / "prepared"
    return derive(cohort, out, table, files, name="Visits", about="Twice.", settings={}).root


@pytest.fixture(scope="module")
def pairs(visits, tmp_path_factory):
    return pair_visits(visits, tmp_path_factory.mktemp("pairs") / "out")


def test_every_later_scan_lies_beside_the_first(pairs, visits):
    before = PreparedCohort.read(visits)
    assert [channel.name for channel in pairs.channels] == ["T1w", "baselineT1w"]
    assert len(pairs.table) == len(before.table) // 2
    assert set(pairs.table["session"]) == {"2"}
    assert sorted(pairs.table["interval"]) == [2.0, 2.0, 3.0, 3.0, 4.0, 5.0]
    assert pairs.columns["interval"].unit == before.columns["age"].unit
    (first,), _ = pairs.load(pairs.table.iloc[:1])
    earlier = before.table[before.table["session"] == "1"].loc[[pairs.table.index[0]]]
    later = before.table[before.table["session"] == "2"].loc[[pairs.table.index[0]]]
    assert np.array_equal(first[1], before.load(earlier)[0][0, 0])
    assert np.array_equal(first[0], before.load(later)[0][0, 0])


def test_it_is_a_prepared_cohort_that_the_validator_takes(pairs):
    assert bids_errors(pairs.root) == []
    manifest = json.loads((pairs.root / "gyri-prepared.json").read_text())
    assert manifest["preparation"]["paired_by"] == "age"


def test_a_model_makes_later_scans_of_held_out_people(pairs, tmp_path):
    (tmp_path / "later.yaml").write_text(RECIPE)
    run = api.train(tmp_path / "later.yaml", pairs.root, tmp_path / "run")
    made, _ = api.sample(run.root, tmp_path / "out", num=2, like=pairs.root, split="HOLD")
    assert SyntheticCohort.read(made.root).volume_set().volumes.shape[0] == 2
    assert load_recipe("recipes/gyri/follow-up-4mm.yaml").conditions == ("age", "sex", "interval")


def test_what_cannot_be_paired_is_refused(visits, tiny_cohort, tmp_path, capsys):
    with pytest.raises(DataError, match="Nobody in .* another column with --time"):
        pair_visits(tiny_cohort, tmp_path / "none")
    with pytest.raises(UsageError, match="no column 'agee'. Did you mean 'age'"):
        pair_visits(visits, tmp_path / "none", "agee")
    with pytest.raises(UsageError, match="sex is no number"):
        pair_visits(visits, tmp_path / "none", "sex")
    assert main(["cohort", "follow-up", str(visits), "--out", str(tmp_path / "cli")]) == 0
    assert "6 later scans of 6 people" in capsys.readouterr().out
    with pytest.raises(UsageError, match="is not empty"):
        pair_visits(visits, tmp_path / "cli")
