"""The picture and the table of reconstructions."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gyri.cohort.phantom import phantom_volumes
from gyri.evaluation.paired import PairedScore
from gyri.report.figures import png
from gyri.report.reconstruction import paired_table, reconstruction_figure


def score(arm: str, metric: str, value: float) -> PairedScore:
    unit = "dB" if metric == "psnr" else ""
    return PairedScore(
        arm, arm == "anchor", "T1w", metric, unit, "higher", value, value - 1, value + 1, 4
    )


def test_brains_are_gray_and_differences_coloured():
    volumes = phantom_volumes(2, 0, 8.0).volumes[:, 0]
    figure = reconstruction_figure(volumes[0], {"strength-0.3": volumes[1]}, (8, 8, 8), "sub-a")
    pixels = np.asarray(Image.open(io.BytesIO(png(figure, dpi=60))).convert("RGB")).astype(int)
    below_the_titles = pixels[pixels.shape[0] // 4 :]
    spread = np.ptp(below_the_titles, axis=2).max(0)
    third = pixels.shape[1] // 3
    assert spread[: third - 5].max() <= 3
    assert spread[2 * third + 5 :].max() > 60


def test_the_table_has_a_row_an_arm_and_indents_anchors():
    scores = [score(arm, m, 2.5) for arm in ("strength-0.3", "anchor") for m in ("psnr", "ssim")]
    lines = paired_table(scores).splitlines()
    assert lines[0].split() == ["PSNR", "dB", "SSIM"]
    assert lines[1].split() == ["strength-0.3", "2.5", "[1.5,", "3.5]", "2.5", "[1.5,", "3.5]"]
    assert lines[2].startswith("  anchor")
