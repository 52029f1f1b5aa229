"""What becomes of slices stacked as channels, whose noise a narrow last convolution cannot pass on.

A smooth Gaussian of 176 slices, nearly all of whose variance lies in 25 directions, is sampled with
the best denoiser whose network has a linear last layer of limited rank.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gyri.runtime.streams import SampleRng
from gyri.sampling.preconditioning import SCALINGS
from gyri.sampling.samplers import Denoiser, clipped, ddim
from gyri.sampling.schedules import Level, VPSchedule

from .oracle import noise

DEPTH, STD, CORRELATION_LENGTH = 176, 0.5, 6.0
LEVELS = VPSchedule.build("linear", 1000).trailing(100)
TRUE_STD = 0.49


@pytest.fixture(scope="module")
def directions() -> tuple[Tensor, Tensor]:
    """Variances (D,) and directions (D, D) of the slices."""
    k = torch.arange(DEPTH, dtype=torch.float64)
    covariance = STD**2 * torch.exp(-0.5 * ((k[:, None] - k) / CORRELATION_LENGTH) ** 2)
    variance, basis = torch.linalg.eigh(covariance)
    return variance.clamp_min(0), basis


def limited(
    prediction: str, rank: int, directions: tuple[Tensor, Tensor], input_skip: bool = False
) -> Denoiser:
    """Best denoiser whose F is a linear map of `rank`, plus a multiple of its input or not.

    F passes on the directions of which it explains most; in the others it says nothing, or what
    the input skip says for them all: the answer for directions that hold no signal.
    """
    variance, basis = directions

    def denoiser(x_noised: Tensor, level: Level) -> Tensor:
        alpha, sigma = torch.tensor([level.alpha, level.sigma], dtype=torch.float64)
        c_skip, c_out, c_in = SCALINGS[prediction](alpha, sigma, STD)
        energy = alpha**2 * variance + sigma**2
        ideal = (alpha * variance / energy - c_skip) / (c_out * c_in)
        everywhere = -c_skip / (c_out * c_in) if input_skip else torch.zeros(())
        explained = (ideal - everywhere) ** 2 * energy
        reached = torch.zeros(DEPTH, dtype=torch.bool)
        reached[explained.topk(rank).indices] = True
        gain = torch.where(reached, ideal, everywhere)
        network = ((c_in * x_noised) @ basis * gain) @ basis.T
        return c_skip * x_noised + c_out * network

    return denoiser


def final_std(denoiser: Denoiser) -> float:
    start = LEVELS[0].sigma * noise(500, DEPTH).double()
    return float(ddim(denoiser, start, LEVELS, SampleRng(torch.arange(500))).std())


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "edm"])
def test_at_full_rank_every_prediction_samples_the_gaussian(prediction, directions) -> None:
    assert final_std(limited(prediction, DEPTH, directions)) == pytest.approx(TRUE_STD, abs=0.01)


def test_noise_beyond_the_rank_explodes_when_noise_is_predicted(directions) -> None:
    assert final_std(limited("eps", 128, directions)) == pytest.approx(82, rel=0.02)
    assert final_std(limited("eps", 64, directions)) == pytest.approx(103, rel=0.03)
    assert final_std(clipped(limited("eps", 128, directions), 1.5)) == pytest.approx(1.18, abs=0.03)


def test_noise_beyond_the_rank_stays_when_velocity_is_predicted(directions) -> None:
    assert final_std(limited("v", 128, directions)) == pytest.approx(0.57, abs=0.01)
    assert final_std(limited("v", 64, directions)) == pytest.approx(0.80, abs=0.02)
    assert final_std(limited("edm", 64, directions)) == pytest.approx(0.57, abs=0.01)


@pytest.mark.parametrize("rank", [64, 128])
def test_noise_beyond_the_rank_vanishes_when_the_volume_is_predicted(rank, directions) -> None:
    assert final_std(limited("x0", rank, directions)) == pytest.approx(TRUE_STD, abs=0.01)


@pytest.mark.parametrize("prediction", ["eps", "v", "edm"])
def test_an_input_skip_mends_every_prediction(prediction, directions) -> None:
    mended = limited(prediction, 64, directions, input_skip=True)
    assert final_std(mended) == pytest.approx(TRUE_STD, abs=0.01)
