"""Write the HTML report of a synthetic cohort, or the quality page of a prepared one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

DESCRIPTION = """Write a self-contained report.html: pictures, scores with anchors, provenance.

`gyri report quality PREPARED` writes the quality page of a prepared cohort instead."""


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


@dataclass(frozen=True)
class Quality:
    """Write the quality page of a prepared cohort: outliers, pictures, quarantined scans."""

    prepared: tyro.conf.Positional[Path]
    """Folder made by gyri prepare."""
    out: Path | None = None
    """File; by default PREPARED/quality.html."""
    allow_faces: bool = False
    """Picture whole heads in three planes; otherwise only above the orbits."""

    def run(self) -> None:
        """Write the page."""
        from gyri import api

        print(api.quality_page(self.prepared, out=self.out, allow_faces=self.allow_faces))


def main(arguments: list[str]) -> None:
    """Parse and run ``gyri report SYNTHETIC`` or ``gyri report quality PREPARED``."""
    if arguments[:1] == ["quality"]:
        tyro.cli(Quality, prog="gyri report quality", args=arguments[1:]).run()
    else:
        tyro.cli(Command, prog="gyri report", args=arguments, description=DESCRIPTION).run()
