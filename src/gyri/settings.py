"""Typed settings from plain data, as YAML files hold it: strict, and naming the right key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from gyri.errors import DataError, UsageError, nearest
from gyri.registry import Registry


@dataclass(frozen=True)
class Component:
    """A registered name with its typed settings."""

    name: str
    config: Any


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file.

    Parameters
    ----------
    path : the file.
    what : noun for messages, for example ``"recipe"``.

    Raises
    ------
    DataError
        There is no such file, or it is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"There is no {what} {path}. Give a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no valid YAML: {error}") from None


def component(section: Any, registry: Registry, where: str) -> Component:
    """Read a section ``{name: ..., settings}``, or a bare name, by the registry's typed config.

    Raises
    ------
    UsageError
        Naming the place, what came and the nearest right name or key.
    """
    if isinstance(section, str):
        section = {"name": section}
    if not isinstance(section, Mapping) or "name" not in section:
        raise UsageError(f"{where}: expected a mapping with a 'name'; known: {', '.join(registry)}")
    try:
        entry = registry[section["name"]]
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    settings = {key: value for key, value in section.items() if key != "name"}
    return Component(entry.name, typed(settings, entry.config, where))


def typed(value: Any, kind: Any, where: str) -> Any:
    """Check `value` against a type, usually a dataclass of settings.

    Raises
    ------
    UsageError
        Naming the place, what came and, for a wrong key, the nearest right one.
    """
    _known_keys(value, kind, where)
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            place = ".".join([where, *(str(part) for part in problem["loc"])])
            came = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
            problems.append(f"{place}: {problem['msg']}{came}")
        raise UsageError("; ".join(problems)) from None


def known_key(key: str, kind: Any, place: str) -> None:
    """Refuse a key that the dataclass `kind` does not have."""
    names = [f.name for f in fields(kind)]
    if key not in names:
        raise UsageError(
            f"{place}: there is no such key.{nearest(key, names)} Keys here: {', '.join(names)}."
        )


def _known_keys(value: Any, kind: Any, where: str) -> None:
    """Refuse keys that a dataclass, or a dataclass inside it, does not have."""
    if not (is_dataclass(kind) and isinstance(value, Mapping)):
        return
    hints = get_type_hints(kind)
    for key, inner in value.items():
        place = f"{where}.{key}"
        known_key(str(key), kind, place)
        _known_keys(inner, hints[key], place)
