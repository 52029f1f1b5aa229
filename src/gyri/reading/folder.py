"""What `gyri view` shows: any folder of volumes as a list of cases with their conditions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from gyri.cohort import bids
from gyri.cohort.nifti import read_volume
from gyri.cohort.prepared import MANIFEST
from gyri.cohort.synthetic import FACTS
from gyri.errors import DataError
from gyri.reading.sources import RealSource, SyntheticSource, choose_channel
from gyri.types import Channel

_COARSE_MM = 8.0
_SPLITS = ("TRAIN", "VAL", "HOLD", "TEST")


class Folder(Protocol):
    """Volumes with a table: one row a volume, whose index is the label that is shown."""

    @property
    def kind(self) -> str:
        """``prepared``, ``synthetic`` or ``raw``."""
        ...

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def table(self) -> pd.DataFrame:
        """The conditions."""
        ...

    def shown(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a volume (I, J, K) uint8 and its affine (4, 4)."""
        ...


@dataclass(frozen=True)
class GriddedFolder:
    """Volumes of a prepared cohort or a synthetic folder: one grid, intensities in [0, 1]."""

    kind: str
    name: str
    table: pd.DataFrame
    source: RealSource | SyntheticSource

    def shown(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a volume (I, J, K), 255 where it is 1, and its affine."""
        affine = np.array(self.source.cohort.grid.affine)
        return _bytes(self.source.volume(row), 0.0, 1.0), affine

    @cached_property
    def coarse(self) -> np.ndarray:
        """All volumes (N, I, J, K) averaged to about 8 mm, to find the nearest by."""
        spacing = self.source.cohort.grid.spacing_mm[0]
        factor = max(1, round(_COARSE_MM / spacing))
        rows = range(len(self.table))
        return np.stack([_averaged(self.source.volume(row), factor) for row in rows])


@dataclass(frozen=True)
class RawFolder:
    """Scans of a raw BIDS cohort, each on its own grid."""

    kind: str
    name: str
    table: pd.DataFrame
    paths: list[Path]

    def shown(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a scan (I, J, K), its brightest half percent at 255, and its affine."""
        values, affine, _ = read_volume(self.paths[row])
        return _bytes(values, float(values.min()), float(np.percentile(values, 99.5))), affine


def open_folder(path: Path, channel: str = "") -> Folder:
    """Open a folder of any kind.

    Parameters
    ----------
    path : prepared cohort, synthetic folder or raw BIDS cohort.
    channel : which channel or contrast is shown; by default the first.

    Raises
    ------
    DataError
        It is none of the three.
    """
    if (path / MANIFEST).is_file():
        first = RealSource.open(path, "HOLD", channel)
        parts = [first.cohort.rows(split, "all") for split in _SPLITS]
        table = pd.concat([part for part in parts if len(part)])
        source = RealSource(first.cohort, table, first.channel)
        return GriddedFolder("prepared", first.cohort.name, _labelled(table), source)
    if (path / FACTS).is_file():
        samples = SyntheticSource.open(path, channel)
        return GriddedFolder("synthetic", path.resolve().name, samples.table, samples)
    try:
        cohort = bids.read(path)
    except DataError as error:
        raise DataError(
            f"{path} is no prepared cohort, no synthetic folder and no raw cohort. {error}"
        ) from None
    return _raw(cohort, path, channel)


def _raw(cohort: Any, path: Path, channel: str) -> RawFolder:
    scans = cohort.scans
    names = tuple(Channel(str(name)) for name in scans["modality"].unique())
    scans = scans[scans["modality"] == choose_channel(names, channel, path).name]
    about = cohort.subjects[~cohort.subjects.index.duplicated()]
    subjects = scans["subject"].astype(str)
    table = about.reindex(subjects)
    labels = subjects + scans["session"].fillna("").map(lambda s: f" {s}" if s else "")
    table.index = pd.Index(labels, name="label")
    return RawFolder("raw", cohort.name, table, [Path(p) for p in scans["path"]])


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    sessions = table["session"].fillna("").map(lambda session: f" {session}" if session else "")
    labelled = table.drop(columns="session")
    labelled.index = pd.Index(table.index.astype(str) + sessions, name="label")
    return labelled


def listing(folder: Folder) -> dict[str, Any]:
    """Return the cases with their facts, and the columns by which they can be filtered."""
    table = folder.table
    columns: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for name in table.columns:
        text = table[name].astype(object).where(table[name].notna(), "").map(str).replace("n/a", "")
        if not (text != "").any():
            continue
        numbers = pd.to_numeric(text.replace("", None), errors="coerce")
        is_number = bool((numbers.notna() == (text != "")).all())
        if is_number:
            columns.append(
                {"name": name, "low": float(numbers.min()), "high": float(numbers.max())}
            )
        elif text.nunique() <= 30:
            columns.append({"name": name, "levels": sorted(set(text) - {""})})
        else:
            continue
        for row, (word, number) in enumerate(zip(text, numbers)):
            if word:
                facts[row][name] = float(number) if is_number else word
    labels = [str(label) for label in table.index]
    cases = [{"label": label, "facts": fact} for label, fact in zip(labels, facts)]
    return {"kind": folder.kind, "name": folder.name, "columns": columns, "cases": cases}


def nearest(folder: GriddedFolder, row: int, beside: GriddedFolder) -> dict[str, Any]:
    """Return the volume of `beside` that is most like a row, mirrored or not.

    The likeness is the correlation of what a mean image leaves, at about 8 mm; see
    `gyri.report.measures.nearest_residual`.
    """
    from gyri.report.measures import nearest_residual

    found = nearest_residual(folder.coarse[[row]], beside.coarse)
    return {
        "row": int(found.index[0]),
        "mirrored": bool(found.mirrored[0]),
        "correlation": round(float(found.correlation[0]), 3),
    }


def _bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)


def _averaged(volume: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of `factor` voxels along each axis; what is left at the ends is cut off."""
    whole = [size // factor for size in volume.shape]
    cut = volume[tuple(slice(size * factor) for size in whole)]
    shape = [part for size in whole for part in (size, factor)]
    averaged: np.ndarray = cut.reshape(shape).mean(axis=(1, 3, 5))
    return averaged
