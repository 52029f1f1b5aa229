"""Audit samples before they leave: pass or fail, with the pictures and cards that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Command:
    """Audit samples before they leave: whether they or their model give training subjects away.

    Writes release.json, release.html (with pictures of real people: not to be shared), pairs.tsv,
    a model card and a data card; on a pass also share/, which holds what may go. The exit code is
    65 on a fail.
    """

    run_folder: tyro.conf.Positional[Path]
    """Run folder."""
    samples: tyro.conf.Positional[Path]
    """Folder made by gyri sample from the run, judged by gyri evaluate."""
    against: Path
    """Prepared cohort that the run was trained on."""
    out: Path | None = None
    """New folder, or that of an earlier release; by default RUN/release/SAMPLES."""
    reviewed: Path | None = None
    """The pairs.tsv of an earlier release, its decisions filled in: distinct or copy."""
    seed: int = 0
    """Of permutations and controls."""
    device: str = "auto"
    """auto, cpu or cuda; where losses are computed that are not there yet."""

    def run(self) -> None:
        """Release."""
        from gyri import api
        from gyri.errors import DataError

        release = api.release(
            self.run_folder,
            self.samples,
            self.against,
            out=self.out,
            reviewed=self.reviewed,
            seed=self.seed,
            device=self.device,
        )
        print(f"{release.folder / 'release.html'} (shows real people: not to be shared)")
        for line in release.promise:
            print(f"{line}.")
        if not release.gate.passed:
            raise DataError("FAIL. " + "\n  ".join(["Do not share:", *release.gate.reasons]))
        print(f"PASS. What may be shared is in {release.folder / 'share'}")


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri release", args=arguments).run()
