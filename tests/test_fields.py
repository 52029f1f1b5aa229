"""The cascade on phantoms: registration, a model of fields, texture on top."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from gyri import api
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import UsageError
from gyri.runtime.streams import derive_seeds
from gyri.synthesis import draw
from gyri.training.run import Run

UNET = "{widths: [8, 8], num_res_blocks: 1, attention: [false, false], channels_per_head: 8}"
REGISTRATION = """
name: registration
view: volume
data: {template: mean}
method: {name: voxelmorph, refinement: {steps: 6, lr: 0.2, smoothness: 0.1}}
networks: {registration: {down: [8, 8], up: [8, 8], last: [8]}}
training: {steps: 2, batch_size: 2}
"""
FIELDS = f"""
name: fields
view: {{name: field, stride: 2}}
needs: {{registration: registration.yaml}}
method:
  name: METHOD
  penalties: {{bending: 0.01, folding: 1.0}}
  sampling: {{num_steps: 3, clip: 0}}
networks: {{denoiser: {UNET}}}
conditions: [sex]
training: {{steps: 3, batch_size: 4}}
"""
TEXTURE = f"""
name: texture
view: detail
needs: {{coarse: fields.yaml}}
method: {{name: ddpm, prediction: edm, residual: coarse, sampling: {{num_steps: 3}}}}
networks: {{denoiser: {UNET}}}
conditions: [age, sex]
training: {{steps: 3, batch_size: 2}}
"""


@pytest.fixture(scope="module", params=["ddpm", "flow"])
def trained(request, tiny_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    for name, text in (("registration", REGISTRATION), ("fields", FIELDS), ("texture", TEXTURE)):
        (folder / f"{name}.yaml").write_text(text.replace("METHOD", request.param))
    return api.train(folder / "texture.yaml", tiny_cohort, folder / "run")


def test_what_a_run_stands_on_is_trained_first_and_counted(trained):
    fields = trained.root / "needs" / "coarse"
    registration = fields / "needs" / "registration"
    assert Run.read(fields).recipe.method.name in ("ddpm", "flow")
    assert Run.read(registration).recipe.method.name == "voxelmorph"
    needs = json.loads((trained.root / "run.json").read_text())["needs"]
    assert needs["coarse"]["training_s"] > 0


def test_penalties_of_the_view_are_in_the_log(trained):
    log = (trained.root / "needs" / "coarse" / "log.jsonl").read_text().splitlines()
    last = json.loads(log[-1])
    assert last["denoise/bending"] > 0
    assert last["denoise/folding"] >= 0


def test_samples_of_fields_are_the_template_deformed(trained, tmp_path):
    run = trained.root / "needs" / "coarse"
    made, _ = api.sample(run, tmp_path / "out", num=3, condition={"sex": "F"})
    template = Run.read(run / "needs" / "registration").load(torch.device("cpu")).method.template
    shown = SyntheticCohort.read(made.root).volume_set().volumes
    low, high = (float((x + 1) / 2) for x in (template.min(), template.max()))
    assert shown.min() >= low - 1e-3
    assert shown.max() <= high + 1e-3
    assert np.abs(shown[0] - shown[1]).max() > 1e-3
    assert not np.allclose(shown[0, 0], ((template[0, 0] + 1) / 2).numpy(), atol=1e-3)


def test_texture_follows_the_field_of_its_own_sample(trained):
    model = trained.load(torch.device("cpu"))
    rows = [model.schema.assign({"age": "60", "sex": "F"})] * 2
    seeds = torch.tensor([3, 4])
    both = draw(model, rows, seeds)
    coarse = draw(model.needs["coarse"], [{"sex": "F"}] * 2, derive_seeds(seeds, "coarse"))
    near, far = (both - coarse).abs().mean(), (both - coarse.flip(0)).abs().mean()
    assert near < far
    assert torch.allclose(draw(model, rows[:1], seeds[1:]), both[1:], atol=1e-4)


def test_samples_are_files_like_any_others(trained, tmp_path):
    made, _ = api.sample(trained.root, tmp_path / "out", num=2, condition={"age": "60"})
    files = sorted(made.root.rglob("*_T1w.nii.gz"))
    assert len(files) == 2
    assert np.isfinite(nib.load(files[0]).get_fdata()).all()


def test_a_view_of_fields_says_what_it_stands_on(tiny_cohort, tmp_path):
    (tmp_path / "fields.yaml").write_text(
        FIELDS.replace("METHOD", "ddpm").replace("needs: {registration: registration.yaml}", "")
    )
    with pytest.raises(UsageError, match="The view field stands on registration"):
        api.train(tmp_path / "fields.yaml", tiny_cohort, tmp_path / "run")
