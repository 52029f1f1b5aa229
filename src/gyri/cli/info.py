"""Show versions, devices and what is registered; or the facts of a folder that gyri made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from gyri.errors import DataError


@dataclass(frozen=True)
class Command:
    """Show versions, devices and registered components, or the facts of a folder."""

    folder: tyro.conf.Positional[Path | None] = None
    """A run, prepared cohort or synthetic cohort."""

    def run(self) -> None:
        """Print."""
        for key, value in (self._folder() if self.folder else self._machine()).items():
            print(f"{key:18} {value if isinstance(value, str) else json.dumps(value)}")

    def _machine(self) -> dict[str, Any]:
        from gyri import __version__
        from gyri.registry import ALL
        from gyri.runtime.device import machine

        return {
            "gyri": __version__,
            **machine(),
            **{kind: ", ".join(registry) for kind, registry in ALL.items()},
        }

    def _folder(self) -> dict[str, Any]:
        assert self.folder is not None
        for name in ("run.json", "gyri-prepared.json", "gyri-synthetic.json"):
            if (self.folder / name).is_file():
                facts = json.loads((self.folder / name).read_text())
                return {k: v for k, v in facts.items() if k not in ("recipe", "conditions")}
        raise DataError(
            f"{self.folder} is no run, prepared or synthetic cohort. Give a folder that "
            "`gyri train`, `gyri prepare` or `gyri sample` made."
        )


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri info", args=arguments).run()
