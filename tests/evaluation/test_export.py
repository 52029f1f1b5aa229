from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from gyri.evaluation.export import export_features
from gyri.evaluation.metrics.frechet import frechet_distance


def test_other_tools_find_rows_columns_and_definition(judge, cohort, tmp_path):
    generated = judge.evidence(cohort["generated"])
    paths = export_features(tmp_path, generated, judge.study, judge.extractor.definitions)
    assert len(paths) == 3 * len(judge.feature_sets)
    assert all(path.parent == tmp_path for path in paths)
    with safe_open(tmp_path / "radiomics-v1-hold.safetensors", "numpy") as file:
        facts = file.metadata()
        assert json.loads(facts["ids"]) == cohort["HOLD"].ids
        assert facts["definition"] == judge.extractor.definitions["radiomics-v1"]
        raw, features = file.get_tensor("raw"), file.get_tensor("features")
    assert raw.dtype == features.dtype == np.float32
    assert len(json.loads(facts["names"])) == raw.shape[1] >= features.shape[1]
    with safe_open(tmp_path / "radiomics-v1-generated.safetensors", "numpy") as file:
        made = file.get_tensor("features")
    ours = frechet_distance(
        judge.study.hold.features["radiomics-v1"], generated.features["radiomics-v1"]
    )
    assert frechet_distance(features.astype(float), made.astype(float)) == pytest.approx(
        ours, rel=1e-4
    )
