"""How much draws on principal components lean towards the people that these were found in.

python docs/results/leaning.py PREPARED

Deals all subjects at random into as many as TRAIN has and the others, six times, finds components
in the first (the low-rank view), and draws volumes: Gaussian coefficients and a texture as strong
as what the components leave out of the others. Prints the share of draws whose nearest person, as
the metric `nearest` has it, is of the first, per person of the first against per person of the
others (0.5 without knowledge of them), and the variance of the others that the components explain.
One component knows little but the mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from gyri.cohort.prepared import PreparedCohort
from gyri.evaluation.metrics.nearest import MASK_SHARE, unit_rows
from gyri.nn.stationary import StationaryGaussian
from gyri.registry import VIEWS
from gyri.types import Grid

SETTINGS = ((0, 40), (14, 40), (14, 10), (24, 40), (24, 10), (34, 20), (24, 1))
DEALS, DRAWS = 6, 256


def leaning(volumes: torch.Tensor, grid: Grid, num: int, fwhm: float, count: int) -> np.ndarray:
    """Share of draws nearest to the first `num` volumes (N, 1, I, J, K), and what is explained."""
    entry = VIEWS["low_rank"]
    view = entry.component(entry.config(components=count, fwhm_mm=fwhm), 1, grid)
    first, others = volumes[:num], volumes[num:]
    view.fit(first)
    kept = view.decode(view.encode(others).x)
    left_out, mean = others - kept, first.mean(0)
    texture = StationaryGaussian.fit(left_out)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(DRAWS, count, 1, 1, 1, generator=generator)
    white = torch.randn(DRAWS, *volumes.shape[1:], generator=generator)
    frequencies = torch.fft.rfftn(white, dim=(2, 3, 4), norm="ortho") * texture.spectrum.sqrt()
    grain = torch.fft.irfftn(frequencies, s=volumes.shape[2:], dim=(2, 3, 4), norm="ortho")
    drawn = view.decode(z) + texture.amplitude * grain
    mask = (first.mean((0, 1)) + 1 > MASK_SHARE * (first.mean((0, 1)) + 1).amax()).numpy()
    rows = [unit_rows((x - mean)[:, 0].numpy(), mask) for x in (drawn, volumes)]
    share = float(((rows[0] @ rows[1].T).argmax(1) < num).mean())
    member, other = share / num, (1 - share) / (len(volumes) - num)
    explained = 1 - float(left_out.square().sum() / (others - mean).square().sum())
    return np.array([member / (member + other), explained])


def main() -> None:
    """Print the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    cohort = PreparedCohort.read(parser.parse_args().prepared)
    sets = [cohort.volume_set(split) for split in ("TRAIN", "VAL", "HOLD", "TEST")]
    volumes = torch.cat([torch.from_numpy(s.volumes[:, :1]) for s in sets]).float() * 2 - 1
    deals = [np.random.default_rng(seed).permutation(len(volumes)) for seed in range(DEALS)]
    print("| fwhm (mm) | components | nearest to the first | explained of the others |")
    print("|---|---|---|---|")
    for fwhm, count in SETTINGS:
        found = np.array(
            [leaning(volumes[d], sets[0].grid, len(sets[0].volumes), fwhm, count) for d in deals]
        )
        mean, error = found.mean(0), found[:, 0].std(ddof=1) / DEALS**0.5
        told = f"{mean[0]:.2f} (s.e. {error:.2f})"
        print(f"| {fwhm} | {count} | {told} | {mean[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
