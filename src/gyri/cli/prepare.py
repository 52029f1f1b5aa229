"""Prepare a raw cohort: one grid, one intensity range, subjects dealt to splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from gyri.errors import UsageError

SPLITS = ("TRAIN", "VAL", "HOLD", "TEST")


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
    steps: Path | None = None
    """Pipeline file, in place of --spacing, --shape, --mask and --register; see recipes/prepare."""
    spacing: float | None = None
    """Isotropic voxel size in millimetres; by default 4."""
    shape: tuple[int, int, int] | None = None
    """Voxels along left-right, back-front, foot-head; by default those of 160x192x160 mm."""
    channels: tuple[str, ...] = ("T1w",)
    """Modalities."""
    split: tuple[float, float, float, float] | None = None
    """Shares of TRAIN, VAL, HOLD and TEST, in any unit; by default 150 : 22 : 100 : 30."""
    stratify: tuple[str, ...] | None = None
    """Columns that the split follows; by default age, sex, cdr, group, site, scanner as there."""
    mask: tyro.conf.FlagCreatePairsOff[bool] = False
    """Cut the brain out of whole heads; by default where most scans show heads."""
    no_mask: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave heads and stripped brains as they are."""
    register: tyro.conf.FlagCreatePairsOff[bool] = False
    """Move scans to MNI152 by an affine; by default where most scans show heads."""
    no_register: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave scans where they are."""
    allow_faces: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep whole heads, faces included."""
    max_bad: int = 0
    """Scans in quarantine that are accepted; with more the exit code is 65 when all is done."""
    seed: int = 0
    """Of the split."""
    jobs: int | None = None
    """Processes."""
    dask: str | None = None
    """Address of a Dask scheduler (tcp://host:8786) whose workers take the place of --jobs."""
    preview: int | None = None
    """Only picture what the steps make of this many scans, into OUT/preview."""

    def run(self) -> None:
        """Prepare, or preview."""
        from gyri import api
        from gyri.cohort.quarantine import refuse_beyond
        from gyri.prepare.plan import Choices

        choices = Choices(
            channels=self.channels,
            steps=self.steps,
            spacing_mm=self.spacing,
            shape=self.shape,
            mask=_either("mask", self.mask, self.no_mask),
            register=_either("register", self.register, self.no_register),
            allow_faces=self.allow_faces,
        )
        if self.preview is not None:
            pictures = api.preview_preparation(
                self.cohort, self.out, self.preview, choices, jobs=self.jobs, dask=self.dask
            )
            print("\n".join(map(str, pictures)))
            return
        prepared = api.prepare(
            self.cohort,
            self.out,
            **vars(choices),
            sizes=None if self.split is None else dict(zip(SPLITS, self.split)),
            stratify=self.stratify,
            seed=self.seed,
            jobs=self.jobs,
            dask=self.dask,
        )
        counts = prepared.table["split"].groupby(level=0).first().value_counts()
        print(
            f"{prepared.root}: {len(prepared.table)} scans, "
            + ", ".join(f"{name} {counts.get(name, 0)}" for name in SPLITS)
        )
        if prepared.quarantine:
            print(f"{len(prepared.quarantine)} scans in quarantine, see quarantine.tsv:")
            for entry in prepared.quarantine[:5]:
                print(f"  {entry['file']}: {entry['rule']}")
        refuse_beyond(prepared.quarantine, self.max_bad)
        print(f"Next: gyri train RECIPE.yaml --data {self.out}")


def _either(name: str, yes: bool, no: bool) -> bool | None:
    if yes and no:
        raise UsageError(f"--{name} and --no-{name} came together; give one, or none.")
    return True if yes else False if no else None


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri prepare", args=arguments).run()
