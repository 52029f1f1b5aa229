"""Let a run rebuild real scans, and compare each with its original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Command:
    """Let a run rebuild real scans; write the volumes, paired metrics and a picture.

    Diffusion models noise a scan part of the way and make it clean again (SDEdit); autoencoders
    encode and decode it. PSNR, SSIM and MAE are measured inside the brain, beside what the TRAIN
    mean image and other people get.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder."""
    cohort: tyro.conf.Positional[Path]
    """Prepared cohort on the run's grid."""
    out: Path
    """Folder of the results."""
    split: Literal["TRAIN", "VAL", "HOLD", "TEST"] = "HOLD"
    """Whose scans."""
    strength: tuple[float, ...] = ()
    """Shares of the sampler's steps, such as 0.3 0.6 (the default): 0 is the scan, 1 a new one."""
    seed: int = 0
    """Of the noise."""
    step: int | None = None
    """A numbered checkpoint instead of the last."""
    batch: int = 4
    """Volumes at once."""
    bootstrap: int = 2000
    """Resamples of the subjects behind every interval."""
    override: tuple[str, ...] = ()
    """Changes of the method's sampling, such as sampling.num_steps=50."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Reconstruct."""
        from gyri import api
        from gyri.evaluation.metrics.unpaired import DATA_RANGE
        from gyri.report.reconstruction import paired_table

        made = api.reconstruct(
            self.run_folder,
            self.cohort,
            self.out,
            split=self.split,
            strengths=self.strength or None,
            seed=self.seed,
            step=self.step,
            batch=self.batch,
            bootstrap=self.bootstrap,
            overrides=self.override,
            device=self.device,
        )
        print(
            f"{made.scores[0].n} {made.split} subjects, inside the brain of the original, PSNR for "
            f"a data range of {DATA_RANGE:g}; anchors are indented"
        )
        print(paired_table(made.scores))
        print(made.root / "paired.json")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri reconstruct", args=arguments).run()
