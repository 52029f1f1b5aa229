"""Prepare a raw cohort: one grid, one intensity range, subjects dealt to splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Command:
    """Bring all scans of a raw cohort onto one grid and deal its subjects to splits.

    Scans that cannot be used are quarantined with their reason. The same command goes on where it
    was interrupted.
    """

    cohort: tyro.conf.Positional[Path]
    """Raw BIDS cohort, as gyri cohort import makes it."""
    out: tyro.conf.Positional[Path]
    """Folder of the prepared cohort."""
    spacing: float = 4.0
    """Isotropic voxel size in millimetres."""
    shape: tuple[int, int, int] | None = None
    """Voxels along left-right, back-front, foot-head; by default those of 160x192x160 mm."""
    channels: tuple[str, ...] = ("T1w",)
    """Modalities."""
    split: tuple[float, float, float, float] | None = None
    """Shares or counts of TRAIN, VAL, HOLD and TEST; by default 150 : 22 : 100 : 30."""
    stratify: tuple[str, ...] | None = None
    """Columns that the split follows; by default age, sex, cdr, group, site, scanner as there."""
    mask: bool | None = None
    """Cut the brain out of whole heads; by default where most scans show heads."""
    register: bool | None = None
    """Move scans to MNI152 by an affine; by default where most scans show heads."""
    allow_faces: bool = False
    """Keep whole heads, faces included."""
    seed: int = 0
    """Of the split."""
    jobs: int | None = None
    """Processes."""

    def run(self) -> None:
        """Prepare."""
        from gyri import api

        names = ("TRAIN", "VAL", "HOLD", "TEST")
        prepared = api.prepare(
            self.cohort,
            self.out,
            spacing_mm=self.spacing,
            shape=self.shape,
            channels=self.channels,
            sizes=None if self.split is None else dict(zip(names, self.split)),
            stratify=self.stratify,
            mask=self.mask,
            register=self.register,
            allow_faces=self.allow_faces,
            seed=self.seed,
            jobs=self.jobs,
        )
        counts = prepared.table["split"].groupby(level=0).first().value_counts()
        print(
            f"{prepared.root}: {len(prepared.table)} scans, "
            + ", ".join(f"{name} {counts.get(name, 0)}" for name in names)
        )
        if prepared.quarantine:
            print(f"{len(prepared.quarantine)} scans in quarantine, see quarantine.tsv:")
            for entry in prepared.quarantine[:5]:
                print(f"  {entry['file']}: {entry['rule']}")
        print(f"Next: gyri train RECIPE.yaml --data {self.out}")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri prepare", args=arguments).run()
