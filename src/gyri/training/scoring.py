"""Per-subject losses of a run's own method: what a membership test reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gyri.capabilities import Scorer, capabilities
from gyri.cohort.files import read_json, read_tsv, write_json, write_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.conditions import ConditionSchema
from gyri.errors import UsageError
from gyri.registry import METHODS
from gyri.runtime.device import pick_device
from gyri.runtime.progress import progress_bar
from gyri.runtime.streams import SampleRng, derive_seeds
from gyri.training import checkpoint
from gyri.training.data import Feed, ResidentVolumes, load_split
from gyri.training.run import Model, Run
from gyri.types import Batch, Items
from gyri.views.slice import SliceView

SPLITS = ("TRAIN", "HOLD")
LEAKY = "LEAKY"
"""Slices of TRAIN that training never drew: what a split by slice calls its test set."""
DRAWS = 4
ITEMS_PER_CALL = 16
NO_ROW = -1
"""Whoever is scored is nobody whom the method may know by his row in TRAIN."""


def can_score(run: Run) -> bool:
    """Say whether the run's method gives a loss."""
    return "Scorer" in run.capabilities


def score(
    run: Path | str,
    cohort: Path | str,
    out: Path | str | None = None,
    *,
    splits: Sequence[str] = SPLITS,
    seed: int = 0,
    draws: int = DRAWS,
    step: int | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Write the loss of every scan of some splits under a run's method.

    The noise is the same for everybody, so that losses differ by what is seen and not by what is
    drawn; noise levels are those of the method, and `draws` of noise are averaged.

    Parameters
    ----------
    run : run folder.
    cohort : prepared cohort, dealt as the one that the run was trained on.
    out : table (TSV), by default ``RUN/scores.tsv``; what it was made of is beside it as JSON.
    splits : whose scans.
    seed : of the noise.
    draws : of noise, averaged.
    step : a numbered checkpoint instead of the last.

    Returns
    -------
    pd.DataFrame
        ``subject``, ``session``, ``split``, ``loss``; a lower loss is better explained. Where the
        run's view has left slices out, TRAIN's rows are of those it was trained on, and rows of
        the split LEAKY are of the others.

    Raises
    ------
    UsageError
        If the method gives no loss, or the cohort is another one or dealt differently.
    """
    trained = Run.read(run)
    if not can_score(trained):
        able = [n for n in METHODS if "Scorer" in capabilities(METHODS[n].component)]
        raise UsageError(
            f"{trained.root} is a {trained.recipe.method.name}, which gives no loss of a volume "
            f"(methods that do: {', '.join(able)}), so that membership cannot be tested by "
            "losses. `gyri release` tests its samples all the same."
        )
    prepared = PreparedCohort.read(Path(cohort))
    made_of = _made_of(trained, prepared, splits, seed, draws, step)
    where = pick_device(device)
    model = trained.load(where, step)
    tables = []
    for split in splits:
        rows = prepared.rows(split, trained.recipe.data.sessions)
        volumes = load_split(prepared, split, trained.recipe.data, where)
        condition = model.schema.encode(
            [known_conditions(model.schema, row) for _, row in rows.iterrows()]
        )
        losses = _losses(model, volumes, condition.to(where), seed, draws, split)
        about = {"subject": rows.index, "session": rows["session"].to_numpy()}
        for name, of_scan in _by_part(model, losses, split).items():
            tables.append(pd.DataFrame({**about, "split": name, "loss": of_scan.numpy()}).dropna())
    scores = pd.concat(tables, ignore_index=True)
    path = Path(out) if out is not None else trained.root / "scores.tsv"
    write_tsv(path, scores)
    write_json(path.with_suffix(".json"), made_of)
    return scores


def known_conditions(schema: ConditionSchema, row: pd.Series) -> dict[str, str | float | None]:
    """Read a row's conditions; a level that TRAIN never held counts as missing."""
    values: dict[str, str | float | None] = {}
    for column in schema.columns:
        try:
            values[column.name] = column.parse(row.get(column.name))
        except UsageError:
            values[column.name] = None
    return values


def _made_of(
    run: Run,
    cohort: PreparedCohort,
    splits: Sequence[str],
    seed: int,
    draws: int,
    step: int | None,
) -> dict[str, Any]:
    for key, value in (("data_hash", cohort.data_hash), ("split_hash", cohort.split_hash)):
        if run.info[key] != value:
            raise UsageError(
                f"{cohort.root} is not the cohort that {run.root} was trained on ({key} "
                f"{value[:12]}, there {run.info[key][:12]}), so that its TRAIN are other people. "
                "Give the original."
            )
    return {
        "checkpoint_sha256": checkpoint.digest(run.checkpoint(step)),
        "data_hash": cohort.data_hash,
        "split_hash": cohort.split_hash,
        "splits": list(splits),
        "seed": seed,
        "draws": draws,
    }


def read_scores(run: Run, cohort: PreparedCohort, step: int | None = None) -> pd.DataFrame | None:
    """Return ``RUN/scores.tsv`` where it is of this checkpoint and cohort, else None."""
    path = run.root / "scores.tsv"
    made_of = read_json(path.with_suffix(".json"), missing_ok=True)
    wanted = {
        "checkpoint_sha256": checkpoint.digest(run.checkpoint(step)),
        "data_hash": cohort.data_hash,
        "split_hash": cohort.split_hash,
    }
    complete = set(SPLITS) <= set(made_of.get("splits", ()))
    if not path.is_file() or not complete or any(made_of[k] != v for k, v in wanted.items()):
        return None
    table = read_tsv(path)
    return table.assign(loss=table["loss"].astype(float))


@torch.no_grad()
def _losses(
    model: Model,
    volumes: ResidentVolumes,
    condition: torch.Tensor,
    seed: int,
    draws: int,
    split: str,
) -> Tensor:
    """Return the loss (V, items) of every item of every volume, averaged over draws of noise."""
    losses = []
    feed = Feed(volumes, condition, model.view, seed)
    with progress_bar(f"score {split}", len(volumes.stored)) as advance:
        for row in range(len(volumes.stored)):
            items = feed.items_of(row)
            of_items = torch.zeros(len(items.x), dtype=torch.float64)
            for start in range(0, len(items.x), ITEMS_PER_CALL):
                part = slice(start, min(start + ITEMS_PER_CALL, len(items.x)))
                for draw in range(draws):
                    batch = _batch(model, items, part, condition[row], seed, draw)
                    rng = SampleRng(batch.seed, model.device)
                    assert isinstance(model.method, Scorer)
                    of_items[part] += model.method.score(batch, rng).double().cpu() / draws
            losses.append(of_items)
            advance()
    return torch.stack(losses)


def _by_part(model: Model, losses: Tensor, split: str) -> dict[str, Tensor]:
    """Average each volume's items (V, items), TRAIN's left-out slices apart; NaN where are none."""
    view = model.view
    if split != "TRAIN" or not isinstance(view, SliceView) or not view.config.left_out:
        return {split: losses.mean(1)}
    out = view.left_out(torch.arange(len(losses)))
    return {
        split: losses.masked_fill(out, math.nan).nanmean(1),
        LEAKY: losses.masked_fill(~out, math.nan).nanmean(1),
    }


def _batch(
    model: Model, items: Items, part: slice, condition: Tensor, seed: int, draw: int
) -> Batch:
    """Return a `part` of a volume's items, with the noise of a draw."""
    num = part.stop - part.start
    return Batch(
        x=items.x[part],
        condition=condition.expand(num, -1),
        position=None if items.position is None else items.position[part],
        subject=torch.full((num,), NO_ROW, device=model.device),
        seed=derive_seeds(torch.arange(part.start, part.stop), seed, "score", draw),
        context={name: images[part] for name, images in items.context.items()},
    )
