"""The smallest recipe of each registered method; a method without one fails the contracts."""

from __future__ import annotations

from typing import Any

from gyri.recipe import Recipe, parse_recipe

UNET = {"widths": [8, 16], "num_res_blocks": 1, "attention": [False, True], "channels_per_head": 8}
R3GAN = {
    "generator": {"widths": [16, 16], "group_size": 8},
    "discriminator": {"widths": [16, 16], "group_size": 8},
}

RECIPES: dict[str, dict[str, Any]] = {
    "ddpm": {
        "view": {"name": "slice"},
        "method": {"name": "ddpm", "sampling": {"num_steps": 4}},
        "networks": {"denoiser": UNET},
    },
    "r3gan": {"view": {"name": "slice"}, "method": {"name": "r3gan"}, "networks": R3GAN},
    "pca_gaussian": {"view": "volume", "method": {"name": "pca_gaussian", "components": 6}},
    "smote": {"view": "volume", "method": {"name": "smote", "column": 1, "neighbours": 1}},
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
