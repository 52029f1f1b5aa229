"""Which reader sees which volume when: blocks, sides, orders and hidden repeats.

Nothing here reaches a reader: a trial and each volume shown in it have names of their own, drawn
from the operating system, and a repeat has other names than the trial that it repeats.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gyri.reading.study import Blocks
from gyri.runtime.seeding import numpy_rng

ORDER = ("yes_no", "pairs", "ratings")
"""Blocks in the order of reading: the naive judgement first, clues last."""


@dataclass(frozen=True)
class Pair:
    """A real volume and a synthetic one that matches it, by the names of their files."""

    real: str
    synthetic: str


@dataclass(frozen=True)
class Trial:
    """One question to one reader.

    Parameters
    ----------
    id : random; all that the reader's browser knows.
    reader, block, position : who is asked what, and when.
    cases : random name of each shown volume, in the order of the screen.
    volumes : the files behind them.
    truth : ``real`` or ``synthetic`` for one volume; for two, the side of the real one.
    repeat_of : id of the trial that this one repeats, or empty.
    """

    id: str
    reader: str
    block: str
    position: int
    cases: tuple[str, ...]
    volumes: tuple[str, ...]
    truth: str
    repeat_of: str = ""


def deal(pairs: Sequence[Pair], blocks: Blocks, seed: int) -> dict[str, list[Pair]]:
    """Deal pairs to blocks, each pair to one; there are `Blocks.pairs_needed` or more."""
    order = numpy_rng("pairs of blocks", seed).permutation(len(pairs))
    counts = {"yes_no": blocks.yes_no // 2, "pairs": blocks.pairs, "ratings": blocks.ratings // 2}
    dealt, start = {}, 0
    for block in ORDER:
        dealt[block] = [pairs[i] for i in order[start : start + counts[block]]]
        start += counts[block]
    return dealt


def trials_of(reader: str, dealt: dict[str, list[Pair]], repeats: float, seed: int) -> list[Trial]:
    """Order the trials of one reader; every reader sees the same volumes in an own order."""
    rng = numpy_rng("trials", seed, reader)
    trials: list[Trial] = []
    for block in ORDER:
        shown = _shown(block, dealt[block], rng)
        places = _with_repeats(len(shown), repeats, rng)
        first: dict[int, str] = {}
        for place in places:
            volumes, truth = shown[place]
            again = first.get(place, "")
            if again and len(volumes) == 2 and rng.random() < 0.5:
                volumes, truth = volumes[::-1], {"left": "right", "right": "left"}[truth]
            trial = Trial(
                id=secrets.token_hex(16),
                reader=reader,
                block=block,
                position=len(trials),
                cases=tuple(secrets.token_hex(16) for _ in volumes),
                volumes=volumes,
                truth=truth,
                repeat_of=again,
            )
            first.setdefault(place, trial.id)
            trials.append(trial)
    return trials


def _shown(
    block: str, pairs: Sequence[Pair], rng: np.random.Generator
) -> list[tuple[tuple[str, ...], str]]:
    """Return what is shown in a block, in the reader's order: volumes and truth."""
    shown: list[tuple[tuple[str, ...], str]] = []
    for pair in pairs:
        if block != "pairs":
            shown += [((pair.real,), "real"), ((pair.synthetic,), "synthetic")]
        elif rng.random() < 0.5:
            shown.append(((pair.real, pair.synthetic), "left"))
        else:
            shown.append(((pair.synthetic, pair.real), "right"))
    return [shown[i] for i in rng.permutation(len(shown))]


def _with_repeats(count: int, share: float, rng: np.random.Generator) -> list[int]:
    """Return 0 .. count-1 with some of the first half a second time, inside the second half."""
    places = list(range(count))
    half = count // 2
    for again in rng.permutation(half)[: round(share * count)]:
        places.insert(int(rng.integers(half + 1, len(places) + 1)), int(again))
    return places
