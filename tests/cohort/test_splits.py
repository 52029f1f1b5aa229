from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.splits import DEFAULT_SIZES, SPLITS, split_hash, split_subjects, split_totals
from gyri.errors import UsageError


@pytest.fixture
def people() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.uniform(18, 96, 302)
    cdr = [None if a < 33 else str(rng.choice(["0", "0.5", "1"], p=[0.6, 0.3, 0.1])) for a in age]
    labels = pd.Index([f"P{n:04d}" for n in range(302)])
    return pd.DataFrame({"age": age, "sex": rng.choice(["F", "M"], 302), "cdr": cdr}, labels)


STRATA = ["age", "sex", "cdr"]


def test_oasis1_has_its_counts(people: pd.DataFrame) -> None:
    split = split_subjects(people, stratify=STRATA)
    assert {name: int((split == name).sum()) for name in SPLITS} == {
        "TRAIN": 150, "VAL": 22, "HOLD": 100, "TEST": 30,
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 7, 31, 100])
def test_totals_are_exact_and_near_their_share(count: int) -> None:
    totals = split_totals(count, DEFAULT_SIZES)
    assert sum(totals.values()) == count
    assert all(abs(totals[name] - DEFAULT_SIZES[name] * count) < 1 for name in SPLITS)


def test_counts_are_taken_as_they_are(people: pd.DataFrame) -> None:
    sizes = {"TRAIN": 200, "HOLD": 102}
    split = split_subjects(people, sizes, STRATA)
    assert split.value_counts().to_dict() == sizes


def test_shares_may_be_in_any_unit(people: pd.DataFrame) -> None:
    fractions = {"TRAIN": 0.48, "VAL": 0.06, "HOLD": 0.44, "TEST": 0.02}
    percentages = {name: 100 * share for name, share in fractions.items()}
    assert split_totals(len(people), percentages) == split_totals(len(people), fractions)


@pytest.mark.parametrize(
    "sizes", [{"TRAIN": 0.0, "HOLD": 0.0}, {"TRAIN": -1.0, "HOLD": 2.0}, {"TRIAN": 1.0}]
)
def test_sizes_that_cannot_be(people: pd.DataFrame, sizes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        split_subjects(people, sizes, STRATA)


def test_unknown_column_names_the_nearest(people: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match="'cdrr'.*Did you mean 'cdr'"):
        split_subjects(people, stratify=["cdrr"])


def test_every_stratum_is_shared_out(people: pd.DataFrame) -> None:
    split = split_subjects(people, stratify=STRATA)
    bins = pd.qcut(people["age"], 6, labels=False)
    for margin in (people["sex"], people["cdr"].fillna("none"), bins):
        table = pd.crosstab(margin, split)
        expected = np.outer(table.sum(axis=1), [DEFAULT_SIZES[name] for name in table.columns])
        assert np.abs(table.to_numpy() - expected).max() < 6
    joint = pd.crosstab([bins, people["sex"]], split)
    expected = np.outer(joint.sum(axis=1), [DEFAULT_SIZES[name] for name in joint.columns])
    assert np.abs(joint.to_numpy() - expected).max() < 4


def test_stratified_splits_are_closer_than_chance(people: pd.DataFrame) -> None:
    def gap(columns: list[str], seed: int) -> float:
        split = split_subjects(people, stratify=columns, seed=seed)
        means = people["age"].groupby(split).mean()
        return float(means.max() - means.min())

    stratified = np.mean([gap(STRATA, seed) for seed in range(10)])
    assert stratified < 0.5 * np.mean([gap([], seed) for seed in range(10)])


def test_deal_follows_the_seed_and_not_the_order_of_rows(people: pd.DataFrame) -> None:
    first = split_subjects(people, stratify=STRATA, seed=3)
    shuffled = split_subjects(people.sample(frac=1, random_state=1), stratify=STRATA, seed=3)
    assert split_hash(first) == split_hash(shuffled)
    assert split_hash(first) != split_hash(split_subjects(people, stratify=STRATA, seed=4))


def test_positions_are_random_within_a_stratum(people: pd.DataFrame) -> None:
    splits = [split_subjects(people, stratify=STRATA, seed=seed) for seed in range(40)]
    share = np.mean([split == "TRAIN" for split in splits], axis=0)
    assert share.min() > 0.15
    assert share.max() < 0.85


def test_missing_is_a_level() -> None:
    age = [float("nan")] * 40 + [50.0] * 40
    table = pd.DataFrame({"age": age}, index=[f"P{n:02d}" for n in range(80)])
    split = split_subjects(table, {"TRAIN": 0.5, "HOLD": 0.5}, ["age"])
    assert (split[:40] == "TRAIN").sum() == 20
