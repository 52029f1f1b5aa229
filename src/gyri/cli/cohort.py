"""Import a data set in its published layout as raw BIDS; merge cohorts; show what one holds."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path

import tyro

from gyri.errors import UsageError, nearest

USAGE = """usage: gyri cohort import SOURCE SRC OUT [options]
       gyri cohort import SOURCE --help      layout, access, licence and options of a source
       gyri cohort merge A B ... --out OUT   one cohort with a source column
       gyri cohort info COHORT               counts, ages, sexes, modalities, missing values

`gyri list sources` names the sources; phantom makes its own scans and takes no SRC."""


@dataclass(frozen=True)
class Info:
    """Show what a raw or prepared cohort holds."""

    cohort: tyro.conf.Positional[Path]
    """Raw BIDS or prepared cohort."""

    def run(self) -> None:
        """Print the summary."""
        from gyri.cohort import bids
        from gyri.cohort.prepared import MANIFEST, PreparedCohort
        from gyri.cohort.summary import describe

        if (self.cohort / MANIFEST).is_file():
            prepared = PreparedCohort.read(self.cohort)
            splits = prepared.table["split"].groupby(level=0).first().value_counts()
            grid = "x".join(map(str, prepared.grid.shape))
            print(
                f"{prepared.name}: {len(prepared.table)} prepared scans of "
                f"{prepared.table.index.nunique()} subjects, {grid} voxels at "
                f"{prepared.grid.spacing_mm[0]:g} mm, {len(prepared.quarantine)} in quarantine"
            )
            print("split          " + ", ".join(f"{name} {n}" for name, n in splits.items()))
            first = prepared.table[~prepared.table.index.duplicated()]
            lines = describe(first, prepared.columns)
        else:
            raw = bids.read(self.cohort)
            scans = ", ".join(
                f"{n} {name}" for name, n in raw.scans["modality"].value_counts().items()
            )
            print(f"{raw.name}: {len(raw.subjects)} subjects; scans: {scans}")
            lines = [f"note           {note}" for note in raw.notes]
            lines += describe(raw.subjects, raw.columns)
        print("\n".join(lines))


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


def import_cohort(arguments: list[str]) -> None:
    """Run ``gyri cohort import``; a source's options are the arguments of its function."""
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
    importer = functools.partial(
        source.component, Path(paths[0]) if count == 2 else None, Path(paths[-1])
    )
    cohort = tyro.cli(importer, prog=f"gyri cohort import {source.name}", args=options)
    for note in cohort.notes:
        print(f"note: {note}")
    print(f"{cohort.root}: {len(cohort.subjects)} subjects, {len(cohort.scans)} scans")
    print(f"Next: gyri prepare {paths[-1]} PREPARED --spacing 4")


def info(arguments: list[str]) -> None:
    """Run ``gyri cohort info``."""
    tyro.cli(Info, prog="gyri cohort info", args=arguments).run()


def merge(arguments: list[str]) -> None:
    """Run ``gyri cohort merge``."""
    tyro.cli(Merge, prog="gyri cohort merge", args=arguments).run()


def main(arguments: list[str]) -> None:
    """Dispatch to import, merge and info."""
    verbs = {"import": import_cohort, "merge": merge, "info": info}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
    elif arguments[0] in verbs:
        verbs[arguments[0]](arguments[1:])
    else:
        raise UsageError(
            f"There is no `gyri cohort {arguments[0]}`.{nearest(arguments[0], verbs)}\n{USAGE}"
        )
