"""What a CUDA device must give: the same training and the same samples, to rounding."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.tiny import recipe

from gyri import synthesis
from gyri.training.run import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", ["ddpm", "r3gan", "pca_gaussian"])
def test_a_run_trains_resumes_and_samples_on_a_gpu(name, tiny_cohort, tmp_path):
    run = train(recipe(name, steps=4), tiny_cohort, tmp_path / "run", device="cuda", quiet=True)
    again = train(recipe(name, steps=4), tiny_cohort, tmp_path / "run", device="cuda", quiet=True)
    assert again.info["cost"]["steps"] == run.info["cost"]["steps"]
    model = run.load(torch.device("cuda"))
    volumes = synthesis.draw(model, [run.schema.assign({})] * 2, torch.tensor([1, 2]))
    assert volumes.shape == (2, 1, 20, 24, 20)
    assert bool(torch.isfinite(volumes).all())


def test_bf16_training_stays_finite(tiny_cohort, tmp_path):
    bf16 = recipe("ddpm", steps=10, precision="bf16")
    run = train(bf16, tiny_cohort, tmp_path / "run", device="cuda", quiet=True)
    assert run.info["cost"]["steps"] == 10
