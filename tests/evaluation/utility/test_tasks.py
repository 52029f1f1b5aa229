"""Tasks of a table, subsets that lie in each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.table import CONVENTIONAL
from gyri.errors import UsageError
from gyri.evaluation.utility.tasks import find_task, nested_order, strata, subset_size
from gyri.types import Channel

TABLE = pd.DataFrame(
    {
        "sex": ["F", "M", "F", None],
        "age": [20.0, 40.0, np.nan, 80.0],
        "cdr": ["0", "0.5", None, "1"],
        "scanner": ["A", "A", "A", "A"],
    }
)
CHANNELS = (Channel("T1w"), Channel("tumour", "label", 4))


def task(name: str):
    return find_task(name, TABLE, CONVENTIONAL, CHANNELS)


def test_kinds_and_targets():
    sex, age, cdr = task("sex"), task("age"), task("cdr")
    assert (sex.kind, sex.levels) == ("classification", ("F", "M"))
    np.testing.assert_array_equal(sex.targets(TABLE), [0, 1, 0, np.nan])
    assert (age.kind, age.unit) == ("regression", "year")
    np.testing.assert_array_equal(age.targets(TABLE), [20, 40, np.nan, 80])
    np.testing.assert_array_equal(cdr.targets(TABLE), [0, 1, np.nan, 1])
    assert task("tissue").levels == ("CSF", "GM", "WM")
    assert len(task("tumour").levels) == 3


def test_a_synthetic_table_of_text_gives_the_same_targets():
    as_text = TABLE.astype(object).fillna("n/a").astype(str)
    for name in ("sex", "age", "cdr"):
        np.testing.assert_array_equal(task(name).targets(as_text), task(name).targets(TABLE))
    assert np.isnan(task("sex").targets(TABLE.drop(columns="sex"))).all()


def test_unknown_or_constant_tasks_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'sex'"):
        task("sexx")
    with pytest.raises(UsageError, match="1 different values"):
        task("scanner")


def test_subsets_lie_in_each_other_and_keep_the_mix():
    groups = np.repeat([0, 1, 2], [60, 30, 10])
    order = nested_order(groups, np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    for fraction in (0.1, 0.25, 0.5):
        counts = np.bincount(groups[order[: subset_size(fraction, 100)]], minlength=3)
        np.testing.assert_allclose(counts, fraction * np.array([60, 30, 10]), atol=1)
    other = nested_order(groups, np.random.default_rng(1))
    assert set(order[:25]) != set(other[:25])


def test_strata_of_values_are_quantiles_and_missing_ones_their_own():
    found = strata(task("age"), np.array([*range(60), np.nan]))
    np.testing.assert_array_equal(np.bincount(found[:-1]), [10] * 6)
    assert found[-1] == -1
