"""OASIS-1: cross-sectional T1w scans of 416 people from 18 to 96 years.

D. S. Marcus et al., "Open Access Series of Imaging Studies (OASIS): cross-sectional MRI data in
young, middle aged, nondemented, and demented older adults", J. Cogn. Neurosci. 19 (2007).
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake
from gyri.cohort.pair import read_pair
from gyri.cohort.privacy import beside
from gyri.cohort.sheet import harmonise
from gyri.cohort.table import CONVENTIONAL, Cohort, bids_label, listed, snake_case, typed
from gyri.cohort.workbook import find_table, read_table
from gyri.errors import DataError, UsageError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Marcus et al. (2007), Open Access Series of Imaging Studies (OASIS), "
    "Journal of Cognitive Neuroscience 19(9), 1498-1507, https://doi.org/10.1162/jocn.2007.19.9.1498"
)
AUTHORS = (
    "Daniel S. Marcus",
    "Tracy H. Wang",
    "Jamie Parker",
    "John G. Csernansky",
    "John C. Morris",
    "Randy L. Buckner",
)
LICENSE = "OASIS data use terms, https://sites.wustl.edu/oasisbrains/"
COLUMNS = (
    "age", "sex", "handedness", "education", "ses", "mmse", "cdr", "etiv", "nwbv", "asf", "delay",
)  # fmt: skip
OF_THE_SESSION = ("age", "etiv", "nwbv", "asf", "delay")
"""Columns that another session of the same person measures again."""

T88_AXES = "LAS"
"""How the atlas-registered scans are stored: to left, to anterior, to superior."""
RAW_AXES = "ASL"
"""How the raw sagittal scans are stored: to anterior, to superior, to left."""
TISSUES = {1: "cerebrospinal fluid", 2: "grey matter", 3: "white matter"}
"""Labels of the FSL segmentation."""

Image = Literal["auto", "masked", "unmasked", "raw"]
Key = tuple[str, str]
"""Person and session, as in the files' names."""

LAYOUT = {
    "masked": "PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.img",
    "unmasked": "PROCESSED/MPRAGE/T88_111/*_t88_gfc.img",
    "raw": "RAW/*_mpr-[1-4]_anon.img",
}
SEGMENTATION = "FSL_SEG/*_fseg.img"

_FILE = re.compile(r"(OAS1_\d{4})_(MR\d+)_T1w\.nii(\.gz)?")
_ID = re.compile(r"(OAS1_\d{4})_(MR\d+)")
_log = logging.getLogger(__name__)


@SOURCES.register("oasis1")
def oasis1(src: Path, out: Path, *, image: Image = "auto") -> Cohort:
    """OASIS-1: cross-sectional T1w of people from 18 to 96 years.

    Layout: the published discs, ``disc1/OAS1_0001_MR1`` and so on, of Analyze 7.5 pairs: ``RAW``
    (``mpr-1`` to ``mpr-4``), ``PROCESSED/MPRAGE/T88_111`` (registered to the atlas of Talairach,
    gain-field corrected, masked or not) and ``FSL_SEG`` (tissues). Or
    ``OAS1_0001_MR1_T1w.nii.gz`` files in one folder. With them ``oasis_cross-sectional.csv`` (or
    xlsx) in its published columns, in any order, with or without byte-order mark. ``_MR2`` is a
    second session. CDR, MMSE and SES stay missing where never assessed.

    Analyze headers say nothing of left and right: T88_111 and FSL_SEG are taken as stored to
    left, anterior and superior, RAW as stored to anterior, superior and left. The world's origin
    is the centre of the volume.

    Access: free after registration at https://sites.wustl.edu/oasisbrains. Citation: Marcus et
    al. 2007. Licence: OASIS data use terms. Sharing: see the data set's own page for what its terms
    allow of scans and of derived data; never try to identify a person. Faces are removed by the
    data set.

    Parameters
    ----------
    src : folder of the discs (or of the sessions, or of the files) and the table.
    out : raw BIDS data set to be made.
    image : of the discs, the masked or unmasked atlas scans, or the raw ones aligned and
        averaged; auto takes the first of these that every session has.

    Raises
    ------
    DataError
        No such folder, no scans, sessions that lack the image, no or another table, or scans
        that have no row.
    UsageError
        `image` is given for files that are not the discs.
    """
    src = Path(src)
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected the OASIS-1 scans. Check the path.")
    files = {
        (match[1], match[2]): path
        for path in sorted(src.iterdir())
        if (match := _FILE.fullmatch(path.name))
    }
    if files:
        refuse_outside(src, files.values())
        if image != "auto":
            raise UsageError(f"{src} holds prepared files, not the discs; leave out image.")
        intake = Intake(stripped=True, faces=False)
        cohort = _write(src, out, list(files), _flat_scans(files, intake), beside(src))
        cohort.notes += intake.notes()
        return cohort
    discs = _find_sessions(src)
    kind = _kind(discs, image)
    axes = RAW_AXES if kind == "raw" else T88_AXES
    intake = Intake(
        stripped=kind == "masked", faces=False, read=functools.partial(read_pair, axes=axes)
    )
    cohort = _write(src, out, list(discs), _disc_scans(discs, kind, intake), beside(src))
    cohort.notes[:0] = [f"The {kind} scans of the discs were taken.", *intake.notes()]
    return cohort


