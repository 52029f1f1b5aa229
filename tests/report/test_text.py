from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gyri.report import text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.123456, "0.123"),
        (-0.5, "−0.500"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (3.2e-6, "3.2×10⁻⁶"),
        (2.5e9, "2.5×10⁹"),
        (0, "0"),
        (7, "7"),
        (np.float32(0.5), "0.500"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        ("word", "–"),
        (True, "–"),
    ],
)
def test_numbers(value, written):
    assert text.number(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.25, "0.25 s"), (0, "0 s"), (59.6, "1 min"), (372, "6 min 12 s"), (7300, "2 h 1 min")],
)
def test_durations(seconds, written):
    assert text.duration(seconds) == written


def test_p_values():
    assert [text.p_value(p) for p in (None, 0.0001, 0.001, 0.25)] == [
        "", "< 0.001", "= 0.001", "= 0.250",
    ]  # fmt: skip


def test_a_label_names_its_features_once():
    assert text.score_label({"label": "coverage", "features": "morph-v1"}) == "Coverage, morph-v1"
    said = {"label": "coverage, morph-v1", "features": "morph-v1"}
    assert text.score_label(said) == "Coverage, morph-v1"
    assert text.score_label({"name": "kd", "features": None}) == "Kd"


def test_interval_needs_both_ends():
    assert text.interval(0.1, 0.2) == "0.100 to 0.200"
    assert text.interval(None, 0.2) == "–"


def test_subject_facts_name_what_is_known():
    table = pd.DataFrame(
        {"Age": [70.2, None, "unknown"], "M/F": ["F", "M", None]}, index=["a", "b", "c"]
    )
    assert [text.subject_facts(table, row) for row in range(3)] == ["70 y · F", "M", ""]
    assert text.subject_facts(pd.DataFrame(index=["a"]), 0) == ""


def test_ages_are_none_without_any():
    assert text.ages(pd.DataFrame({"age": [None, None]})) is None
    assert text.ages(pd.DataFrame({"weight": [1.0]})) is None


def test_costs_are_what_has_a_unit_in_its_name():
    cost = {
        "train_s": 90.0,
        "memory": {"peak_gib": 2.5},
        "device": "cpu",
        "steps": 3,
        "odd_s": None,
    }
    assert text.costs({"cost": cost}) == [("Train", "1 min 30 s"), ("Memory peak", "2.50 GiB")]
    assert text.costs({}) == []
    assert text.costs({"cost": None}) == []
