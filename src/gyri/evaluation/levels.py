"""Rows of real and synthetic volumes at each level of a categorical column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.evaluation.labels import levels, shared_columns
from gyri.evaluation.metrics import Evidence, Study
from gyri.evaluation.metrics.manifold import Rows

LEAST = 10
"""Fewest rows of a level in TRAIN, in HOLD and among the samples that can be judged."""


@dataclass(frozen=True, eq=False)
class Level:
    """Rows of one level of a column.

    Parameters
    ----------
    column, name : for example ``scanner`` and ``A``.
    train, real, made : rows of TRAIN, of HOLD and of the samples.
    others : rows of HOLD at any other level.
    """

    column: str
    name: str
    train: Rows
    real: Rows
    made: Rows
    others: Rows

    @property
    def smallest(self) -> int:
        """Rows of the smallest of the three sets."""
        return min(len(self.train), len(self.real), len(self.made))

    @property
    def words(self) -> str:
        """The level for a key, ``scanner=A``."""
        return f"{self.column}={self.name}"


def found_levels(column: str, generated: Evidence, study: Study) -> list[Level]:
    """Return every level of a column that samples were made for."""
    sides = (study.train, study.hold, generated)
    train, real, made = (np.array(levels(e.volumes.table[column]), object) for e in sides)
    known = np.array([level is not None for level in real])
    return [
        Level(
            column,
            name,
            train=np.flatnonzero(train == name),
            real=np.flatnonzero(real == name),
            made=np.flatnonzero(made == name),
            others=np.flatnonzero(known & (real != name)),
        )
        for name in sorted({level for level in made if level is not None})
    ]


def categorical_columns(generated: Evidence, study: Study) -> list[str]:
    """Return the columns of samples, HOLD and TRAIN whose values are levels."""
    asked = generated.volumes.table
    hold, train = (shared_columns(asked, e.volumes.table) for e in (study.hold, study.train))
    return [name for name in hold if hold[name] is False and train.get(name) is False]
