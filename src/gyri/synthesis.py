"""Sampling: from a trained run to a synthetic cohort of NIfTI files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gyri import __version__
from gyri.capabilities import ContextSampler, Sampler, capabilities
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.sheet import read_sheet
from gyri.cohort.synthetic import SWEEP_BASE, SyntheticCohort
from gyri.cohort.table import ColumnType, as_number
from gyri.conditions import ConditionSchema
from gyri.errors import DataError, GyriError, UsageError, nearest
from gyri.given_images import GivenImages
from gyri.recipe import Recipe, load_recipe
from gyri.runtime.device import pick_device
from gyri.runtime.progress import progress_bar
from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.runtime.streams import SampleRng, derive_seeds
from gyri.training import checkpoint
from gyri.training.labels import to_outside
from gyri.training.run import Model, Run
from gyri.types import Channel

Row = dict[str, str | float | None]

NUM_SWEPT = 16
MAX_SWEPT_VALUES = 1000


@torch.no_grad()
def draw(
    model: Model,
    rows: Sequence[Mapping[str, Any]],
    seeds: Tensor,
    context: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Sample volumes.

    Parameters
    ----------
    model : trained model whose method is a `Sampler`.
    rows : conditions of each volume, as `ConditionSchema.assign` returns them.
    seeds : (V,) int64, one seed a volume.
    context : (V, C', I, J, K) images that the volumes are to follow, by name.

    Returns
    -------
    Tensor
        (V, C, I, J, K) on the CPU, in [-1, 1] apart from what the model overshoots.

    Raises
    ------
    UsageError
        If the method makes no samples.
    """
    if not isinstance(model.method, Sampler):
        raise UsageError(
            f"{type(model.method).__name__} makes no new volumes; it is a "
            f"{', '.join(capabilities(model.method)) or 'helper'}. Choose another run."
        )
    condition = model.schema.encode(rows).to(model.device)
    rng = SampleRng(seeds, model.device)
    needed = {name: _needed(model, name, rows, seeds) for name in model.view.context}
    context = {**(context or {}), **needed}
    if not context:
        return model.method.sample(model.view, condition, rng).float().cpu()
    assert isinstance(model.method, ContextSampler)
    images = {name: image.to(model.device) for name, image in context.items()}
    images = model.view.given(images, rng)
    return model.method.sample_given(model.view, condition, images, rng).float().cpu()


def _needed(model: Model, name: str, rows: Sequence[Mapping[str, Any]], seeds: Tensor) -> Tensor:
    """Sample the run that a view stands on, under those of the conditions that it knows."""
    needed = model.needs[name]
    known = [{key: row.get(key) for key in needed.schema.names} for row in rows]
    return draw(needed, known, derive_seeds(seeds, name))


