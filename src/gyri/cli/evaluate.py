"""Judge a synthetic cohort against subjects its model never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Judge a synthetic cohort against held-out subjects; writes evaluation/scores.json."""

    synthetic: tyro.conf.Positional[Path]
    """Folder made by gyri sample."""
    against: Path
    """Prepared cohort."""
    split: Literal["HOLD", "VAL", "TEST"] = "HOLD"
    """The reference: HOLD to report, VAL to choose."""
    seed: int = 0
    """Of subsampling and bootstraps."""
    bootstrap: int = 2000
    """Bootstrap resamples behind every interval."""
    features: tuple[str, ...] = ()
    """Feature sets to measure; without it all that need no weights (see gyri list features)."""

    def run(self) -> None:
        """Evaluate."""
        from rich.console import Console

        from gyri import api
        from gyri.report.terminal import terminal_summary

        scores = api.evaluate(
            self.synthetic,
            self.against,
            split=self.split,
            seed=self.seed,
            bootstrap=self.bootstrap,
            features=self.features or None,
        )
        Console(width=max(Console().width, 100)).print(terminal_summary(scores.to_dict()))
        print(f"{self.synthetic / 'evaluation' / 'scores.json'}")
        print(f"Next: gyri report {self.synthetic} --against {self.against}")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri evaluate", args=arguments).run()
