"""Any raw BIDS data set."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from gyri.cohort.bids import Scan, read, write_raw
from gyri.cohort.files import read_json
from gyri.cohort.intake import Intake
from gyri.cohort.nifti import NanRule, read_volume
from gyri.cohort.privacy import beside, kept, refuse_private, sidecar
from gyri.cohort.table import Cohort
from gyri.errors import DataError
from gyri.registry import SOURCES
from gyri.runtime.progress import track


@SOURCES.register("bids")
def bids(
    src: Path, out: Path, *, nan: NanRule = "refuse", axes: str = "", strict: bool = False
) -> Cohort:
    """Any raw BIDS data set: anatomical scans and the table of participants.

    Layout: as BIDS says, ``sub-X[/ses-Y]/anat/*_T1w.nii[.gz]`` and the like, with
    ``participants.tsv`` and ``sessions.tsv`` where there are any. ``gender`` becomes ``sex``,
    ``m`` and ``f`` become ``M`` and ``F``, headers are written anew. Of several runs the first
    is taken.

    Access, citation and licence are those of the data set, see its own page; what
    ``dataset_description.json`` says of them is carried over. Sharing: as that licence allows. Of
    the scans' JSON files only manufacturer, model, field strength and what gyri wrote go on, of
    the tables no names and dates. Whether the images show faces is not known.

    Parameters
    ----------
    src : raw BIDS data set.
    out : raw BIDS data set to be made.
    nan : quarantine scans with NaN or infinite voxels, or set these voxels to zero.
    axes : where the stored axes point in scans whose header declares no orientation, for example
        ``LAS``; "" quarantines them.
    strict : refuse the data set where a header or JSON file may name people, places or times;
        otherwise that is left out and reported.

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
    if strict:
        refuse_private(map(Path, cohort.scans["path"]))
    authors = about.get("Authors", [])
    intake = Intake(read=functools.partial(read_volume, stored=True, nan=nan, axes=axes))
    written = write_raw(
        out,
        name=cohort.name,
        subjects=cohort.subjects,
        columns=cohort.columns,
        scans=_scans(cohort, intake),
        sessions=cohort.sessions,
        license=str(about.get("License", "")),
        citation=str(about.get("HowToAcknowledge", "")),
        authors=authors if isinstance(authors, list) else [str(authors)],
        quarantine=cohort.quarantine,
    )
    written.notes += [*cohort.notes, *intake.notes(), *beside(Path(src))]
    return written


def _scans(cohort: Cohort, intake: Intake) -> Iterator[Scan]:
    rows = list(cohort.scans.itertuples(index=False, name=None))
    for subject, session, modality, path in track(rows, "Importing scans"):
        read = intake.label if "_dseg." in path else intake.scan
        yield read(Path(path), subject, modality, session, **kept(sidecar(Path(path))))
