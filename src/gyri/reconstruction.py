"""Reconstruction: what a run makes of real scans, and how near that comes to them.

An autoencoder encodes a scan and decodes it. A diffusion model has no code: the scan is noised to
one of the sampler's levels and sampled from there (SDEdit, Meng et al., 2021, arXiv:2108.01073).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gyri.capabilities import Editor, Reconstructor, capabilities
from gyri.cohort.files import write_json, write_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.errors import DataError, UsageError
from gyri.evaluation.metrics.unpaired import DATA_RANGE
from gyri.evaluation.paired import PairedScore, compare_arms, summarise
from gyri.recipe import load_recipe
from gyri.registry import METHODS
from gyri.runtime.device import pick_device
from gyri.runtime.progress import progress_bar
from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.runtime.streams import SampleRng
from gyri.scans import by_items, refuse_strangers, warn_of_people
from gyri.synthesis import column_types, run_facts, write_missing
from gyri.training.data import load_split
from gyri.training.run import Model, Run
from gyri.training.scoring import known_conditions

STRENGTHS = (0.3, 0.6)
"""Shares of a sampler's steps that are taken where none are named."""
MEAN_IMAGE, OTHER, TRAIN_PERSON = "TRAIN mean image", "another person", "a TRAIN person"
ANCHORS = (MEAN_IMAGE, OTHER, TRAIN_PERSON)


