"""Any raw BIDS data set."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from gyri.cohort.bids import Scan, read, write_raw
from gyri.cohort.files import read_json
from gyri.cohort.table import Cohort
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track

_log = logging.getLogger(__name__)


@SOURCES.register("bids")
def bids(src: Path, out: Path) -> Cohort:
    """Any raw BIDS data set: anatomical scans and the table of participants.

    Layout: as BIDS says, ``sub-X[/ses-Y]/anat/*_T1w.nii[.gz]`` and the like, with
    ``participants.tsv`` and ``sessions.tsv`` where there are any. ``gender`` becomes ``sex``,
    ``m`` and ``f`` become ``M`` and ``F``, headers are written anew. Of several runs the first
    is taken.

    Access, citation and licence are those of the data set; they are carried over.

    Parameters
    ----------
    src : raw BIDS data set.
    out : raw BIDS data set to be made.

    Raises
    ------
    DataError
        No data set, a derivative, or table and scans that disagree.
    """
    about = read_json(Path(src) / "dataset_description.json", missing_ok=True)
    if about.get("DatasetType", "raw") != "raw":
        raise DataError(
            f"{src} is a BIDS {about['DatasetType']} data set; expected a raw one. "
            "Import the data set that it was made from."
        )
    cohort = read(src)
    authors = about.get("Authors", [])
    written = write_raw(
        out,
        name=cohort.name,
        subjects=cohort.subjects,
        columns=cohort.columns,
        scans=_scans(cohort),
        sessions=cohort.sessions,
        license=str(about.get("License", "")),
        citation=str(about.get("HowToAcknowledge", "")),
        authors=authors if isinstance(authors, list) else [str(authors)],
    )
    written.notes = cohort.notes
    return written


def _scans(cohort: Cohort) -> Iterator[Scan]:
    rows = list(cohort.scans.itertuples(index=False, name=None))
    for subject, session, modality, path in track(rows, "Importing scans"):
        label = "_dseg." in path
        yield Scan.from_file(Path(path), subject, modality, session, is_label=label)
