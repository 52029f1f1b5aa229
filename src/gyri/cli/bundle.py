"""Turn a published MONAI bundle of latent diffusion into a run that can be sampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Command:
    """Turn a published MONAI bundle of latent diffusion into a run that can be sampled.

    The bundle is a folder with configs/ and models/, such as MONAI's
    brain_image_synthesis_latent_diffusion_model; gyri downloads nothing. Nothing in it is executed.
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the bundle."""
    out: Path
    """Folder of the run."""

    def run(self) -> None:
        """Import and say how to sample."""
        from gyri import api

        run = api.import_bundle(self.folder, self.out)
        print(f"{run.root}: volumes of {' x '.join(map(str, run.grid.shape))} voxels of 1 mm")
        given = " ".join(f"{name}=0.5" for name in run.schema.names)
        print(f"Next: gyri sample {run.root} --num 4 --condition {given} (each from 0 to 1)")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri bundle", args=arguments).run()
