"""Law 4: a sampler overfits two volumes, and beats cheap imitations on phantoms."""

from __future__ import annotations

import numpy as np
import pytest

from gyri import api
from gyri.capabilities import capabilities
from gyri.cohort.prepared import PreparedCohort
from gyri.recipe import parse_recipe
from gyri.registry import METHODS
from gyri.training.run import train

SAMPLERS = [name for name in METHODS if "Sampler" in capabilities(METHODS[name].component)]
UNET = {"patch": 2, "widths": [24, 32], "attention": [False, False], "num_res_blocks": 1}
GAN = {"widths": [64, 32], "group_size": 16}
DCGAN = {
    "generator": {"widths": [64, 32], "norm": "none"},
    "discriminator": {"widths": [64, 32], "norm": "none"},
}
DENSE = {
    "encoder": {"name": "dense_encoder", "hidden": [256]},
    "decoder": {"name": "dense_decoder", "hidden": [256], "output": "linear"},
}
ADAM = {"lr": 1e-3, "warmup_steps": 50, "final_lr": 0.02}
STYLEGAN2 = {
    "generator": {"widths": [64, 32], "w_size": 32, "mapping_layers": 2, "mapping_lr": 1.0},
    "discriminator": {"widths": [64, 32]},
}
SLICE_SET = {
    "widths": [24, 32],
    "attention": [False, False],
    "set_attention": [False, True],
    "num_res_blocks": 1,
    "channels_per_head": 16,
}
CRITIC = {**DCGAN, "generator": {"widths": [64, 32], "norm": "layer"}}
UNREGULARISED = {
    "lr": 5e-4, "betas": [0.0, 0.9], "final_lr": 0.01, "ema_half_life_images": 8000,
}  # fmt: skip
"""Two networks without a penalty circle around their equilibrium; the average lies inside."""
CODED = {
    "encoder": {"widths": [16, 32, 64]},
    "generator": {"widths": [64, 32]},
    "discriminator": {"widths": [64, 32]},
}
HA_GAN = {
    "trunk": {"widths": [64]},
    "low_head": {"widths": [16]},
    "high_head": {"widths": []},
    "slab_encoder": {"widths": []},
    "slab_discriminator": {"widths": [32, 64], "features": 64},
    "low_discriminator": {"widths": [32, 64], "features": 0},
    "code_encoder": {"widths": [32]},
}
SLABS = {"name": "ha_gan", "latent_size": 16, "scale": 2, "feature_channels": 32, "slab": 10}

