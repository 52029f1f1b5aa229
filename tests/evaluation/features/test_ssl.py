"""An encoder of forty phantoms: kept, the same twice, and able to tell people and faults apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gyri.cohort.phantom import phantom_volumes
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation import simclr
from gyri.evaluation.anchors import build_anchor
from gyri.evaluation.features.extraction import Extractor
from gyri.evaluation.features.ssl import NUM_FEATURES, SelfSupervised
from gyri.evaluation.metrics.kernel import kernel_distance
from gyri.evaluation.segment import Segmented
from gyri.evaluation.simclr import SimCLR, Views

FEW = SimCLR(steps=3)


def parts(volumes: VolumeSet) -> Segmented:
    """Return the volumes as the extractor gives them; the features read images alone."""
    images = volumes.volumes[:, 0]
    none = np.zeros(len(images), np.int64)
    mask = images > 0
    labels = mask.astype(np.uint8)
    return Segmented(images, mask, labels, none, none + 0.0, none, volumes.grid.spacing_mm)


@pytest.fixture(scope="module")
def cohort() -> dict[str, VolumeSet]:
    """The fewest people that are learned from, and others of the same cohort."""
    volumes = phantom_volumes(76, seed=11, spacing_mm=8.0)
    dealt = {"TRAIN": (0, 40), "HOLD": (40, 60), "generated": (60, 76)}
    return {name: volumes.take(np.arange(*ends), name) for name, ends in dealt.items()}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GYRI_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def extractor(cohort, tmp_path_factory) -> Extractor:
    """Trained by default settings, once for the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GYRI_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Extractor(cohort["TRAIN"], names=["ssl-v1"])


@pytest.fixture(scope="module")
def trained(extractor) -> SelfSupervised:
    found = extractor.sets["ssl-v1"]
    assert isinstance(found, SelfSupervised)
    return found


@pytest.fixture(scope="module")
def distance(trained, cohort):
    """Return a function: kernel distance of z-scored features from HOLD's."""
    fitted = trained.extract(parts(cohort["TRAIN"]))
    centre, spread = fitted.mean(0), fitted.std(0, ddof=1)

    def measure(volumes: VolumeSet) -> float:
        both = [trained.extract(parts(v)) for v in (cohort["HOLD"], volumes)]
        return kernel_distance(*[(features - centre) / spread for features in both])

    return measure


def learned(train: VolumeSet, settings: SimCLR = FEW) -> SelfSupervised:
    found = SelfSupervised(settings)
    found.learn(train)
    return found


def test_weights_are_kept_and_say_who_was_trained_on(cohort, cache, monkeypatch):
    train = cohort["TRAIN"]
    first = learned(train)
    (file,) = cache.iterdir()
    monkeypatch.setattr(simclr, "train_encoder", lambda *_: pytest.fail("trained again"))
    again = learned(replace(train, name="the same"))
    assert again.definition() == first.definition()
    np.testing.assert_array_equal(
        again.extract(parts(cohort["HOLD"])), first.extract(parts(cohort["HOLD"]))
    )
    monkeypatch.undo()
    monkeypatch.setenv("GYRI_CACHE", str(cache))
    others = [
        learned(cohort["HOLD"]),
        learned(replace(train, volumes=np.roll(train.volumes, 1, 0))),
        learned(train, replace(FEW, temperature=0.3)),
    ]
    assert len({found.definition() for found in (first, *others)}) == 4
    assert len(list(cache.iterdir())) == 4
    assert file.exists()


def test_a_damaged_or_unwritable_cache_is_no_fault(cohort, cache, monkeypatch):
    first = learned(cohort["TRAIN"])
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    for damaged in (bytes(content), b"", b"{}"):
        file.write_bytes(damaged)
        assert learned(cohort["TRAIN"]).definition() == first.definition()
        assert file.read_bytes() != damaged
    monkeypatch.setenv("GYRI_CACHE", str(file))
    assert learned(cohort["TRAIN"]).definition() == first.definition()


def test_definition_follows_the_code_of_encoder_and_cells(cohort, cache, monkeypatch):
    found = learned(cohort["TRAIN"])
    before = found.definition()
    monkeypatch.setattr(found, "_source", lambda: b"other code")
    assert found.definition() != before


def test_a_volume_does_not_depend_on_its_company_or_on_threads(trained, cohort):
    together = trained.extract(parts(cohort["HOLD"]))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = [trained.extract(parts(cohort["HOLD"].take(np.array([n])))) for n in (0, 7, 19)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(np.concatenate(alone), together[[0, 7, 19]])


def test_features_lie_on_the_unit_sphere_and_broken_volumes_have_some(trained, cohort):
    hold = cohort["HOLD"].take(np.arange(3))
    images = hold.volumes.copy()
    images[0], images[1], images[2, 0, 5] = 0, 1e6, np.nan
    found = trained.extract(parts(replace(hold, volumes=images)))
    assert found.shape == (3, NUM_FEATURES) == (3, len(trained.names))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    other = replace(hold, volumes=hold.volumes[..., 1:])
    assert np.isnan(trained.extract(parts(other))).all()


def test_views_of_unseen_people_find_each_other(trained, cohort):
    encoder = trained._encoder
    coarse = torch.from_numpy(trained._coarse(cohort["HOLD"].volumes[:, 0]))
    views = Views(SimCLR(), encoder, torch.Generator().manual_seed(1))
    found = 0.0
    with torch.inference_mode():
        for _ in range(5):
            first, second = encoder(views.pair(coarse)).chunk(2)
            nearest = (first @ second.T).argmax(1)
            found += (nearest == torch.arange(len(coarse))).float().mean().item() / 5
    assert found > 4 / len(coarse), "chance is 1 / 20, and 2 / 20 for voxels"


def test_too_few_people_are_refused_with_the_reason(cohort, cache):
    few = Extractor(cohort["HOLD"], names=["ssl-v1"])
    assert not few.sets
    assert "20 people in HOLD; ssl-v1 learns from at least 40" in few.refused["ssl-v1"]
    assert not list(cache.iterdir())


@pytest.mark.parametrize("anchor", ["noise", "phase_random", "mean_image", "blurred"])
def test_faults_are_farther_than_real_people(anchor, distance, cohort):
    real = [distance(cohort[name]) for name in ("TRAIN", "generated")]
    volumes = build_anchor(anchor, cohort["TRAIN"], cohort["HOLD"], 16, 0)
    assert distance(volumes) > 4 * max(*real, 0.1)


def test_the_privacy_audit_uses_the_features_as_a_space(extractor, cohort):
    from gyri.evaluation.privacy.audit import measure_distances

    cast = measure_distances(
        cohort["TRAIN"], cohort["HOLD"], [], [cohort["generated"]], extractor.extract
    )
    (space,) = [space for space in cast.spaces if space.name == "ssl-v1"]
    assert space.dimensions == NUM_FEATURES
    assert np.isfinite(space.distances[len(cast.people) :]).all()
