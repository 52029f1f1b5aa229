"""Add downloaded weights of pretrained networks, checked and converted; list them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from gyri.errors import GyriError, UsageError, nearest

USAGE = """usage: gyri weights add NAME FILE [--sha256 HASH]   check, convert and keep a file
       gyri weights list                            which there are, where to get them, licences

gyri downloads nothing. Features of pretrained networks are measured where they are asked for by
name: gyri evaluate SYNTHETIC --against PREPARED --features ... (see gyri list features). Weights
are kept in $GYRI_WEIGHTS, by default ~/.cache/gyri/weights."""


@dataclass(frozen=True)
class Add:
    """Check a file of weights, convert it to safetensors and keep it."""

    name: tyro.conf.Positional[str]
    """Name of the weights, see gyri weights list."""
    file: tyro.conf.Positional[Path]
    """The downloaded file."""
    sha256: str | None = None
    """Its hash; needed where none is published, the message then says what was found."""

    def run(self) -> None:
        """Add and say what was kept."""
        from gyri.evaluation import weights

        manifest = weights.add(self.name, self.file, self.sha256)
        print(f"{weights.root() / self.name}: {manifest.source}, licence {manifest.licence}")
        print(f"source SHA-256 {manifest.source_sha256}")
        print(f"kept   SHA-256 {manifest.sha256}")
        print("Next: gyri list features, gyri evaluate SYNTHETIC --against PREPARED --features ...")


def add(arguments: list[str]) -> None:
    """Run ``gyri weights add``."""
    tyro.cli(Add, prog="gyri weights add", args=arguments).run()


def show(arguments: list[str]) -> None:
    """Run ``gyri weights list``."""
    from gyri.evaluation import weights

    if arguments:
        print(USAGE)
        return
    print(f"in {weights.root()}")
    for name, known in weights.PUBLISHED.items():
        print(f"  {name:26} {_state(name)}")
        print(f"  {'':26} {known.file} from {known.origin}")
        print(f"  {'':26} {known.licence}")


def _state(name: str) -> str:
    from gyri.evaluation import weights

    try:
        manifest = weights.read_manifest(name)
    except GyriError as error:
        return str(error)
    if manifest is None:
        return "not there"
    return f"added {manifest.added}, source SHA-256 {manifest.source_sha256}"


def main(arguments: list[str]) -> None:
    """Dispatch to add and list."""
    verbs = {"add": add, "list": show}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
    elif arguments[0] in verbs:
        verbs[arguments[0]](arguments[1:])
    else:
        raise UsageError(
            f"There is no `gyri weights {arguments[0]}`.{nearest(arguments[0], verbs)}\n{USAGE}"
        )
