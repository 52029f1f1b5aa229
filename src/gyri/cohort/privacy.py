"""Where data sets name people, places, machines and times, and how none of it goes on.

Headers have room for free text, the files beside scans and the tables too. What is found is
counted and reported; only voxels, affine and what a source itself knows are written.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from gyri.cohort.files import read_json
from gyri.cohort.header import HEADER_BYTES, HEADER_SIZE
from gyri.cohort.table import is_missing, listed, snake_case
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

PRIVATE_FIELDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "AccessionNumber",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName",
    "DeviceSerialNumber", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "StudyID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AcquisitionDateTime",
    "AcquisitionDate", "AcquisitionTime", "StudyDate", "SeriesDate", "ContentDate",
    "ProcedureStepDescription",
)  # fmt: skip
"""Fields of a scan's JSON file that name a person, a place, a machine or a time."""

PRIVATE_HEADINGS = frozenset({
    "name", "names", "first_name", "last_name", "family_name", "given_name", "surname", "full_name",
    "patient_name", "patient_id", "initials", "mrn", "medical_record_number", "ssn", "birth_date",
    "birthdate", "date_of_birth", "birthday", "dob", "address", "street", "city", "zip", "zip_code",
    "zipcode", "postcode", "postal_code", "phone", "phone_number", "telephone", "email", "e_mail",
    "physician", "referring_physician", "acq_time", "scan_date", "study_date", "acquisition_date",
    "acq_date", "date",
})  # fmt: skip
"""Headings of tables, in snake_case, under which people are named or dated."""

KEPT = (
    "SourceOrientation", "SkullStripped", "Faces", "LabelNames", "SourceConvention", "Synthetic",
    "Manufacturer", "ManufacturersModelName", "MagneticFieldStrength",
)  # fmt: skip
"""What of a scan's JSON file goes on; anything else may name people, dates or machines."""

_OURS = re.compile(rb"gyri (prepared )?[A-Za-z0-9]{1,64}")


def free_text(path: Path) -> list[str]:
    """Return the names of what a file's header says in free text: fields, extensions, DICOM.

    What gyri writes there itself does not count.
    """
    path = path.with_suffix(".hdr") if path.suffix == ".img" else path
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            head = stream.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return []
    if head[128:132] == b"DICM":
        return ["DICOM"]
    if head[:4] not in HEADER_SIZE:
        return []
    texts = {name: head[at].strip(b"\x00 ") for name, at in FREE_TEXT.items()}
    said = [name for name, text in texts.items() if text and not _OURS.fullmatch(text)]
    return said + (["extensions"] if head[348:349].strip(b"\x00") else [])


def sidecar(path: Path) -> dict[str, Any]:
    """Return the content of the JSON file beside a scan; nothing where there is none."""
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return read_json(path.with_name(f"{name}.json"), missing_ok=True)


def kept(about: dict[str, Any]) -> dict[str, Any]:
    """Return what of a JSON file's content may go on."""
    return {key: about[key] for key in KEPT if key in about}


def private_fields(about: dict[str, Any]) -> list[str]:
    """Return the fields of a JSON file's content that name a person, place, machine or time."""
    return [key for key in PRIVATE_FIELDS if about.get(key)]


def refuse_private(paths: Iterable[Path]) -> None:
    """Raise `DataError` where a scan's header or JSON file says anything private.

    Strict imports ask for this before any work; otherwise it is left out and reported.
    """
    said = {path: [*free_text(path), *private_fields(sidecar(path))] for path in paths}
    found = [f"{path} ({', '.join(fields)})" for path, fields in said.items() if fields]
    if found:
        raise DataError(
            f"{len(found)} scans may name people, places, machines or times in their headers or "
            f"JSON files: {listed(found)}. Remove that with the program that made them, or import "
            "without strict: it is then left out and reported."
        )


def without_private(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return `table` without the columns that name or date people; `notes` says which those are."""
    private = [
        str(name)
        for name in table
        if snake_case(str(name)) in PRIVATE_HEADINGS and not all(map(is_missing, table[name]))
    ]
    if private:
        notes.append(
            f"Columns of the table that may name people or dates were left out: {listed(private)}."
        )
    return table.drop(columns=private)


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
