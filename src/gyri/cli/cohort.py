"""Import a data set in its published layout as raw BIDS; merge cohorts; show what one holds."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from gyri.errors import UsageError, nearest

USAGE = """usage: gyri cohort import SOURCE SRC OUT [options]
       gyri cohort import SOURCE --help      layout, access, licence and options of a source
       gyri cohort merge A B ... --out OUT   one cohort with a source column
       gyri cohort follow-up PREPARED --out OUT   every later scan beside a person's first
       gyri cohort info COHORT               counts, ages, sexes, scanners, grids, missing values
       gyri cohort info COHORT --out PAGE.html   the same as a page, with pictures

SRC is a folder or an archive of one. `gyri list sources` names the sources; phantom makes its own
scans and takes no SRC."""


@dataclass(frozen=True)
class Info:
    """Show what a raw or prepared cohort holds; with --out also as a page with pictures."""

    cohort: tyro.conf.Positional[Path]
    """Raw BIDS or prepared cohort."""
    out: Path | None = None
    """HTML page with a picture of every subject, outliers marked; by default none is written."""
    allow_faces: bool = False
    """Picture whole heads in three planes; otherwise only above the orbits."""

    def run(self) -> None:
        """Print the summary and write the page."""
        from gyri import api
        from gyri.cohort.prepared import MANIFEST

        is_prepared = (self.cohort / MANIFEST).is_file()
        print("\n".join(_prepared_lines(self.cohort) if is_prepared else _raw_lines(self.cohort)))
        if self.out is None:
            print(f"Pictures: gyri cohort info {self.cohort} --out PAGE.html")
        else:
            print(api.cohort_page(self.cohort, self.out, allow_faces=self.allow_faces))


def _raw_lines(root: Path) -> list[str]:
    from gyri.cohort import bids
    from gyri.cohort.summary import describe, describe_grids, read_headers

    raw = bids.read(root)
    scans = ", ".join(f"{n} {name}" for name, n in raw.scans["modality"].value_counts().items())
    return [
        f"{raw.name}: {len(raw.subjects)} subjects; scans: {scans}",
        *[f"note           {note}" for note in raw.notes],
        *describe(raw.subjects, raw.columns),
        *describe_grids(read_headers(raw.scans)),
    ]


def _prepared_lines(root: Path) -> list[str]:
    from gyri.cohort.prepared import PreparedCohort
    from gyri.cohort.summary import describe

    prepared = PreparedCohort.read(root)
    splits = prepared.table["split"].groupby(level=0).first().value_counts()
    grid = "x".join(map(str, prepared.grid.shape))
    channels = ", ".join(
        f"{channel.name} ({channel.num_labels} labels)" if channel.num_labels else channel.name
        for channel in prepared.channels
    )
    return [
        f"{prepared.name}: {len(prepared.table)} prepared scans of "
        f"{prepared.table.index.nunique()} subjects, {grid} voxels at "
        f"{prepared.grid.spacing_mm[0]:g} mm, RAS, {len(prepared.quarantine)} in quarantine",
        f"channels       {channels}",
        "split          " + ", ".join(f"{name} {n}" for name, n in splits.items()),
        *describe(prepared.table[~prepared.table.index.duplicated()], prepared.columns),
    ]


@dataclass(frozen=True)
class Merge:
    """Join raw cohorts into one, with a column that says where a subject comes from."""

    cohorts: tyro.conf.Positional[tuple[Path, ...]]
    """Raw BIDS cohorts."""
    out: Path
    """New folder."""
    names: tuple[str, ...] | None = None
    """What the sources are called; by default the cohorts' own names."""

    def run(self) -> None:
        """Merge."""
        from gyri.cohort.merge import merge

        names = list(self.names) if self.names else None
        cohort = merge(list(self.cohorts), self.out, names)
        print("\n".join(f"note: {note}" for note in cohort.notes))
        print(f"{cohort.root}: {len(cohort.subjects)} subjects, {len(cohort.scans)} scans")


@dataclass(frozen=True)
class FollowUp:
    """Pair every later scan of a person with the first, for models of what comes next."""

    prepared: tyro.conf.Positional[Path]
    """Prepared cohort with several sessions of some people."""
    out: Path
    """New folder."""
    time: str = "age"
    """Numeric column that says when a scan was made."""

    def run(self) -> None:
        """Pair."""
        from gyri.cohort.follow_up import pair_visits

        pairs = pair_visits(self.prepared, self.out, self.time)
        people = pairs.table.index.nunique()
        print(f"{pairs.root}: {len(pairs.table)} later scans of {people} people")
        print(f"Next: gyri train recipes/gyri/follow-up-4mm.yaml --data {self.out} --out run")


def import_cohort(arguments: list[str]) -> None:
    """Run ``gyri cohort import``; a source's options are the arguments of its function."""
    from gyri.cohort.archive import opened
    from gyri.registry import SOURCES

    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    source = SOURCES[arguments[0]]
    src = inspect.signature(source.component).parameters["src"]
    count = 1 if "None" in str(src.annotation) else 2
    paths, options = arguments[1 : 1 + count], arguments[1 + count :]
    if {"-h", "--help"} & set(arguments):
        paths, options = ["SRC", "OUT"][-count:], ["--help"]
    elif len(paths) < count or any(path.startswith("-") for path in paths):
        raise UsageError(f"{source.name} takes {'OUT' if count == 1 else 'SRC OUT'}.\n{USAGE}")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opened(Path(paths[0]))) if count == 2 else None
        importer = functools.partial(_told(source.component), folder, Path(paths[-1]))
        cohort = tyro.cli(importer, prog=f"gyri cohort import {source.name}", args=options)
    for note in cohort.notes:
        print(f"note: {note}")
    print(f"{cohort.root}: {len(cohort.subjects)} subjects, {len(cohort.scans)} scans")
    print(f"Next: gyri prepare {paths[-1]} PREPARED --spacing 4")


def _told(component: Callable[..., Any]) -> Callable[..., Any]:
    """Return a source whose docstring reads to tyro: what follows ``name :`` is no type."""

    @functools.wraps(component)
    def told(*given: Any, **options: Any) -> Any:
        return component(*given, **options)

    def apart(found: re.Match[str]) -> str:
        return "\n".join(f"    {name}\n        {found[2]}" for name in found[1].split(", "))

    # tyro looks through wrappers, and reads the annotations where the function was written.
    del told.__wrapped__
    vars(told)["__signature__"] = inspect.signature(component, eval_str=True)
    told.__annotations__ = get_type_hints(component)
    told.__doc__ = re.sub(r"(?m)^    (\w+(?:, \w+)*) : (.*)$", apart, component.__doc__ or "")
    return told


def info(arguments: list[str]) -> None:
    """Run ``gyri cohort info``."""
    tyro.cli(Info, prog="gyri cohort info", args=arguments).run()


def merge(arguments: list[str]) -> None:
    """Run ``gyri cohort merge``."""
    tyro.cli(Merge, prog="gyri cohort merge", args=arguments).run()


def follow_up(arguments: list[str]) -> None:
    """Run ``gyri cohort follow-up``."""
    tyro.cli(FollowUp, prog="gyri cohort follow-up", args=arguments).run()


def main(arguments: list[str]) -> None:
    """Dispatch to import, merge, follow-up and info."""
    verbs = {"import": import_cohort, "merge": merge, "follow-up": follow_up, "info": info}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
    elif arguments[0] in verbs:
        verbs[arguments[0]](arguments[1:])
    else:
        raise UsageError(
            f"There is no `gyri cohort {arguments[0]}`.{nearest(arguments[0], verbs)}\n{USAGE}"
        )