OVERFIT = {
    "cdpm": {
        "method": {
            "name": "cdpm",
            "prediction": "edm",
            "p_mean": -0.4,
            "window": 12,
            "optimiser": {"lr": 3e-3, "clip_norm": 1.0, "final_lr": 0.02},
            "ema_half_life_images": 400,
        },
        "networks": {"denoiser": {**SLICE_SET, "patch": 2}},
        "training": {"steps": 800, "batch_size": 4},
    },
    "ddpm": {
        "method": {
            "name": "ddpm",
            "prediction": "x0",
            "optimiser": {"lr": 3e-3, "clip_norm": 1.0, "final_lr": 0.02},
        },
        "networks": {"denoiser": UNET},
        "training": {"steps": 500, "batch_size": 8},
    },
    "flow": {
        "method": {
            "name": "flow",
            "optimiser": {"lr": 3e-3, "clip_norm": 1.0, "final_lr": 0.02},
            "ema_half_life_images": 400,
        },
        "networks": {"denoiser": {**UNET, "input_skip": True}},
        "training": {"steps": 500, "batch_size": 8},
    },
    "r3gan": {
        "view": "stack",
        "method": {"name": "r3gan", "gamma": 100.0, "augment": 0.0, "lr": [1e-3, 5e-4]},
        "networks": {"generator": GAN, "discriminator": GAN},
        "training": {"steps": 2500, "batch_size": 8},
    },
    "dcgan": {
        "view": "stack",
        "method": {"name": "dcgan", **UNREGULARISED},
        "networks": CRITIC,
        "training": {"steps": 6500, "batch_size": 8},
    },
    "cgan": {
        "view": "stack",
        "conditions": ["age"],
        "method": {"name": "cgan", **UNREGULARISED},
        "networks": CRITIC,
        "training": {"steps": 6500, "batch_size": 8},
    },
    "wgan_gp": {
        "view": "stack",
        "method": {"name": "wgan_gp", "lr": 2e-3, "final_lr": 0.1, "critic_steps": 2},
        "networks": CRITIC,
        "training": {"steps": 1500, "batch_size": 8},
    },
    "stylegan2": {
        "view": "stack",
        "method": {
            "name": "stylegan2",
            "latent_size": 16,
            "lr": 1e-2,
            "gamma": 5.0,
            "path_weight": 0.0,
            "ema_half_life_images": 400,
        },
        "networks": {**STYLEGAN2, "generator": {**STYLEGAN2["generator"], "noise": False}},
        "training": {"steps": 1500, "batch_size": 4},
    },
    "vae": {
        "method": {
            "name": "vae",
            "latent_size": 2,
            # Two volumes are one bit: the divergence must be worth something against the voxels.
            "reconstruction": {"scale": 1.0},
            "beta": 10.0,
            "optimiser": ADAM,
        },
        "networks": DENSE,
        "training": {"steps": 1200, "batch_size": 8},
    },
    "vae_gan": {
        "method": {
            "name": "vae_gan",
            "latent_size": 2,
            "likeness": "voxel",
            "reconstruction": {"scale": 1.0},
            "beta": 1.0,
            "gamma": 0.1,
            "lr": 1e-3,
            "final_lr": 0.02,
            "ema_half_life_images": 800,
        },
        "networks": CODED,
        "training": {"steps": 1200, "batch_size": 4},
    },
    "alpha_wgan": {
        "method": {
            "name": "alpha_wgan",
            "latent_size": 4,
            "reconstruction": 100.0,
            "lr": 1e-3,
            "final_lr": 0.1,
            "ema_half_life_images": 800,
        },
        "networks": {**CODED, "code_discriminator": {"hidden": [64, 64]}},
        "training": {"steps": 1200, "batch_size": 4},
    },
    "ha_gan": {
        "method": {
            **SLABS,
            "lr": 1e-3,
            "discriminator_lr": 2e-3,
            "final_lr": 0.05,
            "ema_half_life_images": 2000,
        },
        "networks": HA_GAN,
        "training": {"steps": 2000, "batch_size": 4},
    },
    "gmvae": {
        "method": {
            "name": "gmvae",
            "classes": 2,
            "latent_size": 2,
            "reconstruction": {"scale": 1.0},
            "beta": 10.0,
            "optimiser": ADAM,
        },
        "networks": {**DENSE, "classifier": DENSE["encoder"], "prior": {"spread": 1.0}},
        "training": {"steps": 1200, "batch_size": 8},
    },
}
PHANTOMS = {
    "cdpm": {
        "method": {
            "name": "cdpm",
            "prediction": "edm",
            "p_mean": -0.8,
            "window": 12,
            "optimiser": {"lr": 2e-3, "clip_norm": 1.0, "final_lr": 0.02},
            "ema_half_life_images": 400,
            "sampling": {"sigma_min": 0.02},
        },
        "networks": {"denoiser": SLICE_SET},
        "training": {"steps": 1000, "batch_size": 4},
    },
    "ddpm": {
        "method": {
            "name": "ddpm",
            "prediction": "edm",
            "prior": "gaussian",
            "prior_components": 20,
            "p_mean": -1.6,
            "p_std": 0.9,
            "optimiser": {"lr": 2e-3, "clip_norm": 1.0, "final_lr": 0.02},
            "ema_half_life_images": 100,
            # Below this level so small a network knows no texture: it is left out.
            "sampling": {"sigma_min": 0.05},
        },
        "networks": {"denoiser": {**UNET, "patch": 1, "widths": [16, 32]}},
        "training": {"steps": 1000, "batch_size": 4},
    },
    "flow": {
        "method": {
            "name": "flow",
            "loc": 0.5,
            "optimiser": {"lr": 2e-3, "clip_norm": 1.0, "final_lr": 0.02},
            "ema_half_life_images": 400,
        },
        "networks": {"denoiser": {**UNET, "patch": 1, "widths": [16, 32], "input_skip": True}},
        "training": {"steps": 1000, "batch_size": 4},
    },
    "r3gan": {
        "view": "stack",
        "method": {"name": "r3gan", "gamma": 50.0, "lr": [1e-3, 5e-4]},
        "networks": {"generator": GAN, "discriminator": GAN},
        "training": {"steps": 3000, "batch_size": 8},
    },
    "dcgan": {
        "view": "stack",
        "method": {"name": "dcgan", "lr": 5e-4, "final_lr": 0.1, "ema_half_life_images": 2000},
        "networks": DCGAN,
        "training": {"steps": 3000, "batch_size": 8},
    },
    "cgan": {
        "view": "stack",
        "conditions": ["age", "sex"],
        "method": {"name": "cgan", "lr": 5e-4, "final_lr": 0.1, "ema_half_life_images": 2000},
        "networks": DCGAN,
        "training": {"steps": 3000, "batch_size": 8},
    },
    "wgan_gp": {
        "view": "stack",
        "method": {"name": "wgan_gp", "lr": 1e-3, "final_lr": 0.1, "critic_steps": 3},
        "networks": CRITIC,
        "training": {"steps": 1500, "batch_size": 8},
    },
    "stylegan2": {
        "view": "stack",
        "method": {
            "name": "stylegan2",
            "latent_size": 64,
            "lr": 1e-2,
            "gamma": 5.0,
            "path_weight": 0.0,
            "ema_half_life_images": 2000,
        },
        "networks": STYLEGAN2,
        "training": {"steps": 2500, "batch_size": 8},
    },
    "vae": {
        "conditions": ["age", "sex"],
        "method": {
            "name": "vae",
            "latent_size": 16,
            "reconstruction": {"scale": 0.5},
            "optimiser": ADAM,
        },
        "networks": DENSE,
        "training": {"steps": 1500, "batch_size": 8},
    },
    "vae_gan": {
        "conditions": ["age", "sex"],
        "method": {
            "name": "vae_gan",
            "latent_size": 32,
            "gamma": 1e-3,
            "lr": 5e-4,
            "final_lr": 0.1,
            "ema_half_life_images": 1000,
        },
        "networks": CODED,
        "training": {"steps": 2000, "batch_size": 4},
    },
    "alpha_wgan": {
        "conditions": ["age", "sex"],
        "method": {
            "name": "alpha_wgan",
            "latent_size": 32,
            "reconstruction": 100.0,
            "lr": 1e-3,
            "final_lr": 0.1,
            "ema_half_life_images": 1000,
        },
        "networks": {**CODED, "code_discriminator": {"hidden": [64, 64]}},
        "training": {"steps": 2000, "batch_size": 4},
    },
    "ha_gan": {
        "conditions": ["age", "sex"],
        "method": {
            **SLABS,
            "lr": 5e-4,
            "discriminator_lr": 1e-3,
            "final_lr": 0.1,
            "ema_half_life_images": 2000,
        },
        "networks": HA_GAN,
        "training": {"steps": 2500, "batch_size": 4},
    },
    "gmvae": {
        "conditions": ["scanner"],
        "method": {
            "name": "gmvae",
            "column": 0,
            "latent_size": 16,
            "reconstruction": {"scale": 0.5},
            "optimiser": ADAM,
        },
        "networks": {**DENSE, "classifier": DENSE["encoder"], "prior": {"spread": 1.0}},
        "training": {"steps": 1500, "batch_size": 8},
    },
    "pca_gaussian": {"method": "pca_gaussian", "training": {"steps": 1}},
    "smote": {"method": "smote", "conditions": ["sex"], "training": {"steps": 1}},
}

