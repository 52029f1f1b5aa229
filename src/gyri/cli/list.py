"""List what is there: methods, views, networks, sources, metrics, steps, features."""

from __future__ import annotations

import dataclasses
import inspect

from gyri.errors import UsageError, nearest
from gyri.registry import ALL, Entry

USAGE = f"""usage: gyri list [{"|".join(ALL)}] [--markdown]

Without a name, all lists. --markdown prints every setting with its default and its meaning."""


def main(arguments: list[str]) -> None:
    """Print the components of one registry, or of all."""
    if {"-h", "--help"} & {*arguments}:
        print(USAGE)
        return
    kinds = [argument for argument in arguments if argument != "--markdown"] or [*ALL]
    for kind in kinds:
        if kind not in ALL:
            raise UsageError(
                f"There is no list of {kind!r}.{nearest(kind, ALL)} Lists: {', '.join(ALL)}."
            )
    if "--markdown" in arguments:
        print(markdown(kinds), end="")
        return
    for kind in kinds:
        print(kind)
        for name in ALL[kind]:
            print(f"  {name:22} {ALL[kind][name].summary}")


def markdown(kinds: list[str]) -> str:
    """Return the reference page of the registries `kinds`."""
    parts = ["# Components", "Made by `gyri list --markdown`; do not edit."]
    for kind in kinds:
        parts.append(f"## {kind.capitalize()}")
        for name in ALL[kind]:
            parts += _section(ALL[kind][name])
    return "\n\n".join(parts) + "\n"


def _section(entry: Entry) -> list[str]:
    parts = [f"### `{entry.name}`", inspect.getdoc(entry.component) or ""]
    if entry.config is not None and dataclasses.fields(entry.config):
        defaults = "\n".join(
            f"{field.name}: {field.type} = {_default(field)}"
            for field in dataclasses.fields(entry.config)
        )
        parts += [f"```\n{defaults}\n```", inspect.getdoc(entry.config) or ""]
    return [_quoted(part) for part in parts]


def _quoted(text: str) -> str:
    """Set NumPy docstring sections as text, so that their underlines make no headings."""
    lines = text.split("\n")
    kept = [line for line in lines if not (line and set(line) == {"-"})]
    headings = ("Parameters", "Raises", "Returns", "Attributes", "Notes")
    return "\n".join(f"**{line}**\n" if line in headings else line for line in kept)


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "(required)"
