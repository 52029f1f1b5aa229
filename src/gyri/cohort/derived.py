"""Prepared cohorts that are made of another's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gyri import __version__
from gyri.cohort.bids import write_derivative_description, write_readme, write_table
from gyri.cohort.files import read_json
from gyri.cohort.prepared import IGNORED, PreparedCohort, file_hash, write_manifest
from gyri.cohort.splits import SPLIT_COLUMN
from gyri.cohort.table import ColumnType
from gyri.errors import UsageError
from gyri.types import Channel


def derive(
    cohort: PreparedCohort,
    out: Path,
    table: pd.DataFrame,
    files: Mapping[Path, Path],
    *,
    name: str,
    about: str,
    settings: Mapping[str, Any],
    channels: Sequence[Channel] | None = None,
    columns: Mapping[str, ColumnType] | None = None,
    ignore: Sequence[str] = (),
) -> PreparedCohort:
    """Write a prepared cohort of another's voxels, on its grid and in its range.

    Voxels are linked where the file system can, so that they cost no space, and copied elsewhere.

    Parameters
    ----------
    out : new folder.
    table : see `PreparedCohort.table`.
    files : name in the new cohort -> the file.
    name, about : of the new cohort, and a sentence on it.
    settings : what the manifest says beside the preparation of `cohort`.
    channels, columns : None for those of `cohort`.
    ignore : further files that are no BIDS.

    Raises
    ------
    UsageError
        If `out` holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Give another folder.")
    for relative, source in files.items():
        target = out / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(source, target)
        _link(source.with_suffix(".json"), target.with_suffix(".json"))
    columns = cohort.columns if columns is None else columns
    known = read_json(cohort.root / "dataset_description.json", missing_ok=True)
    write_derivative_description(
        out,
        name,
        [{"Name": "gyri", "Version": __version__, "Description": about}],
        [{"URL": cohort.root.as_uri()}],
        license=str(known.get("License", "")),
        ignore=(*IGNORED, *ignore),
    )
    write_readme(out, name, about, citation=str(known.get("HowToAcknowledge", "")))
    people = table[~table.index.duplicated()].drop(columns="session")
    write_table(out, people, {**columns, "split": SPLIT_COLUMN})
    return write_manifest(
        out,
        name=name,
        grid=cohort.grid,
        channels=cohort.channels if channels is None else tuple(channels),
        intensity_range=cohort.intensity_range,
        table=table,
        columns=columns,
        files={str(relative): file_hash(out / relative) for relative in files},
        quarantine=cohort.quarantine,
        settings={**cohort.manifest["preparation"], **settings},
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
