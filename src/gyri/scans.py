"""Real scans in the hands of a run: what reconstruction and translation have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gyri.cohort import bids
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import UsageError
from gyri.runtime.streams import derive_seeds
from gyri.training.run import Model, Run
from gyri.training.scoring import NO_ROW
from gyri.types import Batch

ITEMS_PER_CALL = 16


def refuse_strangers(run: Run, cohort: PreparedCohort) -> None:
    """Refuse a cohort that a run cannot read, or whose held-out subjects it may know.

    Raises
    ------
    UsageError
        If the grid differs, or the cohort is the run's dealt otherwise.
    """
    ours, theirs = run.grid, cohort.grid
    if ours.shape != theirs.shape or not np.allclose(ours.affine, theirs.affine, atol=1e-3):
        raise UsageError(
            f"{cohort.root} lies on a grid of {theirs.shape} voxels of {theirs.spacing_mm[0]:g} "
            f"mm, and {run.root} was trained on {ours.shape} of {ours.spacing_mm[0]:g} mm. Prepare "
            "the scans as those that the run was trained on."
        )
    if run.info["data_hash"] == cohort.data_hash and run.info["split_hash"] != cohort.split_hash:
        raise UsageError(
            f"{cohort.root} deals its subjects differently from the cohort that {run.root} was "
            "trained on: its HOLD may hold training subjects. Give the original."
        )


def warn_of_people(made: SyntheticCohort, cohort: PreparedCohort, kind: str, what: str) -> None:
    """Write a README which says that a folder shows real people.

    Parameters
    ----------
    kind : of MRI, "Reconstructed".
    what : each volume is, "what a model makes of".
    """
    bids.write_readme(
        made.root,
        f"{kind} brain MRI",
        f"Every volume in this folder is {what} the scan of a real person of {cohort.name}, under "
        "that person's label. It is personal data like the scan itself and no synthetic cohort to "
        "be shared.",
    )


def by_items(
    model: Model, volumes: Tensor, condition: Tensor, make: Callable[[Batch], Tensor]
) -> Tensor:
    """Change volumes item by item; where items overlap, the results are averaged.

    Parameters
    ----------
    volumes : (V, C, I, J, K) in [-1, 1].
    condition : (V, D).
    make : items -> (B, C, *S).

    Returns
    -------
    Tensor
        (V, C, I, J, K) on the CPU.
    """
    parts = [make(batch) for batch in batches(model, volumes, condition)]
    return model.view.decode(torch.cat(parts)).float().cpu()


def batches(model: Model, volumes: Tensor, condition: Tensor) -> Iterator[Batch]:
    """Cut volumes (V, C, I, J, K) under conditions (V, D) into batches of their items, in order."""
    items = model.view.encode(volumes)
    of_item = condition.repeat_interleave(len(items.x) // len(volumes), dim=0)
    for start in range(0, len(items.x), ITEMS_PER_CALL):
        rows = slice(start, start + ITEMS_PER_CALL)
        x = items.x[rows]
        yield Batch(
            x=x,
            condition=of_item[rows],
            position=None if items.position is None else items.position[rows],
            subject=torch.full((len(x),), NO_ROW, device=model.device),
            seed=derive_seeds(torch.arange(start, start + len(x)), "scans"),
        )
