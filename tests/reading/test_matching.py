from __future__ import annotations

import pandas as pd
import pytest

from gyri.errors import UsageError
from gyri.reading.matching import match_pairs, rules_for

REAL = pd.DataFrame({"age": [20.0, 50.0, 80.0, None], "sex": ["F", "M", "F", "F"], "site": 1})
MADE = pd.DataFrame({"age": ["81", "24", "51", "20"], "sex": ["F", "F", "M", "M"]})


def test_pairs_obey_the_rules():
    assert match_pairs(REAL, MADE, {"age": 5.0, "sex": "exact"}) == [(0, 1), (1, 2), (2, 0)]


def test_a_distance_too_far_is_no_pair():
    assert match_pairs(REAL, MADE, {"age": 3.0, "sex": "exact"}) == [(1, 2), (2, 0)]


def test_the_sum_of_differences_is_least():
    real = pd.DataFrame({"age": [30.0, 33.0]})
    made = pd.DataFrame({"age": [33.0, 36.0]})
    # the nearest to the first would leave the second with 6 years
    assert match_pairs(real, made, {"age": 5.0}) == [(0, 0), (1, 1)]


def test_words_that_are_missing_match_nothing():
    real, made = (pd.DataFrame({"sex": words}) for words in (["n/a", "F"], ["", "F"]))
    assert match_pairs(real, made, {"sex": "exact"}) == [(1, 1)]


def test_usual_rules_are_those_that_both_have():
    assert rules_for(None, REAL, MADE) == {"age": 5.0, "sex": "exact"}
    with pytest.raises(UsageError, match=r"match\.site.*Both have: age, sex"):
        rules_for({"site": "exact"}, REAL, MADE)
    with pytest.raises(UsageError, match="above 0"):
        rules_for({"age": 0.0}, REAL, MADE)
