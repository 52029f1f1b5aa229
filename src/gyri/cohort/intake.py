"""From a data set's file to a scan: read, described, and without any text about the person.

Headers carry free text (names, dates, serials) and so do files beside the scans. Only voxels,
affine and what the source itself knows go on; what was left behind is counted and reported.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gyri.cohort.average import average_runs
from gyri.cohort.bids import Scan
from gyri.cohort.nifti import VolumeInfo, read_volume
from gyri.cohort.privacy import free_text
from gyri.cohort.table import listed
from gyri.errors import FileFault

Reader = Callable[..., tuple[np.ndarray, np.ndarray, VolumeInfo]]
_log = logging.getLogger(__name__)


def _stored(path: Path, *, constant: bool = False) -> tuple[np.ndarray, np.ndarray, VolumeInfo]:
    return read_volume(path, stored=True, constant=constant)


@dataclass
class Intake:
    """Reads the scans of one data set and remembers what to report.

    Parameters
    ----------
    stripped : only the brain is left in the images; None where that is not known.
    faces : the images may show a face; False only where the data set says that it is removed,
        None where that is not known.
    read : reads the stored voxels of a file; with ``constant=True`` also of one value, for labels.
    """

    stripped: bool | None = None
    faces: bool | None = None
    read: Reader = _stored
    texts: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def scan(
        self,
        path: Path,
        subject: str,
        modality: str,
        session: str = "",
        **sidecar: Any,
    ) -> Scan:
        """Return an image; one that cannot be used has a fault instead of voxels."""
        self.texts.update(free_text(path))
        try:
            data, affine, info = self.read(path)
        except FileFault as fault:
            return self._faulty(fault, Scan(subject, modality, session=session))
        self.remarks.update(info.notes)
        scan = Scan(subject, modality, data, affine, session, scale=info.scale)
        known = {"SkullStripped": self.stripped, "Faces": self.faces}
        scan.sidecar = {
            "SourceOrientation": info.orientation,
            **{key: value for key, value in known.items() if value is not None},
            **sidecar,
        }
        return scan

    def label(
        self,
        path: Path,
        subject: str,
        name: str,
        session: str = "",
        *,
        levels: dict[int, str] | None = None,
        recode: dict[int, int] | None = None,
        **sidecar: Any,
    ) -> Scan:
        """Return a label image; one whose voxels are no such labels has a fault instead.

        Parameters
        ----------
        levels : label -> what it means, after recoding; None lets all integers from 0 on pass.
        recode : label in the file -> label that goes on; None changes nothing.
        """
        self.texts.update(free_text(path))
        try:
            data, affine, info = self.read(path, constant=True)
            values = integers(path, data * info.scale if info.scale != 1 else data)
            if levels is not None:
                values = _recoded(path, values, recode or {v: v for v in (0, *levels)})
        except FileFault as fault:
            return self._faulty(fault, Scan(subject, name, session=session, is_label=True))
        self.remarks.update(info.notes)
        kind = np.promote_types(np.min_scalar_type(int(values.max())), np.uint8)
        scan = Scan(subject, name, values.astype(kind), affine, session, is_label=True)
        named = {str(value): text for value, text in (levels or {}).items()}
        scan.sidecar = {
            "SourceOrientation": info.orientation,
            **({"LabelNames": named} if named else {}),
            **sidecar,
        }
        return scan

    def mean(self, paths: list[Path], subject: str, modality: str, session: str = "") -> Scan:
        """Return the mean of a session's repetitions, aligned with the first.

        Where one of them cannot be used the session has its fault: a mean of fewer repetitions
        would have another noise than the others.
        """
        scans = [self.scan(path, subject, modality, session) for path in paths]
        first = next((scan for scan in scans if scan.fault), scans[0])
        volumes = [(s.data, s.affine) for s in scans if s.data is not None and s.affine is not None]
        if first.fault:
            return first
        if len(volumes) > 1:
            first.data, first.affine = average_runs(volumes)
            first.scale = 1.0
        first.sidecar["Repetitions"] = len(scans)
        return first

    def notes(self) -> list[str]:
        """Return what to tell the user, in sentences."""
        notes = [f"{text} ({count} files)" for text, count in self.remarks.items()]
        if self.texts:
            fields = ", ".join(f"{name} in {count}" for name, count in self.texts.items())
            notes.append(f"Headers held free text ({fields} files); none of it was copied.")
        if self.faults:
            notes.append(
                f"{len(self.faults)} files cannot be used, were not copied and are listed in "
                f"quarantine.tsv: {listed(self.faults)}"
            )
        return notes

    def _faulty(self, fault: FileFault, scan: Scan) -> Scan:
        """Return `scan` with its fault; the file itself goes nowhere, it may name people."""
        _log.warning("Quarantined: %s", fault)
        self.faults.append(str(fault))
        scan.fault = fault.reason
        return scan


def integers(path: Path, data: np.ndarray) -> np.ndarray:
    """Return `data` as integers; `FileFault` where a label image holds fractions or negatives."""
    if data.dtype.kind == "f" and not np.array_equal(data, np.rint(data)):
        raise FileFault(path, "a label image with fractional values", "Use the original labels.")
    if data.min() < 0:
        raise FileFault(path, "a label image with negative values", "Use the original labels.")
    return data.astype(np.int64)


def _recoded(path: Path, values: np.ndarray, recode: dict[int, int]) -> np.ndarray:
    """Return the labels as they go on; `FileFault` where there is one that `recode` lacks."""
    strange = sorted(set(np.unique(values).tolist()) - set(recode))
    if strange:
        raise FileFault(
            path,
            f"unexpected labels {listed(map(str, strange))}; expected only "
            f"{', '.join(map(str, sorted(recode)))}",
            "Correct or remove the file.",
        )
    table = np.zeros(max(recode) + 1, dtype=np.int64)
    table[list(recode)] = list(recode.values())
    return table[values]
