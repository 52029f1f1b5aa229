import numpy as np
import pytest
from tests.study.sheets import sheet

from gyri.study.results import (
    cost,
    differences,
    distance_from_good,
    heading,
    mean_interval,
    summary,
    union_s,
)


def done(seed, **values):
    content = sheet(**values).to_dict()
    scores = {score["key"]: score for score in content["scores"]}
    return {"seed": seed, "state": "done", "scores": scores, "gates": content["gates"]}


def row(name, *trials):
    return {"name": name, "trials": list(trials)}


def test_the_union_of_spans_counts_overlaps_once():
    assert union_s([(0, 2), (1, 3), (5, 6), (5.5, 5.8), (9, 8)]) == 4
    assert union_s([]) == 0


def test_the_mean_and_its_interval_are_students():
    mean, low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert high - mean == pytest.approx(4.302653 / np.sqrt(3), rel=1e-5)
    assert mean - low == pytest.approx(high - mean)
    assert mean_interval(np.array([1.0, 2.0])) == (1.5, None, None)


def test_one_seed_keeps_the_sheets_interval_and_several_make_their_own():
    one = summary([done(0, kid=3.0)])["kid/morph-v1"]
    assert (one["value"], one["low"], one["high"]) == (3.0, 2.5, 3.5)
    three = summary([done(s, kid=k) for s, k in enumerate((1.0, 2.0, 3.0))])["kid/morph-v1"]
    assert three["value"] == 2.0
    assert three["low"] < 0 < 4 < three["high"]
    assert summary([]) == {}


def test_a_score_that_one_seed_lacks_is_left_out():
    less = done(1)
    del less["scores"]["coverage/morph-v1"]
    assert set(summary([done(0), less])) == {"kid/morph-v1", "msssim/delta"}


def test_scores_count_from_their_goal():
    scores = {s["key"]: s for s in sheet().to_dict()["scores"]}
    assert distance_from_good(scores["kid/morph-v1"], 2.0, None) == 2.0
    assert distance_from_good(scores["coverage/morph-v1"], 0.5, None) == -0.5
    near = scores["msssim/delta"]
    assert distance_from_good(near, -0.2, None) == pytest.approx(0.2)
    assert distance_from_good({**near, "target": None}, 0.5, 0.4) == pytest.approx(0.1)


def test_differences_are_paired_by_seed():
    noisy = (1.0, 5.0, 9.0)
    good = row("good", *[done(s, kid=k, coverage=0.5) for s, k in enumerate(noisy)])
    bad = row("bad", *[done(s, kid=k + 1.0 + 0.1 * s, coverage=0.5) for s, k in enumerate(noisy)])
    few = row("few", done(0, kid=0.0))
    found = {d["key"]: d for d in differences([bad, good, few])}
    kid = found["kid/morph-v1"]
    assert (kid["best"], kid["row"]) == ("good", "bad")
    assert kid["value"] == pytest.approx(1.1)
    assert kid["low"] > 0
    assert found["coverage/morph-v1"]["value"] == 0


def test_the_heading_says_what_may_be_concluded():
    assert "No seed a row" in heading([row("a", {"seed": 0, "state": "not run"})])
    assert "One seed a row: rows are not separated" in heading([row("a", done(0))])
    assert "Two seeds a row" in heading([row("a", done(0), done(1))])
    told = heading([row("a", *map(done, range(3))), row("b", {"seed": 0, "state": "failed"})])
    assert "1 failed" in told
    assert "Not compared, for want of seeds: b" in told


def test_the_cost_adds_up_the_stages_and_leaves_out_what_is_not_known():
    stage = {"wall_s": 2.0, "cpu_s": 3.0, "processor_energy_j": None, "gpu_energy_j": None}
    memory = {"peak_memory_gib": 1.0, "gpu_memory_gib": None}
    train = {"training_s": 1.0, "needs_s": 0, "parameters": 7, "steps": 2, "images_seen": 8}
    record = {name: {**stage, **memory} for name in ("choose", "judge")}
    record["train"] = {**stage, **memory, **train}
    record["sample"] = {**stage, **memory, "seconds_a_sample": 0.5}
    found = cost(record)
    assert (found["wall_s"], found["cpu_s"], found["energy_kj"]) == (8.0, 12.0, None)
    record["train"]["processor_energy_j"] = 3000.0
    record["sample"]["gpu_energy_j"] = 500.0
    assert cost(record)["energy_kj"] == 3.5
