"""Judge a synthetic cohort against subjects its model never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

DESCRIPTION = """Judge a synthetic cohort against held-out subjects; writes evaluation/scores.json.

`gyri evaluate self-test PREPARED` tests the metrics themselves on a cohort's real scans instead."""


@dataclass(frozen=True)
class Command:
    """Judge a synthetic cohort against held-out subjects; writes evaluation/scores.json."""

    synthetic: tyro.conf.Positional[Path]
    """Folder made by gyri sample."""
    against: Path
    """Prepared cohort."""
    split: Literal["HOLD", "VAL", "TEST"] = "HOLD"
    """The reference: HOLD to report, VAL to choose."""
    seed: int = 0
    """Of subsampling and bootstraps."""
    bootstrap: int = 2000
    """Bootstrap resamples behind every interval."""
    features: tuple[str, ...] = ()
    """Feature sets to measure; without it all that need no weights (see gyri list features)."""
    legacy: bool = False
    """Also compute the definitions of published papers that are wrong; they decide nothing."""
    export_features: bool = False
    """Write the features as safetensors into evaluation/features, for other tools."""

    def run(self) -> None:
        """Evaluate."""
        from rich.console import Console

        from gyri import api
        from gyri.report.terminal import terminal_summary

        scores = api.evaluate(
            self.synthetic,
            self.against,
            split=self.split,
            seed=self.seed,
            bootstrap=self.bootstrap,
            features=self.features or None,
            legacy=self.legacy,
            export_features=self.export_features,
        )
        Console(width=max(Console().width, 100)).print(terminal_summary(scores.to_dict()))
        print(f"{self.synthetic / 'evaluation' / 'scores.json'}")
        print(f"Next: gyri report {self.synthetic} --against {self.against}")


@dataclass(frozen=True)
class SelfTest:
    """Corrupt real held-out scans in known ways and show which metric notices."""

    prepared: tyro.conf.Positional[Path]
    """Prepared cohort; later evaluations against it read the result."""
    out: Path | None = None
    """Folder of the result; by default PREPARED/self-test."""
    num: int = 40
    """HOLD subjects that are corrupted, at most half of them; the others are the reference."""
    seed: int = 0
    """Who they are."""
    features: tuple[str, ...] = ()
    """Feature sets to measure; without it all that need no weights (see gyri list features)."""

    def run(self) -> None:
        """Test the metrics."""
        from rich.console import Console

        from gyri import api
        from gyri.report.terminal import self_test_summary

        result = api.self_test(
            self.prepared,
            out=self.out,
            num=self.num,
            seed=self.seed,
            features=self.features or None,
        )
        Console(width=max(Console().width, 100)).print(self_test_summary(result))
        print(f"{self.out or self.prepared / 'self-test'}/self-test.html")


def main(arguments: list[str]) -> None:
    """Parse and run ``gyri evaluate SYNTHETIC`` or ``gyri evaluate self-test PREPARED``."""
    if arguments[:1] == ["self-test"]:
        tyro.cli(SelfTest, prog="gyri evaluate self-test", args=arguments[1:]).run()
    else:
        tyro.cli(Command, prog="gyri evaluate", args=arguments, description=DESCRIPTION).run()
