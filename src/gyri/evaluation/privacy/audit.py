"""The audit of a generated set: whether it knows who was in TRAIN, and whom it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.evaluation.bootstrap import draw_counts, percentile_interval
from gyri.evaluation.faults import finite_fault, grid_fault
from gyri.evaluation.features import FloatArray
from gyri.evaluation.privacy import measures
from gyri.evaluation.privacy.measures import COPY_PERCENTILE, Sides
from gyri.evaluation.privacy.pairs import Pair, closeness_limit, closest_pairs
from gyri.evaluation.privacy.permutation import Key, Tested, permute_membership
from gyri.evaluation.privacy.spaces import (
    VOXELS,
    Rows,
    Space,
    feature_distances,
    merge_scans,
    voxel_distances,
)
from gyri.runtime.seeding import numpy_rng

FEATURE_SPACES = ("radiomics-v1", "ssl-v1")
"""Feature sets that serve as spaces where they are measured."""
LEVEL = 0.05
EXPECTED_COPIES = COPY_PERCENTILE / 100
RESAMPLES = 1000
PERMUTATIONS = 499
MIN_HOLD = 8
GRANTED, CROWDED_LEVEL = 0.01, 0.01

Extract = Callable[[VolumeSet], dict[str, FloatArray]]
Progress = Callable[[str], None]

LABELS = {
    "closer": "nearest person is of TRAIN",
    "copy_rate": "copy rate",
    "authenticity": "authenticity",
    "data_copying": "data-copying C_T",
    "distance_ratio": "nearest-neighbour distance ratio",
    "likelihood_gap": "feature likelihood gap",
}


@dataclass(frozen=True)
class Finding:
    """One measure in one space.

    Parameters
    ----------
    space, measure : names; `label` is what a reader sees.
    value, low, high : with a 95 % interval.
    expected : what samples without memory of TRAIN reach.
    p_value : that membership does not matter, family-wise over all findings of the audit.
    worse : the direction in which copying moves the value.
    """

    space: str
    measure: str
    label: str
    value: float
    low: float
    high: float
    expected: float
    p_value: float
    worse: Literal["higher", "lower"]


@dataclass
class Audit:
    """What the audit of one generated set found.

    Parameters
    ----------
    findings : every measure in every space.
    alarms : sentences, empty where nothing speaks for copying.
    pairs : flagged and closest pairs of sample and training subject.
    n : samples and people of TRAIN and HOLD.
    """

    findings: list[Finding]
    alarms: list[str]
    pairs: list[Pair]
    n: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "n": self.n,
            "alarms": self.alarms,
            "findings": [vars(finding) for finding in self.findings],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }


@dataclass(frozen=True)
class Cast:
    """Everybody in every space, and which rows they have.

    Parameters
    ----------
    spaces : the first rows of each are real people: `train`, `hold`, then the other unseen ones.
    people : ids of the real people.
    train, hold, unseen : rows of TRAIN, of HOLD, and of everybody unseen (HOLD first).
    candidates : rows of each set of volumes that was given, by name.
    """

    spaces: list[Space]
    people: list[str]
    train: Rows
    hold: Rows
    unseen: Rows
    candidates: dict[str, Rows]

    @property
    def voxels(self) -> Space:
        """The space in which pairs are listed."""
        return next(space for space in self.spaces if space.name == VOXELS)


def measure_distances(
    train: VolumeSet,
    hold: VolumeSet,
    others: Sequence[VolumeSet],
    candidates: Sequence[VolumeSet],
    extract: Extract,
    *,
    by_voxels: Sequence[VolumeSet] = (),
    progress: Progress = lambda task: None,
) -> Cast:
    """Measure how far everybody is from every real person, in every space.

    Parameters
    ----------
    train, hold, others : people that the model saw, the reference, and other unseen people.
    candidates : sets of samples, with names of their own.
    extract : features of a set by name, see `gyri.evaluation.features.extraction.Extractor`.
    by_voxels : more candidates, which are compared by voxels alone.

    Raises
    ------
    DataError
        If a set lies on another grid, holds NaN, or HOLD has fewer than 8 people.
    """
    real = [members for members in (train, hold, *others) if len(members)]
    every = [*candidates, *by_voxels]
    for members in (*real, *every):
        for fault in (grid_fault(members, train), finite_fault(members)):
            if fault:
                raise DataError(f"{members.name} cannot be audited: {fault.reason}")
    owners = [name for members in real for name in members.ids]
    people = list(dict.fromkeys(owners))
    progress("compare voxels")
    distances = {VOXELS: (voxel_distances(real, every), 0)}
    features = []
    for members in (*real, *candidates):
        progress(f"measure {members.name}")
        features.append(extract(members))
    for name in FEATURE_SPACES:
        if name in features[0]:
            known = np.concatenate([found[name] for found in features[: len(real)]])
            made = np.concatenate([found[name] for found in features[len(real) :]])
            distances[name] = feature_distances(known, made), known.shape[1]
    spaces = [
        Space.build(name, merge_scans(found, owners), dimensions)
        for name, (found, dimensions) in distances.items()
    ]
    counts = np.cumsum([0, len(set(train.ids)), len(set(hold.ids))])
    if counts[2] - counts[1] < MIN_HOLD:
        raise DataError(
            f"{hold.name} has {counts[2] - counts[1]} people; the audit needs at least {MIN_HOLD} "
            "that the model never saw."
        )
    stops = np.cumsum([len(people), *(len(members) for members in every)])
    return Cast(
        spaces,
        people,
        np.arange(counts[1]),
        np.arange(counts[1], counts[2]),
        np.arange(counts[1], len(people)),
        {c.name: np.arange(a, b) for c, a, b in zip(every, stops, stops[1:])},
    )


def alarms(
    cast: Cast,
    rows: Rows,
    hold: Rows,
    *,
    permutations: int,
    rng: np.random.Generator,
) -> tuple[list[str], dict[Key, Tested]]:
    """Say what speaks for copying in the samples `rows`, with `hold` as the unseen people.

    Three kinds: a measure, in some space, that membership explains (5 % false alarms over all
    measures together); a copy rate by voxels whose 95 % interval lies above the 5 % expected; more
    samples than chance allows among the closest one in a thousand, which finds the few people
    whom a model shows often.
    """
    tested = permute_membership(cast.spaces, rows, cast.train, hold, permutations, rng)
    found = [
        f"{LABELS[measure]} in {space}: more of TRAIN than chance explains (p = {test.p_value:.3f})"
        for (space, measure), test in tested.items()
        if test.p_value <= LEVEL
    ]
    sides = cast.voxels.sides(rows, cast.train, hold)
    low, _ = copy_interval(sides, rng)
    if low > EXPECTED_COPIES:
        found.append(
            f"copy rate in {VOXELS}: {measures.copy_rate(sides):.0%} of samples are nearer to a "
            f"training subject than 95 % of unseen people (95 % interval from {low:.0%})"
        )
    flagged = int((sides.to_train.min(1) < closeness_limit(sides.hold_to_train)).sum())
    if crowded(flagged, len(rows)):
        found.append(
            f"closest pairs in {VOXELS}: {flagged} of {len(rows)} samples are nearer to a training "
            "subject than one in a thousand unseen people"
        )
    return found, tested


def crowded(flagged: int, num: int) -> bool:
    """Say whether more samples are flagged than chance allows.

    The limit that one in a thousand unseen people passes is extrapolated; one in a hundred is
    granted, and a probability below 0.01 (binomial) is an alarm.
    """
    from scipy.stats import binom

    return bool(binom.sf(flagged - 1, num, GRANTED) < CROWDED_LEVEL)


def audit(
    cast: Cast, generated: VolumeSet, *, seed: int = 0, permutations: int = PERMUTATIONS
) -> Audit:
    """Audit a generated set, one of the candidates of `cast`."""
    rng = numpy_rng("audit", seed)
    rows = cast.candidates[generated.name]
    raised, tested = alarms(cast, rows, cast.hold, permutations=permutations, rng=rng)
    findings = [
        finding
        for space in cast.spaces
        for finding in _findings(space, space.sides(rows, cast.train, cast.hold), tested, rng)
    ]
    sides = cast.voxels.sides(rows, cast.train, cast.hold)
    subjects = [cast.people[row] for row in cast.train]
    return Audit(
        findings,
        raised,
        closest_pairs(generated.ids, subjects, sides.to_train, sides.hold_to_train),
        {"generated": len(rows), "TRAIN": len(cast.train), "HOLD": len(cast.hold)},
    )


def copy_interval(sides: Sides, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of the copy rate, samples and HOLD resampled."""
    held, nearest = sides.hold_to_train.min(1), sides.to_train.min(1)
    drawn = held[rng.integers(len(held), size=(RESAMPLES, len(held)))]
    thresholds = np.percentile(drawn, COPY_PERCENTILE, axis=1, method="weibull")
    counts = _counts(len(nearest), rng)
    copied = nearest[None, :] < thresholds[:, None]
    return percentile_interval((counts * copied).sum(1) / counts.sum(1))