def _write(
    src: Path, out: Path, keys: list[Key], scans: Iterable[Scan], notes: list[str]
) -> Cohort:
    rows = _read_rows(
        find_table(src, "*oasis_cross*", "oasis_cross-sectional.csv", ignore="*reliability*")
    )
    if without_row := ["_".join(key) for key in keys if key not in rows.index]:
        raise DataError(
            f"{len(without_row)} scans in {src} have no row in the table: {listed(without_row)}. "
            "Use the full published oasis_cross-sectional.csv."
        )
    unused = len(rows) - len(keys)
    _log.info("%d scans; %d rows of the table have no scan here and are left out.",
              len(keys), unused)  # fmt: skip
    rows = rows.loc[keys]
    subjects = rows.groupby(level=0).first()
    subjects.index = pd.Index([bids_label(name) for name in subjects.index], name="subject")
    sessions = rows[list(OF_THE_SESSION)].reset_index()
    sessions["subject"] = [bids_label(name) for name in sessions["subject"]]
    cohort = write_raw(
        out,
        name="OASIS-1",
        subjects=subjects.drop(columns="delay"),
        columns={name: CONVENTIONAL[name] for name in COLUMNS},
        scans=scans,
        sessions=sessions,
        license=LICENSE,
        citation=CITATION,
        authors=AUTHORS,
    )
    if unused:
        cohort.notes.append(f"{unused} rows of the table have no scan here and are left out.")
    cohort.notes += notes
    return cohort


def _find_sessions(src: Path) -> dict[Key, Path]:
    """Return the folder of every session on the discs."""
    found: dict[Key, Path] = {}
    for depth in ("", "*/", "*/*/"):
        for folder in sorted(src.glob(f"{depth}OAS1_*_MR*")):
            match = _ID.fullmatch(folder.name)
            if match is None or not folder.is_dir():
                continue
            key = (match[1], match[2])
            if key in found:
                raise DataError(f"{found[key]} and {folder} are the same session. Keep one.")
            found[key] = folder
    refuse_outside(src, found.values())
    if not found:
        raise DataError(
            f"{src} holds no OASIS-1 scans; expected files like OAS1_0001_MR1_T1w.nii.gz or "
            "folders like disc1/OAS1_0001_MR1."
        )
    return dict(sorted(found.items()))


def _kind(discs: dict[Key, Path], image: Image) -> str:
    """Return the kind of image that every session has."""
    without = {
        kind: ["_".join(key) for key, folder in discs.items() if not any(folder.glob(pattern))]
        for kind, pattern in LAYOUT.items()
    }
    wanted = list(LAYOUT) if image == "auto" else [image]
    for kind in wanted:
        if not without[kind]:
            return kind
    lacking = "; ".join(f"no {LAYOUT[kind]} in {listed(without[kind])}" for kind in wanted)
    raise DataError(
        f"Not every OASIS-1 session has the {image} image: {lacking}. Copy the discs again, or "
        "choose another `image`."
    )


def _read_rows(path: Path) -> pd.DataFrame:
    """Return the typed table by (person, session)."""
    table = read_table(path)
    table.columns = pd.Index([snake_case(name) for name in table.columns])
    table = harmonise(table.rename(columns={"educ": "education", "hand": "handedness"}))
    if absent := [name for name in ("id", *COLUMNS) if name not in table]:
        raise DataError(
            f"{path} lacks the columns {listed(absent)}; it has {', '.join(table.columns)}. "
            "Use the published oasis_cross-sectional.csv."
        )
    keys = [_ID.fullmatch(name) for name in table["id"]]
    if strange := [name for name, key in zip(table["id"], keys) if key is None]:
        raise DataError(
            f"{path} has identifiers {listed(strange)}; expected OAS1_0001_MR1 and the like."
        )
    table.index = pd.MultiIndex.from_tuples(
        [(key[1], key[2]) for key in keys if key], names=["subject", "session"]
    )
    if table.index.has_duplicates:
        twice = ["_".join(key) for key in table.index[table.index.duplicated()]]
        raise DataError(f"{path} lists {listed(twice)} more than once. Keep one row each.")
    return typed(table[list(COLUMNS)], {name: CONVENTIONAL[name] for name in COLUMNS})


def _flat_scans(files: dict[Key, Path], intake: Intake) -> Iterator[Scan]:
    for (person, session), path in track(files.items(), "Importing OASIS-1"):
        yield intake.scan(path, bids_label(person), "T1w", session)


def _disc_scans(discs: dict[Key, Path], kind: str, intake: Intake) -> Iterator[Scan]:
    for (person, session), folder in track(discs.items(), "Importing OASIS-1"):
        subject = bids_label(person)
        paths = sorted(folder.glob(LAYOUT[kind]))
        if kind != "raw" and len(paths) > 1:
            raise DataError(f"{folder} holds {len(paths)} {kind} scans; expected one. Keep one.")
        yield intake.mean(paths, subject, "T1w", session)
        if kind != "raw":
            for path in sorted(folder.glob(SEGMENTATION)):
                yield intake.label(path, subject, "dseg", session, levels=TISSUES)
