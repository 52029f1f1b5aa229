from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.table import CONVENTIONAL
from gyri.cohort.visits import day_of, nearest_visit, person_table, recoded


@pytest.mark.parametrize(
    ("label", "day"),
    [("OAS30001_UDSb4_d0339", 339), ("0014", 14), ("d-0002", -2), ("OAS30290_UDSb4_d-0002", -2)],
)
def test_days(label: str, day: int) -> None:
    assert day_of(label) == day


def test_labels_without_a_day() -> None:
    assert np.isnan(day_of("OAS30001_UDSb4"))
    assert np.isnan(day_of(""))


def test_the_nearest_visit_within_reach_is_joined() -> None:
    sessions = pd.DataFrame({"person": ["a", "a", "b", "c"], "day": [100.0, 900.0, 0.0, 0.0]})
    visits = pd.DataFrame(
        {"person": ["a", "a", "a", "b"], "day": [0.0, 180.0, 2000.0, 20.0], "cdr": list("0123")}
    )
    joined, alone = nearest_visit(sessions, visits, 365)
    assert joined["cdr"].tolist()[0] == "1"
    assert joined["visit_delay"].tolist()[0] == 80
    assert joined["cdr"].tolist()[2] == "3"
    assert alone == ["a day 900", "c day 0"]
    assert joined["cdr"].isna().tolist() == [False, True, False, True]


def test_people_are_described_as_at_their_first_session() -> None:
    rows = pd.DataFrame(
        {
            "subject": ["a", "a", "b"],
            "session": ["1", "2", "1"],
            "sex": ["F", "F", "M"],
            "mmse": [None, "28", "30"],
        }
    )
    columns = {"sex": CONVENTIONAL["sex"], "mmse": CONVENTIONAL["mmse"]}
    people, sessions = person_table(rows, columns, ("mmse",))
    assert list(people.index) == ["a", "b"]
    assert np.isnan(people.loc["a", "mmse"])
    assert list(sessions.columns) == ["subject", "session", "mmse"]


def test_codes_are_written_out() -> None:
    assert recoded(pd.Series(["1", "2.0", "M", ""]), {"1": "M", "2": "F"}) == ["M", "F", "M", ""]
