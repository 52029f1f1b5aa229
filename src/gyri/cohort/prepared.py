"""A prepared cohort: volumes on one grid, in one range, with subjects dealt to splits.

On disk it is a BIDS derivative of uncompressed ``.nii`` files, so that any viewer opens them and
training memory-maps them. Intensities are int16 with ``scl_slope = max|range| / 32767`` and no
offset: a background of 0 is exactly 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from gyri.cohort.bids import CONTRAST_ENHANCED, stem
from gyri.cohort.files import read_json, read_tsv, write_json, write_tsv
from gyri.cohort.header import HEADER_BYTES
from gyri.cohort.quarantine import QUARANTINE, read_quarantine, write_quarantine
from gyri.cohort.splits import SPLITS, split_hash
from gyri.cohort.table import ColumnType, listed, typed
from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError, UsageError, nearest
from gyri.types import Channel, Grid

MANIFEST = "gyri-prepared.json"
SCANS = "gyri-scans.tsv"
STATE_FOLDER = ".gyri"
IGNORED = (MANIFEST, SCANS, QUARANTINE, STATE_FOLDER, "quality.html", "preview", "self-test")
"""Files of ours that BIDS does not know."""

FORMAT = 1
INT16_MAX = 32767


@dataclass
class PreparedCohort:
    """A prepared cohort, read from its folder.

    Parameters
    ----------
    root : the folder.
    name : what the cohort is called.
    grid : the grid of all volumes.
    channels : what each volume is made of, in order.
    intensity_range : (lowest, highest) value that intensity channels can take.
    table : one row a prepared scan; index is the subject, columns ``session``, ``split`` and
        the covariates at that session.
    columns : types of the covariates.
    split_hash, data_hash : SHA-256 of who is where, and of all voxel files.
    quarantine : scans that could not be prepared: subject, session, file, rule.
    manifest : everything else that ``gyri-prepared.json`` holds (steps, seeds, versions).
    """

    root: Path
    name: str
    grid: Grid
    channels: tuple[Channel, ...]
    intensity_range: tuple[float, float]
    table: pd.DataFrame
    columns: dict[str, ColumnType]
    split_hash: str
    data_hash: str
    quarantine: list[dict[str, str]] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> PreparedCohort:
        """Read a prepared cohort; voxels stay on disk until `load`.

        Raises
        ------
        DataError
            `path` is no prepared cohort, or its table does not match its split's hash.
        """
        root = Path(path).resolve()
        if not (root / MANIFEST).is_file():
            raise DataError(
                f"{root} is no prepared cohort (it has no {MANIFEST}); expected a folder made by "
                "`gyri prepare`. Prepare the cohort first, or let an interrupted preparation end."
            )
        manifest = read_json(root / MANIFEST)
        try:
            cohort = cls._from_manifest(root, manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{root / MANIFEST} is damaged ({error!r}). Prepare again.") from error
        sides = cohort.table["split"].groupby(level=0)
        if torn := sorted(map(str, sides.nunique().loc[lambda count: count > 1].index)):
            raise DataError(
                f"{root / SCANS} has scans of {listed(torn)} in more than one split. A person "
                "belongs to one: prepare again, or restore the file."
            )
        dealt = sides.first()
        if split_hash(dealt) != cohort.split_hash:
            raise DataError(
                f"{root / SCANS} does not match the split that {MANIFEST} names; somebody "
                "changed it. Prepare again, or restore the file."
            )
        return cohort

    @classmethod
    def _from_manifest(cls, root: Path, manifest: Mapping[str, Any]) -> PreparedCohort:
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this gyri reads {FORMAT}")
        columns = {name: ColumnType(**entry) for name, entry in manifest["columns"].items()}
        table = read_tsv(root / SCANS).set_index("subject")
        table["session"] = table["session"].replace("n/a", "")
        low, high = manifest["intensity_range"]
        return cls(
            root=root,
            name=manifest["name"],
            grid=Grid(
                tuple(manifest["grid"]["shape"]), tuple(map(tuple, manifest["grid"]["affine"]))
            ),
            channels=tuple(Channel(**entry) for entry in manifest["channels"]),
            intensity_range=(float(low), float(high)),
            table=typed(table, columns),
            columns=columns,
            split_hash=manifest["split_hash"],
            data_hash=manifest["data_hash"],
            quarantine=read_quarantine(root),
            manifest=dict(manifest),
        )

    @property
    def scale(self) -> float:
        """Stored integer x scale = value, for intensity channels."""
        return max(map(abs, self.intensity_range)) / INT16_MAX

    @property
    def skull_stripped(self) -> bool:
        """Whether the volumes show brains without heads, as the first one's sidecar says."""
        subject, session = str(self.table.index[0]), self.table["session"].iloc[0]
        path = self.path(subject, session, self.channels[0])
        return bool(read_json(path.with_suffix(".json"))["SkullStripped"])

    def rows(self, split: str, sessions: Literal["first", "all"] = "first") -> pd.DataFrame:
        """Return the rows of one split.

        Parameters
        ----------
        split : ``TRAIN``, ``VAL``, ``HOLD`` or ``TEST``.
        sessions : ``"first"`` gives one row a subject, its earliest prepared session.
        """
        if split not in SPLITS:
            raise UsageError(
                f"There is no split {split!r}.{nearest(split, SPLITS)} Splits: {', '.join(SPLITS)}."
            )
        if sessions not in ("first", "all"):
            raise UsageError(f"sessions is {sessions!r}; expected 'first' or 'all'.")
        rows = self.table[self.table["split"] == split]
        return rows[~rows.index.duplicated()] if sessions == "first" else rows

    def path(self, subject: str, session: str, channel: Channel) -> Path:
        """Return the file that holds one channel of one scan."""
        return self.root / prepared_path(subject, session, channel)

    def load(self, rows: pd.DataFrame) -> tuple[np.ndarray, float]:
        """Return the voxels of `rows` as they are stored.

        Parameters
        ----------
        rows : rows of `table`.

        Returns
        -------
        raw : (N, C, I, J, K) int16; intensity channels times `scale` are values in
            `intensity_range`, label channels hold the labels themselves.
        scale : float.

        Raises
        ------
        DataError
            A file is missing or is not on the cohort's grid.
        """
        raw = np.empty((len(rows), len(self.channels), *self.grid.shape), dtype=np.int16)
        for row, (subject, session) in enumerate(zip(rows.index, rows["session"])):
            for index, channel in enumerate(self.channels):
                path = self.path(str(subject), session, channel)
                raw[row, index] = map_voxels(path, self.grid.shape)
        return raw, self.scale

    def unit_intensities(self, rows: pd.DataFrame, channels: Sequence[int]) -> np.ndarray:
        """Return intensity channels (N, C, I, J, K) float32, `intensity_range` mapped to [0, 1]."""
        raw, scale = self.load(rows)
        low, high = self.intensity_range
        gain, offset = np.float32(scale / (high - low)), np.float32(low / (high - low))
        volumes: np.ndarray = raw[:, list(channels)].astype(np.float32) * gain - offset
        return volumes

    def volume_set(self, split: str, sessions: Literal["first", "all"] = "first") -> VolumeSet:
        """Return one split: intensities with `intensity_range` mapped to [0, 1], and labels."""
        rows = self.rows(split, sessions)
        chosen = [i for i, channel in enumerate(self.channels) if channel.kind == "intensity"]
        volumes = self.unit_intensities(rows, chosen)
        names = tuple(self.channels[i].name for i in chosen)
        labels = {
            channel.name: self._labels(rows, channel)
            for channel in self.channels
            if channel.kind == "label"
        }
        return VolumeSet(split, volumes, rows, self.grid, names, labels)

    def _labels(self, rows: pd.DataFrame, channel: Channel) -> np.ndarray:
        """Return one label channel (N, I, J, K) int16 of `rows`."""
        maps = np.empty((len(rows), *self.grid.shape), np.int16)
        for row, (subject, session) in enumerate(zip(rows.index, rows["session"])):
            maps[row] = map_voxels(self.path(str(subject), session, channel), self.grid.shape)
        return maps


