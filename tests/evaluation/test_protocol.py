from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.errors import DataError
from gyri.evaluation.anchors import ANCHORS
from gyri.evaluation.faults import find_faults
from gyri.evaluation.features.extraction import volume_hashes
from gyri.evaluation.protocol import evaluate, without_nan
from gyri.evaluation.scores import Scores
from gyri.registry import METRICS


@pytest.fixture(scope="module")
def sheet(cohort, tmp_path_factory) -> Scores:
    steps: list[tuple[str, int, int]] = []
    cache = tmp_path_factory.mktemp("features")
    scores = evaluate(
        cohort["generated"],
        cohort["TRAIN"],
        cohort["HOLD"],
        bootstrap=100,
        cache=cache,
        distrusted={"volumes/in_range": ["noise", "blur"]},
        progress=lambda *step: steps.append(step),
        provenance={"split_hash": "abc"},
    )
    assert steps[-1][1] == steps[-1][2]
    assert len(list(cache.iterdir())) == 3 + len(ANCHORS)
    return scores


def judged(judge, cohort, volumes):
    """Scores and refusals of a changed set, without anchors."""
    made = replace(cohort["generated"], volumes=volumes.astype(np.float32))
    clean, failed = without_nan(made)
    scores, refused = judge.scores(
        judge.evidence(clean, failed),
        find_faults(made, cohort["TRAIN"], volume_hashes(cohort["HOLD"])),
    )
    return {s.metric for s in scores}, {r.metric: r.reason for r in refused}


def test_every_metric_speaks_and_every_score_has_its_anchors(sheet):
    default = {n for n in METRICS if METRICS[n].component.default}
    without_labels = {"label_agreement", "label_anatomy"}
    assert {s.metric for s in sheet.scores} == default - {"sweep"} - without_labels
    assert without_labels <= {r.metric for r in sheet.refused}
    for score in sheet.scores:
        asked = score.key == "anatomy/ventricle_age_slope"
        if asked or METRICS[score.metric].component.reads_table:
            assert set(score.anchors) <= {"ceiling"}, score.name
        elif score.key != "volumes/brain_ml/d" and not score.key.endswith("/d"):
            assert {"ceiling", *ANCHORS} <= set(score.anchors), score.name
            assert score.n_generated == 16
    assert len({s.name for s in sheet.scores}) == len(sheet.scores)


def test_a_perfect_generator_passes_and_beats_the_anchors(sheet):
    assert sheet.gates["orientation"]["passed"]
    assert sheet.gates["components"]["passed"]
    assert sheet.gates["beats_anchors"]["passed"]
    assert sheet.gates["coverage_half_of_real"]["passed"]
    for name in ("morph-v1", "radiomics-v1", "spectrum-v1"):
        assert sheet[f"kid/{name}"].p_value > 0.01


def test_an_anchor_that_a_metric_measured_itself_stays(judge, cohort, monkeypatch):
    scores, _ = judge.scores(judge.evidence(cohort["generated"]), [])
    own = [score for score in scores if score.metric == "components"]
    own[0].anchors["ceiling"] = 123.0
    monkeypatch.setattr("gyri.evaluation.protocol.ANCHORS", ["mean_image"])
    judge.add_anchors(own, {"components"})
    assert own[0].anchors["ceiling"] == 123.0
    assert {"ceiling", "mean_image"} == set(own[0].anchors)


def test_scores_that_failed_the_self_test_neither_lead_nor_decide(sheet):
    score = sheet["volumes/in_range"]
    assert not score.reliable
    assert "self-test: not monotone under noise, blur" in score.note
    assert score.name not in sheet.lead
    assert sheet["volumes/brain_ml/d"].name in sheet.lead


def test_samples_have_the_agreed_columns(sheet):
    expected = "id components one_component orientation_ok brain_ml gm_ml wm_ml csf_ml"
    expected += " brain_in_range nearest_id nearest_correlation coherent"
    assert len(sheet.samples) == 16
    assert all(set(expected.split()) <= set(row) for row in sheet.samples)


