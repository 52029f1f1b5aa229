from __future__ import annotations

import math

from gyri.report.verdict import compare, leading_scores, ordered_scores, verdict


def test_leading_scores_come_first(scores):
    scores["lead"] = ["cov", "missing"]
    assert [entry["name"] for entry in leading_scores(scores)] == ["cov"]
    assert [entry["name"] for entry in ordered_scores(scores)] == ["cov", "kd"]


def test_failed_gates_are_named(scores):
    said = verdict(scores, 4, 6)
    assert "4 synthetic brains" in said
    assert "6 real subjects" in said
    assert "passes 1 of 2 gates and fails “slice coherence”" in said


def test_a_gate_that_could_not_be_checked_is_not_called_failed(scores):
    scores["gates"]["slice_coherence"]["share"] = None
    said = verdict(scores, 4, 6)
    assert "passes 1 of 2 gates; “slice coherence” could not be checked" in said
    assert "fails" not in said


def test_lights_are_told_by_colour(scores):
    scores["families"] = [
        {"family": f, "light": c}
        for f, c in (("fidelity", "red"), ("anatomy", "green"), ("privacy", "green"))
    ]
    assert "never saw: green in anatomy and privacy, red in fidelity. It passes" in verdict(
        scores, 4, 6
    )


def test_all_gates(scores):
    scores["gates"]["slice_coherence"]["passed"] = True
    assert "passes all 2 gates" in verdict(scores, 4, 6)
    scores["gates"] = {}
    assert "no gates were checked" in verdict(scores, 1, 1)


def test_an_interval_that_reaches_the_ceiling_counts_as_real(scores):
    assert compare(scores).num_as_real == 1  # 0.7 to 0.9, ceiling 0.9
    scores["scores"][1]["high"] = 0.89
    assert compare(scores).num_as_real == 0


def test_losing_to_pca_gaussian_is_said(scores):
    assert compare(scores).num_better_linear == 0
    assert "0 of 1 are better than a PCA-Gaussian" in verdict(scores, 4, 6)
    scores["scores"][1]["value"] = 0.86
    assert compare(scores).num_better_linear == 1


def test_scores_without_values_are_not_counted(scores, score):
    scores["lead"] = ["a", "b"]
    scores["scores"] = [score("a", value=None), score("b", value=math.nan, anchors=None)]
    found = compare(scores)
    assert found.num_compared_real == found.num_compared_linear == 0
    assert "leading" not in verdict(scores, 4, 6)
