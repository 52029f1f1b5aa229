"""Closed forms of the loss, views that keep what they should, training that is the same twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gyri.evaluation.simclr import (
    NUM_FEATURES,
    Encoder,
    SimCLR,
    Views,
    blur,
    nt_xent,
    one_thread,
    train_encoder,
)

SHAPE = (16, 20, 12)
FEW = SimCLR(steps=6)
STILL = SimCLR(rotation=0, zoom=0, shift=0, gamma=0, bias=0, noise=0, blurred=0)


def people(num: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, np.float32)
    mask[2:-2, 2:-2, 2:-2] = 1
    return (0.3 + 0.1 * rng.standard_normal((num, *SHAPE))).astype(np.float32) * mask, mask


def views_of(settings: SimCLR) -> Views:
    volumes, mask = map(torch.from_numpy, people())
    return Views(settings, Encoder.for_train(volumes, mask), torch.Generator().manual_seed(3))


def test_loss_of_points_that_say_nothing_is_the_logarithm_of_all_others():
    points = torch.ones(10, 4) / 2
    assert nt_xent(points, 0.5).item() == pytest.approx(np.log(9), rel=1e-6)


def test_loss_is_that_of_equation_1():
    rng = np.random.default_rng(1)
    points = rng.standard_normal((6, 5))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    terms = []
    for i in range(6):
        similar = np.exp(points @ points[i] / 0.3)
        terms.append(-np.log(similar[(i + 3) % 6] / (similar.sum() - similar[i])))
    assert nt_xent(torch.from_numpy(points), 0.3).item() == pytest.approx(np.mean(terms))


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_blur_has_the_variance_it_says_and_keeps_the_sum(amount):
    point = torch.zeros(1, 11, 11, 11)
    point[0, 5, 5, 5] = 1
    found = blur(point, torch.tensor([amount]))[0]
    assert found.sum().item() == pytest.approx(1, rel=1e-5)
    squared = (torch.arange(11.0) - 5) ** 2
    for other in ((1, 2), (0, 2), (0, 1)):
        assert (found.sum(other) * squared).sum().item() == pytest.approx(amount, abs=1e-5)


def test_mixtures_are_as_far_from_the_mean_as_people_and_most_like_the_first():
    views = views_of(replace(STILL, blurred=0.0))
    volumes = torch.from_numpy(people()[0])
    encoder = views.encoder
    own = encoder.even(volumes) - encoder.mean
    mixed = views.mixtures(volumes) / encoder.level - encoder.mean
    ratio = mixed.flatten(1).norm(dim=1) / own.flatten(1).norm(dim=1)
    assert (ratio - 1).abs().max() < 0.2
    alike = torch.corrcoef(torch.cat([mixed, own]).flatten(1))[:8, 8:]
    assert (alike.argmax(1) == torch.arange(8)).all()


def test_views_cut_out_a_box_and_change_nothing_else_when_told_so():
    views = views_of(STILL)
    volumes = torch.from_numpy(people()[0])
    found = views(volumes)
    kept = found != 0
    torch.testing.assert_close(found[kept], volumes[kept], rtol=1e-4, atol=1e-5)
    lost = 1 - kept.flatten(1).sum(1) / (volumes != 0).flatten(1).sum(1)
    assert (lost > 0).all()
    assert (lost < 0.5).all()


def test_views_stay_near_and_left_stays_left():
    views = views_of(SimCLR(noise=0.0))
    rng = np.random.default_rng(2)
    rough = torch.from_numpy(rng.random((40, 4, 5, 3), dtype=np.float32))[:, None] + 0.2
    volumes = torch.nn.functional.interpolate(rough, SHAPE, mode="trilinear")[:, 0]
    found = views(volumes)
    rows = torch.cat([found, volumes, volumes.flip(1)]).flatten(1)
    alike = torch.corrcoef(rows)[:40, 40:]
    own, mirrored = alike[:, :40].diagonal(), alike[:, 40:].diagonal()
    assert (own > mirrored).float().mean() > 0.9
    assert not torch.equal(found, volumes)


def test_gains_do_not_matter_within_reason():
    volumes, mask = map(torch.from_numpy, people())
    encoder = Encoder.for_train(volumes, mask).eval()
    with torch.inference_mode():
        plain, bright, extreme = (encoder(gain * volumes) for gain in (1.0, 1.6, 50.0))
    torch.testing.assert_close(bright, plain, rtol=1e-3, atol=1e-4)
    assert (extreme - plain).abs().max() > 0.01
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(8))


def weights(names=None, settings=FEW) -> dict[str, torch.Tensor]:
    volumes, mask = people()
    trained = train_encoder(volumes, mask, names or [str(n) for n in range(8)], settings)
    return {key: value.clone() for key, value in trained.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_training_is_the_same_whatever_the_threads_and_the_global_random_state():
    first = weights()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    try:
        again = weights()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert same(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not same(first, weights(settings=replace(FEW, temperature=0.3)))


def test_scans_of_a_person_never_meet(monkeypatch):
    met = []
    monkeypatch.setattr(
        Views, "mixtures", lambda self, volumes: met.append(volumes[:, 8, 10, 6]) or volumes
    )
    volumes, mask = people()
    volumes[:, 8, 10, 6] = np.arange(8)
    train_encoder(volumes, mask, list("aabbbcde"), replace(FEW, steps=40))
    owners = [[("aabbbcde")[int(scan)] for scan in step] for step in met]
    assert all(len(set(step)) == len(step) == 2 for step in owners)
    assert {int(scan) for step in met for scan in step} == set(range(8))


def test_one_thread_restores_after_an_error():
    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match="broken"), one_thread():
        raise ValueError("broken")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("people", "batch"), [(4, 2), (40, 10), (127, 31), (150, 32), (5000, 32)])
def test_small_cohorts_take_small_batches(people, batch):
    assert SimCLR(batch=32).batch_for(people) == batch


def test_output_has_the_size_that_it_says():
    volumes, mask = map(torch.from_numpy, people())
    assert Encoder.for_train(volumes, mask).eval()(volumes).shape == (8, NUM_FEATURES)
