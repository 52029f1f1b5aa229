"""The whole path on phantoms, from nothing to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gyri import api
from gyri.cohort.prepared import MANIFEST
from gyri.recipe import Recipe, parse_recipe
from gyri.runtime.device import peak_memory_gib

NUM_SUBJECTS = 120
NUM_SAMPLES = 16
SPLIT = {"TRAIN": 70, "VAL": 6, "HOLD": 38, "TEST": 6}

RECIPE: dict[str, Any] = {
    "name": "demo",
    "view": "volume",
    "method": {
        "name": "ddpm",
        "prediction": "edm",
        "prior": "gaussian",
        "prior_components": 20,
        "p_mean": -1.6,
        "p_std": 0.9,
        "optimiser": {"lr": 2e-3, "warmup_steps": 20, "clip_norm": 1.0, "final_lr": 0.02},
        "ema_half_life_images": 100,
        # Below this level so short a training knows no texture: it is left out.
        "sampling": {"sampler": "heun", "num_steps": 10, "sigma_min": 0.12},
    },
    "networks": {
        "denoiser": {
            "name": "unet",
            "patch": 2,
            "widths": [32, 48],
            "num_res_blocks": 1,
            "attention": [False, False],
        }
    },
    "conditions": ["age", "sex", "scanner"],
    "training": {"budget_s": 120, "batch_size": 2, "save_every_s": 30, "preview_every": 0},
}
"""A small diffusion model that starts from what a linear model knows; two cores, two minutes."""


def recipe(budget_s: float | None = None) -> Recipe:
    """Return the demo's recipe."""
    training = RECIPE["training"] | ({} if budget_s is None else {"budget_s": budget_s})
    return parse_recipe({**RECIPE, "training": training})


def demo(out: Path, *, seed: int = 0, budget_s: float | None = None) -> Path:
    """Make a phantom cohort, prepare it, train, sample, judge and report.

    Every stage that is complete is kept: started again, the demo goes on where it was.

    Parameters
    ----------
    out : folder for everything.
    seed : of the phantoms.
    budget_s : seconds of training instead of the recipe's.

    Returns
    -------
    Path
        ``report.html``.
    """
    raw, prepared, run = out / "cohort", out / "prepared", out / "run"
    samples = out / "samples"
    api.import_cohort("phantom", None, raw, num_subjects=NUM_SUBJECTS, seed=seed, spacing_mm=4.0)
    if not (prepared / MANIFEST).is_file():
        api.prepare(raw, prepared, spacing_mm=4.0, sizes=SPLIT)
    api.train(recipe(budget_s), prepared, run)
    api.sample(run, samples, num=NUM_SAMPLES, like=prepared, split="HOLD")
    if not (samples / "evaluation" / "scores.json").is_file():
        api.evaluate(samples, prepared)
    return api.report(samples, prepared, out=out / "report.html")


def summary(out: Path, seconds: float) -> str:
    """Return the closing lines: where everything lies and what it cost."""
    places = {
        "report": "report.html",
        "synthetic volumes": "samples",
        "scores": "samples/evaluation/scores.json",
        "model": "run",
        "prepared cohort": "prepared",
        "phantom cohort (raw BIDS)": "cohort",
    }
    lines = [f"{name:28}{out / place}" for name, place in places.items()]
    cost = f"{seconds:.0f} s, peak memory {peak_memory_gib():.1f} GiB"
    return "\n".join([*lines, f"{'cost':28}{cost}"])