def sample(
    run: Path | str,
    out: Path | str | None = None,
    *,
    num: int | None = None,
    condition: Mapping[str, str] | None = None,
    conditions: Path | str | None = None,
    like: Path | str | None = None,
    split: str | None = None,
    sweep: str | None = None,
    seed: int = 0,
    step: int | None = None,
    batch: int = 8,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
) -> tuple[SyntheticCohort, list[str]]:
    """Sample new volumes of a run into a BIDS derivative; goes on where it was interrupted.

    Parameters
    ----------
    run : run folder.
    out : folder of the synthetic cohort, by default ``RUN/samples``.
    num : how many; by default the rows of `conditions`, else 32.
    condition : the same conditions for all, ``{"age": "70", "sex": "F"}``; what is not named is
        missing.
    conditions : a table (CSV, TSV) with one row a sample.
    like : a prepared cohort whose mix of conditions is drawn from; by default the run's own. Where
        the run follows images (``data.context``), these are its people's, with their conditions
        unless others are given.
    split : the split of `like`; by default TRAIN, and HOLD where people's images are given.
    sweep : make every sample once for each value of one condition, everything else, the noise
        included, being the same; see `sweep_values`. `num` then counts the samples before that
        (by default 16), and the column ``sweep_base`` of the table names them.
    seed : decides all samples; sample k of a seed does not depend on `num` or `batch`.
    step : a numbered checkpoint instead of the last.
    batch : volumes at once.
    overrides : changes of ``method.sampling``, for example ``"sampling.num_steps=50"``.

    Returns
    -------
    tuple
        The synthetic cohort and warnings: values outside the trained range, unseen combinations.

    Raises
    ------
    UsageError
        On a condition or level the model was not trained with.
    GyriError
        When the model yields something that is not finite.
    """
    trained = Run.read(run)
    recipe = load_recipe(trained.root, [f"method.{override}" for override in overrides])
    where = pick_device(device)
    model = trained.load(where, step, recipe)
    told = [condition, conditions] if trained.context else [condition, conditions, like]
    if sum(x is not None for x in told) > 1:
        raise UsageError("Give one of `condition`, `conditions` and `like`, not several.")
    given: GivenImages | None = None
    if trained.context:
        given = GivenImages.read(trained, _source(trained, like), split)
        split = given.split
    if sweep is not None and conditions is None:
        num = num or NUM_SWEPT
    rows = sampled_rows(trained, num, condition, conditions, like, split or "TRAIN", seed)
    bases = list(range(len(rows)))
    people = drawn_rows(len(given.subjects), len(rows), seed) if given else []
    swept: dict[str, Any] = {}
    if sweep is not None:
        column, values = sweep_values(trained.schema, sweep)
        swept = {"sweep": {"column": column, "values": values, "bases": len(rows)}}
        bases = [k for k in bases for _ in values]
        rows = [{**row, column: value} for row in rows for value in values]
    names = [f"syn{k + 1:04d}" for k in range(len(rows))]
    facts = {
        **run_facts(trained, recipe, step),
        "data_hash": trained.info["data_hash"],
        "split_hash": trained.info["split_hash"],
        "seed": seed,
        "num": len(rows),
        "skull_stripped": trained.info["skull_stripped"],
        "conditions": [list(trained.schema.disclosed(row).values()) for row in rows],
        **swept,
    }
    if given:
        facts["channels"] = [*trained.info["channels"], *trained.info["context"]]
        facts["given"] = given.facts(people)
    columns = column_types(trained.schema)
    table = pd.DataFrame(rows, index=names, columns=list(columns), dtype=object)
    if swept:
        table[SWEEP_BASE] = [f"base{k + 1:04d}" for k in bases]
        columns[SWEEP_BASE] = ColumnType(
            kind="categorical", description="Samples of one base differ in the swept condition only"
        )
    folder = Path(out) if out is not None else trained.root / "samples"
    cohort = SyntheticCohort.create(folder, facts, table, columns)

    def make(chosen: list[int]) -> tuple[Tensor, list[dict[str, Any]]]:
        seeds = torch.tensor([derive_seed(seed, "sample", bases[k]) for k in chosen])
        began = time.monotonic()
        images = given.of([people[bases[k]] for k in chosen]) if given else {}
        volumes = draw(model, [rows[k] for k in chosen], seeds, images)
        volumes = torch.cat([volumes, *images.values()], dim=1)
        seconds = round((time.monotonic() - began) / len(chosen), 3)
        return volumes, [
            {
                "Seed": own,
                "Conditions": trained.schema.disclosed(rows[k]),
                "SamplingSeconds": seconds,
                **({"GivenOf": given.subjects[people[bases[k]]]} if given else {}),
            }
            for k, own in zip(chosen, seeds.tolist())
        ]

    write_missing(cohort, names, make, batch, "sample")
    return cohort, trained.schema.warnings(rows)


def run_facts(run: Run, recipe: Recipe, step: int | None) -> dict[str, Any]:
    """Say of which run and checkpoint volumes are, and what they look like.

    Parameters
    ----------
    recipe : the run's, perhaps with other sampling settings.
    """
    return {
        "gyri": __version__,
        "recipe_name": recipe.name,
        "recipe": recipe.to_mapping(),
        "run": str(run.root.resolve()),
        "checkpoint": run.checkpoint(step).name,
        "checkpoint_sha256": checkpoint.digest(run.checkpoint(step)),
        "grid": run.info["grid"],
        "channels": run.info["channels"],
        "intensity_range": run.info["intensity_range"],
    }


def write_missing(
    made: SyntheticCohort,
    names: Sequence[str],
    make: Callable[[list[int]], tuple[Tensor, list[dict[str, Any]]]],
    batch: int,
    verb: str,
) -> None:
    """Make and write the volumes that a data set does not have yet.

    Parameters
    ----------
    names : of all volumes.
    make : rows of `names` -> their volumes (V, C, I, J, K) in [-1, 1] on the CPU, and what their
        sidecars say besides the model.
    batch : volumes at once.
    verb : what is done, for the progress bar.

    Raises
    ------
    GyriError
        When a volume is not finite; those before it stay.
    """
    channels = made.channels
    todo = [k for k, name in enumerate(names) if not made.is_written(name)]
    with progress_bar(verb, len(names)) as advance:
        advance(completed=len(names) - len(todo))
        for start in range(0, len(todo), batch):
            chosen = todo[start : start + batch]
            for k, volume, about in zip(chosen, *make(chosen), strict=True):
                if not bool(torch.isfinite(volume).all()):
                    raise GyriError(
                        f"{verb} {names[k]}: what the model makes is not finite (seed "
                        f"{about.get('Seed', 'none')}). Try another checkpoint with `--step`, or "
                        "less guidance."
                    )
                parts = to_outside(volume, channels, axis=0)
                about = {**about, "Model": made.facts["checkpoint_sha256"]}
                made.write(names[k], stored_values(parts, channels), about)
                advance()


