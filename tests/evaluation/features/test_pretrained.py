"""Slices at fixed places, refusals, and a sheet with pretrained features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.evaluation.pretrained import sha256
from torch import nn

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation import weights
from gyri.evaluation.features.extraction import Extractor
from gyri.evaluation.features.pretrained import (
    NUM_FEATURES,
    OFFSETS_MM,
    PLANES,
    Pretrained,
    PretrainedSlices,
    plane_slices,
    rotation,
)
from gyri.evaluation.metrics.kernel import kernel_distance
from gyri.evaluation.protocol import evaluate
from gyri.registry import FEATURES
from gyri.types import Grid

SLICES = "inception-tf-axial-5x20mm"
VOLUMES = "medicalnet-50-znz0"


def tiny() -> nn.Module:
    """A network that sees where intensities lie on a coarse grid."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool3d(8), nn.Flatten(), nn.Linear(8**3, NUM_FEATURES))


@pytest.fixture
def no_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))


@pytest.fixture
def tiny_weights(no_weights, tmp_path, monkeypatch) -> None:
    name = FEATURES[VOLUMES].component.weights_name
    monkeypatch.setitem(weights.PUBLISHED, name, replace(weights.PUBLISHED[name], build=tiny))
    path = tmp_path / "tiny.pth"
    torch.save(tiny().state_dict(), path)
    weights.add(name, path, sha256(path))


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    rows = [tuple(s if a == b else 0.0 for b in range(4)) for a, s in enumerate(spacing)]
    return Grid(shape, (*rows, (0.0, 0.0, 0.0, 1.0)))


def all_pretrained() -> list[type[Pretrained]]:
    found = [FEATURES[name].component for name in FEATURES]
    return [c for c in found if issubclass(c, Pretrained)]


def test_none_is_measured_unless_asked_for(cohort):
    assert len(all_pretrained()) == 12
    assert not any(c.default for c in all_pretrained())
    assert not {c.name for c in all_pretrained()} & set(Extractor(cohort["TRAIN"]).sets)


def test_every_refusal_names_its_weights_and_the_command(no_weights):
    for component in all_pretrained():
        assert FEATURES[component.name].component is component
        reason = component.refusal(grid((80, 96, 80), (2.0, 2.0, 2.0)))
        assert f"gyri weights add {component.weights_name} FILE" in reason


def test_grids_that_do_not_fit_are_refused_first(no_weights):
    component = FEATURES[SLICES].component
    flat = component.refusal(grid((80, 96, 30), (2.0, 2.0, 2.0)))
    assert "reaches over 58 mm" in flat
    stretched = component.refusal(grid((80, 96, 80), (1.0, 2.0, 2.0)))
    assert "pixels are 1 x 2 mm" in stretched
    assert "not there" in component.refusal(grid((80, 96, 40), (1.0, 1.0, 3.0)))


@pytest.mark.parametrize(("plane", "axis"), PLANES.items())
def test_slices_lie_20_mm_apart_around_the_centre(plane, axis):
    index = np.indices((41, 45, 43))[axis].astype(np.float32)
    slices = plane_slices(index, axis, 2.5)
    centre = (index.shape[axis] - 1) / 2
    assert [s.max() for s in slices] == [centre + mm / 2.5 for mm in OFFSETS_MM]


def test_slices_are_upright_left_is_left_and_squares_keep_every_pixel():
    rng = np.random.default_rng(0)
    volume = (1 + rng.random((40, 48, 44))).astype(np.float32)
    volume[:, 40:] += 5  # anterior
    volume[:3] += 10  # left
    axial = plane_slices(volume, PLANES["axial"], 2.1)
    assert axial.shape == (5, 48, 48)
    assert axial[2, :8].mean() > axial[2, 8:].mean() + 3
    assert axial[2, :, 4:7].mean() > axial[2, :, 7:].mean() + 5
    assert not axial[2, :, :4].any()
    assert np.sort(axial[2][axial[2] > 0]).tolist() == np.sort(volume[:, :, 22].ravel()).tolist()
    volume[:, :, 36:] += 50  # superior
    for plane in ("coronal", "sagittal"):
        cut = plane_slices(volume, PLANES[plane], 2.1)[2]
        assert cut[cut.any(1)][:8].mean() > 30


