from __future__ import annotations

import numpy as np
import pytest
from tests.reading.brains import brain

from gyri.reading import cues
from gyri.reading.cues import check_cues, cue_features


def features(num: int, seed: int, noise: float = 0.05, header: bytes = bytes(352)):
    rng = np.random.default_rng(seed)
    encoded = [np.rint(255 * brain((12, 14, 12), rng, noise)).astype(np.uint8) for _ in range(num)]
    return [cue_features(volume, header + volume.tobytes()) for volume in encoded]


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(cues, "PERMUTATIONS", 19)
    monkeypatch.setattr(cues, "REPEATS", 2)


def test_the_same_brains_cannot_be_told():
    check = check_cues(features(60, 1), features(60, 2))
    assert check.accuracy == pytest.approx(0.5, abs=0.13)
    assert check.interval[0] < 0.5 < check.interval[1] + 0.05
    assert check.groups["file"] == 0.5
    assert check.p_value > 0.05 or check.accuracy < 0.6


def test_another_noise_is_found_in_border_and_histogram():
    check = check_cues(features(30, 1), features(30, 2, noise=0.15))
    assert check.accuracy > 0.9
    assert not check.passed
    assert check.p_value == pytest.approx(1 / 20)
    assert check.groups["histogram"] > 0.9
    assert "%" in check.sentence()


def test_a_header_gives_itself_away():
    check = check_cues(features(30, 1), features(30, 2, header=b"made by a model" + bytes(337)))
    assert check.groups["file"] == 1.0
    assert "file/header" in check.strongest


def test_the_limit_is_55_percent():
    assert cues.CueCheck(0.55, (0.4, 0.7), 0.1, 50, {}, {}).passed
    assert not cues.CueCheck(0.551, (0.4, 0.7), 0.1, 50, {}, {}).passed
