"""The study: every arm at every fraction and seed, each cell done once and kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from gyri.errors import UsageError
from gyri.evaluation.metrics import Refusal
from gyri.evaluation.utility.arms import Arm, Balance, all_arms, compose
from gyri.evaluation.utility.data import Generated
from gyri.evaluation.utility.estimators import Estimator, definition
from gyri.evaluation.utility.leaks import seen_beyond_arm, seen_by_generator, shared_people
from gyri.evaluation.utility.measures import Answers
from gyri.evaluation.utility.tasks import Cases, Task, nested_order, strata, subset_size
from gyri.runtime.seeding import derive_seed, numpy_rng

MAX_ASKED_SYNTHETIC = 200
"""Synthetic cases on which a model of real ones is tested."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is fixed before the study.

    Parameters
    ----------
    fractions : of the real TRAIN subjects, in (0, 1].
    alphas : synthetic cases for one real case.
    seeds : repetitions: another subset, other synthetic cases, another initialisation.
    balance : ways of bringing classes to equal shares, compared with one another.
    minimum : smallest interesting gain in the deciding measure; None for the measure's own.
    margin : loss that is still no harm; None for `minimum`.
    resamples : of the bootstrap.
    seed : of everything drawn.
    """

    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    alphas: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    seeds: int = 5
    balance: tuple[Balance, ...] = ()
    minimum: float | None = None
    margin: float | None = None
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        wrong = [f for f in self.fractions if not 0 < f <= 1]
        if wrong or not self.fractions:
            raise UsageError(
                f"Fractions are {self.fractions}; give each above 0 and at most 1, such as 0.25."
            )
        if not self.alphas or min(self.alphas) <= 0:
            raise UsageError(f"Alphas are {self.alphas}; give each above 0, such as 1.")
        if self.seeds < 1 or self.resamples < 1:
            raise UsageError("A study needs at least one seed and one resample.")
        for name in ("fractions", "alphas", "balance"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))


@dataclass(frozen=True)
class Material:
    """The cases of a study.

    Parameters
    ----------
    train, val, test : real ones; VAL tunes, TEST is asked about and never learned from.
    generated : sets of generators that were trained on all TRAIN; seed k takes the k-th, in turn.
    by_fraction : sets of generators trained on a fraction of TRAIN alone. The real subjects of
        that fraction are then those that the generator has seen.
    """

    train: Cases
    val: Cases
    test: Cases
    generated: tuple[Generated, ...]
    by_fraction: Mapping[float, tuple[Generated, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One model to be trained and asked."""

    arm: Arm
    fraction: float
    seed: int


@dataclass
class Result:
    """What a finished cell says.

    Parameters
    ----------
    answers : of the cases that were asked about.
    num_real, num_synthetic : training cases.
    leaks : what the arm knows and should not, in sentences.
    """

    answers: Answers
    num_real: int
    num_synthetic: int
    leaks: list[str]


