"""Sample new volumes from a run as NIfTI."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from gyri.errors import UsageError


@dataclass(frozen=True)
class Command:
    """Sample new volumes of a run into a BIDS derivative.

    Conditions are drawn from the mix that the run was trained on, unless one of --condition,
    --conditions and --like says otherwise.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """Folder of the synthetic cohort; by default RUN/samples."""
    num: int | None = None
    """How many; by default the rows of --conditions, else 32."""
    condition: tuple[str, ...] = ()
    """The same for all samples, such as age=70 sex=F; what is not named is missing."""
    conditions: Path | None = None
    """Table with one row a sample."""
    like: Path | None = None
    """Prepared cohort whose mix of conditions is drawn from, and whose images, such as masks, a run
    follows that was trained with some."""
    split: str | None = None
    """Split of --like; by default TRAIN, and HOLD where images are given."""
    sweep: str | None = None
    """Make every sample once for each value of one condition, such as age=20:90:8 (eight values)
    or scanner (all levels); --num then counts the samples before that, by default 16."""
    seed: int = 0
    """Decides all samples."""
    step: int | None = None
    """A numbered checkpoint instead of the last."""
    batch: int = 8
    """Volumes at once."""
    brats: Path | None = None
    """Write the samples, cases of four modalities, into this folder under BraTS names, too."""
    override: tuple[str, ...] = ()
    """Changes of the method's sampling, such as sampling.num_steps=50."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Sample."""
        from gyri import api

        if self.brats is not None:
            refuse_no_cases(self.run_folder)
        cohort, warnings = api.sample(
            self.run_folder,
            self.out,
            num=self.num,
            condition=assignments(self.condition) if self.condition else None,
            conditions=self.conditions,
            like=self.like,
            split=self.split,
            sweep=self.sweep,
            seed=self.seed,
            step=self.step,
            batch=self.batch,
            overrides=self.override,
            device=self.device,
        )
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{cohort.root}: {len(cohort.table)} synthetic volumes")
        if self.brats is not None:
            print(f"{self.brats}: {len(api.write_brats(cohort, self.brats))} cases named as BraTS")
        print(f"Next: gyri evaluate {cohort.root} --against PREPARED")


def refuse_no_cases(run_folder: Path) -> None:
    """Refuse, before anything is sampled, a run whose samples are no BraTS cases."""
    from gyri.cohort.brats_layout import refuse_other_channels
    from gyri.training.run import Run

    run = Run.read(run_folder)
    refuse_other_channels([c.name for c in (*run.channels, *run.context)], str(run_folder))


def assignments(texts: tuple[str, ...]) -> dict[str, str]:
    """Read ``("age=70", "sex=F")``."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"Condition {text!r} is not of the form name=value, such as age=70.")
        pairs[name] = value
    return pairs


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri sample", args=arguments).run()
