"""Small sheets of scores, as a judge would write them."""

from __future__ import annotations

from gyri.evaluation.metrics import Score
from gyri.evaluation.scores import Scores

ANCHORS = {"ceiling": 0.1, "mean_image": 9.0, "phase_random": 20.0, "noise": 50.0}


def score(key, value, better="lower", target=None, **more):
    metric, _, features = key.partition("/")
    return Score(
        key=key,
        name=f"{key}[n=4/8]",
        metric=metric,
        features=features or None,
        label=f"the {metric}",
        value=value,
        low=value - 0.5,
        high=value + 0.5,
        n_real=4,
        n_generated=8,
        better=better,
        target=target,
        anchors=dict(ANCHORS),
        **more,
    )


def sheet(kid=2.0, coverage=0.5):
    return Scores(
        generated="synthetic",
        channel="T1w",
        n={"TRAIN": 8, "HOLD": 4, "generated": 8},
        spacing_mm=(8.0, 8.0, 8.0),
        seed=0,
        provenance={},
        scores=[
            score("kid/morph-v1", kid),
            score("coverage/morph-v1", coverage, better="higher"),
            score("msssim/delta", -0.01, better="near", target=0.0),
        ],
        gates={
            "orientation": {"passed": True, "share": 1.0, "detail": ""},
            "beats_anchors": {"passed": False, "share": 0.0, "detail": "kernel distance"},
        },
    )
