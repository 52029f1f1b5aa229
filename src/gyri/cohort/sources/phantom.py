"""Phantoms: brains of people who do not exist, for tests, demos and ground truth."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri import __version__
from gyri.cohort import bids
from gyri.cohort.bids import Scan
from gyri.cohort.files import read_json, write_json, write_tsv
from gyri.cohort.phantom import PhantomSubject, make_subject, phantom_grid, subject_seed
from gyri.cohort.phantom_imaging import contrast_of, scanner_of
from gyri.cohort.phantom_truth import COLUMNS, draw_covariates, truth
from gyri.cohort.phantom_tumour import LABELS
from gyri.cohort.table import Cohort
from gyri.errors import UsageError
from gyri.registry import SOURCES
from gyri.runtime.progress import progress_bar
from gyri.runtime.seeding import derive_seed

TRUTH_FOLDER = Path("derivatives") / "phantom"
SEGMENTATION = "tumour"
"""Name of the label image."""

_CITATION = (
    "Fonov et al. (2011), Unbiased average age-appropriate atlases for pediatric studies, "
    "NeuroImage 54(1), 313-327, https://doi.org/10.1016/j.neuroimage.2010.07.033"
)
_README = (
    "Synthetic brains: nobody was scanned. Each is the MNI152 template (2009a symmetric, as "
    "nilearn ships it), deformed, aged and seen by a simulated scanner, skull-stripped. True "
    "tissue volumes of each subject are in derivatives/phantom/truth.tsv, true effects of the "
    "covariates in derivatives/phantom/truth.json. Tumour labels, if any, are in "
    "derivatives/labels: 1 core, 2 oedema, 3 enhancing rim."
)


@SOURCES.register("phantom")
def phantom(
    src: Path | None,
    out: Path,
    *,
    num_subjects: int = 120,
    seed: int = 0,
    spacing_mm: float = 4.0,
    scanners: int = 2,
    scanner_shares: tuple[float, ...] = (),
    modalities: tuple[str, ...] = ("T1w",),
    tumours: float = 0.0,
    missing: float = 0.05,
    jobs: int = 1,
) -> Cohort:
    """Phantoms: synthetic brains whose tissue volumes and covariate effects are known.

    Layout: none is read; the scans are made from the MNI152 template that nilearn ships.

    Access: no download. Citation: Fonov et al. 2011 (the template). Licence: CC0; for the template
    see its own page. Sharing: without limits, nobody is in it. Brains alone, without faces.

    Interrupted and started again with the same settings, it goes on with the subjects that are
    missing; a cohort that is complete is read and returned.

    Parameters
    ----------
    src : must be None.
    out : raw BIDS data set to be made.
    num_subjects : how many.
    seed : every subject follows from it and its own number, whatever the number of subjects.
    spacing_mm : isotropic voxel size, 1 to 8 mm.
    scanners : how many scanners, 1 to 4.
    scanner_shares : how many subjects each scanner has, in any unit; without it equal chances.
    modalities : any of T1w, T1c, T2w, FLAIR.
    tumours : probability of a tumour, 0 to 1.
    missing : share of missing values in handedness, education and CDR.
    jobs : processes; they change nothing but the time.

    Raises
    ------
    UsageError
        A setting out of its range.
    DataError
        `out` holds other files.
    """
    if src is not None:
        raise UsageError(f"The phantom makes its own scans and reads nothing; leave out {src}.")
    if not modalities or len(set(modalities)) < len(modalities):
        raise UsageError(f"modalities are {modalities}; give each at least one, once.")
    for modality in modalities:
        contrast_of(modality)
    phantom_grid(spacing_mm)  # refuses a spacing out of range before anything is written
    table = draw_covariates(
        num_subjects,
        seed,
        num_scanners=scanners,
        scanner_shares=scanner_shares,
        missing=missing,
        tumours=tumours,
    )
    request = {
        "Version": __version__,
        "NumSubjects": num_subjects,
        "Seed": seed,
        "SpacingMm": spacing_mm,
        "Scanners": scanners,
        "Modalities": list(modalities),
        "Tumours": tumours,
        "Missing": missing,
    }
    if scanner_shares:
        request["ScannerShares"] = list(scanner_shares)
    out = Path(out).absolute()
    if _is_complete(out, request):
        return bids.read(out)
    bids.claim_folder(out)
    # Made beside `out` and moved there when complete: a folder of that name is never half a cohort.
    work = out.with_name(f".{out.name}.{derive_seed(*map(str, request.values())):016x}.partial")
    _make_all(work, table, seed, spacing_mm, modalities, jobs)
    _assemble(work, table, request)
    (work / "dataset").replace(out)
    shutil.rmtree(work)
    return bids.read(out)


def _is_complete(out: Path, request: dict[str, Any]) -> bool:
    made = read_json(out / TRUTH_FOLDER / "truth.json", missing_ok=True)
    return made.get("Request") == request


def _make_all(
    work: Path,
    table: pd.DataFrame,
    seed: int,
    spacing_mm: float,
    modalities: tuple[str, ...],
    jobs: int,
) -> None:
    """Write the scans of every subject that `work` does not have yet."""
    from joblib import Parallel, delayed

    waiting = [
        (str(label), row)
        for label, row in table.iterrows()
        if not _truth_path(work, str(label)).is_file()
    ]
    calls = (
        delayed(_make_one)(work, label, row, subject_seed(seed, label), spacing_mm, modalities)
        for label, row in waiting
    )
    with progress_bar("Making phantoms", len(table)) as advance:
        advance(completed=len(table) - len(waiting))
        for _ in Parallel(n_jobs=jobs, return_as="generator_unordered")(calls):
            advance()


def _truth_path(work: Path, label: str) -> Path:
    return work / "truth" / f"{label}.json"


def _make_one(
    work: Path,
    label: str,
    row: pd.Series,
    seed: int,
    spacing_mm: float,
    modalities: tuple[str, ...],
) -> None:
    """Make one subject; its truth is written last and says that it is complete."""
    ill = row.get("group") == "tumour"
    subject = make_subject(row, seed, spacing_mm, modalities, tumour=ill)
    for scan in _scans(label, subject):
        bids.write_scan(work / "scans", scan)
    write_json(_truth_path(work, label), subject.volumes_ml)


def _scans(label: str, subject: PhantomSubject) -> Iterator[Scan]:
    # Scanners store integers; so do the phantom's, of gain 300 and more.
    for modality, image in subject.images.items():
        yield Scan(label, modality, np.rint(image).astype(np.int16), subject.affine)
    if subject.segmentation is not None:
        yield Scan(label, SEGMENTATION, subject.segmentation, subject.affine, is_label=True)


def _sidecar(scan: Scan, scanner: str) -> dict[str, Any]:
    """Content of the JSON file beside a scan."""
    if scan.is_label:
        return {"LabelNames": {str(value): name for value, name in LABELS.items()}}
    simulated = scanner_of(scanner)
    return {
        "Manufacturer": "simulated",
        "ManufacturersModelName": f"gyri phantom scanner {scanner}",
        "SkullStripped": True,
        "Synthetic": True,
        "NoiseSd": simulated.noise * simulated.gain,
        "BlurFwhmMm": simulated.blur_mm,
    }


def _assemble(work: Path, table: pd.DataFrame, request: dict[str, Any]) -> None:
    """Turn the finished subjects into one data set with its truth."""
    root = work / "dataset"
    shutil.rmtree(root, ignore_errors=True)
    made = list(_finished(work, table, request["Modalities"]))
    cohort = bids.write_raw(
        root,
        name="gyri phantoms",
        subjects=table,
        columns={name: COLUMNS[name] for name in table.columns},
        scans=made,
        license="CC0",
        citation=_CITATION,
        readme=_README,
        authors=["The gyri developers"],
    )
    for scan in made:
        path = bids.scan_path(root, scan)
        sidecar = _sidecar(scan, str(table.loc[scan.subject, "scanner"]))
        write_json(path.with_name(path.name.split(".")[0] + ".json"), sidecar)
    volumes = [read_json(_truth_path(work, str(label))) for label in table.index]
    tsv = pd.DataFrame(volumes).add_suffix("_ml").round(3)
    tsv.insert(0, "participant_id", [f"sub-{label}" for label in cohort.subjects.index])
    folder = root / TRUTH_FOLDER
    bids.write_derivative_description(
        folder,
        "gyri phantoms: truth",
        [{"Name": "gyri", "Version": __version__}],
        [{"URL": "../.."}],
        license="CC0",
        ignore=["truth.*"],
    )
    write_tsv(folder / "truth.tsv", tsv)
    write_json(folder / "truth.json", {**truth(), "Request": request})


def _finished(work: Path, table: pd.DataFrame, modalities: list[str]) -> Iterator[Scan]:
    """Yield the scans in `work`, as files."""
    for label, row in table.iterrows():
        names = [(name, False) for name in modalities]
        if row.get("group") == "tumour":
            names.append((SEGMENTATION, True))
        for name, is_label in names:
            scan = Scan(str(label), name, is_label=is_label)
            scan.file = bids.scan_path(work / "scans", scan)
            yield scan
