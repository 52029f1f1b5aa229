"""Images of real people that samples are to follow: the masks of a prepared cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError
from gyri.scans import refuse_strangers
from gyri.training.data import load_split
from gyri.training.run import Run
from gyri.types import Channel

SPLIT = "HOLD"
"""Whose images are given where nothing else is said; TRAIN's the model knows by heart."""


@dataclass(frozen=True)
class GivenImages:
    """Images of a split's first scans.

    Parameters
    ----------
    cohort, split : where they are from.
    subjects : their labels, in the split's order.
    images : (N, C', I, J, K) by name, as a model sees them.
    """

    cohort: PreparedCohort
    split: str
    subjects: tuple[str, ...]
    images: Mapping[str, Tensor]

    @classmethod
    def read(cls, run: Run, cohort: Path | str, split: str | None = None) -> GivenImages:
        """Read what a run asks for in ``data.context``.

        Raises
        ------
        UsageError
            If the grid differs, or the cohort is the run's dealt otherwise.
        DataError
            If the cohort lacks an image, or its labels are others, or the split is empty.
        """
        prepared = PreparedCohort.read(Path(cohort))
        refuse_strangers(run, prepared)
        split = split or SPLIT
        theirs = {channel.name: channel for channel in prepared.channels}
        for channel in run.context:
            own = theirs.get(channel.name, channel)
            if own.kind != channel.kind or own.num_labels > channel.num_labels:
                raise DataError(
                    f"{channel.name} of {prepared.root} is {_said(own)}, and {run.root} was "
                    f"trained with {_said(channel)}. Prepare the scans with the labels of the "
                    "run's cohort."
                )
        first = next(c.name for c in prepared.channels if c.kind == "intensity")
        data = replace(run.recipe.data, channels=(first,), spacing_mm=None)
        volumes = load_split(prepared, split, data, torch.device("cpu"))
        # People here may lack some of the labels that the run knows.
        volumes.given = run.context
        volumes.channels = (*volumes.made, *run.context)
        rows = prepared.rows(split, data.sessions)
        everyone = torch.arange(len(rows))
        return cls(prepared, split, tuple(map(str, rows.index)), volumes.context(everyone))

    def of(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the images of some people, (V, C', I, J, K) by name."""
        return {name: image[list(rows)] for name, image in self.images.items()}

    def facts(self, rows: Sequence[int]) -> dict[str, Any]:
        """Say where the images of samples are from, one person a sample."""
        return {
            "data": str(self.cohort.root),
            "data_hash": self.cohort.data_hash,
            "split": self.split,
            "images": list(self.images),
            "subjects": [self.subjects[row] for row in rows],
        }


def _said(channel: Channel) -> str:
    """Say what a channel holds."""
    return f"{channel.num_labels} labels" if channel.kind == "label" else "an intensity"
