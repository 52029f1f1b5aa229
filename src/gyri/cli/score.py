"""Write the losses of training and held-out subjects, which the membership test reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Write the loss of every subject under a run's own method, as a table.

    A model that explains those it was trained on better than others gives them away; `gyri
    release` tests it with this table.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder."""
    cohort: tyro.conf.Positional[Path]
    """Prepared cohort that the run was trained on."""
    split: tuple[Literal["TRAIN", "VAL", "HOLD", "TEST"], ...] = ("TRAIN", "HOLD")
    """Whose losses."""
    out: Path | None = None
    """Table; by default RUN/scores.tsv."""
    seed: int = 0
    """Of the noise, which is the same for everybody."""
    draws: int = 4
    """Draws of noise that are averaged."""
    step: int | None = None
    """A numbered checkpoint instead of the last."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Score."""
        from gyri import api

        table = api.score(
            self.run_folder,
            self.cohort,
            self.out,
            splits=self.split,
            seed=self.seed,
            draws=self.draws,
            step=self.step,
            device=self.device,
        )
        for split, losses in table.groupby("split", sort=False)["loss"]:
            print(f"{split:6} {len(losses):4} scans, mean loss {losses.mean():.4g}")
        print(self.out or self.run_folder / "scores.tsv")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri score", args=arguments).run()