FEATURES = ("morph-v1", "radiomics-v1")
ANCHORS = ("noise", "phase_random", "mean_image")
WINS = {
    "cdpm": (),
    "pca_gaussian": ("morph-v1", "radiomics-v1"),
    "smote": ("morph-v1", "radiomics-v1"),
    "ddpm": ("morph-v1", "radiomics-v1"),
    "flow": (),
    "r3gan": ("morph-v1",),
    "dcgan": (),
    "cgan": (),
    "wgan_gp": (),
    "stylegan2": (),
    "vae": ("morph-v1",),
    "vae_gan": (),
    "alpha_wgan": (),
    "ha_gan": (),
    "gmvae": ("morph-v1",),
}
"""Features on which a sampler beats all anchors in kernel distance and coverage. At 8 mm the mean
phantom has nearly the texture of one: in some minutes of one core R3GAN comes no closer to it, and
an autoencoder's samples are smoother. Classic GANs are asked to beat noise and surrogates alone."""


def sampled(settings, cohort, folder, num, split="TRAIN"):
    recipe = parse_recipe({"name": folder.name, "view": "volume", **settings})
    train(recipe, cohort, folder / "run", quiet=True)
    samples, _ = api.sample(folder / "run", folder / "samples", num=num)
    return samples.volume_set()


def phantom_cohort(root, num, **sizes):
    api.import_cohort("phantom", None, root / "raw", num_subjects=num, spacing_mm=8.0, jobs=2)
    api.prepare(root / "raw", root / "prepared", spacing_mm=8.0, sizes=sizes, jobs=2)
    return root / "prepared"


def test_every_trained_sampler_is_under_the_law():
    assert set(SAMPLERS) == set(PHANTOMS) == set(WINS)
    assert set(OVERFIT) == set(SAMPLERS) - {"pca_gaussian", "smote"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(OVERFIT))
def test_a_sampler_overfits_two_volumes(name, tmp_path):
    cohort = phantom_cohort(tmp_path, 5, TRAIN=2, VAL=1, HOLD=1, TEST=1)
    generated = sampled(OVERFIT[name], cohort, tmp_path, num=8).volumes.reshape(8, -1)
    two = PreparedCohort.read(cohort).volume_set("TRAIN").volumes.reshape(2, -1)
    error = ((generated[:, None] - two) ** 2).mean(-1)
    apart = ((two[0] - two[1]) ** 2).mean()
    assert (error.min(1) < apart / 2).mean() >= 0.75
    assert set(np.unique(error.argmin(1))) == {0, 1} or name == "r3gan"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    return phantom_cohort(root, 110, TRAIN=60, VAL=5, HOLD=40, TEST=5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_beats_noise_surrogates_and_the_mean_image(name, phantoms, tmp_path):
    sampled(PHANTOMS[name], phantoms, tmp_path, num=24)
    scores = api.evaluate(tmp_path / "samples", phantoms, bootstrap=50, features=FEATURES)
    for features in FEATURES:
        kernel, coverage = scores[f"kid/{features}"], scores[f"coverage/{features}"]
        for anchor in ("noise", "phase_random"):
            assert kernel.value < kernel.anchors[anchor], (features, anchor)
        if features in WINS[name]:
            assert kernel.value < kernel.anchors["mean_image"], features
            for anchor in ANCHORS:
                assert coverage.value > coverage.anchors[anchor], (features, anchor)
