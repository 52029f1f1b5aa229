"""List what is there: methods, views, networks, sources, metrics, steps, features."""

from __future__ import annotations

from gyri.errors import UsageError, nearest
from gyri.registry import ALL


def main(arguments: list[str]) -> None:
    """Print the components of one registry, or of all."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: gyri list [{'|'.join(ALL)}]\n\n{__doc__}")
        return
    for kind in arguments or ALL:
        if kind not in ALL:
            raise UsageError(
                f"There is no list of {kind!r}.{nearest(kind, ALL)} Lists: {', '.join(ALL)}."
            )
        registry = ALL[kind]
        print(kind)
        for name in registry:
            print(f"  {name:22} {registry[name].summary}")