def test_rotated_channels_keep_distances():
    x = np.random.default_rng(0).random((3, NUM_FEATURES))
    np.testing.assert_allclose(rotation().T @ rotation(), np.eye(NUM_FEATURES), atol=1e-12)
    turned = x @ rotation()
    np.testing.assert_allclose(turned @ turned.T, x @ x.T)


def test_a_channel_that_rested_on_train_does_not_decide_once_rotated():
    """Half the channels rest on TRAIN; of two real sets one subject stirs a single channel."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(NUM_FEATURES) % 2, 1.0, 1e-6)
    train, hold, generated = (rng.random((40, NUM_FEATURES)) * scale for _ in range(3))
    hold[0, 10] = 1.0

    def distance(turn: np.ndarray) -> float:
        sets = [part @ turn for part in (train, hold, generated)]
        centre, spread = sets[0].mean(0), sets[0].std(0)
        return kernel_distance(*((part - centre) / spread for part in sets[1:]))

    assert abs(distance(np.eye(NUM_FEATURES))) > 1e6
    assert abs(distance(rotation())) < 0.1


def test_the_sheet_goes_on_without_weights(cohort, no_weights):
    sheet = evaluate(
        cohort["generated"],
        cohort["TRAIN"],
        cohort["HOLD"],
        bootstrap=0,
        features=[SLICES, VOLUMES, "spectrum-v1"],
    )
    refused = {entry.features: entry.reason for entry in sheet.refused}
    assert "gyri weights add inception-tf FILE" in refused[SLICES]
    assert "gyri weights add medicalnet-50 FILE --sha256 HASH" in refused[VOLUMES]
    measured = {score.features for score in sheet.scores}
    assert "spectrum-v1" in measured
    assert not measured & {SLICES, VOLUMES}


def test_the_sheet_with_weights_tells_noise_from_brains(cohort, tiny_weights, changed):
    def sheet(generated: VolumeSet):
        return evaluate(
            generated,
            cohort["TRAIN"],
            cohort["HOLD"],
            bootstrap=0,
            features=["spectrum-v1", VOLUMES],
        )

    good = sheet(cohort["generated"])
    images = np.random.default_rng(0).random(cohort["generated"].volumes.shape)
    noise = sheet(changed(images))
    key = f"kid/{VOLUMES}"
    values = [{s.key: s for s in scores.scores}[key].value for scores in (good, noise)]
    assert values[1] > 10 * abs(values[0])
    assert good.provenance["features"][VOLUMES]["dimensions"] == NUM_FEATURES


def test_features_are_those_of_the_network_on_each_volume_alone(cohort, tiny_weights):
    extractor = Extractor(cohort["TRAIN"], names=[VOLUMES])
    some = cohort["generated"].take(np.arange(5))
    together = extractor.extract(some)[VOLUMES]
    alone = extractor.extract(some.take(np.array([3])))[VOLUMES]
    assert together.shape == (5, NUM_FEATURES)
    np.testing.assert_array_equal(alone[0], together[3])


def test_the_definition_follows_the_weights(cohort, tiny_weights, tmp_path):
    before = Extractor(cohort["TRAIN"], names=[VOLUMES]).definitions[VOLUMES]
    assert Extractor(cohort["TRAIN"], names=[VOLUMES]).definitions[VOLUMES] == before
    name = FEATURES[VOLUMES].component.weights_name
    for kept in (weights.root() / name).iterdir():
        kept.unlink()
    state = tiny().state_dict()
    state["2.bias"] += 1
    path = tmp_path / "other.pth"
    torch.save(state, path)
    weights.add(name, path, sha256(path))
    assert Extractor(cohort["TRAIN"], names=[VOLUMES]).definitions[VOLUMES] != before


def test_names_are_as_many_as_features():
    for component in all_pretrained():
        places = len(OFFSETS_MM) if issubclass(component, PretrainedSlices) else 1
        assert len(set(component().names)) == places * NUM_FEATURES