def sweep_values(schema: ConditionSchema, sweep: str) -> tuple[str, list[str | float]]:
    """Read which values a condition is to take.

    Parameters
    ----------
    schema : the model's conditions.
    sweep : ``"age=20:90:8"`` for eight values from 20 to 90, evenly spaced; ``"sex=F,M"`` or
        ``"age=30,60"`` for these; ``"scanner"`` for all levels of a categorical condition.

    Returns
    -------
    tuple
        The condition's name and its values, at least two.

    Raises
    ------
    UsageError
        On an unknown condition, an unknown level, free text, or fewer than two different values.
    """
    name, equals, text = sweep.partition("=")
    column = next((c for c in schema.columns if c.name == name), None)
    if column is None:
        known = ", ".join(schema.names) or "none (it is unconditional)"
        raise UsageError(
            f"The model has no condition {name!r} to sweep.{nearest(name, schema.names)} "
            f"It was trained with: {known}."
        )
    if column.kind == "text":
        raise UsageError(
            f"{name} is free text, which the table of samples does not hold: nobody could tell "
            f"what was swept. Sample once for each text, with --condition {name}=TEXT and the same "
            "--seed."
        )
    parts: list[str] | list[float] = text.split(",")
    if not equals and column.kind == "categorical":
        parts = list(column.levels)
    elif column.kind == "continuous" and text.count(":") == 2:
        parts = _evenly(sweep, *text.split(":"))
    values = [value for part in parts if (value := column.parse(part)) is not None]
    if len(set(values)) < max(2, len(parts)):
        raise UsageError(
            f"--sweep {sweep} gives {len(set(values))} different values of {name}; at least two "
            f"are needed and none may come twice. Write {name}=FIRST:LAST:COUNT for a number, "
            f"{name}=A,B for levels."
        )
    return name, values


def _evenly(sweep: str, first: str, last: str, count: str) -> list[float]:
    start, stop = as_number(first), as_number(last)
    num = int(count) if count.isdigit() else 0
    if start is None or stop is None or not 2 <= num <= MAX_SWEPT_VALUES:
        raise UsageError(
            f"--sweep {sweep} is not of the form NAME=FIRST:LAST:COUNT with 2 to "
            f"{MAX_SWEPT_VALUES} values, such as age=20:90:8."
        )
    return [round(float(v), 6) for v in np.linspace(start, stop, num)]


def stored_values(parts: Sequence[Tensor], channels: Sequence[Channel]) -> list[np.ndarray]:
    """Bring intensities from [-1, 1] to [0, 1]; labels stay what they are."""
    return [
        part.numpy() if channel.kind == "label" else ((part + 1) / 2).numpy()
        for part, channel in zip(parts, channels)
    ]


def sampled_rows(
    run: Run,
    num: int | None,
    condition: Mapping[str, str] | None,
    conditions: Path | str | None,
    like: Path | str | None,
    split: str,
    seed: int,
) -> list[Row]:
    """Decide the conditions of every sample."""
    schema = run.schema
    if condition is not None or not schema.columns:
        return [schema.assign(condition or {})] * (num or 32)
    if conditions is not None:
        table = read_sheet(Path(conditions))
        unknown = [name for name in schema.names if name not in table]
        if unknown:
            raise DataError(
                f"{conditions} has no column {', '.join(unknown)}; the model is conditioned on "
                f"{', '.join(schema.names)}. Add the column, empty where unknown."
            )
        rows = schema.parse(table)
        if num is not None and num != len(rows):
            raise UsageError(
                f"{conditions} has {len(rows)} rows and {num} samples were asked for. Leave the "
                "number out, or give a table of that length."
            )
        return rows
    source = _source(run, like)
    table = PreparedCohort.read(source).rows(split, run.recipe.data.sessions)
    if len(table) == 0:
        raise DataError(f"{source} has no subject in {split}.")
    parsed = schema.parse(table)
    return [parsed[k] for k in drawn_rows(len(parsed), num or 32, seed)]


def _source(run: Run, like: Path | str | None) -> Path:
    """Return the cohort that samples are to be like."""
    source = Path(like) if like is not None else Path(run.info["data"])
    if like is None and not source.is_dir():
        raise DataError(
            f"The cohort that the run was trained on is no longer at {source}, so what samples "
            "are to be like cannot be drawn. Give `--condition`, `--conditions` or `--like`; a run "
            "that follows images needs --like."
        )
    return source


def drawn_rows(of: int, num: int, seed: int) -> list[int]:
    """Draw `num` of so many rows, each once before any comes again."""
    rng = numpy_rng(seed, "conditions")
    drawn: list[int] = []
    while len(drawn) < num:
        drawn += rng.permutation(of).tolist()
    return drawn[:num]


def column_types(schema: ConditionSchema) -> dict[str, ColumnType]:
    """Describe the conditions as columns of a generated cohort's table; free text stays out."""
    return {
        column.name: ColumnType(
            kind=column.kind,
            description=f"Condition that the volume was generated for: {column.name}",
        )
        for column in schema.columns
        if column.kind != "text"
    }
