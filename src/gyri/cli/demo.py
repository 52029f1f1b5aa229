"""See it all work: phantoms, a small model, 16 new brains, their report. Needs no data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Command:
    """Make a phantom cohort, prepare it, train a small model, sample, judge, report.

    Some minutes on two CPU cores. Interrupted and started again, it goes on where it was.
    """

    out: Path = Path("gyri-demo")
    """Folder for everything."""
    seed: int = 0
    """Of the phantoms."""
    budget_s: float | None = None
    """Seconds of training instead of the recipe's."""

    def run(self) -> None:
        """Run the demo and print the summary table."""
        began = time.monotonic()
        from rich.console import Console

        from gyri.demo import demo, summary
        from gyri.evaluation.scores import Scores
        from gyri.report.terminal import terminal_summary

        demo(self.out, seed=self.seed, budget_s=self.budget_s)
        scores = Scores.read(self.out / "samples" / "evaluation" / "scores.json")
        Console(width=max(Console().width, 100)).print(terminal_summary(scores.to_dict()))
        print(summary(self.out, time.monotonic() - began))


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri demo", args=arguments).run()
