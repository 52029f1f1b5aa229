"""Fine-tuning: a run that begins with the averaged weights of another.

Conditions keep the meaning that they had there. What is measured on TRAIN is measured anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from gyri.capabilities import FitOnce
from gyri.cohort.prepared import PreparedCohort
from gyri.conditions import ConditionSchema
from gyri.errors import DataError, UsageError
from gyri.recipe import Recipe
from gyri.training import checkpoint
from gyri.training.loop import load_networks
from gyri.types import Method

if TYPE_CHECKING:
    from gyri.training.run import Run

SEEN = "seen_subjects"
NAMED = 3
"""Subjects that a message names."""


def hashed(subjects: Iterable[str]) -> list[str]:
    """Return subjects as `run.json` holds them: told again when met, and not by their names."""
    return sorted({hashlib.sha256(f"gyri {s}".encode()).hexdigest()[:16] for s in subjects})


def seen_subjects(train_rows: pd.DataFrame, begun_from: Run | None) -> list[str]:
    """Return whom a run has seen, the runs that it comes from included, hashed."""
    before = [] if begun_from is None else begun_from.info[SEEN]
    return sorted({*before, *hashed(map(str, train_rows.index))})


def refuse_overlap(cohort: PreparedCohort, begun_from: Run, private: bool) -> None:
    """Refuse weights that know somebody whom they must not know.

    Raises
    ------
    UsageError
        If a held-out subject of the cohort was among those that the weights were trained on; where
        training is private, if a TRAIN subject was.
    DataError
        If the run does not say whom it has seen.
    """
    if SEEN not in begun_from.info:
        raise DataError(
            f"{begun_from.root} does not say whom it was trained on: an older version made it. "
            "Train it again to begin from it."
        )
    seen = set(begun_from.info[SEEN])
    checked = cohort.table if private else cohort.table[cohort.table["split"] != "TRAIN"]
    known = [name for name in map(str, checked.index.unique()) if hashed([name])[0] in seen]
    if not known:
        return
    some = ", ".join(known[:NAMED]) + (" ..." if len(known) > NAMED else "")
    what = "subjects" if private else "held-out subjects"
    why = (
        "its weights know them without noise, and no budget of privacy would hold"
        if private
        else "judged on them, the new run would look better than it is"
    )
    raise UsageError(
        f"{len(known)} {what} of {cohort.root} were trained on by {begun_from.root} ({some}): "
        f"{why}. Prepare the cohort without them or with them in TRAIN, or begin from another run."
    )


def taken_schema(recipe: Recipe, begun_from: Run) -> ConditionSchema:
    """Return the run's conditions, which the recipe must name as well.

    Raises
    ------
    UsageError
        If it names others.
    """
    theirs = begun_from.schema
    if recipe.conditions != theirs.names:
        raise UsageError(
            f"The recipe's conditions are {list(recipe.conditions)}, and {begun_from.root} was "
            f"trained on {list(theirs.names)}: its weights read those. Set conditions to them."
        )
    return theirs


def origin(begun_from: Run) -> dict[str, str]:
    """Return what ``run.json`` says of the run that another begins from."""
    folder = begun_from.checkpoint()
    return {"run": str(begun_from.root), "checkpoint_sha256": checkpoint.digest(folder)}


def begin(method: Method, begun_from: Run) -> None:
    """Put a run's averaged weights into a method that has just been built.

    Raises
    ------
    UsageError
        If the method is fitted once and has no weights.
    DataError
        If a tensor does not fit; names it.
    """
    if isinstance(method, FitOnce):
        raise UsageError(
            f"{type(method).__name__} is fitted once on TRAIN and has no weights to begin with. "
            "Leave out --from."
        )
    folder = begun_from.checkpoint()
    load_networks(method, checkpoint.load(folder)[0], folder, average=True)
