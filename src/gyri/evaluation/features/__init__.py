"""Feature sets: a volume becomes a vector, without weights.

A feature set is one file with one class registered in `gyri.registry.FEATURES`.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation import segment, tissue
from gyri.evaluation.segment import Segmented
from gyri.types import Grid

FloatArray = NDArray[np.float64]


class FeatureSet:
    """Base of a feature set; subclasses say what they measure and what they cannot see.

    Attributes
    ----------
    name : registered name, part of every score's name.
    blind_to : anchors that share these features with real scans by construction, so that beating
        them here proves nothing.
    default : False for a set that is measured only where it is asked for by name.
    min_people : fewest people of TRAIN that the set can learn from; with fewer it is refused.
    state : arrays fitted on TRAIN; part of the definition's hash.
    """

    name: ClassVar[str]
    blind_to: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[bool] = True
    min_people: ClassVar[int] = 1

    @classmethod
    def refusal(cls, grid: Grid) -> str | None:
        """Say why the features cannot be measured on `grid` or this machine; None if they can."""
        return None

    def __init__(self) -> None:
        self.state: dict[str, FloatArray] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of `extract`'s columns; known after `fit`."""
        raise NotImplementedError

    def fit(self, train: Segmented) -> None:
        """Fit `state` on some volumes of TRAIN, segmented."""

    def learn(self, train: VolumeSet) -> None:
        """Learn from every volume of TRAIN, after `fit`; most sets need no more than a sample."""

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, d) features, one row a volume, each from that volume alone."""
        raise NotImplementedError

    def definition(self) -> str:
        """SHA-256 of the code that computes the features and of the fitted state."""
        digest = hashlib.sha256()
        for module in (sys.modules[type(self).__module__], segment, tissue):
            digest.update(inspect.getsource(module).encode())
        for key in sorted(self.state):
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(self.state[key]).tobytes())
        return digest.hexdigest()
