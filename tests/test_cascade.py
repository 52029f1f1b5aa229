"""Coarse volumes, then their detail, on phantoms; bands and slices beside them."""

from __future__ import annotations

import pytest
import torch

from gyri import api
from gyri.runtime.streams import derive_seeds
from gyri.synthesis import draw

UNET = "{widths: [8, 8], num_res_blocks: 1, attention: [false, false], channels_per_head: 8}"
COARSE = f"""
name: coarse
view: {{name: pyramid, factor: [2, 2, 2]}}
method: {{name: ddpm, prediction: edm, sampling: {{num_steps: 3}}}}
networks: {{denoiser: {UNET}}}
conditions: [sex]
training: {{steps: 3, batch_size: 4}}
"""
DETAIL = f"""
name: detail
view: VIEW
needs: {{coarse: coarse.yaml}}
method: {{name: ddpm, prediction: edm, residual: RESIDUAL, sampling: {{num_steps: 3}}}}
networks: {{denoiser: {UNET}}}
conditions: [age, sex]
training: {{steps: 3, batch_size: 2}}
"""


@pytest.fixture(
    scope="module",
    params=[("detail", "coarse"), ("{name: detail, corruption: 0.4}", "null")],
    ids=["residual", "corrupted"],
)
def trained(request, tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    view, residual = request.param
    (folder / "coarse.yaml").write_text(COARSE)
    (folder / "detail.yaml").write_text(DETAIL.replace("VIEW", view).replace("RESIDUAL", residual))
    return api.train(folder / "detail.yaml", tiny_cohort, folder / "run")


def test_detail_follows_the_coarse_volume_of_its_own_sample(trained):
    model = trained.load(torch.device("cpu"))
    rows = [model.schema.assign({"age": "60", "sex": "F"})] * 2
    seeds = torch.tensor([3, 4])
    both = draw(model, rows, seeds)
    assert both.shape == (2, 1, 20, 24, 20)
    assert torch.allclose(draw(model, rows[:1], seeds[1:]), both[1:], atol=1e-4)
    if trained.recipe.method.config.residual is None:
        assert model.method.networks["denoiser"].spec.in_channels == 3
        return
    coarse = draw(model.needs["coarse"], [{"sex": "F"}] * 2, derive_seeds(seeds, "coarse"))
    near, far = (both - coarse).abs().mean(), (both - coarse.flip(0)).abs().mean()
    assert near < far


def test_coarse_samples_vary_slowly_and_stay_in_range(trained):
    model = trained.load(torch.device("cpu")).needs["coarse"]
    x = draw(model, [{"sex": "F"}] * 2, torch.tensor([1, 2]))
    assert float(x.abs().max()) <= 1
    own = model.view.encode(x).x
    assert float((model.view.decode(own) - x).abs().mean()) < float(x.std())


@pytest.mark.parametrize("scale", ["none", "band", "published"])
def test_bands_are_trained_and_sampled(scale, tiny_cohort, tmp_path):
    prior = "gaussian, prior_components: 2" if scale == "none" else "none"
    (tmp_path / "bands.yaml").write_text(
        COARSE.replace("{name: pyramid, factor: [2, 2, 2]}", f"{{name: wavelet, scale: {scale}}}")
        .replace("prediction: edm", f"prediction: edm, prior: {prior}")
    )  # fmt: skip
    run = api.train(tmp_path / "bands.yaml", tiny_cohort, tmp_path / "run")
    x = draw(run.load(torch.device("cpu")), [{"sex": "F"}], torch.tensor([1]))
    assert x.shape == (1, 1, 20, 24, 20)
    assert float(x.abs().max()) <= 1 + 1e-4
    assert float(x.std()) > 0
