"""BraTS: four modalities and a segmentation of gliomas, BraTS 2021 to 2024 and BraTS-Africa.

U. Baid et al., "The RSNA-ASNR-MICCAI BraTS 2021 benchmark on brain tumor segmentation and
radiogenomic classification", arXiv:2107.02314; M. Adewole et al., "The Brain Tumor Segmentation
(BraTS) Challenge 2023: glioma segmentation in Sub-Saharan Africa patient population",
arXiv:2305.19369; M. C. de Verdier et al., "The 2024 Brain Tumor Segmentation (BraTS) challenge:
glioma segmentation on post-treatment MRI", arXiv:2405.18368.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.files import refuse_outside
from gyri.cohort.intake import Intake, integers
from gyri.cohort.nifti import read_volume
from gyri.cohort.table import Cohort, ColumnType, listed
from gyri.errors import DataError, FileFault
from gyri.registry import SOURCES
from gyri.runtime.progress import track

CITATION = (
    "Baid et al. (2021), The RSNA-ASNR-MICCAI BraTS 2021 benchmark on brain tumor segmentation and "
    "radiogenomic classification, arXiv:2107.02314; Adewole et al. (2023), The Brain Tumor "
    "Segmentation (BraTS) Challenge 2023: glioma segmentation in Sub-Saharan Africa patient "
    "population (BraTS-Africa), arXiv:2305.19369; de Verdier et al. (2024), The 2024 Brain Tumor "
    "Segmentation (BraTS) challenge: glioma segmentation on post-treatment MRI, arXiv:2405.18368"
)
LICENSE = "CC BY 4.0 (BraTS-Africa); terms of the challenge (BraTS 2021, 2023, 2024)"
NEW_ENDINGS = {"T1w": "t1n", "T1c": "t1c", "T2w": "t2w", "FLAIR": "t2f", "tumour": "seg"}
"""Channel -> how a file's name ends since BraTS 2023."""

ENDINGS = {
    **{ending: name for name, ending in NEW_ENDINGS.items()},
    **{"t1": "T1w", "t1ce": "T1c", "t2": "T2w", "flair": "FLAIR"},
}
"""How a file's name ends -> channel; also as until BraTS 2021."""

MODALITIES = ("T1w", "T1c", "T2w", "FLAIR")
SEGMENTATION = "tumour"
LABELS = {
    1: "necrotic or non-enhancing tumour core",
    2: "oedema or surrounding non-enhancing FLAIR hyperintensity",
    3: "enhancing tumour",
    4: "resection cavity",
}
"""The convention that is written: that of BraTS 2023, and the cavity of BraTS 2024."""

