from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.people import people

from gyri.cohort.phantom import phantom_volumes
from gyri.evaluation.corruptions import LEVELS, corrupt
from gyri.evaluation.metrics import Evidence, Refusal, Study
from gyri.evaluation.metrics.by_level import DRAWS, LEAST, FrechetByLevel, draw_distances
from gyri.evaluation.metrics.frechet import frechet_distance, train_axes
from gyri.evaluation.protocol import Judge
from gyri.evaluation.selftest import Response, claim


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(people(120, seed=1), people(100, seed=2), 128, resamples=100)


@pytest.fixture(scope="module")
def made() -> Evidence:
    return people(128, seed=3)


def scores(evidence: Evidence, study: Study) -> dict:
    return {s.key.removeprefix("fd_by_level/"): s for s in FrechetByLevel().scores(evidence, study)}


def with_columns(evidence: Evidence, **columns) -> Evidence:
    table = evidence.volumes.table.assign(**columns)
    return replace(evidence, volumes=replace(evidence.volumes, table=table))


def level_rows(evidence: Evidence, column: str, name: str) -> np.ndarray:
    return np.flatnonzero(evidence.volumes.table[column] == name)


def test_draws_of_everybody_are_the_plain_distance():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 5)) + 0.5
    found = draw_distances(x, y, 40, 3, rng)
    np.testing.assert_allclose(found, frechet_distance(x, y), rtol=1e-9)


def test_a_shifted_copy_costs_its_square():
    x, shift = np.random.default_rng(1).standard_normal((30, 4)), np.array([1.0, 0, -2, 0.5])
    found = draw_distances(x, x + shift, 30, 2, np.random.default_rng(2))
    np.testing.assert_allclose(found, shift @ shift, rtol=1e-7)


def test_every_level_is_cut_to_the_same_n(study, made):
    found = scores(made, study)
    for column, names in (("sex", "FM"), ("scanner", "AB")):
        sizes = [
            len(level_rows(e, column, name))
            for e in (study.train, study.hold, made)
            for name in names
        ]
        own = [found[f"radiomics-v1/{column}={name}"] for name in names]
        assert all(f"n={min(sizes)}/{min(sizes)}]" in s.name for s in own)
        assert all(len(s.draws) == DRAWS and s.value == np.mean(s.draws) for s in own)
    assert not any("age" in key or "shoe" in key for key in found)


def test_the_smaller_n_of_one_level_does_not_make_it_look_worse(study):
    """A rare level has a larger distance at its own n, and not at the common one."""
    made = people(400, seed=4)
    men = level_rows(made, "sex", "M")
    kept = np.sort(np.concatenate([level_rows(made, "sex", "F"), men[:12]]))
    found = scores(made.take(kept), study)
    axes = train_axes("radiomics-v1", study)
    own = {}
    for name in "FM":
        rows = kept[np.isin(kept, level_rows(made, "sex", name))]
        x = study.hold.features["radiomics-v1"][level_rows(study.hold, "sex", name)]
        own[name] = frechet_distance(x @ axes, made.features["radiomics-v1"][rows] @ axes)
    assert own["M"] > 1.4 * own["F"]
    level = {name: found[f"radiomics-v1/sex={name}"] for name in "FM"}
    assert level["M"].value < 1.3 * level["F"].value
    assert level["M"].low < level["F"].value < level["M"].high


def test_a_level_that_is_followed_beats_the_other_levels_and_one_that_is_ignored_does_not(study):
    key = "morph-v1/scanner=A"  # the scanner moves one of morph-v1's features by two SD
    followed = scores(people(128, seed=5), study)[key]
    swapped = people(128, seed=5)
    other = {"A": "B", "B": "A"}
    labels = swapped.volumes.table["scanner"].map(other)
    ignored = scores(with_columns(swapped, scanner=labels), study)[key]
    assert followed.high < followed.anchors["other_levels"]
    assert ignored.value == pytest.approx(ignored.anchors["other_levels"], rel=0.25)
    assert followed.anchors["ceiling"] < followed.high


def test_intervals_hold_the_mean_and_are_wider_than_the_draws_alone(study, made):
    for score in scores(made, study).values():
        assert score.low <= score.value <= score.high
        assert score.high - score.low > 2 * np.std(score.draws) / np.sqrt(DRAWS)
        assert f"SD over draws {np.std(score.draws, ddof=1):.2g}" in score.note


def test_a_level_with_too_few_is_named_and_does_not_cut_the_others(study, made):
    rare = made.volumes.table["scanner"].to_numpy(object).copy()
    rare[:4] = "C"
    found = scores(with_columns(made, scanner=rare), study)
    assert np.isnan(found["scanner=C"].value)
    assert f"HOLD 0, samples 4; {LEAST} are needed" in found["scanner=C"].note
    assert "radiomics-v1/scanner=C" not in found
    assert int(found["radiomics-v1/scanner=A"].name.split("n=")[-1].split("/")[0]) > 30


def test_one_usable_level_is_not_judged(study, made):
    found = scores(with_columns(made, sex="F"), study)
    assert "no other level of sex" in found["sex=F"].note


def test_few_rows_are_measured_on_few_axes(study, made):
    assert all("p=6," in s.name for key, s in scores(made, study).items() if "morph" in key)
    men = level_rows(made, "sex", "M")
    less = scores(made.take(np.sort(np.r_[level_rows(made, "sex", "F"), men[:20]])), study)
    assert "p=5," in less["morph-v1/sex=F"].name
    assert "p=6," in less["morph-v1/scanner=A"].name
    assert all(score.reliable for score in less.values())


def test_sets_without_levels_are_refused(study, made):
    bare = replace(made, volumes=replace(made.volumes, table=made.volumes.table[["age"]]))
    with pytest.raises(Refusal, match="no categorical condition"):
        FrechetByLevel().scores(bare, study)


@pytest.mark.slow
def test_claims_hold_on_phantoms():
    volumes = phantom_volumes(150, seed=21, spacing_mm=8.0)
    stops = (0, 50, 100, 150)
    train, hold, generated = (
        volumes.take(np.arange(a, b), name)
        for name, a, b in zip(("TRAIN", "HOLD", "generated"), stops, stops[1:])
    )
    judge = Judge(train, hold, 50, 0, None, 50, None, features=["radiomics-v1"])
    judge.metrics = ["fd_by_level"]
    found, refused = judge.scores(judge.evidence(generated), [])
    assert not refused
    claimed = [s for s in found if s.features == "radiomics-v1"]
    assert {s.key.rpartition("/")[2] for s in claimed} >= {"sex=F", "sex=M"}
    for name in ("blur", "noise", "clipping"):
        levels = [found]
        plain = judge.study.without_intervals()
        for severity in range(1, LEVELS + 1):
            evidence = judge.evidence(corrupt(generated, name, severity))
            levels.append(FrechetByLevel().scores(evidence, plain))
        for score in claimed:
            values = tuple({s.key: s.value for s in level}[score.key] for level in levels)
            sign = claim(FrechetByLevel, score.key, name)
            response = Response(
                score.key, "fd_by_level", score.features, "", "lower", name, values, 0, 1, sign
            )
            assert response.holds, (score.key, name, values)
