"""Controls that run beside every audit: whether it notices copies, and whether it cries wolf."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.evaluation.privacy.audit import Cast, alarms
from gyri.evaluation.privacy.pairs import closeness_limit
from gyri.evaluation.privacy.spaces import Rows
from gyri.runtime.seeding import numpy_rng

SEEDS = 20
PERMUTATIONS = 99
TOLERATED = 0.1
"""Largest share of false alarms, and of misses."""
COPIED = 0.2
COPY_NOISE = 0.05
"""Standard deviation of the noise on copies, of the intensities' range."""
NUM_COPIES = 16
CANARIES, DUPLICATES = 5, 20
MIN_UNSEEN = 16
COPIES, CANARY = "noisy copies", "canaries"


@dataclass(frozen=True)
class Control:
    """One control.

    Parameters
    ----------
    name : ``negative``, ``positive`` or ``canary``.
    passed : whether the audit can be trusted in this respect.
    count, total : alarms among audits, or subjects listed among subjects planted.
    detail : a sentence.
    """

    name: str
    passed: bool
    count: int
    total: int
    detail: str


def noisy_copies(train: VolumeSet, num: int, seed: int) -> VolumeSet:
    """Return copies of `num` training subjects with noise, every second one mirrored."""
    rng = numpy_rng("audit", seed, "copies")
    rows = np.sort(rng.permutation(len(train))[:num])
    return _noisy(train, rows, rng, COPIES)


def canaries(train: VolumeSet, seed: int) -> VolumeSet:
    """Return five training subjects twenty times each, each time with other noise."""
    rng = numpy_rng("audit", seed, "canaries")
    people = rng.permutation(len(train))[:CANARIES]
    return _noisy(train, np.repeat(np.sort(people), DUPLICATES), rng, CANARY)


def _noisy(train: VolumeSet, rows: Rows, rng: np.random.Generator, name: str) -> VolumeSet:
    volumes = train.volumes[rows]
    volumes[1::2] = volumes[1::2, :, ::-1].copy()
    noise = rng.standard_normal(volumes.shape, dtype=np.float32)
    volumes = np.clip(volumes + np.float32(COPY_NOISE) * noise * (volumes > 0), 0, 1)
    table = pd.DataFrame({"copy_of": [train.ids[row] for row in rows]})
    table.index = pd.Index([f"{name}-{place}" for place in range(len(rows))])
    return replace(train, name=name, volumes=volumes, table=table)


def second_holdouts(cast: Cast, seed: int) -> list[tuple[Rows, Rows]]:
    """Deal the unseen people anew, twenty times: some play the samples, the others HOLD.

    HOLD keeps its size where VAL and TEST are many enough to play the samples, else half.

    Raises
    ------
    DataError
        If fewer than 16 people are unseen.
    """
    num = len(cast.unseen)
    if num < MIN_UNSEEN:
        raise DataError(
            f"Only {num} people are unseen (HOLD, VAL and TEST); the audit's controls need "
            f"{MIN_UNSEEN}. Prepare the cohort with a larger HOLD."
        )
    spare = num - len(cast.hold)
    size = spare if spare >= MIN_UNSEEN // 2 else num // 2
    dealt = []
    for deal in range(SEEDS):
        order = numpy_rng("audit", seed, "second holdout", deal).permutation(cast.unseen)
        dealt.append((order[:size], order[size:]))
    return dealt


def negative_control(cast: Cast, seed: int) -> Control:
    """Audit second holdouts: an audit that raises an alarm for them cries wolf."""
    raised = 0
    holdouts = second_holdouts(cast, seed)
    for deal, (rows, hold) in enumerate(holdouts):
        rng = numpy_rng("audit", seed, "negative", deal)
        raised += bool(alarms(cast, rows, hold, permutations=PERMUTATIONS, rng=rng)[0])
    return Control(
        "negative",
        raised <= TOLERATED * SEEDS,
        raised,
        SEEDS,
        f"{len(holdouts[0][0])} unseen people in place of the samples: {raised} false alarms in "
        f"{SEEDS} deals, at most {TOLERATED:.0%} allowed",
    )


def positive_control(cast: Cast, seed: int) -> Control:
    """Audit second holdouts of which 20 % are noisy copies of TRAIN: no alarm is a miss."""
    raised = 0
    copies = cast.candidates[COPIES]
    for deal, (rows, hold) in enumerate(second_holdouts(cast, seed)):
        rng = numpy_rng("audit", seed, "positive", deal)
        planted = rows.copy()
        num = min(len(copies), max(1, round(COPIED * len(rows))))
        planted[:num] = rng.permutation(copies)[:num]
        raised += bool(alarms(cast, planted, hold, permutations=PERMUTATIONS, rng=rng)[0])
    return Control(
        "positive",
        raised >= (1 - TOLERATED) * SEEDS,
        raised,
        SEEDS,
        f"{num} of {len(rows)} replaced by training subjects with {COPY_NOISE:.0%} noise, "
        f"half of them mirrored: {raised} alarms in {SEEDS} deals",
    )


def canary_control(cast: Cast, planted: VolumeSet) -> Control:
    """Look for five duplicated training subjects in the list of pairs."""
    space = cast.voxels
    sides = space.sides(cast.candidates[CANARY], cast.train, cast.hold)
    limit = closeness_limit(sides.hold_to_train)
    names = [cast.people[row] for row in cast.train]
    listed = {(place, names[column]) for place, column in np.argwhere(sides.to_train < limit)}
    truth = list(planted.table["copy_of"])
    found = [name for place, name in enumerate(truth) if (place, name) in listed]
    people = len(set(truth))
    caught = sum(found.count(name) == truth.count(name) for name in set(truth))
    return Control(
        "canary",
        caught == people,
        caught,
        people,
        f"{people} training subjects planted {DUPLICATES} times each: all copies listed of "
        f"{caught}, {len(found)} of {len(truth)} copies in all",
    )
