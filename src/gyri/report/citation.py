"""How to cite a set of synthetic volumes and the numbers of its report."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from importlib.metadata import metadata
from typing import Any

from gyri.registry import FEATURES, METHODS, METRICS, NETWORKS, VIEWS, Registry

TITLE = "gyri: synthetic brain MRI, generated and judged under one protocol"

_SOURCE = re.compile(r"\(([A-Z][\w&.,'’ -]{2,60}?,? (?:19|20)\d\d)[^()]*\)")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def software() -> dict[str, str]:
    """Return name, version, author and title of the installed package, and a BibTeX entry."""
    about = metadata("gyri").json
    author, version = str(about["author"]), str(about["version"])
    bibtex = "\n".join(
        [
            "@software{gyri,",
            f"  author  = {{{{{author}}}}},",
            f"  title   = {{{TITLE}}},",
            f"  version = {{{version}}},",
            "}",
        ]
    )
    return {"version": version, "author": author, "title": TITLE, "bibtex": bibtex}


def _papers(component: Any) -> str:
    """Sources that a component's file names: a paragraph with years, or those in brackets."""
    module = sys.modules[component.__module__]
    paragraphs = (inspect.getdoc(module) or "").split("\n\n")[1:]
    named = next((" ".join(p.split()) for p in paragraphs if _YEAR.search(p)), "")
    return named or "; ".join(dict.fromkeys(_SOURCE.findall(inspect.getsource(module))))


def _used(registry: Registry, name: Any) -> dict[str, str] | None:
    if not isinstance(name, str) or name not in registry:
        return None
    entry = registry[name]
    papers = _papers(entry.component)
    return {"kind": registry.kind, "name": name, "summary": entry.summary, "papers": papers}


def methods(scores: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what made and judged the volumes: kind, name, what it is, papers that it names.

    Parameters
    ----------
    scores : the parsed scores file.
    provenance : its ``recipe``, where it is a mapping, says which view, method and networks were
        used.
    """
    recipe = provenance.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}

    def name(part: Any) -> Any:
        return part.get("name") if isinstance(part, Mapping) else part

    networks = recipe.get("networks")
    entries = list(scores.get("scores") or [])
    used = [
        _used(VIEWS, name(recipe.get("view"))),
        _used(METHODS, name(recipe.get("method"))),
        *(
            _used(NETWORKS, name(part))
            for part in (networks.values() if isinstance(networks, Mapping) else ())
        ),
        *(_used(FEATURES, n) for n in dict.fromkeys(e.get("features") for e in entries)),
        *(_used(METRICS, n) for n in dict.fromkeys(e.get("metric") for e in entries)),
    ]
    return [entry for entry in used if entry]