def prepared_path(subject: str, session: str, channel: Channel) -> Path:
    """Return the name of a prepared file, relative to the cohort's folder."""
    base = stem(subject, session)
    if channel.kind == "label":
        desc = "" if channel.name == "dseg" else channel.name
        return base.with_name(f"{base.name}_desc-prepared{desc}_dseg.nii")
    entity, suffix = CONTRAST_ENHANCED.get(channel.name, ("", channel.name))
    return base.with_name(f"{base.name}{'_' if entity else ''}{entity}_desc-prepared_{suffix}.nii")


def map_voxels(path: Path, shape: tuple[int, int, int]) -> np.memmap:
    """Map a prepared file's int16 voxels (I, J, K) into memory without reading them."""
    expected = HEADER_BYTES + 2 * int(np.prod(shape))
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        state = "is missing" if found is None else f"has {found} bytes, expected {expected}"
        raise DataError(f"{path} {state}. Run the same `gyri prepare` again to make it anew.")
    return np.memmap(path, dtype="<i2", mode="r", offset=HEADER_BYTES, shape=shape, order="F")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(
    root: Path,
    *,
    name: str,
    grid: Grid,
    channels: tuple[Channel, ...],
    intensity_range: tuple[float, float],
    table: pd.DataFrame,
    columns: Mapping[str, ColumnType],
    files: Mapping[str, str],
    quarantine: list[dict[str, str]],
    settings: Mapping[str, Any],
) -> PreparedCohort:
    """Write what makes a folder of prepared volumes a `PreparedCohort`; the manifest goes last.

    Parameters
    ----------
    table : see `PreparedCohort.table`.
    files : SHA-256 of every voxel file, by relative name.
    settings : steps, splits and seeds, as they are to be recorded.
    """
    listing = table.copy()
    listing.insert(0, "subject", listing.index)
    write_tsv(root / SCANS, listing)
    write_quarantine(root, quarantine)
    lines = "\n".join(f"{file}\t{digest}" for file, digest in sorted(files.items()))
    manifest = {
        "format": FORMAT,
        "name": name,
        "grid": {"shape": list(grid.shape), "affine": [list(row) for row in grid.affine]},
        "channels": [vars(channel) for channel in channels],
        "intensity_range": list(intensity_range),
        "columns": {key: _column_json(column) for key, column in columns.items()},
        "split_hash": split_hash(table["split"].groupby(level=0).first()),
        "data_hash": hashlib.sha256(lines.encode()).hexdigest(),
        "preparation": dict(settings),
    }
    write_json(root / MANIFEST, manifest)
    return PreparedCohort.read(root)


def _column_json(column: ColumnType) -> dict[str, Any]:
    entry = dict(vars(column))
    entry["levels"] = None if column.levels is None else dict(column.levels)
    return entry
