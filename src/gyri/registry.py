"""Registries: the only place where a name becomes a class or a function.

A component is one file in the registry's package. Importing the file registers it; the packages
are scanned once, when a registry is first asked. Other distributions add components through the
entry-point group of the same name as the package (for example ``gyri.methods``).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from gyri.errors import UsageError, nearest


@dataclass(frozen=True)
class Entry:
    """One registered component."""

    name: str
    component: Any
    """The class or function."""
    config: type | None
    """The typed dataclass of its settings, if it has any."""

    @property
    def summary(self) -> str:
        """First line of the component's docstring."""
        return (self.component.__doc__ or "").strip().split("\n")[0]


class Registry:
    """Components of one kind by name.

    Parameters
    ----------
    kind : singular noun used in messages, for example ``"method"``.
    package : dotted name of the package whose files register the components.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}
        self._scanned = False

    def register(self, name: str, config: type | None = None) -> Callable[[Any], Any]:
        """Decorate a class or function to register it under `name`.

        Raises
        ------
        ValueError
            If the name is taken by another component.
        """

        def decorate(component: Any) -> Any:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, component, config)
            return component

        return decorate

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=self.package):
            point.load()

    def __getitem__(self, name: str) -> Entry:
        """Return the entry called `name`; raises `UsageError` naming the nearest right one."""
        self._scan()
        if name not in self._entries:
            raise UsageError(
                f"There is no {self.kind} {name!r}.{nearest(name, self._entries)} "
                f"Known: {', '.join(self)}."
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries


SOURCES = Registry("source", "gyri.cohort.sources")
STEPS = Registry("step", "gyri.prepare")
VIEWS = Registry("view", "gyri.views")
NETWORKS = Registry("network", "gyri.networks")
METHODS = Registry("method", "gyri.methods")
FEATURES = Registry("feature set", "gyri.evaluation.features")
METRICS = Registry("metric", "gyri.evaluation.metrics")

ALL = {
    "sources": SOURCES,
    "steps": STEPS,
    "views": VIEWS,
    "networks": NETWORKS,
    "methods": METHODS,
    "features": FEATURES,
    "metrics": METRICS,
}