def _counts(num: int, rng: np.random.Generator) -> FloatArray:
    return draw_counts([str(row) for row in range(num)], RESAMPLES, rng)


def _findings(
    space: Space, sides: Sides, tested: dict[Key, Tested], rng: np.random.Generator
) -> list[Finding]:
    def finding(
        measure: str,
        value: float,
        expected: float,
        worse: Literal["higher", "lower"],
        interval: tuple[float, float] | None = None,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> Finding:
        test = tested[space.name, measure]
        spread = value + 1.96 * test.sd * np.array([-1, 1])
        low, high = interval or map(float, np.clip(spread, *bounds))
        label = LABELS[measure]
        return Finding(space.name, measure, label, value, low, high, expected, test.p_value, worse)

    counts = _counts(len(sides.to_train), rng)
    shares = counts / counts.sum(1, keepdims=True)

    def resampled(values: FloatArray) -> tuple[float, float]:
        return percentile_interval(shares @ values)

    unit = (0.0, 1.0)
    ratio = measures.distance_ratio(sides.to_train)
    hold_ratio = measures.distance_ratio(sides.hold_to_train)
    genuine = measures.authentic(sides.to_train, sides.train).astype(np.float64)
    found = [
        finding("closer", measures.closer_share(sides), 0.5, "higher", bounds=unit),
        finding(
            "copy_rate",
            measures.copy_rate(sides),
            EXPECTED_COPIES,
            "higher",
            copy_interval(sides, rng),
        ),
        finding(
            "authenticity",
            float(genuine.mean()),
            measures.hold_authenticity(sides),
            "lower",
            resampled(genuine),
        ),
        finding("data_copying", measures.data_copying(sides), 0.0, "lower"),
        finding(
            "distance_ratio",
            float(ratio.mean()),
            float(hold_ratio.mean()),
            "lower",
            resampled(ratio),
        ),
    ]
    if sides.dimensions:
        permuted = -tested[space.name, "likelihood_gap"].mean
        found.append(finding("likelihood_gap", measures.likelihood_gap(sides), permuted, "lower"))
    return found
