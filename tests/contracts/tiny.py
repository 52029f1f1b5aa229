"""The smallest recipe of each registered method; a method without one fails the contracts."""

from __future__ import annotations

from typing import Any

from gyri.recipe import Recipe, parse_recipe

UNET = {"widths": [8, 16], "num_res_blocks": 1, "attention": [False, True], "channels_per_head": 8}
R3GAN = {
    "generator": {"widths": [16, 16], "group_size": 8},
    "discriminator": {"widths": [16, 16], "group_size": 8},
}
REGISTRATION_UNET = {"down": [4, 8], "up": [8, 8], "last": [4]}
DCGAN = {"generator": {"widths": [16, 8]}, "discriminator": {"widths": [16, 8]}}

RECIPES: dict[str, dict[str, Any]] = {
    "ddpm": {
        "view": {"name": "slice"},
        "method": {"name": "ddpm", "sampling": {"num_steps": 4}},
        "networks": {"denoiser": UNET},
    },
    "flow": {
        "view": {"name": "slice"},
        "method": {"name": "flow", "sampling": {"num_steps": 3}},
        "networks": {"denoiser": UNET},
    },
    "cdpm": {
        "view": "volume",
        "method": {"name": "cdpm", "window": 4, "sampling": {"num_steps": 2}},
        "networks": {
            "denoiser": {
                "widths": [8, 8],
                "num_res_blocks": 1,
                "attention": [False, True],
                "set_attention": [False, True],
                "channels_per_head": 8,
            }
        },
    },
    "r3gan": {"view": {"name": "slice"}, "method": {"name": "r3gan"}, "networks": R3GAN},
    "dcgan": {
        "view": {"name": "slice"},
        "conditions": [],
        "method": {"name": "dcgan", "latent_size": 8, "ema_half_life_images": 8},
        "networks": DCGAN,
    },
    "cgan": {
        "view": "volume",
        "method": {"name": "cgan", "latent_size": 8, "z_per": "item"},
        "networks": {**DCGAN, "discriminator": {"widths": [16, 8], "condition": "projection"}},
    },
    "wgan_gp": {
        "view": {"name": "slice"},
        "method": {"name": "wgan_gp", "latent_size": 8, "critic_steps": 2},
        "networks": DCGAN,
    },
    "stylegan2": {
        "view": {"name": "slice"},
        "method": {
            "name": "stylegan2",
            "latent_size": 8,
            "r1_every": 4,
            "ada": {"start": 0.5, "every": 2, "images": 100},
            "top_k": {"rate": 0.01, "group": 2, "column": 1},
        },
        "networks": {
            "generator": {"widths": [16, 8], "w_size": 16, "attention": [1]},
            "discriminator": {
                "widths": [16, 8],
                "stddev_group": 2,
                "attention": [1],
                "feature_quantisation": {"stages": [0, 1], "num_codes": 8},
            },
        },
    },
    "pca_gaussian": {"view": "volume", "method": {"name": "pca_gaussian", "components": 6}},
    "smote": {"view": "volume", "method": {"name": "smote", "column": 1, "neighbours": 1}},
    "vae": {
        "view": {"name": "slice"},
        "method": {
            "name": "vae",
            "latent_size": 4,
            "prior": "learned",
            # The mean image has a large rate under Adam; plain descent needs a small gradient.
            "reconstruction": {"scale": 10},
        },
        "networks": {"encoder": {"widths": [8, 8]}, "decoder": {"widths": [8, 8]}},
    },
    "gmvae": {
        "view": {"name": "slice"},
        "method": {"name": "gmvae", "latent_size": 4, "column": 1},
        "networks": {
            "classifier": {"name": "dense_encoder", "hidden": [8]},
            "encoder": {"name": "dense_encoder", "hidden": [8]},
            "decoder": {"name": "dense_decoder", "hidden": [8]},
        },
    },
    "vae_gan": {
        "view": "volume",
        "method": {"name": "vae_gan", "latent_size": 4, "ema_half_life_images": 8},
        "networks": {**DCGAN, "encoder": {"widths": [8, 8]}},
    },
    "alpha_wgan": {
        "view": "volume",
        "method": {"name": "alpha_wgan", "latent_size": 4, "critic_steps": 2},
        "networks": {
            **DCGAN,
            "encoder": {"widths": [8, 8]},
            "code_discriminator": {"hidden": [16]},
        },
    },
    "ha_gan": {
        "view": "volume",
        "method": {
            "name": "ha_gan",
            "latent_size": 8,
            "scale": 2,
            "feature_channels": 8,
            "slab": 4,
            "condition": "auxiliary",
            "ema_half_life_images": 8,
        },
        "networks": {
            "trunk": {"widths": [8]},
            "low_head": {"widths": [8]},
            "high_head": {"widths": []},
            "slab_encoder": {"widths": []},
            "slab_discriminator": {"widths": [8, 8], "features": 8, "hidden": 8},
            "low_discriminator": {"widths": [8], "features": 0},
            "code_encoder": {"widths": [8]},
        },
    },
    "cyclegan": {
        "view": {"name": "slice"},
        "conditions": ["age", "scanner"],
        "method": {"name": "cyclegan", "column": 1, "pool_size": 3},
        "networks": {
            "forward": {"width": 4, "num_blocks": 1, "position": "fourier"},
            "backward": {"width": 4, "num_blocks": 1},
            "discriminator_source": {"widths": [4, 8]},
            "discriminator_target": {"widths": [4, 8]},
        },
    },
    "autoencoder_kl": {
        "view": {"name": "slice"},
        "conditions": [],
        "method": {
            "name": "autoencoder_kl",
            "adversarial": 0.1,
            "patch": [12, 16],
            "unit_range": True,
            "ema_half_life_images": 8,
        },
        "networks": {
            "autoencoder": {"channels": [8, 8], "norm_groups": 4, "num_res_blocks": 1},
            "discriminator": {"widths": [4, 8]},
        },
    },
    "vqgan": {
        "view": {"name": "slice"},
        "conditions": [],
        "method": {"name": "vqgan", "adversarial": 0.1, "restart": 0.9},
        "networks": {
            "autoencoder": {"channels": [8], "num_res_layers": 1, "num_codes": 16, "decay": 0.8},
            "discriminator": {"widths": [4, 8]},
        },
    },
    "voxelmorph": {
        "conditions": [],
        "view": "volume",
        "method": {"name": "voxelmorph", "window": 5, "ema_half_life_images": 8},
        "networks": {"registration": REGISTRATION_UNET},
    },
    "diffusemorph": {
        "conditions": [],
        "view": "volume",
        "method": {"name": "diffusemorph", "window": 5},
        "networks": {"score": UNET, "deformation": REGISTRATION_UNET},
    },
    "noised_classifier": {
        "view": "volume",
        "method": {"name": "noised_classifier", "column": 1},
        "networks": {"classifier": UNET},
    },
}


def recipe(method: str, steps: int = 10, **training: Any) -> Recipe:
    """Return the tiny recipe of `method` with all that a run can have: conditions, snapshots."""
    return parse_recipe(
        {
            "name": f"tiny-{method}",
            "seed": 3,
            "conditions": ["age", "sex"],
            "training": {"steps": steps, "batch_size": 4, "snapshots": 2, **training},
            **RECIPES[method],
        }
    )
