"""Latent diffusion on phantoms: an autoencoder, a model of its codes, samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gyri import api
from gyri.errors import UsageError
from gyri.methods.vqgan import VQGAN
from gyri.reconstruction import rebuild
from gyri.synthesis import draw
from gyri.training.run import Run

KL = """
name: autoencoder
view: volume
method: autoencoder_kl
networks: {autoencoder: {channels: [4, 8], num_res_blocks: 1, norm_groups: 4, latent_channels: 2}}
training: {steps: 3, batch_size: 2}
"""
VQ = """
name: autoencoder
view: volume
method: {name: vqgan, adversarial: 0.1, adversarial_start: 0}
networks:
  autoencoder: {channels: [8], num_res_layers: 1, num_codes: 16, code_size: 2}
  discriminator: {widths: [4, 8]}
training: {steps: 3, batch_size: 2}
"""
LATENT = """
name: latent
view: {name: latent, channels: 2, factor: 2, min_psnr: FLOOR}
needs: {autoencoder: autoencoder.yaml}
method: {name: METHOD, sampling: {num_steps: 3}}
networks: {denoiser: NETWORK}
conditions: [age, sex]
training: {steps: 3, batch_size: 4}
"""
UNET = "{widths: [8, 8], num_res_blocks: 1, attention: [false, false], channels_per_head: 8}"
MONAI = (
    "{name: monai_unet, channels: [8, 8], num_res_blocks: 1, attention: [false, true], "
    "channels_per_head: [8], norm_groups: 4}"
)


def write(folder, stage, method="ddpm", network=UNET, floor="null"):
    text = LATENT.replace("METHOD", method).replace("NETWORK", network).replace("FLOOR", floor)
    (folder / "autoencoder.yaml").write_text(stage)
    (folder / "latent.yaml").write_text(text)
    return folder / "latent.yaml"


@pytest.fixture(
    scope="module",
    params=[(KL, "flow", UNET), (VQ, "ddpm", MONAI)],
    ids=["kl-flow-unet", "vq-ddpm-monai"],
)
def trained(request, tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    return api.train(write(folder, *request.param), tiny_cohort, folder / "run")


def test_the_autoencoder_is_trained_first_and_what_it_loses_is_written_down(trained):
    assert "LatentAutoencoder" in Run.read(trained.root / "needs" / "autoencoder").capabilities
    facts = json.loads((trained.root / "run.json").read_text())["view"]
    assert 0 < facts["reconstruction_psnr"] < 60
    assert facts["of"] > 1


def test_standardisation_travels_with_the_run(trained):
    model = trained.load(torch.device("cpu"))
    assert model.view.state["std"].shape == (2, 1, 1, 1)
    assert not torch.equal(model.view.state["std"], torch.ones(2, 1, 1, 1))


def test_samples_follow_their_seed_and_their_condition(trained):
    model = trained.load(torch.device("cpu"))
    row, other = (model.schema.assign({"age": age, "sex": "F"}) for age in ("30", "80"))
    both = draw(model, [row, row], torch.tensor([3, 4]))
    assert both.shape == (2, 1, 20, 24, 20)
    assert torch.isfinite(both).all()
    assert torch.allclose(draw(model, [row], torch.tensor([4])), both[1:], atol=1e-4)
    if isinstance(model.needs["autoencoder"].method, VQGAN):
        return  # After three steps codes differ so little that they take one code of the book.
    assert not torch.allclose(both[:1], both[1:], atol=1e-4)
    assert not torch.allclose(draw(model, [other], torch.tensor([4])), both[1:], atol=1e-6)


def test_a_real_scan_is_noised_as_a_code_and_decoded(trained):
    model = trained.load(torch.device("cpu"))
    volumes = torch.rand(1, 1, 20, 24, 20) * 2 - 1
    condition = model.schema.encode([model.schema.assign({})])
    made = rebuild(model, volumes, condition, 0.6, torch.tensor([1]))
    assert made.shape == volumes.shape


def test_the_autoencoder_rebuilds_scans(trained, tiny_cohort, tmp_path):
    run = trained.root / "needs" / "autoencoder"
    made = api.reconstruct(run, tiny_cohort, tmp_path / "rebuilt", split="HOLD", bootstrap=20)
    arms = {score.arm for score in made.scores}
    assert "reconstruction" in arms
    values = made.subjects[made.subjects["arm"] == "reconstruction"]["psnr"]
    assert np.isfinite(values).all()


def test_a_poor_autoencoder_stops_the_run_before_it_begins(tiny_cohort, tmp_path):
    path = write(tmp_path, KL, floor="60")
    with pytest.raises(UsageError, match="rebuilds TRAIN with PSNR"):
        api.train(path, tiny_cohort, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
