"""Let a run show real scans as another scanner would, and measure what it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Translate real scans to a level of a condition, such as a scanner (harmonisation).

    Writes the scans as a BIDS derivative, and whether a classifier of real scans is fooled and
    tissues keep their volume. Nobody new is made: the outputs are personal data of real people.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder."""
    cohort: tyro.conf.Positional[Path]
    """Prepared cohort on the run's grid."""
    to: str
    """Condition and level to translate to, such as scanner=B."""
    out: Path
    """Folder of the translated scans."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Only scans of this level; by default all that the run translates from."""
    split: tuple[Literal["TRAIN", "VAL", "HOLD", "TEST"], ...] = ("TRAIN", "VAL", "HOLD", "TEST")
    """Whose scans."""
    step: int | None = None
    """A numbered checkpoint instead of the last."""
    seed: int = 0
    """Of the classifier's folds and the intervals; a translation has no noise."""
    bootstrap: int = 2000
    """Resamples of the subjects behind every interval."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Translate."""
        from gyri import api
        from gyri.report.translation import translation_text

        done = api.translate(
            self.run_folder,
            self.cohort,
            self.out,
            self.to,
            source=self.source,
            splits=self.split,
            step=self.step,
            seed=self.seed,
            bootstrap=self.bootstrap,
            device=self.device,
        )
        print(translation_text(done.summary))
        print(done.made.root / "evaluation" / "translation.json")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri translate", args=arguments).run()
