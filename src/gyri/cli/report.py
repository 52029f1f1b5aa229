"""Write the HTML report of an evaluated synthetic cohort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Write a self-contained report.html: pictures, scores with anchors, provenance."""

    synthetic: tyro.conf.Positional[Path]
    """Folder made by gyri sample and judged by gyri evaluate."""
    against: Path
    """Prepared cohort."""
    split: Literal["HOLD", "VAL", "TEST"] = "HOLD"
    """The reference that was used in the evaluation."""
    out: Path | None = None
    """File; by default SYNTHETIC/report.html."""

    def run(self) -> None:
        """Write the report."""
        from gyri import api

        print(api.report(self.synthetic, self.against, split=self.split, out=self.out))


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri report", args=arguments).run()
