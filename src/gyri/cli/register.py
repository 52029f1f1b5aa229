"""Deform a template to every scan of a prepared cohort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Register a template to every scan, by a network that is trained first or by SyN.

    Writes displacement fields that ITK's tools apply, velocities, warped volumes, Jacobians and a
    page of quality. The same command continues a registration that was interrupted.
    """

    cohort: tyro.conf.Positional[Path]
    """Prepared cohort."""
    out: Path
    """Folder of the fields."""
    method: str = "voxelmorph"
    """voxelmorph, diffusemorph or syn (needs dipy)."""
    template: str = "mean"
    """mean of TRAIN, MNI, or a NIfTI file of a brain without its head."""
    recipe: Path | None = None
    """Recipe to train in place of the method's defaults; it names method and template."""
    run_folder: Path | None = None
    """A trained registration; the cohort may be one that it never saw."""
    override: tuple[str, ...] = ()
    """Changes of the recipe, such as training.steps=500."""
    split: tuple[Literal["TRAIN", "VAL", "HOLD", "TEST"], ...] = ("TRAIN", "VAL", "HOLD", "TEST")
    """Whose scans."""
    bootstrap: int = 2000
    """Resamples of the subjects behind every interval."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Register."""
        from gyri import api
        from gyri.report.registration import registration_text

        page, summary = api.register(
            self.cohort,
            self.out,
            method=self.method,
            template=self.template,
            recipe=self.recipe,
            run=self.run_folder,
            overrides=self.override,
            splits=self.split,
            bootstrap=self.bootstrap,
            device=self.device,
        )
        print(registration_text(summary))
        print(page)


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri register", args=arguments).run()
