from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError
from gyri.evaluation.privacy.pairs import closeness_limit, closest_pairs, read_reviews


def distances(num: int, seed: int, num_train: int = 100, d: int = 20) -> np.ndarray:
    rng = np.random.default_rng(3)
    train = rng.standard_normal((num_train, d))
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    rows = np.random.default_rng([seed, 77]).standard_normal((num, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.sqrt(np.maximum(2 - 2 * rows @ train.T, 0))


def test_the_limit_is_passed_by_about_one_unseen_person_in_a_thousand():
    hold = [closeness_limit(distances(100, seed)) for seed in range(1, 31)]
    unseen = distances(4000, 99).min(1)
    rate = np.mean([(unseen < limit).mean() for limit in hold])
    assert 0.0002 < rate < 0.004


def test_copies_are_flagged_first_and_the_closest_are_always_listed():
    hold, made = distances(60, 1), distances(20, 2)
    made[4, 17] = 0.05
    names = [f"s{k}" for k in range(20)], [f"t{k}" for k in range(100)]
    pairs = closest_pairs(*names, made, hold)
    assert (pairs[0].sample, pairs[0].subject, pairs[0].flagged) == ("s4", "t17", True)
    assert pairs[0].correlation == pytest.approx(1 - 0.05**2 / 2)
    assert pairs[0].hold_as_close == 0
    assert len(pairs) == 6
    assert [p.correlation for p in pairs] == sorted((p.correlation for p in pairs), reverse=True)


def test_equal_distances_leave_a_limit():
    assert closeness_limit(np.full((20, 5), 0.7)) == pytest.approx(0.7)


def test_every_flagged_pair_of_a_sample_is_listed():
    hold, made = distances(60, 1), distances(20, 2)
    made[4, [17, 18]] = 0.05
    pairs = closest_pairs([f"s{k}" for k in range(20)], list(map(str, range(100))), made, hold)
    assert {(p.sample, p.subject) for p in pairs if p.flagged} == {("s4", "17"), ("s4", "18")}


def test_reviews(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("sample\tsubject\tdecision\ns1\tt1\tDistinct\ns2\tt2\tcopy\ns3\tt3\tn/a\n")
    assert read_reviews(path) == {("s1", "t1"): "distinct", ("s2", "t2"): "copy"}
    path.write_text("sample\tsubject\tdecision\ns1\tt1\tfine\n")
    with pytest.raises(DataError, match="'fine'; write 'distinct' or 'copy'"):
        read_reviews(path)
    path.write_text("sample\tdecision\ns1\tcopy\n")
    with pytest.raises(DataError, match="lacks the columns subject"):
        read_reviews(path)