class Ledger:
    """Finished cells as JSON lines; a line is complete or is done again.

    Parameters
    ----------
    path : the file, or None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        lines = path.read_text().splitlines() if path is not None and path.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the write that an interruption cut
            self.known[entry["key"]] = entry

    def keep(self, entry: dict[str, Any]) -> None:
        """Add a cell."""
        self.known[entry["key"]] = entry
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            # Begun on a new line: the one before may have been cut.
            file.write("\n" + json.dumps(entry))
            file.flush()
            os.fsync(file.fileno())


class Study:
    """Trains every cell of a plan, or reads it from the ledger.

    Parameters
    ----------
    plan, task, material, estimator : see there.
    ledger : file that keeps finished cells.
    allow_leaks : go on where test subjects are known to training, and tag the results.

    Raises
    ------
    UsageError
        Training or a generator knows test subjects, and leaks are not allowed.
    """

    def __init__(
        self,
        plan: Plan,
        task: Task,
        material: Material,
        estimator: Estimator,
        ledger: Path | None = None,
        *,
        allow_leaks: bool = False,
    ) -> None:
        self.plan, self.task, self.material, self.estimator = plan, task, material, estimator
        self.ledger = Ledger(ledger)
        self.real_leaks = shared_people(material.train.join(material.val), material.test)
        every = [*material.generated, *[g for s in material.by_fraction.values() for g in s]]
        self.generator_leaks = {g.folder: seen_by_generator(g, material.test) for g in every}
        found = [*self.real_leaks, *[s for leaks in self.generator_leaks.values() for s in leaks]]
        if found and not allow_leaks:
            raise UsageError(
                f"{' '.join(found)} Results would be too good. --allow-leaks goes on and tags them "
                "LEAKY."
            )
        self._digests = {
            "real": sha256(
                "".join(c.digest() for c in (material.train, material.val)).encode()
            ).hexdigest(),
            "test": material.test.digest(),
            **{g.folder: g.cases.digest() for g in every},
        }
        self.results: dict[Cell, Result] = {}
        self.refused: dict[tuple[str, float], str] = {}

    def cells(self) -> list[Cell]:
        """Return every cell of the plan."""
        arms = all_arms(self.plan.alphas, self.plan.balance)
        return [
            Cell(arm, fraction, seed)
            for fraction in sorted(self.plan.fractions, reverse=True)
            for seed in range(self.plan.seeds)
            for arm in arms
        ]

    def run(self, progress: Progress | None = None) -> None:
        """Do what is not yet done; `results` and `refused` then hold every cell."""
        cells = self.cells()
        for done, cell in enumerate(cells):
            if progress:
                text = f"{cell.arm.name}, {cell.fraction:.0%}, seed {cell.seed}"
                progress(text, done, len(cells))
            try:
                self.results[cell] = self._do(cell)
            except Refusal as refusal:
                self.refused.setdefault((cell.arm.name, cell.fraction), str(refusal))
        if progress:
            progress("done", len(cells), len(cells))

    def asked(self, arm: Arm) -> Cases:
        """Return the cases that an arm is asked about."""
        if not arm.on_synthetic:
            return self.material.test
        cases = self.material.generated[0].cases
        return cases.take(np.arange(min(len(cases), MAX_ASKED_SYNTHETIC)))

    def _source(self, cell: Cell) -> tuple[Generated, np.ndarray]:
        """Return a cell's generator and the rows of its real subjects in TRAIN."""
        train = self.material.train
        own = self.material.by_fraction.get(cell.fraction)
        if own:
            generated = own[cell.seed % len(own)]
            seen = generated.trained_on or frozenset()
            return generated, np.flatnonzero([name in seen for name in train.subjects])
        rng = numpy_rng("utility", self.plan.seed, cell.seed, "subset")
        order = nested_order(strata(self.task, train.target), rng)
        rows = np.sort(order[: subset_size(cell.fraction, len(train))])
        return self.material.generated[cell.seed % len(self.material.generated)], rows

    def _do(self, cell: Cell) -> Result:
        generated, rows = self._source(cell)
        real = self.material.train.take(rows)
        leaks = [*self.real_leaks]
        if cell.arm.learns_from_synthetic:
            leaks += self.generator_leaks[generated.folder]
            leaks += seen_beyond_arm(generated, real.subjects, self.material.train)
        key = self._key(cell, generated, real.subjects)
        entry = self.ledger.known.get(key)
        if entry is None:
            entry = self._train(cell, generated, real) | {"key": key}
            self.ledger.keep(entry)
        answers = {name: np.array(v, float) for name, v in entry["answers"].items()}
        return Result(answers, entry["num_real"], entry["num_synthetic"], leaks)

    def _train(self, cell: Cell, generated: Generated, real: Cases) -> dict[str, Any]:
        if not len(generated.cases) and (cell.arm.learns_from_synthetic or cell.arm.on_synthetic):
            raise Refusal(
                f"None of the {generated.num} samples in {generated.folder} carries "
                f"{self.task.source!r}; the generator has to be conditioned on it."
            )
        rng = numpy_rng("utility", self.plan.seed, cell.seed, "synthetic")
        seed = derive_seed("utility", self.plan.seed, cell.seed)
        began = time.monotonic()
        training = compose(cell.arm, self.task, real, generated.cases, rng, seed)
        answers = self.estimator.answer(
            self.task, training, self.material.val, self.asked(cell.arm), seed
        )
        return {
            "arm": cell.arm.name,
            "fraction": cell.fraction,
            "seed": cell.seed,
            "num_real": len(training.cases) - training.num_synthetic,
            "num_synthetic": training.num_synthetic,
            "seconds": round(time.monotonic() - began, 3),
            "answers": {name: values.tolist() for name, values in answers.items()},
        }

    def _key(self, cell: Cell, generated: Generated, subjects: tuple[str, ...]) -> str:
        """Return a digest of everything that a cell's answers depend on."""
        reads_synthetic = cell.arm.learns_from_synthetic or cell.arm.on_synthetic
        asked = self.material.generated[0].folder if cell.arm.on_synthetic else "test"
        parts = (
            definition(self.estimator),
            repr((self.task, cell, self.plan.seed, subjects)),
            self._digests["real"],
            self._digests[generated.folder] if reads_synthetic else "",
            self._digests[asked],
        )
        return sha256("\x1f".join(parts).encode()).hexdigest()
