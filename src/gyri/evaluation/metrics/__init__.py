"""Metrics: two sets of volumes become numbers.

A metric is one file: pure functions on arrays that state direction, range, least n and caveats,
and one class registered in `gyri.registry.METRICS` that applies them to an `Evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.evaluation.features import FeatureSet
from gyri.registry import METRICS
from gyri.runtime.seeding import numpy_rng

FloatArray = NDArray[np.float64]
NAN = float("nan")
Family = Literal["fidelity", "diversity", "anatomy", "coherence", "conditioning", "privacy"]


class Refusal(DataError):
    """A metric that cannot be computed on what was given; the others go on."""


@dataclass
class Score:
    """One number with everything that is needed to read it.

    Parameters
    ----------
    key : name without sample sizes, under which the anchors' scores are matched.
    name : the definition; scores with different names must not be compared.
    label : what a reader sees.
    value, low, high : estimate and 95 % interval; NaN where there is none.
    better : ``"lower"``, ``"higher"`` or ``"near"`` (`target`).
    reliable : False where the sample is too small for the number to lead.
    anchors : values of the same score on sets whose quality is known.
    draws : values on subsets of equal size, whose mean is `value`; empty for other scores.
    """

    key: str
    name: str
    metric: str
    features: str | None
    label: str
    value: float
    low: float = NAN
    high: float = NAN
    n_real: int = 0
    n_generated: int = 0
    better: Literal["lower", "higher", "near"] = "lower"
    target: float | None = None
    unit: str = ""
    reliable: bool = True
    note: str = ""
    p_value: float | None = None
    anchors: dict[str, float] = field(default_factory=dict)
    draws: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """What is known of one set of volumes.

    Parameters
    ----------
    volumes : the set; volumes that are not finite are replaced by zeros.
    failed : (N,) True where the volume was not finite.
    features : per feature set (N, d), z-scored by TRAIN, columns constant on TRAIN left out.
    morph : (N, 19) features of ``morph-v1`` as they are, in millilitres and millimetres.
    quality : (N, 2) pieces of the mask and the largest one's share.
    raw : per feature set (N, d), all columns in their own units, as `FeatureSet.extract` returns.
    """

    volumes: VolumeSet
    failed: NDArray[np.bool_]
    features: dict[str, FloatArray]
    morph: dict[str, FloatArray]
    quality: FloatArray
    raw: dict[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.volumes)

    def take(self, rows: NDArray[np.int64], name: str | None = None) -> Evidence:
        """Return the evidence on some of the volumes."""
        return Evidence(
            self.volumes.take(rows, name),
            self.failed[rows],
            {key: array[rows] for key, array in self.features.items()},
            {key: array[rows] for key, array in self.morph.items()},
            self.quality[rows],
            {key: array[rows] for key, array in self.raw.items()},
        )


@dataclass(frozen=True)
class Study:
    """The real sets and settings under which any number of generated sets are judged.

    Parameters
    ----------
    train, hold : subjects the generator saw and subjects that nobody saw.
    num_generated : size of the judged set; dimensions depend on it, so anchors share them.
    seed : of everything drawn.
    resamples : bootstrap resamples; 0 leaves intervals out (anchors).
    fitted : results that depend on the real sets alone, by name; see `once`.
    """

    train: Evidence
    hold: Evidence
    num_generated: int
    seed: int = 0
    resamples: int = 2000
    feature_sets: dict[str, FeatureSet] = field(default_factory=dict)
    fitted: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, build: Callable[[], Any]) -> Any:
        """Return ``build()``, computed the first time and kept."""
        if name not in self.fitted:
            self.fitted[name] = build()
        return self.fitted[name]

    def rng(self, *parts: int | str) -> np.random.Generator:
        """Return a generator that depends on the seed and `parts` alone."""
        return numpy_rng("evaluation", self.seed, *parts)

    def without_intervals(self) -> Study:
        """Return the study in which anchors are judged."""
        return Study(
            self.train,
            self.hold,
            self.num_generated,
            self.seed,
            0,
            self.feature_sets,
            self.fitted,
        )


def family_of(metric: str) -> Family | None:
    """Return the family of a registered metric, None for one that is not known here."""
    return METRICS[metric].component.family if metric in METRICS else None


class Metric:
    """Base of a metric.

    Attributes
    ----------
    name : registered name.
    default : False for a metric that is computed only where it is asked for.
    family : the question that it helps to answer; the sheet gives one verdict a family.
    ceiling : the real set that stands in for a perfect generator (the other is the reference);
        None for a metric that gives its scores this anchor itself.
    min_generated : fewer volumes are refused.
    same_grid : whether the generated grid must be the real one.
    reads_intensities : whether the generated range must be the real one.
    counts_failures : True where a volume that is not finite counts as a failed sample; False
        where it makes the whole set unusable.
    needs_unseen : refused where a generated volume is a HOLD volume.
    reads_table : whether the conditions that volumes were made for are read. Anchors have none, so
        such a metric's scores have the ceiling at most.
    sees : what the self-test (`gyri.evaluation.selftest`) holds the metric to: pattern of score
        keys -> corruptions (`gyri.evaluation.corruptions`) under which such a score moves
        monotonically, each with the direction of the score: ``{"kid/*": ("+blur", "+noise")}``.
        Where several patterns fit a key, their claims add up.
    blind_to : in words, what the metric cannot see. A metric without claims must have some.
    """

    name: ClassVar[str]
    default: ClassVar[bool] = True
    family: ClassVar[Family] = "fidelity"
    ceiling: ClassVar[Literal["TRAIN", "HOLD"] | None] = "TRAIN"
    min_generated: ClassVar[int] = 2
    same_grid: ClassVar[bool] = True
    reads_intensities: ClassVar[bool] = True
    counts_failures: ClassVar[bool] = False
    needs_unseen: ClassVar[bool] = True
    reads_table: ClassVar[bool] = False
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    blind_to: ClassVar[str] = ""

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the metric's scores of `generated`."""
        raise NotImplementedError

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return columns of the table of samples, each with one entry a volume."""
        return {}
