from __future__ import annotations

import numpy as np
import pandas as pd

from gyri.evaluation.labels import Label, label, levels, numbers, shared_columns


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_a_level_is_the_same_text_whatever_the_table_held():
    assert levels(pd.Series([1, 2])) == levels(pd.Series(["1", " 2.0 "])) == ["1", "2"]
    assert levels(pd.Series(["F", "n/a", None, float("nan")])) == ["F", None, None, None]


def test_numbers_of_a_table_of_text():
    found = numbers(pd.Series(["71.5", "n/a", "old", "3"]))
    np.testing.assert_array_equal(found, [71.5, np.nan, np.nan, 3.0])


def test_columns_that_both_tables_know_something_of():
    real = table(age=[1.0, 2.0], sex=["F", "M"], mmse=[np.nan, np.nan], split=["TRAIN", "TRAIN"])
    made = table(
        age=["30", "40"], sex=["n/a", "n/a"], mmse=["30", "30"], split=["a", "b"], x=[1, 2]
    )
    assert shared_columns(made, real) == {"age": True}
    assert shared_columns(made.assign(sex=["F", "n/a"]), real) == {"age": True, "sex": False}


def test_rare_levels_are_left_out():
    train = table(scanner=["A"] * 20 + ["B"] * 9 + ["C"] * 3)
    asked = label("scanner", False, train)
    assert asked == Label("scanner", ("A", "B"))
    codes = asked.encode(table(scanner=["B", "C", None, "A"]))
    np.testing.assert_array_equal(codes, [[0, 1], [np.nan] * 2, [np.nan] * 2, [1, 0]])


def test_a_rating_with_rare_grades_is_read_as_above_the_lowest():
    train = table(cdr=["0"] * 30 + ["0.5"] * 12 + ["1"] * 3)
    asked = label("cdr", False, train)
    assert asked is not None
    assert asked.words == "cdr > 0"
    codes = asked.encode(table(cdr=["0.0", "2", "n/a"]))
    np.testing.assert_array_equal(codes, [[1, 0], [0, 1], [np.nan, np.nan]])


def test_nothing_to_tell_apart():
    assert label("sex", False, table(sex=["F"] * 20 + ["M"] * 4)) is None
    assert label("cdr", False, table(cdr=["0"] * 20 + ["2"] * 4)) is None
    assert label("age", True, table(age=[50.0] * 9 + [np.nan])) is None
    assert label("age", True, table(age=[50.0, 60.0])) == Label("age")
