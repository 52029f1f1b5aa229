"""Templates on a cohort's grid and in its intensities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError, UsageError
from gyri.prepare.itk import resampled
from gyri.prepare.template import mni152
from gyri.training.data import ResidentVolumes
from gyri.types import Grid

MIN_OVERLAP = 0.5
"""Least share of the cohort's mean brain that a template must cover."""


def load_template(name: str, volumes: ResidentVolumes, grid: Grid) -> Tensor:
    """Return a template (1, I, J, K) in [-1, 1] on the volumes' grid and device.

    Parameters
    ----------
    name : ``mean`` is the voxelwise mean of the volumes; ``MNI`` the MNI152 brain that nilearn
        ships; else a NIfTI file of a brain on a background of 0. The latter two are multiplied by
        what brings them nearest to the mean.
    volumes : TRAIN.
    grid : of the volumes.

    Raises
    ------
    UsageError
        If volumes have more than one channel.
    DataError
        If the file lies elsewhere in the world than the volumes.
    """
    if volumes.shape[1] != 1:
        raise UsageError(
            f"A registration deforms one intensity channel; data.channels gives "
            f"{volumes.shape[1]}. Name one."
        )
    mean = sum(volumes[row] for row in range(volumes.shape[0])) / volumes.shape[0]
    assert isinstance(mean, Tensor)
    if name == "mean":
        return mean
    if name == "MNI":
        template = mni152()
        image, affine = template.image, template.affine
    else:
        image, affine, _ = read_volume(Path(name))
    image = resampled(image, affine, np.array(grid.affine), grid.shape).clip(0)
    brain, theirs = image > 0, mean[0].cpu().numpy() > -1 + 1e-3
    covered = (brain & theirs).sum() / max(theirs.sum(), 1)
    if covered < MIN_OVERLAP:
        raise DataError(
            f"The template {name} covers {covered:.0%} of the cohort's mean brain on the cohort's "
            "grid. Give a template without its head, on a background of 0, in the space that the "
            "cohort was prepared in."
        )
    mean_unit = (mean[0].cpu().numpy() + 1) / 2
    scaled = image * (mean_unit * image).sum() / (image * image).sum()
    return torch.from_numpy(2 * scaled.clip(0, 1) - 1).float()[None].to(mean.device)
