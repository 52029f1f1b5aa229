"""What a run folder gives away of TRAIN, samples apart."""

from __future__ import annotations

import math

from gyri.registry import METHODS
from gyri.training import checkpoint
from gyri.training.labels import width
from gyri.training.run import Run

LEAST = 2
"""A tensor that is no weight and has the room of this many volumes is named."""


def runs_of(run: Run) -> dict[str, Run]:
    """Return a run and all runs that it stands on, by method and name."""
    found = {run.recipe.method.name: run}
    for name, entry in run.info.get("needs", {}).items():
        for method, needed in runs_of(Run.read(entry["run"])).items():
            found[f"{method} ({name})"] = needed
    return found


def with_training_data(run: Run) -> list[str]:
    """Name the methods, needs included, whose samples are made of training voxels."""
    return [
        name
        for name, needed in runs_of(run).items()
        if METHODS[needed.recipe.method.name].component.contains_training_data
    ]


def kept_directions(run: Run, step: int | None = None) -> list[str]:
    """Name what a checkpoint keeps, beside weights, that has room for whole training volumes.

    Principal directions, codebooks of volumes and the like: with as many directions as subjects
    every training volume is a sum of them, so that the checkpoint is as sensitive as TRAIN.

    Returns
    -------
    list of str
        For example ``"pca_gaussian: gaussian.basis (room for 149 volumes)"``.
    """
    found = []
    for name, one in runs_of(run).items():
        size = width(one.channels) * math.prod(one.grid.shape)
        files, _ = checkpoint.load(one.checkpoint(step if one is run else None))
        for file in ("state", "view"):
            for key, tensor in files.get(file, {}).items():
                room = tensor.numel() // size
                if room >= LEAST:
                    found.append(f"{name}: {key} (room for {room} volumes)")
    return found
