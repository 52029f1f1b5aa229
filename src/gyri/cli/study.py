"""Run many recipes under one protocol and put them into one table."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Command:
    """Train, sample and judge every row of a study under one protocol; writes results.html.

    Interrupted and started again, it goes on where it was. A row that is done is not run again
    unless its recipe, the protocol or the data have changed; one that failed is tried again.
    """

    study: tyro.conf.Positional[Path]
    """YAML file of the study, such as studies/s0-oasis1.yaml."""
    data: Path
    """Prepared cohort."""
    out: Path | None = None
    """Folder of results and runs; by default runs/STUDY."""
    rows: tuple[str, ...] = ()
    """Rows to run; by default all. The table holds every row that is done."""
    budget: float | None = None
    """Seconds of training a row instead of the study's; rows with their own keep the ratio."""
    seeds: tuple[int, ...] = ()
    """Seeds of training instead of the study's; from three on, differences of rows are given."""
    jobs: int = 1
    """Rows at a time: each on a device of its own, or on its share of the processor's threads.
    Rows that share a processor slow each other down: use it to try things out."""

    def run(self) -> None:
        """Run the study."""
        began = time.time()
        from gyri.study.plan import load_study
        from gyri.study.run import failed, run_study

        study = load_study(self.study, self.budget, self.seeds)
        out = self.out or Path("runs") / self.study.stem
        results = run_study(
            study, self.data, out, rows=self.rows, jobs=self.jobs, tell=_tell, began=began
        )
        print(results["heading"])
        for name in ("results.html", "results.md", "results.csv", "results.json"):
            print(out / name)
        if error := failed(results, study.select(self.rows)):
            raise error


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri study", args=arguments).run()
