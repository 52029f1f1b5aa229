"""Walks through the code of an autoencoder: between two scans, along its axes, over conditions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gyri.capabilities import Autoencoder
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import UsageError
from gyri.runtime.device import pick_device
from gyri.sampling.latent import decode_latents
from gyri.scans import batches, refuse_strangers
from gyri.training.data import load_split
from gyri.training.run import Model, Run
from gyri.training.scoring import known_conditions

STEPS = 7
AXES = 4
REACH = 2.0
"""Standard deviations to either side that an axis of the code is walked."""


@dataclass(frozen=True)
class Walk:
    """One row of a picture.

    Parameters
    ----------
    label : what is walked.
    stops : where, a word each.
    volumes : (steps, I, J, K) in [0, 1], the first channel.
    """

    label: str
    stops: tuple[str, ...]
    volumes: np.ndarray


@torch.no_grad()
def latent_walks(
    run: Path | str,
    cohort: Path | str,
    *,
    split: str = "HOLD",
    step: int | None = None,
    device: str = "auto",
) -> list[Walk]:
    """Walk through the code of a run's autoencoder.

    From the code of the first subject of a split to that of the last; from the mean code along
    the dimensions that vary most over the split; and with the first subject's code through the
    levels of every categorical condition. Conditions are the first subject's otherwise.

    Parameters
    ----------
    run : run folder of an `Autoencoder`.
    cohort : prepared cohort on the run's grid.
    split : whose scans are encoded, at least two.
    step : a numbered checkpoint instead of the last.

    Raises
    ------
    UsageError
        If the method has no code, the grid differs, or the cohort is the run's dealt otherwise.
    """
    trained, prepared = Run.read(run), PreparedCohort.read(Path(cohort))
    refuse_strangers(trained, prepared)
    model = trained.load(pick_device(device), step)
    if not isinstance(model.method, Autoencoder):
        raise UsageError(f"{trained.root} is a {trained.recipe.method.name}, which has no code.")
    table = prepared.rows(split)
    volumes = load_split(prepared, split, trained.recipe.data, model.device)
    rows = [known_conditions(model.schema, row) for _, row in table.iterrows()]
    condition = model.schema.encode(rows).to(model.device)
    codes = torch.cat(
        [encode(model, volumes[k : k + 1], condition[k : k + 1]) for k in range(len(table))]
    )
    names = [f"sub-{name}" for name in table.index]
    walks = [_between(model, codes[[0, -1]], condition[:1], (names[0], names[-1]))]
    walks += _along_axes(model, codes, condition[:1])
    for column in model.schema.columns:
        if column.levels:
            levels = [{**rows[0], column.name: level} for level in column.levels]
            told = model.schema.encode(levels).to(model.device)
            made = decode(model, codes[:1].expand(len(levels), -1, -1), told)
            walks.append(Walk(f"{column.name}, {names[0]}", tuple(column.levels), made))
    return walks


def encode(model: Model, volumes: Tensor, condition: Tensor) -> Tensor:
    """Return the codes (V, items, L) of volumes (V, C, I, J, K) under conditions (V, D)."""
    assert isinstance(model.method, Autoencoder)
    found = [model.method.codes(batch) for batch in batches(model, volumes, condition)]
    return torch.cat(found).unflatten(0, (len(volumes), -1))


def decode(model: Model, codes: Tensor, condition: Tensor) -> np.ndarray:
    """Return the first channel (V, I, J, K) in [0, 1] of codes (V, items, L)."""
    assert isinstance(model.method, Autoencoder)
    made = decode_latents(model.method.decode, codes.flatten(0, 1), model.view, condition)
    return ((made[:, 0] + 1) / 2).clamp(0, 1).cpu().numpy()


def _between(model: Model, ends: Tensor, condition: Tensor, names: tuple[str, str]) -> Walk:
    share = torch.linspace(0, 1, STEPS, device=ends.device)[:, None, None]
    codes = (1 - share) * ends[:1] + share * ends[1:]
    stops = tuple(f"{float(s):.0%}" for s in share.flatten())
    volumes = decode(model, codes, condition.expand(STEPS, -1))
    return Walk(f"{names[0]} to {names[1]}", stops, volumes)


def _along_axes(model: Model, codes: Tensor, condition: Tensor) -> list[Walk]:
    """Walk from the mean code along the dimensions of largest variance, in all items together."""
    of_volume = codes.mean(1)
    spread = of_volume.std(0)
    reach = torch.linspace(-REACH, REACH, STEPS, device=codes.device)
    walks = []
    for axis in spread.argsort(descending=True)[:AXES].tolist():
        at = codes.mean(0, keepdim=True).repeat(STEPS, 1, 1)
        at[:, :, axis] += (reach * spread[axis])[:, None]
        stops = tuple(f"{float(r):+.1f} sd" for r in reach)
        volumes = decode(model, at, condition.expand(STEPS, -1))
        walks.append(Walk(f"dimension {axis} of the code", stops, volumes))
    return walks
