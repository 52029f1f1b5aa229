"""Translation: real scans as they would look at another level of a condition, such as a scanner.

It needs a scan to start from and makes nobody new, so it is no sampling and is not ranked beside
it. What is written is personal data of those who were scanned.
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

from gyri.capabilities import Translator, capabilities
from gyri.cohort.files import write_json, write_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.splits import SPLITS
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.table import ColumnType
from gyri.cohort.volumes import VolumeSet
from gyri.conditions import ConditionSchema
from gyri.errors import DataError, UsageError
from gyri.evaluation.translation import judge_translation
from gyri.registry import METHODS
from gyri.runtime.device import pick_device
from gyri.scans import by_items, refuse_strangers, warn_of_people
from gyri.synthesis import run_facts, write_missing
from gyri.training.data import load_split
from gyri.training.run import Model, Run
from gyri.training.scoring import known_conditions
from gyri.types import Batch

FOLDER = "evaluation"


@dataclass(frozen=True)
class Direction:
    """What is to be translated.

    Parameters
    ----------
    column : name of the condition.
    sources : levels translated from, each with its number.
    target : level translated to, with its number.
    """

    column: str
    sources: dict[str, int]
    target: tuple[str, int]


@dataclass(frozen=True)
class Translations:
    """What `translate` made.

    Parameters
    ----------
    made : the translated scans.
    cohort : where the originals are.
    originals, translated : the scans before and after, in the same order.
    skipped : subject -> why he was left as he is.
    summary : content of ``evaluation/translation.json``.
    """

    made: SyntheticCohort
    cohort: PreparedCohort
    originals: VolumeSet
    translated: VolumeSet
    skipped: dict[str, str]
    summary: dict[str, Any]

    def typical(self) -> tuple[str, np.ndarray, np.ndarray]:
        """Return who is changed by the median amount: label, original and translation (I, J, K)."""
        before, after = self.originals.volumes[:, 0], self.translated.volumes[:, 0]
        change = np.abs(after - before).mean((1, 2, 3))
        row = int(change.argsort()[len(change) // 2])
        return self.originals.ids[row], before[row], after[row]


def translate(
    run: Path | str,
    cohort: Path | str,
    out: Path | str,
    to: str,
    *,
    source: str | None = None,
    splits: Sequence[str] = SPLITS,
    step: int | None = None,
    seed: int = 0,
    bootstrap: int = 2000,
    device: str = "auto",
) -> Translations:
    """Translate real scans to a level of a condition; goes on where it was interrupted.

    Scans that are of that level already, or of one that the run cannot translate from, are left
    out and listed.

    Parameters
    ----------
    run : run folder of a `Translator`.
    cohort : prepared cohort on the run's grid.
    out : folder of the translated scans, a BIDS derivative.
    to : condition and level, ``"scanner=B"``.
    source : only scans of this level; by default of every one that the run translates from.
    splits : whose scans, the first session of each subject.
    step : a numbered checkpoint instead of the last.
    seed : of the classifier's folds and of the resamples; a translation has no noise.
    bootstrap : resamples of the subjects behind every interval.

    Raises
    ------
    UsageError
        If the method translates nothing, or nothing to this level; the level was not in TRAIN; the
        grid differs; or the run also makes labels.
    DataError
        If no scan of these splits is to be translated.
    GyriError
        When the model yields something that is not finite.
    """
    trained, prepared = Run.read(run), PreparedCohort.read(Path(cohort))
    _refuse_others(trained)
    refuse_strangers(trained, prepared)
    model = trained.load(pick_device(device), step)
    direction = _direction(model, to, source)
    table = pd.concat([prepared.rows(split) for split in dict.fromkeys(splits)])
    skipped = _skipped(table, model.schema, direction)
    chosen = table[~table.index.isin(skipped)].sort_index()
    if not len(chosen):
        raise DataError(
            f"{prepared.root} has no scan in {', '.join(splits)} to be translated from "
            f"{direction.column}={', '.join(direction.sources)}: {_reasons(skipped)}. Give other "
            "splits, or another level."
        )
    facts = {
        **run_facts(trained, trained.recipe, step),
        "data_hash": prepared.data_hash,
        "split_hash": prepared.split_hash,
        "skull_stripped": prepared.skull_stripped,
        "desc": "translated",
        "translation": {
            "of": str(prepared.root),
            "splits": list(splits),
            "column": direction.column,
            "from": list(direction.sources),
            "to": direction.target[0],
        },
    }
    made = _write(model, trained, prepared, Path(out), facts, direction, chosen)
    (originals, after), summary, subjects = _judge(
        trained, prepared, direction, table, chosen, made, seed, bootstrap
    )
    sheet = {
        "schema": "gyri-translation-1",
        **{key: facts[key] for key in ("run", "checkpoint_sha256", "data_hash", "split_hash")},
        **facts["translation"],
        "seed": seed,
        "translated": len(chosen),
        **summary,
        "skipped": skipped,
    }
    write_json(made.root / FOLDER / "translation.json", sheet)
    write_tsv(made.root / FOLDER / "translation.tsv", subjects.reset_index(names="subject"))
    return Translations(made, prepared, originals, after, skipped, sheet)


def _refuse_others(run: Run) -> None:
    able = [n for n in METHODS if "Translator" in capabilities(METHODS[n].component)]
    if run.recipe.method.name not in able:
        raise UsageError(
            f"{run.root} is a {run.recipe.method.name}, which translates no scans (methods that "
            f"do: {', '.join(able)}). Choose a run of one of these."
        )
    if labels := [channel.name for channel in run.channels if channel.kind == "label"]:
        raise UsageError(
            f"{run.root} was trained on the labels {', '.join(labels)} too, and would change them. "
            "Train it on intensities alone: leave them out of data.channels."
        )


def _direction(model: Model, to: str, source: str | None) -> Direction:
    """Find the levels that were asked for among what the model translates."""
    assert isinstance(model.method, Translator)
    place, pairs = model.method.translations()
    column = model.schema.columns[place]
    name, equals, asked = to.partition("=")
    ways = ", ".join(f"{column.levels[a]} to {column.levels[b]}" for a, b in pairs)
    known = f"This run translates {column.name}: {ways}."
    if not equals or name != column.name:
        raise UsageError(f"{to!r} is not of the form {column.name}=LEVEL. {known}")
    level = column.parse(asked)
    assert not isinstance(level, float)
    leading = {column.levels[a]: a for a, b in pairs if column.levels[b] == level}
    if level is None or not leading:
        raise UsageError(f"No scan can be translated to {to}. {known}")
    if source is not None and source not in leading:
        raise UsageError(f"No scan of {name}={source} can be translated to {to}. {known}")
    sources = leading if source is None else {source: leading[source]}
    return Direction(name, sources, (level, column.levels.index(level)))


def _skipped(table: pd.DataFrame, schema: ConditionSchema, direction: Direction) -> dict[str, str]:
    """Say of everybody who is not to be translated why."""
    reasons = {}
    for name, row in table.iterrows():
        level = known_conditions(schema, row)[direction.column]
        if level == direction.target[0]:
            reasons[str(name)] = f"is {direction.column}={level} already"
        elif level not in direction.sources:
            given = row.get(direction.column)
            told = "missing" if given is None or pd.isna(given) else given
            reasons[str(name)] = f"{direction.column} is {told}, which is not translated from"
    return reasons


def _reasons(skipped: dict[str, str]) -> str:
    counts = pd.Series(list(skipped.values())).value_counts()
    return "; ".join(f"{count} {reason}" for reason, count in counts.items())


def _write(
    model: Model,
    run: Run,
    cohort: PreparedCohort,
    folder: Path,
    facts: dict[str, Any],
    direction: Direction,
    table: pd.DataFrame,
) -> SyntheticCohort:
    """Translate the scans of `table` that are not there yet."""
    column, target = direction.column, direction.target
    rows = [known_conditions(model.schema, row) for _, row in table.iterrows()]
    names = [str(name) for name in table.index]
    made = SyntheticCohort.create(folder, facts, *_listing(cohort, table, direction))
    warn_of_people(made, cohort, "Translated", f"a translation to {column}={target[0]} of")
    data = replace(run.recipe.data, sessions="first")
    place: dict[str, tuple[str, int]] = {}
    volumes = {}
    for split in table["split"].unique():
        volumes[split] = load_split(cohort, split, data, model.device)
        place |= {str(name): (split, k) for k, name in enumerate(cohort.rows(split).index)}

    def make(chosen: list[int]) -> tuple[Tensor, list[dict[str, Any]]]:
        (k,) = chosen
        split, row = place[names[k]]
        level = direction.sources[str(rows[k][column])]
        condition = model.schema.encode([rows[k]]).to(model.device)
        x = volumes[split][row : row + 1]
        about = {
            "Sources": [f"bids::sub-{names[k]}"],
            "TranslationOf": f"sub-{names[k]}",
            "Session": str(table["session"].iloc[k]),
            "Column": column,
            "From": rows[k][column],
            "To": target[0],
            "Conditions": {**rows[k], column: target[0]},
        }
        return translated(model, x, condition, level, target[1]), [about]

    write_missing(made, names, make, 1, "translate")
    return made


def _listing(
    cohort: PreparedCohort, table: pd.DataFrame, direction: Direction
) -> tuple[pd.DataFrame, dict[str, ColumnType]]:
    """Return the table of the translated scans and the types of its columns."""
    column, target = direction.column, direction.target[0]
    before = f"{column}_original"
    listing = table[[*cohort.columns]].copy()
    listing[before] = listing[column]
    listing[column] = target
    listing["split"] = table["split"]
    listing.index = listing.index.map(str)
    about = cohort.columns[column]
    return listing, {
        **cohort.columns,
        column: replace(about, description=f"{about.description}, as translated by a model"),
        before: replace(about, description=f"{about.description}, of the scan"),
        "split": ColumnType(kind="categorical", description="Split of the prepared cohort"),
    }


@torch.no_grad()
def translated(
    model: Model, volumes: Tensor, condition: Tensor, source: int, target: int
) -> Tensor:
    """Translate volumes of one level to another.

    Parameters
    ----------
    model : trained model whose method is a `Translator`.
    volumes : (V, C, I, J, K) in [-1, 1], all of level `source`.
    condition : (V, D).
    source, target : numbers of the levels.

    Returns
    -------
    Tensor
        (V, C, I, J, K) on the CPU.
    """
    method = model.method
    assert isinstance(method, Translator)

    def make(batch: Batch) -> Tensor:
        return method.translate(batch, source, target)

    return by_items(model, volumes, condition, make)


def _judge(
    run: Run,
    cohort: PreparedCohort,
    direction: Direction,
    table: pd.DataFrame,
    chosen: pd.DataFrame,
    made: SyntheticCohort,
    seed: int,
    bootstrap: int,
) -> tuple[tuple[VolumeSet, VolumeSet], dict[str, Any], pd.DataFrame]:
    """Measure what was done; returns volumes before and after, the summary, a row a subject."""
    schema, (target, _) = run.schema, direction.target
    known = [channel.name for channel in cohort.channels]
    indices = [known.index(channel.name) for channel in run.channels]

    def volumes(rows: pd.DataFrame, name: str) -> VolumeSet:
        found = cohort.unit_intensities(rows, indices)
        return VolumeSet(name, found, rows, cohort.grid, tuple(known[i] for i in indices))

    def levels(rows: pd.DataFrame) -> list[str | float | None]:
        return [known_conditions(schema, row)[direction.column] for _, row in rows.iterrows()]

    train = cohort.rows("TRAIN")
    side = np.array(
        [1 if v == target else 0 if v in direction.sources else -1 for v in levels(train)]
    )
    originals = volumes(chosen, "originals")
    after = made.volume_set("translated")
    after = after.take(np.array([after.ids.index(name) for name in originals.ids]))
    summary, subjects = judge_translation(
        volumes(train, "TRAIN"),
        side,
        originals,
        after,
        volumes(table[[v == target for v in levels(table)]], "real target"),
        seed=seed,
        bootstrap=bootstrap,
    )
    subjects.insert(0, "split", chosen["split"].to_numpy())
    subjects.insert(1, f"{direction.column}_original", levels(chosen))
    return (originals, after), summary, subjects
