from __future__ import annotations

from dataclasses import replace

import numpy as np

from gyri.evaluation.features.extraction import QUALITY, Extractor, volume_hashes


def test_features_are_kept_by_content(cohort, tmp_path):
    extractor = Extractor(cohort["TRAIN"], tmp_path)
    part = cohort["generated"].take(np.arange(3))
    first = extractor.extract(part)
    (kept,) = tmp_path.iterdir()
    stamp = kept.stat().st_mtime_ns
    again = extractor.extract(replace(part, name="another"))
    assert kept.stat().st_mtime_ns == stamp
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    extractor.extract(replace(part, volumes=part.volumes * np.float32(0.99)))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_volume_does_not_depend_on_its_company(cohort):
    extractor = Extractor(cohort["TRAIN"])
    together = extractor.extract(cohort["generated"])
    alone = extractor.extract(cohort["generated"].take(np.array([9])))
    for name in together:
        np.testing.assert_allclose(alone[name][0], together[name][9], rtol=1e-6)


def test_equal_volumes_are_measured_once(cohort):
    extractor = Extractor(cohort["TRAIN"])
    part = cohort["generated"].take(np.array([0, 0, 1, 0]))
    steps: list[int] = []
    features = extractor.extract(part, steps.append)
    assert sum(steps) == 2
    assert (features["morph-v1"][0] == features["morph-v1"][3]).all()
    assert len(features[QUALITY]) == 4


def test_hashes_tell_volumes_apart(cohort):
    assert len(set(volume_hashes(cohort["HOLD"]))) == len(cohort["HOLD"])


def test_definitions_follow_the_state(cohort):
    a, b = Extractor(cohort["TRAIN"]), Extractor(cohort["HOLD"])
    assert a.definitions["radiomics-v1"] != b.definitions["radiomics-v1"]
    assert a.definitions["spectrum-v1"] == b.definitions["spectrum-v1"]
