"""Measure whether a model trained for a task gains from synthetic volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from gyri.errors import UsageError

DESCRIPTION = """Measure whether a model trained for a task gains from synthetic volumes.

Arms that differ in their training set alone (real R; R with classical augmentation; R twice;
R with alpha times as much synthetic S; S only; trained on R and tested on S) are trained equally
long and asked about the same real TEST subjects, at fractions of the real subjects and several
seeds. Writes utility.json and utility.html; started again, it goes on where it was.

Examples:
  gyri utility run/samples --against oasis1-4mm --task sex
  gyri utility run/samples --against oasis1-4mm --task age --estimator cnn --fractions 0.25 1
  gyri utility run/samples --against oasis1-4mm --task cdr --balance weights oversample synthetic
  gyri utility run/samples --against oasis1-4mm --task tissue --seeds 3 --alphas 1

A generator that was trained on all of TRAIN knows more people than an arm with a fraction of them:
such rows are tagged LEAKY. Without the leak:
  gyri utility fraction oasis1-4mm oasis1-quarter --task sex --fraction 0.25
  gyri train recipe.yaml --data oasis1-quarter --out quarter
  gyri sample quarter --num 200
  gyri utility run/samples --against oasis1-4mm --task sex --synthetic-for 0.25=quarter/samples"""


@dataclass(frozen=True)
class Command:
    """Measure whether a model trained for a task gains from synthetic volumes."""

    synthetic: tyro.conf.Positional[tuple[Path, ...]]
    """Folders made by gyri sample; several are several trainings of a generator."""
    against: Path
    """Prepared cohort."""
    task: str
    """Column (sex, age, cdr, scanner ...), label channel, or tissue."""
    estimator: Literal["linear", "cnn", "unet"] | None = None
    """The model; by default linear (PCA, then logistic or ridge), unet for segmentations."""
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Of the real TRAIN subjects."""
    alphas: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Synthetic volumes for one real volume."""
    seeds: int = 5
    """Repetitions: other subsets, other synthetic volumes, other initialisation."""
    balance: tuple[Literal["none", "weights", "oversample", "smote", "synthetic"], ...] = ()
    """Ways of bringing classes to equal shares, compared with one another."""
    synthetic_for: tuple[str, ...] = ()
    """Samples of a generator that saw a fraction alone, such as 0.25=FOLDER."""
    test: tuple[Literal["TEST", "HOLD", "VAL", "TRAIN"], ...] = ("TEST",)
    """Whose subjects are asked about. HOLD only if nobody chose the generator by its scores."""
    test_cohort: Path | None = None
    """Take them from this prepared cohort (an external site)."""
    minimum: float | None = None
    """Smallest interesting gain; by default 0.01 AUROC or Dice, 0.1 year of age."""
    margin: float | None = None
    """Loss that is still no harm; by default the smallest interesting gain."""
    bootstrap: int = 10_000
    """Resamples of subjects and seeds behind every interval."""
    steps: int | None = None
    """Updates of every arm, for networks."""
    seed: int = 0
    """Of everything drawn."""
    out: Path | None = None
    """Folder; by default SYNTHETIC/evaluation/utility/TASK-ESTIMATOR."""
    device: str = "auto"
    """auto, cpu or cuda."""
    allow_leaks: bool = False
    """Go on where test subjects are known to training, and tag the results LEAKY."""

    def run(self) -> None:
        """Run the study."""
        from rich.console import Console

        from gyri import api
        from gyri.report.usefulness import usefulness_summary

        sheet, folder = api.utility(
            self.synthetic,
            self.against,
            self.task,
            estimator=self.estimator,
            fractions=self.fractions,
            alphas=self.alphas,
            seeds=self.seeds,
            balance=[way for way in self.balance if way != "none"],
            synthetic_for=folders_by_fraction(self.synthetic_for),
            test=self.test,
            test_cohort=self.test_cohort,
            minimum=self.minimum,
            margin=self.margin,
            bootstrap=self.bootstrap,
            steps=self.steps,
            seed=self.seed,
            out=self.out,
            device=self.device,
            allow_leaks=self.allow_leaks,
        )
        Console(width=max(Console().width, 100)).print(usefulness_summary(sheet))
        print(f"{folder / 'utility.json'}\n{folder / 'utility.html'}")


@dataclass(frozen=True)
class Fraction:
    """Write a prepared cohort with a fraction of TRAIN; a generator trained on it sees no more."""

    prepared: tyro.conf.Positional[Path]
    """Prepared cohort."""
    out: tyro.conf.Positional[Path]
    """New folder; voxel files are linked, not copied, where that is possible."""
    task: str
    """Task whose mix of targets the fraction keeps."""
    fraction: float
    """Share of the TRAIN subjects; VAL, HOLD and TEST stay whole."""
    seed: int = 0
    """Another gives other subjects."""

    def run(self) -> None:
        """Write the cohort."""
        from gyri import api

        cohort = api.utility_fraction(
            self.prepared, self.out, self.task, self.fraction, seed=self.seed
        )
        print(f"{cohort.root}: {cohort.rows('TRAIN').shape[0]} TRAIN subjects")
        print(f"Next: gyri train RECIPE --data {cohort.root}")


def folders_by_fraction(texts: Sequence[str]) -> dict[float, list[Path]]:
    """Read ``("0.25=FOLDER", ...)``; a fraction may come more than once."""
    found: dict[float, list[Path]] = {}
    for text in texts:
        share, equals, folder = text.partition("=")
        try:
            fraction = float(share)
        except ValueError:
            fraction = float("nan")
        if not equals or not folder or not 0 < fraction <= 1:
            raise UsageError(
                f"--synthetic-for {text!r} is not of the form FRACTION=FOLDER, such as "
                "0.25=quarter/samples."
            )
        found.setdefault(fraction, []).append(Path(folder))
    return found


def main(arguments: list[str]) -> None:
    """Parse and run ``gyri utility SYNTHETIC`` or ``gyri utility fraction PREPARED OUT``."""
    if arguments[:1] == ["fraction"]:
        tyro.cli(Fraction, prog="gyri utility fraction", args=arguments[1:]).run()
    else:
        tyro.cli(Command, prog="gyri utility", args=arguments, description=DESCRIPTION).run()