@dataclass(frozen=True)
class Reconstructions:
    """What `reconstruct` made.

    Parameters
    ----------
    root : holds a folder an arm, ``paired.json`` and ``paired.tsv``.
    arms : name of the arm -> its volumes.
    cohort, split : the originals.
    scores : of every arm and anchor.
    subjects : value of every metric, one row a channel, arm and subject.
    """

    root: Path
    arms: dict[str, SyntheticCohort]
    cohort: PreparedCohort
    split: str
    scores: list[PairedScore]
    subjects: pd.DataFrame

    def typical(self) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
        """Return who has the median PSNR in the last arm: label, original and every arm's volume.

        Volumes are (I, J, K) in [0, 1], of the first channel.
        """
        channel = self.scores[0].channel
        is_last = self.subjects["arm"] == list(self.arms)[-1]
        chosen = self.subjects[is_last & (self.subjects["channel"] == channel)]
        row = int(chosen["psnr"].to_numpy().argsort()[len(chosen) // 2])
        rows = self.cohort.rows(self.split).iloc[[row]]
        index = [known.name for known in self.cohort.channels].index(channel)
        original = self.cohort.unit_intensities(rows, [index])[0, 0]
        rebuilt = {name: made.volume_set().volumes[row, 0] for name, made in self.arms.items()}
        return str(rows.index[0]), original, rebuilt


def reconstruct(
    run: Path | str,
    cohort: Path | str,
    out: Path | str,
    *,
    split: str = "HOLD",
    strengths: Sequence[float] | None = None,
    seed: int = 0,
    step: int | None = None,
    batch: int = 4,
    bootstrap: int = 2000,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
) -> Reconstructions:
    """Let a run rebuild real scans and compare each with its original; goes on where it stopped.

    Parameters
    ----------
    run : run folder of a `Reconstructor` or an `Editor`.
    cohort : prepared cohort on the run's grid.
    out : folder of the results.
    split : whose scans, the first session of each subject.
    strengths : shares of the sampler's steps for an `Editor`, in [0, 1]; by default `STRENGTHS`,
        or none where the method reconstructs without noise.
    seed : of the noise; a subject's does not depend on who else is there, nor on the strength.
    step : a numbered checkpoint instead of the last.
    batch : volumes at once.
    bootstrap : resamples of the subjects behind every interval.
    overrides : changes of ``method.sampling``.

    Raises
    ------
    UsageError
        If the method can neither, the grid differs, or the cohort is the run's dealt otherwise.
    GyriError
        When the model yields something that is not finite.
    """
    trained = Run.read(run)
    prepared = PreparedCohort.read(Path(cohort))
    ways = _ways(trained, strengths)
    refuse_strangers(trained, prepared)
    recipe = load_recipe(trained.root, [f"method.{override}" for override in overrides])
    model = trained.load(pick_device(device), step, recipe)
    root = Path(out)
    facts = {
        **run_facts(trained, recipe, step),
        "data_hash": prepared.data_hash,
        "split_hash": prepared.split_hash,
        "seed": seed,
        "skull_stripped": prepared.skull_stripped,
        "desc": "reconstructed",
    }
    arms = {}
    for arm, strength in ways.items():
        about = {"of": str(prepared.root), "split": split, "strength": strength}
        own = {**facts, "reconstruction": about}
        arms[arm] = _write_arm(model, trained, prepared, root / arm, own, batch)
    scores, subjects = _judge(trained, prepared, split, arms, seed, bootstrap)
    made = Reconstructions(root, arms, prepared, split, scores, subjects)
    _write_scores(made, {key: facts[key] for key in ("run", "checkpoint_sha256", "seed")})
    return made


def _ways(run: Run, strengths: Sequence[float] | None) -> dict[str, float | None]:
    """Name the arms: strengths for an `Editor`, one without for a `Reconstructor`."""
    able = run.capabilities
    if strengths is None and "Reconstructor" in able:
        return {"reconstruction": None}
    if "Editor" not in able:
        others = [
            name
            for name in METHODS
            if {"Editor", "Reconstructor"} & set(capabilities(METHODS[name].component))
        ]
        given = "a strength is for methods that sample by denoising: " if strengths else ""
        raise UsageError(
            f"{run.root} is a {run.recipe.method.name}, which cannot rebuild a scan ({given}"
            f"methods that can: {', '.join(others)}). Choose a run of one of these."
        )
    chosen = STRENGTHS if strengths is None else strengths
    if wrong := [strength for strength in chosen if not 0 <= strength <= 1] or not chosen:
        raise UsageError(f"strength is {wrong}; expected at least one number from 0 to 1.")
    return {f"strength-{strength:g}": float(strength) for strength in chosen}


def _write_arm(
    model: Model,
    run: Run,
    cohort: PreparedCohort,
    folder: Path,
    facts: dict[str, Any],
    batch: int,
) -> SyntheticCohort:
    """Rebuild the scans of a split that are not there yet."""
    about = facts["reconstruction"]
    data = replace(run.recipe.data, sessions="first")
    volumes = load_split(cohort, about["split"], data, model.device)
    table = cohort.rows(about["split"])
    rows = [known_conditions(model.schema, row) for _, row in table.iterrows()]
    condition = model.schema.encode(rows).to(model.device)
    names = [str(name) for name in table.index]
    columns = column_types(model.schema)
    listing = pd.DataFrame(rows, index=names, columns=list(columns), dtype=object)
    made = SyntheticCohort.create(folder, facts, listing, columns)
    warn_of_people(made, cohort, "Reconstructed", "what a model makes of")

    def make(chosen: list[int]) -> tuple[Tensor, list[dict[str, Any]]]:
        seeds = [derive_seed(facts["seed"], "reconstruct", names[k]) for k in chosen]
        rebuilt = rebuild(
            model, volumes[chosen], condition[chosen], about["strength"], torch.tensor(seeds)
        )
        return rebuilt, [
            {
                "Sources": [f"bids::sub-{names[k]}"],
                "ReconstructionOf": f"sub-{names[k]}",
                "Session": str(table["session"].iloc[k]),
                "Strength": about["strength"],
                "Seed": own_seed,
                "Conditions": rows[k],
            }
            for k, own_seed in zip(chosen, seeds)
        ]

    write_missing(made, names, make, batch, f"reconstruct {folder.name}")
    return made


@torch.no_grad()
def rebuild(
    model: Model, volumes: Tensor, condition: Tensor, strength: float | None, seeds: Tensor
) -> Tensor:
    """Rebuild volumes.

    Parameters
    ----------
    model : trained model whose method is an `Editor`; where `strength` is None a `Reconstructor`.
    volumes : (V, C, I, J, K) in [-1, 1].
    condition : (V, D).
    seeds : (V,) int64, one a volume.

    Returns
    -------
    Tensor
        (V, C, I, J, K) on the CPU.
    """
    if strength is not None:
        assert isinstance(model.method, Editor)
        rng = SampleRng(seeds, model.device)
        return model.method.edit(model.view, volumes, condition, strength, rng).float().cpu()
    assert isinstance(model.method, Reconstructor)
    return by_items(model, volumes, condition, model.method.reconstruct)


def _judge(
    run: Run,
    cohort: PreparedCohort,
    split: str,
    arms: dict[str, SyntheticCohort],
    seed: int,
    bootstrap: int,
) -> tuple[list[PairedScore], pd.DataFrame]:
    """Compare every arm and anchor with the originals, channel by channel."""
    rows = cohort.rows(split)
    names = [str(name) for name in rows.index]
    if len(names) < 2:
        raise DataError(
            f"{cohort.root} has {len(names)} subject in {split}; expected two at least, as each "
            "is compared with another person too. Choose a larger split."
        )
    known = [channel.name for channel in cohort.channels]
    channels = [channel.name for channel in run.channels if channel.kind == "intensity"]
    indices = [known.index(name) for name in channels]
    originals = cohort.unit_intensities(rows, indices)
    train = cohort.unit_intensities(cohort.rows("TRAIN"), indices)
    rebuilt = {arm: made.volume_set(arm).volumes for arm, made in arms.items()}
    rng = numpy_rng(seed, "reconstruct", "anchors")
    order, own = rng.permutation(len(names)), np.arange(len(names))
    other = np.empty_like(own)
    other[order] = np.roll(order, 1)
    person = rng.integers(len(train), size=len(names))
    scores: list[PairedScore] = []
    tables = []
    with progress_bar("compare", len(channels) * len(names)) as advance:
        for index, channel in enumerate(channels):
            values = compare_arms(
                originals[:, index],
                {
                    **{arm: (volumes[:, index], own) for arm, volumes in rebuilt.items()},
                    MEAN_IMAGE: (train[:, index].mean(0, keepdims=True), np.zeros_like(own)),
                    OTHER: (originals[:, index], other),
                    TRAIN_PERSON: (train[:, index], person),
                },
                cohort.grid.spacing_mm,
                names,
                advance,
            )
            scores += summarise(
                values, ANCHORS, channel, names, bootstrap,
                lambda metric: numpy_rng(seed, "reconstruct", metric),
            )  # fmt: skip
            for arm, by_metric in values.items():
                about = {"subject": names, "channel": channel, "arm": arm}
                tables.append(pd.DataFrame({**about, **by_metric}))
    return scores, pd.concat(tables, ignore_index=True)


def _write_scores(made: Reconstructions, provenance: dict[str, Any]) -> None:
    sheet = {
        "schema": "gyri-paired-1",
        **provenance,
        "cohort": made.cohort.name,
        "data_hash": made.cohort.data_hash,
        "split_hash": made.cohort.split_hash,
        "split": made.split,
        "data_range": DATA_RANGE,
        "region": "brain mask of the original",
        "scores": [score.to_dict() for score in made.scores],
    }
    write_json(made.root / "paired.json", sheet)
    write_tsv(made.root / "paired.tsv", made.subjects)
