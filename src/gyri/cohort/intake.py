"""From a data set's file to a scan: read, described, and without any text about the person.

Headers carry free text (names, dates, serials) and so do files beside the scans. Only voxels,
affine and what the source itself knows go on; what was left behind is counted and reported.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gyri.cohort.average import average_runs
from gyri.cohort.bids import Scan
from gyri.cohort.nifti import HEADER_BYTES, VolumeInfo, read_volume
from gyri.cohort.table import listed
from gyri.errors import DataError

FREE_TEXT = {
    "db_name": slice(14, 32),
    "descrip": slice(148, 228),
    "aux_file": slice(228, 252),
    "intent_name": slice(328, 344),
}
"""Where NIfTI-1 and Analyze 7.5 headers have room for text, in bytes."""

BESIDE = (".json", ".xml", ".txt", ".pdf", ".gif")
"""Files beside scans that may name people, dates or machines."""

Reader = Callable[[Path], tuple[np.ndarray, np.ndarray, VolumeInfo]]
_log = logging.getLogger(__name__)


def free_text(path: Path) -> list[str]:
    """Return the names of what a file's header says in free text: fields, extensions, DICOM."""
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            head = stream.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return []
    if head[128:132] == b"DICM":
        return ["DICOM"]
    if head[:4] not in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return []
    said = [name for name, at in FREE_TEXT.items() if head[at].strip(b"\x00 ")]
    return said + (["extensions"] if head[348:349].strip(b"\x00") else [])


def _stored(path: Path) -> tuple[np.ndarray, np.ndarray, VolumeInfo]:
    return read_volume(path, stored=True)


@dataclass
class Intake:
    """Reads the scans of one data set and remembers what to report.

    Parameters
    ----------
    stripped : only the brain is left in the images.
    faces : the images may show a face; False only where the data set says that it is removed.
    read : reads the stored voxels of a file.
    """

    stripped: bool
    faces: bool
    read: Reader = _stored
    texts: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)

    def scan(
        self,
        path: Path,
        subject: str,
        modality: str,
        session: str = "",
        **sidecar: Any,
    ) -> Scan:
        """Return an image; one that cannot be read is taken along for preparation to quarantine.

        Raises
        ------
        DataError
            It cannot be read, and its header holds text that must not be copied.
        """
        said = free_text(path)
        self.texts.update(said)
        try:
            data, affine, info = self.read(path)
        except DataError as error:
            if said or not path.name.endswith((".nii", ".nii.gz")):
                raise DataError(
                    f"{error} It cannot be copied as it is either. Repair or remove it."
                ) from None
            _log.warning("Taken along unread, preparation will quarantine it: %s", error)
            self.unread.append(path.name)
            return Scan(subject, modality, session=session, file=path)
        self.remarks.update(info.notes)
        scan = Scan(subject, modality, data, affine, session, scale=info.scale)
        scan.sidecar = {
            "SourceOrientation": info.orientation,
            "SkullStripped": self.stripped,
            "Faces": self.faces,
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
        levels: dict[int, str],
        recode: dict[int, int] | None = None,
        **sidecar: Any,
    ) -> Scan:
        """Return a label image; its voxels are integers of `levels` or 0, or `DataError`.

        Parameters
        ----------
        levels : label -> what it means, after recoding.
        recode : label in the file -> label that goes on; None changes nothing.
        """
        data, affine, info = self.read(path)
        self.texts.update(free_text(path))
        values = integers(path, data * info.scale if info.scale != 1 else data)
        allowed = recode or {value: value for value in (0, *levels)}
        refuse_labels(path, values, allowed)
        table = np.zeros(max(allowed) + 1, dtype=np.uint8)
        table[list(allowed)] = list(allowed.values())
        scan = Scan(subject, name, table[values], affine, session, is_label=True)
        named = {str(value): text for value, text in levels.items()}
        scan.sidecar = {"SourceOrientation": info.orientation, "LabelNames": named, **sidecar}
        return scan

    def mean(self, paths: list[Path], subject: str, modality: str, session: str = "") -> Scan:
        """Return the mean of a session's repetitions, aligned with the first.

        Raises
        ------
        DataError
            One of them cannot be read.
        """
        scans = [self.scan(path, subject, modality, session) for path in paths]
        first = scans[0]
        volumes = [(s.data, s.affine) for s in scans if s.data is not None and s.affine is not None]
        if len(volumes) < len(scans):
            raise DataError(f"{self.unread[-1]} cannot be averaged with the others. Remove it.")
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
        if self.unread:
            notes.append(
                f"{len(self.unread)} files could not be read and are left to preparation, which "
                f"quarantines them: {listed(self.unread)}."
            )
        return notes


def integers(path: Path, data: np.ndarray) -> np.ndarray:
    """Return `data` as integers; `DataError` where a label image holds fractions or negatives."""
    if data.dtype.kind == "f" and not np.array_equal(data, np.rint(data)):
        raise DataError(f"{path}: a label image with fractional values. Use the original labels.")
    if data.min() < 0:
        raise DataError(f"{path}: a label image with negative values. Use the original labels.")
    return data.astype(np.int64)


def refuse_labels(path: Path, values: np.ndarray, allowed: Iterable[int]) -> None:
    """Raise `DataError` where a label image holds a value that is not allowed."""
    strange = sorted(set(np.unique(values).tolist()) - set(allowed))
    if strange:
        raise DataError(
            f"{path}: unexpected labels {listed(map(str, strange))}; expected only "
            f"{', '.join(map(str, sorted(allowed)))}. Correct or remove the file."
        )


def beside(src: Path) -> list[str]:
    """Return a note about the files beside the scans that are not read, if there are any."""
    count = Counter(
        path.suffix.lower()
        for path in src.rglob("*")
        if path.suffix.lower() in BESIDE and path.is_file()
    )
    if not count:
        return []
    kinds = ", ".join(f"{number} {ending}" for ending, number in sorted(count.items()))
    return [f"Files beside the scans ({kinds}) may name people or dates; none was copied."]


def outside_links(src: Path, paths: Iterable[Path]) -> None:
    """Raise `DataError` for a scan that is a link to a place outside the data set."""
    root = src.resolve()
    for path in paths:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise DataError(
                f"{path} links to {path.resolve()}, outside the data set. "
                "Copy the file into the data set."
            )
