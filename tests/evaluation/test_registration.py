"""Numbers of a registration."""

from __future__ import annotations

import pytest
import torch

from gyri.evaluation.registration import Registered, measure_registration, summarise_registrations
from gyri.nn.deformation import exponential, warp

SPACING = (4.0, 4.0, 4.0)


def brain():
    """Return a ball (1, 20, 24, 20) of waves in a background of -1."""
    axes = torch.meshgrid(*(torch.linspace(-1.2, 1.2, n) for n in (20, 24, 20)), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    waves = 0.3 * torch.sin(5 * axes[0]) * torch.cos(4 * axes[1] + axes[2]) + 0.3
    return torch.where(inside, waves, -1.0)[None]


def test_nothing_done_changes_nothing():
    template, still = brain(), torch.zeros(3, 20, 24, 20)
    found = measure_registration(template, template.roll(1, 1), still, still, SPACING)
    for name in ("correlation", "local_correlation", "psnr", "ssim"):
        assert found[f"{name}_before"] == pytest.approx(found[f"{name}_after"], rel=1e-3)
        assert found[f"{name}_before"] < 1 or name == "psnr"
    assert found["folded"] == found["sd_log_jacobian"] == found["displacement_mm"] == 0
    assert found["inverse_mm"] == 0
    assert found["min_jacobian"] == 1


def test_the_true_deformation_makes_them_alike():
    template, velocity = brain(), torch.zeros(1, 3, 20, 24, 20)
    velocity[:, 0] = 1.0
    u, inverse = exponential(velocity)[0], exponential(-velocity)[0]
    found = measure_registration(template, warp(template[None], u[None])[0], u, inverse, SPACING)
    assert found["local_correlation_after"] == pytest.approx(1, abs=1e-3)
    assert found["correlation_after"] == pytest.approx(1, abs=1e-4)
    assert found["psnr_after"] > 60 > found["psnr_before"]
    assert found["displacement_mm"] == pytest.approx(4, abs=0.01)
    assert found["inverse_mm"] < 0.05


def test_a_fold_is_counted_where_the_brain_is():
    template, u = brain(), torch.zeros(3, 20, 24, 20)
    u[0, 10:] = -4.0
    found = measure_registration(template, template, u, None, SPACING)
    assert 0.02 < found["folded"] < 0.2
    assert found["min_jacobian"] < 0
    assert "inverse_mm" not in found


def test_the_summary_is_by_split_and_over_subjects():
    measures = [{"seconds": s, "folded": f} for s, f in ((1.0, 0.0), (3.0, 0.2), (9.0, 0.4))]
    sides = ("TRAIN", "HOLD", "HOLD")
    registered = [
        Registered(f"s{k}", "", side, m) for k, (side, m) in enumerate(zip(sides, measures))
    ]
    summary = summarise_registrations(registered, {}, 100)
    assert (summary["n"], summary["seconds_per_scan"], summary["dice"]) == (3, 3.0, None)
    assert summary["splits"]["HOLD"]["n"] == 2
    assert summary["splits"]["HOLD"]["folded"]["value"] == pytest.approx(0.3)
    assert summary["splits"]["TRAIN"]["seconds"]["value"] == 1
