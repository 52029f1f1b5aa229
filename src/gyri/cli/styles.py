"""Look into a generator: walks between samples, mixed styles, projections, units of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Write a page of what the styles and the units of a run's generator do.

    Walks between samples, mixes coarse layers of one with fine layers of another, looks for the
    styles of real scans, and finds the units that make each label. With a cohort, the page shows
    real people.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder of a method with styles, such as stylegan2."""
    cohort: tyro.conf.Positional[Path | None] = None
    """Prepared cohort on the run's grid, whose scans are projected; without, none are."""
    out: Path | None = None
    """The page; by default RUN/styles.html. Its numbers are beside it as JSON."""
    split: Literal["TRAIN", "VAL", "HOLD", "TEST"] = "HOLD"
    """Whose scans are projected."""
    subjects: int = 3
    """How many of them."""
    iterations: int = 300
    """Steps of the search for a scan's styles."""
    num: int = 4
    """Samples that are walked between and mixed."""
    condition: tuple[str, ...] = ()
    """The same for all samples, such as age=70 sex=F; by default drawn from the run's own mix."""
    samples: int = 8
    """Samples on which units are compared with labels."""
    quantile: float | None = None
    """A unit is high above this quantile of its values; by default 1 - the label's share."""
    seed: int = 0
    """Of the samples, as for gyri sample."""
    step: int | None = None
    """A numbered checkpoint instead of the last."""
    override: tuple[str, ...] = ()
    """Changes of the method's sampling, such as truncation=0.7."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Write the page."""
        from gyri import api
        from gyri.cli.sample import assignments

        page = api.styles(
            self.run_folder,
            self.cohort,
            out=self.out,
            split=self.split,
            subjects=self.subjects,
            iterations=self.iterations,
            num=self.num,
            condition=assignments(self.condition) if self.condition else None,
            samples=self.samples,
            quantile=self.quantile,
            seed=self.seed,
            step=self.step,
            overrides=self.override,
            device=self.device,
        )
        print(page)


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri styles", args=arguments).run()
