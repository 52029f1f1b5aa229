"""Channel stacking with diffusion: with what mends it, it learns."""

from __future__ import annotations

import pytest
import torch

from gyri.cohort.phantom import phantom_volumes
from gyri.evaluation.metrics.msssim import ms_ssim
from gyri.methods.ddpm import DDPM, DDPMConfig
from gyri.networks.unet import UNet, UNetConfig
from gyri.registry import VIEWS
from gyri.runtime.streams import SampleRng
from gyri.sampling.draw import SamplingConfig
from gyri.types import Batch, ConditionLayout, Progress

STEPS = 1400
MENDED = DDPMConfig(
    prediction="x0",
    loss_weighting="min_snr",
    logsnr_shift=-2.0,
    sampling=SamplingConfig(num_steps=20, sigma_min=0.02),
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_stack_of_slices_overfits_one_batch() -> None:
    made = phantom_volumes(4, seed=0, spacing_mm=8.0)
    volumes = torch.from_numpy(made.volumes).float() * 2 - 1
    view = VIEWS["stack"].component(VIEWS["stack"].config(), 1, made.grid)
    spec = view.item_spec(ConditionLayout(), num_train=4)
    torch.manual_seed(0)
    network = UNet(
        UNetConfig(widths=(48, 64), attention=(False, False), num_res_blocks=1, input_skip=True),
        DDPM.network_specs(MENDED, spec)["denoiser"],
    )
    method = DDPM(MENDED, spec, {"denoiser": network})
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    copies = 4
    x = view.encode(volumes).x.repeat(copies, 1, 1, 1)
    subject = torch.arange(4).repeat(copies)
    for step in range(STEPS):
        seed = torch.arange(len(x)) + step * len(x)
        batch = Batch(x, torch.zeros(len(x), 0), None, subject, seed)
        optimiser.zero_grad()
        method.loss("denoise", batch, Progress(step, 0, 0.0), SampleRng(seed)).total.backward()
        optimiser.step()
        decay.step()
    network.eval()
    drawn = method.sample(view, torch.zeros(6, 0), SampleRng(torch.arange(6)))
    generated = (drawn[:, 0].clamp(-1, 1).numpy() + 1) / 2
    nearest = [max(ms_ssim(one, real[0]) for real in made.volumes) for one in generated]
    assert min(nearest) > 0.9