CONVENTIONS = {
    "2021": {0: 0, 1: 1, 2: 2, 4: 3},
    "2023": {0: 0, 1: 1, 2: 2, 3: 3},
    "2024": {0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
}
"""Label in the file -> label that is written."""

FOLDERS = {"95_glioma": "glioma", "51_otherneoplasms": "other neoplasm"}
"""Folders of BraTS-Africa -> diagnosis."""

Convention = Literal["auto", "2021", "2023", "2024"]

_NEW = re.compile(r"(BraTS-([A-Za-z]+)-(\d{5}))-(\d{3})-(t1n|t1c|t2w|t2f|seg)\.nii(\.gz)?")
_OLD = re.compile(r"(BraTS\d*_(?:[A-Za-z]+_)?\d+)_(t1|t1ce|t2|flair|seg)\.nii(\.gz)?")


@dataclass
class Case:
    """One scanning session: its files by modality."""

    new_names: bool
    collection: str
    """``GLI``, ``SSA`` ..., or "" where the names are the old ones."""
    files: dict[str, Path] = field(default_factory=dict)


Key = tuple[str, str]
"""Subject and session."""


@SOURCES.register("brats")
def brats(src: Path, out: Path, *, labels: Convention = "auto") -> Cohort:
    """BraTS 2021, 2023, 2024 (GLI, SSA) and BraTS-Africa: gliomas, four modalities, segmentation.

    Layout: a folder a case, at any depth: ``BraTS-SSA-00002-000/BraTS-SSA-00002-000-t1n.nii.gz``
    with ``-t1c``, ``-t2w``, ``-t2f`` and ``-seg``, or ``BraTS2021_00000/BraTS2021_00000_t1.nii.gz``
    with ``_t1ce``, ``_t2``, ``_flair`` and ``_seg``. The last three digits of the new names are
    the time point and become the session. All scans are stripped and on one grid of 1 mm.

    Labels are written as 1 core, 2 oedema, 3 enhancing tumour, 4 resection cavity. BraTS until
    2021 calls the enhancing tumour 4; auto recognises it by the old names, or where 4 is used and
    3 is not. In GLI with the new names that could be a cavity too, so there `labels` must say.

    Access: https://www.synapse.org after registration for the challenges;
    https://www.cancerimagingarchive.net/collection/brats-africa for BraTS-Africa. Citation: the
    paper of each year. Licence: CC BY 4.0 (BraTS-Africa), otherwise the challenge's terms.
    Sharing: BraTS-Africa as its licence allows; of the others see the data set's own page and ask
    the organisers. Faces are removed with the skull.

    Parameters
    ----------
    src : folder of the cases.
    out : raw BIDS data set to be made.
    labels : the convention of the segmentations: 2021 {1, 2, 4}, 2023 {1, 2, 3}, 2024 {1, 2, 3, 4}.

    Raises
    ------
    DataError
        No cases, a modality that is missing, a scan that comes twice, or conventions that are
        mixed. A segmentation whose labels are not of the convention is quarantined.
    """
    src = Path(src)
    cases, notes = _find(src)
    convention, segmented = _convention(cases, labels)
    subjects, columns = _subjects(cases)
    intake = Intake(stripped=True, faces=False)
    cohort = write_raw(
        out,
        name="BraTS",
        subjects=subjects,
        columns=columns,
        scans=_scans(cases, intake, convention),
        license=LICENSE,
        citation=CITATION,
        readme="Labels: " + ", ".join(f"{value} {name}" for value, name in LABELS.items()) + ".",
    )
    if segmented:
        notes.append(f"Labels were read by the convention of BraTS {convention}.")
    if segmented < len(cases):
        notes.append(f"{len(cases) - segmented} of {len(cases)} sessions have no segmentation.")
    cohort.notes += notes + intake.notes()
    return cohort


def _find(src: Path) -> tuple[dict[Key, Case], list[str]]:
    if not src.is_dir():
        raise DataError(f"{src} is no folder; expected BraTS cases. Check the path.")
    cases: dict[Key, Case] = {}
    left_out = []
    for path in sorted(src.rglob("BraTS*.nii*")):
        if not path.is_file():  # some archives hold folders called like the file in them
            continue
        if new := _NEW.fullmatch(path.name):
            key, ending = (re.sub("[-_]", "", new[1]), new[4]), new[5]
            case = cases.setdefault(key, Case(True, new[2].upper()))
        elif old := _OLD.fullmatch(path.name):
            key, ending = (re.sub("[-_]", "", old[1]), ""), old[2]
            case = cases.setdefault(key, Case(False, ""))
        else:
            left_out.append(path.name)
            continue
        modality = ENDINGS[ending]
        if modality in case.files:
            raise DataError(f"{case.files[modality]} and {path} are the same scan. Keep one.")
        case.files[modality] = path
    if not cases:
        raise DataError(
            f"{src} holds no BraTS cases; expected files like "
            "BraTS-SSA-00002-000/BraTS-SSA-00002-000-t1n.nii.gz."
        )
    lacking = [
        f"{' '.join(filter(None, key))} ({', '.join(absent)})"
        for key, case in cases.items()
        if (absent := [name for name in MODALITIES if name not in case.files])
    ]
    if lacking:
        raise DataError(
            f"{len(lacking)} cases in {src} lack modalities: {listed(lacking)}. "
            "Copy or download them again."
        )
    for case in cases.values():
        refuse_outside(src, case.files.values())
    notes = [f"{len(left_out)} files have no BraTS name: {listed(left_out)}."] if left_out else []
    return dict(sorted(cases.items())), notes


def _convention(cases: dict[Key, Case], wanted: Convention) -> tuple[str, int]:
    """Return the convention of the labels, and how many sessions have any."""
    used: dict[Path, set[int]] = {}
    for case in cases.values():
        if path := case.files.get(SEGMENTATION):
            try:
                data, _, info = read_volume(path, stored=True, constant=True)
                values = integers(path, data if info.scale == 1 else data * info.scale)
            except FileFault:  # said when it is imported
                values = np.zeros(0)
            used[path] = set(np.unique(values).tolist())
    return wanted if wanted != "auto" else _recognised(cases, used), len(used)


def _recognised(cases: dict[Key, Case], used: dict[Path, set[int]]) -> str:
    three = next((path for path, values in used.items() if 3 in values), None)
    four = next((path for path, values in used.items() if 4 in values), None)
    collections = {case.collection for case in cases.values()}
    if not any(case.new_names for case in cases.values()):
        return "2021"
    if four is None:
        return "2023"
    if three is not None:
        if collections == {"GLI"}:
            return "2024"
        raise DataError(
            f"{three} has the label 3 and {four} the label 4: two conventions are mixed. "
            "Import them apart."
        )
    if "GLI" in collections:
        raise DataError(
            f"{four} has the label 4 and no case the label 3: 4 may be the enhancing tumour "
            "(BraTS 2021) or the resection cavity (BraTS 2024). Say which with `labels`."
        )
    return "2021"


def _subjects(cases: dict[Key, Case]) -> tuple[pd.DataFrame, dict[str, ColumnType]]:
    """Return the table of subjects: the diagnosis, where BraTS-Africa's folders say it."""
    groups: dict[str, str | None] = {}
    for (subject, _), case in cases.items():
        above = {part.lower() for part in case.files["T1w"].parts}
        groups[subject] = next((name for part, name in FOLDERS.items() if part in above), None)
    index = pd.Index(list(groups), name="subject")
    if not any(groups.values()):
        return pd.DataFrame(index=index), {}
    column = ColumnType(
        kind="categorical",
        description="Diagnosis",
        levels={name: name for name in FOLDERS.values()},
    )
    return pd.DataFrame({"group": list(groups.values())}, index=index), {"group": column}


def _scans(cases: dict[Key, Case], intake: Intake, convention: str) -> Iterator[Scan]:
    for (subject, session), case in track(cases.items(), "Importing BraTS"):
        for modality in MODALITIES:
            yield intake.scan(case.files[modality], subject, modality, session)
        if path := case.files.get(SEGMENTATION):
            yield intake.label(
                path,
                subject,
                SEGMENTATION,
                session,
                levels=LABELS,
                recode=CONVENTIONS[convention],
                SourceConvention=f"BraTS {convention}",
            )
