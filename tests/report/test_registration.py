"""The page of a registration, from smooth random fields and measures made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from gyri.nn.deformation import exponential, warp
from gyri.registration import Registered, Shown
from gyri.report.registration import (
    before_after,
    registration_text,
    write_registration,
)

SHAPE = (12, 14, 10)
SPACING = (8.0, 8.0, 8.0)
GOOD = {
    "correlation_before": 0.9,
    "correlation_after": 0.96,
    "local_correlation_before": 0.7,
    "local_correlation_after": 0.85,
    "psnr_before": 18.0,
    "psnr_after": 21.0,
    "ssim_before": 0.75,
    "ssim_after": 0.86,
    "folded": 0.0,
    "min_jacobian": 0.3,
    "sd_log_jacobian": 0.2,
    "displacement_mm": 2.0,
    "inverse_mm": 0.2,
    "seconds": 0.5,
}


def one(number: int, split: str = "HOLD", **changes: float) -> Registered:
    rng = np.random.default_rng(number)
    measures = {name: value * rng.uniform(0.99, 1.01) for name, value in GOOD.items()}
    return Registered(f"s<{number}>", "", split, {**measures, **changes})


@pytest.fixture(scope="module")
def registered() -> list[Registered]:
    scans = [one(k, "TRAIN" if k < 12 else "HOLD") for k in range(24)]
    scans[3] = one(3, "TRAIN", folded=0.0123, local_correlation_after=0.5)
    scans[20] = one(20, displacement_mm=9.0)
    return scans


@pytest.fixture(scope="module")
def summary(registered) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for split in ("TRAIN", "HOLD"):
        own = [r for r in registered if r.split == split]
        splits[split] = {"n": len(own)}
        for name in GOOD:
            value = float(np.mean([r.measures[name] for r in own]))
            splits[split][name] = {"value": value, "low": 0.98 * value, "high": 1.02 * value}
    return {
        "method": "voxelmorph",
        "template": "mean",
        "form": "velocity",
        "channel": "T1w",
        "n": len(registered),
        "seconds_per_scan": 0.5,
        "training_s": 372.0,
        "steps": 2000,
        "splits": splits,
        "dice": {
            "anatomy": {
                "before": {"value": 0.61, "low": 0.6, "high": 0.62},
                "after": {"value": 0.74, "low": 0.73, "high": 0.75},
                "gain": {"value": 0.13, "low": 0.12, "high": 0.14},
                "regions": {"4": {"before": 0.321, "after": 0.654}},
            }
        },
    }


@pytest.fixture(scope="module")
def template() -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    return np.select([radius < 0.4, radius < 0.9], [0.9, 0.5], 0).astype(np.float32)


@pytest.fixture(scope="module")
def shown(registered, template) -> list[Shown]:
    moving = torch.from_numpy(template)[None, None]
    found = []
    for k in (5, 8, 3):
        rng = np.random.default_rng(k)
        noise = [gaussian_filter(rng.standard_normal(SHAPE), 2) for _ in range(3)]
        velocity = torch.tensor(np.stack(noise) / np.abs(noise).max(), dtype=torch.float32)[None]
        ways = [exponential(eta * velocity) for eta in (0.0, 0.5, 1.0)]
        steps = np.stack([warp(moving, way)[0, 0].numpy() for way in ways])
        scan = gaussian_filter(steps[-1], 0.3)
        redrawn = template if k == 8 else None
        found.append(Shown(registered[k], scan, steps[-1], ways[-1][0].numpy(), steps, redrawn))
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory, summary, registered, shown, template) -> str:
    out = tmp_path_factory.mktemp("page") / "registration.html"
    path = write_registration(out, summary, registered, shown, SPACING, template, template)
    assert path == out
    return path.read_text()


def test_the_page_holds_the_numbers_and_loads_nothing(page, summary):
    before = summary["splits"]["HOLD"]["local_correlation_before"]["value"]
    for part in (
        f"HOLD: the local correlation of template and scan rose from {before:.3f} to",
        "Of 24 scans, 1 became less alike and 1 folds anywhere",
        "Mean<small>of TRAIN",
        "6 min 12 s",
        "2,000 steps",
        "0.610 [0.600, 0.620]",
        "0.130 [0.120, 0.140]",
        "0.654",
        "Best: s&lt;5&gt;",
        "Median: s&lt;8&gt;",
        "Worst: s&lt;3&gt;",
        "Personal data",
    ):
        assert part in page, part
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert page.count("data:image/gif") == 3
    # Five pictures a scan, its strip and its still; the key; template and mean.
    assert page.count("data:image/png") == 3 * (5 + 1 + 1) + 1 + 1 + 2


def test_a_template_redrawn_by_diffusion_is_shown_where_there_is_one(page):
    assert page.count("Template redrawn by diffusion of") == 1


def test_scans_that_stand_out_come_first_with_their_reasons(page):
    table = page[page.index('id="worst"') : page.index('id="pictures"')]
    assert "2 of 24 scans give a reason" in table
    rows = table.split("<tr>")[2:]
    assert len(rows) == 10
    assert "s&lt;3&gt;" in rows[0]
    for reason in ("less alike than before", "folds in 1.23 % of the brain", "far less alike"):
        assert reason in rows[0], reason
    assert "s&lt;20&gt;" in rows[1]
    assert "moved far more" in rows[1]
    assert not any("alike" in row or "more" in row for row in rows[2:])


def test_heads_are_measured_and_not_pictured(tmp_path, summary, registered, template):
    path = write_registration(
        tmp_path / "page.html", summary, registered, [], SPACING, template, template
    )
    text = path.read_text()
    assert "show heads and are not pictured" in text
    assert "data:image/gif" not in text
    assert 'id="average"' not in text
    assert "0.654" in text


def test_without_an_inverse_nothing_is_averaged(tmp_path, summary, registered, shown, template):
    bare = {**summary, "form": "displacement", "dice": None, "template": "/a/b/atlas.nii.gz"}
    scans = [
        Registered(
            r.subject, r.session, r.split,
            {name: value for name, value in r.measures.items() if name != "inverse_mm"},
        )
        for r in registered
    ]  # fmt: skip
    bare["splits"] = {
        split: {name: value for name, value in found.items() if name != "inverse_mm"}
        for split, found in summary["splits"].items()
    }
    path = write_registration(
        tmp_path / "page.html", bare, scans, shown[:1], SPACING, template, None
    )
    text = path.read_text()
    assert "no inverse" in text
    assert "Nothing in a displacement" in text
    assert "there and back misses" not in text
    assert "this cohort has none" in text
    assert "atlas.nii.gz" in text
    assert "The only scan" in text


def test_the_chart_has_before_above_after(registered):
    axes = before_after(registered, "correlation").axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [12, 12, 12, 12]
    before, after = dots[0], dots[2]
    assert np.median(before.get_xdata()) < np.median(after.get_xdata())
    assert max(before.get_ydata()) < min(after.get_ydata())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["TRAIN", "HOLD"]


def test_the_terminal_is_told_the_same(summary):
    lines = registration_text(summary).splitlines()
    assert lines[0] == "24 scans registered to the mean of TRAIN by voxelmorph, 0.5 s a scan."
    assert "personal data" in lines[1]
    (folded,) = [line for line in lines if line.startswith("Folded") and "TRAIN" in line]
    assert folded.split()[-3] == "0.103"
    assert lines[-1] == (
        "Dice between people, anatomy: 0.610 [0.600, 0.620] before, 0.740 [0.730, 0.750] after, "
        "gain 0.130 [0.120, 0.140]"
    )