def test_provenance_names_definitions_and_what_was_given(sheet):
    assert sheet.provenance["split_hash"] == "abc"
    assert sheet.provenance["bootstrap"] == 100
    assert len(sheet.provenance["features"]["radiomics-v1"]["sha256"]) == 64


def test_constant_features_are_listed(sheet):
    dropped = [r for r in sheet.refused if r.metric == "feature"]
    assert any("components" in r.reason for r in dropped)


def test_copies_of_train_fail_only_where_copying_is_seen(sheet):
    """A distance cannot tell copies from new subjects; the copy rate must."""
    fd = sheet["fd/morph-v1"]
    assert fd.anchors["train_copies"] < fd.anchors["mean_image"]
    assert sheet["nearest/copy_rate"].anchors["train_copies"] == 1.0


def test_a_set_of_another_range_is_refused_by_all_that_read_intensities(judge, cohort):
    spoken, refused = judged(judge, cohort, 2 * cohort["generated"].volumes - 1)
    assert spoken == {"components"}
    assert "[-1, 1]" in refused["fd"]


def test_nan_counts_as_a_failure_and_stops_the_distances(judge, cohort):
    volumes = cohort["generated"].volumes.copy()
    volumes[4, 0, 0, 0, 0] = np.inf
    spoken, refused = judged(judge, cohort, volumes)
    assert spoken == {"components", "coherence", "orientation"}
    assert cohort["generated"].ids[4] in refused["kid"]


def test_a_failed_volume_keeps_its_row(judge, cohort):
    volumes = cohort["generated"].volumes.copy()
    volumes[4] = np.nan
    made = replace(cohort["generated"], volumes=volumes)
    faults = find_faults(made, cohort["TRAIN"], [])
    row = judge.samples(judge.evidence(*without_nan(made)), faults)[4]
    failures = ("one_component", "orientation_ok", "brain_in_range", "coherent")
    assert not any(row[name] for name in failures)
    assert row["brain_ml"] == 0.0


def test_hold_as_the_generated_set_is_refused(judge, cohort):
    spoken, refused = judged(judge, cohort, cohort["HOLD"].volumes[:16])
    assert not spoken & {"fd", "kid", "prdc", "volumes"}
    assert "against itself" in refused["prdc"]


def test_too_few_volumes_stop_only_what_needs_more(judge, cohort):
    few = cohort["generated"].take(np.arange(3))
    scores, refused = judge.scores(judge.evidence(few), [])
    assert {"kid", "volumes", "components"} <= {s.metric for s in scores}
    assert {"fd", "prdc"} <= {r.metric for r in refused}


def test_another_grid_leaves_millilitres(cohort):
    made = cohort["generated"]
    cut = replace(
        made,
        volumes=made.volumes[..., 1:-1],
        grid=replace(made.grid, shape=(20, 24, 18)),
    )
    sheet = evaluate(cut, cohort["TRAIN"], cohort["HOLD"], bootstrap=20)
    assert {s.metric for s in sheet.scores} == {"components", "volumes"}
    assert sheet["volumes/brain_ml/mean"].value > 500
    assert not sheet.gates["orientation"]["passed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c | {"HOLD": c["TRAIN"]}, "both TRAIN and TRAIN"),
        (lambda c: c | {"HOLD": c["HOLD"].take(np.arange(3))}, "at least 4"),
        (
            lambda c: (
                c | {"TRAIN": replace(c["TRAIN"], volumes=c["TRAIN"].volumes * np.float32(np.nan))}
            ),
            "hold NaN or Inf",
        ),
        (
            lambda c: (
                c | {"HOLD": replace(c["HOLD"], grid=replace(c["HOLD"].grid, shape=(20, 24, 18)))}
            ),
            "share a grid",
        ),
    ],
)
def test_references_that_cannot_serve(change, words, cohort):
    sets = change(dict(cohort))
    with pytest.raises(DataError, match=words):
        evaluate(sets["generated"], sets["TRAIN"], sets["HOLD"])
