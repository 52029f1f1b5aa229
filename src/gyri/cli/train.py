"""Train a recipe on a prepared cohort, or go on where it stopped.

Several processes: ``torchrun --nproc-per-node 2 -m gyri train ...``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Command:
    """Train a recipe on the TRAIN subjects of a prepared cohort.

    The same command continues a run that was interrupted.
    """

    recipe: tyro.conf.Positional[Path]
    """YAML file of the recipe, or a run folder to repeat."""
    data: Path
    """Prepared cohort."""
    out: Path | None = None
    """Run folder; by default runs/RECIPE."""
    override: tuple[str, ...] = ()
    """Changes of the recipe, such as training.budget_s=600 method.prediction=v."""
    begin_from: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Run whose weights training begins with; it must not have seen a subject held out here."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Train."""
        from gyri import api

        out = self.out or Path("runs") / self.recipe.stem
        run = api.train(
            self.recipe, self.data, out, overrides=self.override, begin_from=self.begin_from,
            device=self.device,
        )  # fmt: skip
        cost = run.info["cost"]
        print(
            f"{run.root}: {cost['steps']} steps, {cost['images_seen']} items seen in "
            f"{cost['training_s']:.0f} s, peak memory {cost['peak_memory_gib']:.1f} GiB"
        )
        if spent := run.info.get("differential_privacy"):
            print(
                f"Differential privacy: epsilon {spent['epsilon']:.3g} at delta "
                f"{spent['delta']:.2g} a {spent['unit']}"
            )
        if "Sampler" in run.capabilities:
            print(f"Next: gyri sample {run.root} --num 32")
        elif "Translator" in run.capabilities:
            print(f"Next: gyri translate {run.root} {self.data} --to CONDITION=LEVEL --out OUT")
        elif "Registrar" in run.capabilities:
            print(f"Next: gyri register {self.data} --run-folder {run.root} --out OUT")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri train", args=arguments).run()
