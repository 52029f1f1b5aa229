"""Law 5: every metric worsens, monotonically, under the corruptions that it claims to see."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
import pytest

from gyri.errors import DataError
from gyri.evaluation.corruptions import CORRUPTIONS, LEVELS
from gyri.evaluation.metrics import Metric
from gyri.evaluation.selftest import (
    FILE,
    FOLDER,
    Response,
    SelfTest,
    claim,
    find_self_test,
    self_test,
)
from gyri.registry import METRICS

COARSE = {
    ("fd/spectrum-v1", "noise"): "two principal axes at 16 volumes",
}
"""Claims that 16 phantoms at 8 mm cannot show, and why; docs/results/self-test.md has scans."""


@pytest.fixture(scope="module")
def result(cohort) -> SelfTest:
    return self_test(
        cohort["generated"],
        cohort["TRAIN"],
        cohort["HOLD"],
        bootstrap=50,
        provenance={"data_hash": "abc", "cohort": "phantoms"},
    )


@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_claims_something_or_says_what_it_is_blind_to(name):
    metric: type[Metric] = METRICS[name].component
    assert metric.sees or metric.blind_to.strip(), (
        f"{name} declares neither `sees` (score keys -> corruptions, see gyri.evaluation.selftest) "
        "nor `blind_to` (in words)"
    )
    for pattern, claims in metric.sees.items():
        for entry in claims:
            assert entry[0] in "+-", f"{name}, {pattern}: {entry} needs the direction first"
            assert entry[1:] in CORRUPTIONS, f"{name}, {pattern}: no corruption {entry[1:]}"


@pytest.mark.parametrize("name", list(METRICS))
def test_claims_are_about_scores_that_exist(name, result):
    metric: type[Metric] = METRICS[name].component
    responses = [r for r in result.responses if r.metric == name]
    own = {r.key for r in responses}
    if not own:
        assert name in {r.metric for r in result.refused} or not metric.default
        return
    if np.isnan([r.values for r in responses]).all():
        return  # so few phantoms that it says "not judged" of every score
    for pattern in metric.sees:
        optional = any(p.isdigit() for p in pattern.rpartition("-v")[2:])
        assert optional or any(fnmatchcase(key, pattern) for key in own), (name, pattern, [*own])


@pytest.mark.parametrize("name", list(METRICS))
def test_every_claim_holds_on_phantoms(name, result):
    failed = {
        (r.key, r.corruption): r.values
        for r in result.responses
        if r.metric == name and r.holds is False and (r.key, r.corruption) not in COARSE
    }
    assert not failed, failed


def test_scores_listed_as_too_coarse_are_so(result):
    failed = {(r.key, r.corruption) for r in result.responses if r.holds is False}
    assert set(COARSE) <= failed, "remove what holds from COARSE"


def test_every_score_is_judged_under_every_corruption(result):
    keys = {r.key for r in result.responses}
    assert len(result.responses) == len(keys) * len(CORRUPTIONS)
    assert all(len(r.values) == LEVELS + 1 for r in result.responses)
    assert {"kid/morph-v1", "coherence/plateau", "components"} <= keys


def test_gross_faults_leave_the_interval_of_real_scans(result):
    found = {(r.key, r.corruption): r for r in result.responses}
    assert found["kid/spectrum-v1", "blur"].seen_from <= 3
    assert found["kid/spectrum-v1", "blur"].effect == "worse"
    assert found["coherence/plateau", "repetition"].effect == "moved"


def test_a_file_keeps_everything(result, tmp_path):
    path = result.write(tmp_path / FOLDER)
    assert path.name == FILE
    again = SelfTest.read(path)
    assert again.to_dict() == result.to_dict()
    assert find_self_test(tmp_path, "abc").n == result.n
    assert find_self_test(tmp_path, "other voxels") is None
    assert find_self_test(tmp_path / "none", "abc") is None


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "gyri-self-test-0"}', "{}"])
def test_another_file_is_refused(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(DataError, match="gyri evaluate self-test"):
        SelfTest.read(tmp_path / FILE)


def respond(values: list[float], claimed: str = "+", **changes) -> Response:
    given = {"key": "k", "metric": "kid", "features": None, "label": "", "better": "lower"}
    given |= {"corruption": "blur", "low": 0.0, "high": 1.5}
    return Response(values=tuple(values), claimed=claimed, **(given | changes))


@pytest.mark.parametrize(
    ("values", "moves"),
    [
        ([1, 2, 3, 4, 5, 6], "+"),
        ([1, 2, 3, 4, 6, 5], "+"),  # one exchange: rho = 0.94
        ([1, 2, 5, 4, 3, 6], ""),  # rho = 0.77
        ([1, 0.5, 0, 0, 0, 0], "-"),  # saturated: rho = -0.85, no step back
        ([1, 1, 1, 1, 1, 1], ""),
        ([0, 0, 0, 0, 0, 1], "+"),
        ([1, 2, 3, 4, 5, float("nan")], ""),
    ],
)
def test_monotone(values, moves):
    assert respond(values).moves == moves
    assert respond(values).holds is (moves == "+")
    assert respond(values, "").holds is None
    assert respond(values, reliable=False).holds is None


def test_what_a_movement_says():
    up = [1.0, 2, 3, 4, 5, 6]
    assert respond(up).effect == "worse"
    assert respond(up, better="higher").effect == "better"
    assert respond(up, better="near").effect == "moved"
    assert respond(up).seen_from == 1
    assert respond(up, high=3.5).seen_from == 3
    assert respond(up, high=9.0).seen_from is None
    assert respond(up, low=float("nan")).seen_from is None


def test_claims_of_all_patterns_add_up():
    class Some(Metric):
        sees: ClassVar = {"a/*": ("+blur",), "a/b": ("-noise",)}

    assert claim(Some, "a/b", "blur") == "+"
    assert claim(Some, "a/b", "noise") == "-"
    assert claim(Some, "a/c", "noise") == ""
    assert claim(Some, "b", "blur") == ""


def test_too_few_and_shared_subjects_are_refused(cohort):
    few = cohort["generated"].take(np.arange(5))
    with pytest.raises(DataError, match="at least 10"):
        self_test(few, cohort["TRAIN"], cohort["HOLD"])
    with pytest.raises(DataError, match="disjoint"):
        self_test(replace(cohort["TRAIN"], name="x"), cohort["TRAIN"], cohort["HOLD"])
