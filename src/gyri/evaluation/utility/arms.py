"""Arms of a study: what a model is trained on, everything else being equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gyri.errors import UnavailableError
from gyri.evaluation.metrics import Refusal
from gyri.evaluation.utility.tasks import Cases, Task

Balance = Literal["weights", "oversample", "smote", "synthetic"]
BALANCES: tuple[Balance, ...] = ("weights", "oversample", "smote", "synthetic")
SMOTE_NEIGHBOURS = 5


@dataclass(frozen=True)
class Arm:
    """One way of making a training set from real cases R and synthetic cases S.

    Parameters
    ----------
    name : for tables.
    real : whether R is in it.
    copies : how often R is in it.
    synthetic : synthetic cases for one real case.
    augment : whether R is changed at random (classical augmentation).
    balance : how classes are brought to equal shares, or None.
    on_synthetic : tested on S instead of on TEST.
    """

    name: str
    real: bool = True
    copies: int = 1
    synthetic: float = 0.0
    augment: bool = False
    balance: Balance | None = None
    on_synthetic: bool = False

    @property
    def learns_from_synthetic(self) -> bool:
        """Whether synthetic cases are in the training set."""
        return self.synthetic > 0 or self.balance == "synthetic"


REAL = Arm("R")
AUGMENTED = Arm("R + augmentation", augment=True)
DUPLICATED = Arm("R duplicated", copies=2)
SYNTHETIC_ONLY = Arm("S only", real=False, synthetic=1.0)
ON_SYNTHETIC = Arm("tested on S", on_synthetic=True)
CONTROLS = (AUGMENTED, DUPLICATED)
"""What synthetic cases have to beat: cheap variety, and the same people seen more often."""

_BALANCED = {
    "weights": "R, weighted loss",
    "oversample": "R, oversampled",
    "smote": "R, SMOTE",
    "synthetic": "R, filled up with S",
}


def mixed(alpha: float) -> Arm:
    """Return the arm of all real cases and `alpha` times as many synthetic ones."""
    return Arm(f"R + {alpha:g} S", synthetic=alpha)


def balanced(kind: Balance) -> Arm:
    """Return the arm whose classes are brought to equal shares by `kind`."""
    return Arm(_BALANCED[kind], balance=kind)


def all_arms(alphas: Sequence[float], balance: Sequence[Balance]) -> list[Arm]:
    """Return every arm of a study, the real ones first."""
    return [
        REAL,
        *CONTROLS,
        *[mixed(alpha) for alpha in alphas],
        SYNTHETIC_ONLY,
        ON_SYNTHETIC,
        *[balanced(kind) for kind in balance],
    ]


@dataclass(frozen=True)
class Training:
    """What an estimator learns from.

    Parameters
    ----------
    cases : real ones first.
    weights : (N,) weight of each case in the loss, 1 on average.
    augment : whether cases are changed at random while learning.
    num_synthetic : how many of the cases are synthetic.
    """

    cases: Cases
    weights: NDArray[np.float64]
    augment: bool = False
    num_synthetic: int = 0


def compose(
    arm: Arm, task: Task, real: Cases, synthetic: Cases, rng: np.random.Generator, seed: int
) -> Training:
    """Make an arm's training set.

    Parameters
    ----------
    real, synthetic : all real cases of the fraction and all labelled synthetic cases. Which of
        these are taken is drawn by `rng`; the cases of a smaller share are among those of a
        larger one.

    Raises
    ------
    Refusal
        There are too few synthetic cases, or the classes cannot be balanced.
    """
    order = rng.permutation(len(synthetic))
    if arm.balance:
        return _balance(arm.balance, task, real, synthetic.take(order), seed)
    wanted = round(arm.synthetic * len(real))
    if wanted > len(synthetic):
        raise Refusal(
            f"{arm.name} needs {wanted} synthetic cases with a known {task.name}, there are "
            f"{len(synthetic)}. Sample more (`gyri sample --num`) or ask for a smaller alpha."
        )
    taken = synthetic.take(order[:wanted])
    if not arm.real:
        return Training(taken, np.ones(wanted), num_synthetic=wanted)
    cases = real.take(np.tile(np.arange(len(real)), arm.copies))
    joined = cases.join(taken) if wanted else cases
    return Training(joined, np.ones(len(joined)), arm.augment, wanted)


def _balance(kind: Balance, task: Task, real: Cases, synthetic: Cases, seed: int) -> Training:
    """Bring the classes to equal shares: by weights, or by filling all up to the largest."""
    if task.kind != "classification":
        raise Refusal(f"Classes are balanced; {task.name} is a {task.kind} and has none.")
    target = real.target.astype(np.int64)
    counts = np.bincount(target, minlength=len(task.levels))
    if (counts == 0).any():
        absent = ", ".join(n for n, c in zip(task.levels, counts) if c == 0)
        raise Refusal(f"No real case of {absent} is in this fraction; nothing to balance.")
    if kind == "weights":
        return Training(real, len(real) / (len(counts) * counts[target]))
    if kind == "smote":
        return _smote(real, counts, seed)
    lacking = counts.max() - counts
    if kind == "oversample":
        return _oversample(real, target, lacking, seed)
    return _fill_up(task, real, synthetic, lacking)


def _oversample(
    real: Cases, target: NDArray[np.int64], lacking: NDArray[np.int64], seed: int
) -> Training:
    rng = np.random.default_rng(seed)
    extra: list[int] = []
    for k, lack in enumerate(lacking):
        own = np.flatnonzero(target == k)
        while lack > 0:
            extra += rng.permutation(own)[:lack].tolist()
            lack -= len(own)
    cases = real.take(np.concatenate([np.arange(len(real)), np.array(extra, np.int64)]))
    return Training(cases, np.ones(len(cases)))


def _fill_up(task: Task, real: Cases, synthetic: Cases, lacking: NDArray[np.int64]) -> Training:
    rows = []
    for k, lack in enumerate(lacking):
        own = np.flatnonzero(synthetic.target.astype(np.int64) == k)[:lack]
        if len(own) < lack:
            raise Refusal(
                f"{lack} synthetic cases of {task.name} {task.levels[k]} are needed, there are "
                f"{len(own)}. Sample them: `gyri sample --condition {task.source}=...`."
            )
        rows.append(own)
    taken = synthetic.take(np.concatenate(rows))
    cases = real.join(taken) if len(taken) else real
    return Training(cases, np.ones(len(cases)), num_synthetic=len(taken))


def _smote(real: Cases, counts: NDArray[np.int64], seed: int) -> Training:
    """Fill up by points between neighbours of one class in voxel space (Chawla 2002)."""
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError:
        raise UnavailableError(
            "SMOTE needs imbalanced-learn, which is not installed. Run "
            "`pip install 'gyri[utility]'`, or leave `smote` out."
        ) from None
    smallest = int(counts.min())
    if smallest < 2:
        raise Refusal("SMOTE needs two real cases of every class; one has a single case.")
    sampler = SMOTE(k_neighbors=min(SMOTE_NEIGHBOURS, smallest - 1), random_state=seed % 2**32)
    flat, target = sampler.fit_resample(real.volumes.reshape(len(real), -1), real.target)
    names = (*real.subjects, *[f"smote{k}" for k in range(len(flat) - len(real))])
    volumes = flat.reshape(len(flat), *real.volumes.shape[1:]).astype(np.float32)
    cases = Cases(volumes, target, names, real.spacing_mm)
    return Training(cases, np.ones(len(cases)))
